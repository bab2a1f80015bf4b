"""Run: pytest tests/eval/sandbox/test_confine.py. What a child has given up, from outside; and each layer alone."""

import ctypes
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from world import ATTACKS, World, make_program, make_tests

from tiny_reasoning_jax.eval.sandbox import Sandbox, SandboxError, confine, pool

ASLEEP = ("import time\ndef f(): time.sleep(60)", "f()")


@pytest.fixture
def asleep():
    """Two children at work, and their zygote: (zygote, tests, program)."""
    with Sandbox(num_workers=1, seconds=1) as sandbox:
        thread = threading.Thread(target=lambda: sandbox.judge(*ASLEEP), daemon=True)
        thread.start()
        zygote = sandbox._all[0]._zygote.pid
        tests, program = wait_for_children(zygote)
        yield zygote, tests, program
        os.kill(program, signal.SIGKILL)  # no need to wait until its time is over
        thread.join()


def wait_for_children(zygote: int) -> list[int]:
    """Returns the tests' and the program's process once both are confined."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pids = list(map(int, Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()))
        if len(pids) == 2 and all(read_facts(pid).get("Seccomp") == "2" for pid in pids):
            return pids
        time.sleep(0.005)
    raise AssertionError("no two confined children")


def read_facts(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_both_children_have_given_everything_up(asleep):
    zygote, *children = asleep
    for pid in children:
        facts = read_facts(pid)
        assert facts["NoNewPrivs"] == "1"
        assert {facts[name].strip("0") for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {""}
        assert int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[3]) == pid, "no session of its own"
        limits = Path(f"/proc/{pid}/limits").read_text()
        for name, soft, hard in (
            ("Max cpu time", 1, 2),
            ("Max address space", 1 << 30, 1 << 30),
            ("Max file size", 8 << 20, 8 << 20),
            ("Max open files", 32, 32),
            ("Max core file size", 0, 0),
            ("Max locked memory", 0, 0),
            ("Max msgqueue size", 0, 0),
        ):
            assert limits.split(name)[1].split()[:2] == [str(soft), str(hard)], name


@pytest.mark.skipif(os.getuid() != 0, reason="what a closed process has open, only root can see")
def test_the_children_have_their_own_sockets_open_and_nothing_else(asleep):
    time.sleep(0.2)  # the last thing that is closed is the pipe to say that all is well
    for pid, num_sockets in zip(asleep[1:], (2, 1), strict=True):
        links = (os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd"))
        assert sorted(link.partition(":")[0] for link in links) == ["/dev/null"] * 3 + ["socket"] * num_sockets
        assert os.readlink(f"/proc/{pid}/cwd").endswith(("/tests", "/program"))


def test_no_environment_reaches_even_the_zygote():
    with Sandbox(num_workers=1) as sandbox:
        sandbox.judge("def f(): return 1", "f()")  # it has started
        environment = Path(f"/proc/{sandbox._all[0]._zygote.pid}/environ").read_text()
    assert environment == "PYTHONHASHSEED=0\0MALLOC_ARENA_MAX=1\0"


def test_the_children_end_when_the_zygote_is_killed():
    with Sandbox(num_workers=1, seconds=60) as sandbox:
        thread = threading.Thread(target=lambda: pytest.raises(SandboxError, sandbox.judge, *ASLEEP), daemon=True)
        thread.start()
        zygote = sandbox._all[0]._zygote
        children = wait_for_children(zygote.pid)
        zygote.kill()
        thread.join(timeout=30)
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{pid}").exists() and read_facts(pid)["State"][0] != "Z" for pid in children):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_what_a_process_becomes(tmp_path):
    """In a fork of this process, without Landlock and seccomp, so that it can still tell."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.environ["API_TOKEN"] = "secret"
        confine.limit_descriptors()
        confine.Confinement(str(tmp_path), seconds=1, unsafe=True).enter({writer})
        libc, death = ctypes.CDLL(None), ctypes.c_int()
        libc.prctl(2, ctypes.byref(death))
        facts = [libc.prctl(3), death.value, libc.prctl(39, 0, 0, 0, 0), dict(os.environ), os.getcwd(), os.umask(0)]
        os.write(writer, json.dumps(facts).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        dumpable, death, no_new_privileges, environment, folder, umask = json.load(pipe)
    os.waitpid(pid, 0)
    assert (dumpable, death, no_new_privileges) == (0, signal.SIGKILL, 1)
    assert (environment, folder, umask) == ({}, str(tmp_path), 0o077)


def test_what_is_printed_goes_nowhere(capfd):
    with Sandbox(num_workers=1) as sandbox:
        program = (
            "import os\ndef f():\n    print('out')\n    os.write(1, b'out')\n    os.write(2, b'err')\n    return 1"
        )
        assert sandbox.judge(program, "print(f())\nimport sys\nprint(1, file=sys.stderr)").passed
    assert capfd.readouterr() == ("", "")


def test_threads_are_counted(monkeypatch):
    monkeypatch.setattr(pool, "THREADS", 10)
    program = """
import threading, time

def f():
    for _ in range(60):
        threading.Thread(target=time.sleep, args=(3,)).start()
    time.sleep(3)
"""
    with Sandbox(num_workers=1) as sandbox:
        assert sandbox.judge(program, "f()").detail == "more than 10 threads"


def test_a_file_that_vanishes_does_not_hide_the_others(monkeypatch):
    monkeypatch.setattr(pool, "FILES", 2)
    with Sandbox(num_workers=1) as sandbox:
        worker = sandbox._all[0]
        for name in "abcd":
            (worker._folder / "program" / name).touch()
        entries = worker._list_files()
        os.unlink(entries[0].path)
        monkeypatch.setattr(worker, "_list_files", lambda: entries)
        assert worker._find_overuse([]).startswith("disk")


# What each layer stops when the other is not there.
BY_LANDLOCK = (
    "read_with_open", "read_through_symlink", "read_through_proc_root", "list_folder", "overwrite", "delete",
    "truncate", "make_folder", "make_symlink", "connect_tcp", "connect_abstract", "kill", "trace", "spawn",
    "read_other_environment",
)  # fmt: skip
BY_SECCOMP = (
    "truncate", "truncate_while_opening_to_read", "change_mode", "change_times", "read_after_chdir", "connect_tcp",
    "send_udp", "connect_abstract", "fork", "vfork", "clone_with_clone3", "run_subprocess", "execute", "kill", "trace",
    "read_memory", "limit_other", "set_up_io_uring", "add_key", "make_memory_file", "leave_namespaces",
    "outlive_parent",
)  # fmt: skip
WITHOUT = {
    "seccomp": "kernel.install_filter = lambda code: None",
    "landlock": "landlock.Ruleset.enter = lambda self: None",
}


@pytest.mark.parametrize("without, names", [("seccomp", BY_LANDLOCK), ("landlock", BY_SECCOMP)])
def test_each_layer_holds_alone(without, names, monkeypatch):
    patch = f"from tiny_reasoning_jax.eval.sandbox import kernel, landlock; {WITHOUT[without]}; "
    monkeypatch.setattr(pool, "_START", pool._START.replace("zygote.main(", patch + "zygote.main("))
    assert set(names) <= set(ATTACKS)
    with World() as world, Sandbox(num_workers=1) as sandbox:
        for name in names:
            assert not sandbox.judge(make_program(name), make_tests(world.facts)).passed, name
            assert not world.is_touched(), name
        stands = "read_with_open" if without == "landlock" else "fork"  # the layer really is not there
        assert sandbox.judge(make_program(stands), make_tests(world.facts)).passed


def test_a_verdict_is_the_same_in_every_sandbox():
    program = "def f(): return list({'a', 'b', 'c', 'd', 'e', 'f'})"
    details = set()
    for _ in range(3):
        with Sandbox(num_workers=1) as sandbox:
            details.add(sandbox.judge(program, "assert f() == 0").detail)
    assert len(details) == 1


def test_libraries_are_pythons_own():
    libraries = confine.python_libraries()
    assert libraries
    assert all(Path(library).is_dir() and library.startswith(sys.base_prefix) for library in libraries)
