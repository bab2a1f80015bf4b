"""Run: pytest tests/eval/sandbox/test_sandbox.py. Ordinary programs run, right ones pass, failures are told apart."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ordinary import ORDINARY

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval import sandbox as package
from tiny_reasoning_jax.eval.sandbox import (
    Outcome,
    Sandbox,
    SandboxError,
    confine,
    landlock,
    pool,
    require_sandbox,
    seccomp,
)

PASSED = Outcome(True, "")
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(num_workers=2) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def quick():
    with Sandbox(num_workers=1, seconds=1) as sandbox:
        yield sandbox


UNUSED = "the tests use nothing that the program defines"


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_program_runs(name, sandbox):
    assert sandbox.judge(ORDINARY[name], "assert f() is True") == PASSED


@pytest.mark.parametrize(
    "program, tests",
    [
        ("def f(x, *, y=1): return x + y", "assert f(1) == 2 and f(x=1, y=2) == 3"),
        ("def f(x): return list(x), tuple(x), set(x), {x: x}",
         "assert f('ab') == (['a', 'b'], ('a', 'b'), {'a', 'b'}, {'ab': 'ab'})"),
        ("def f(n): yield from range(n)", "assert list(f(3)) == [0, 1, 2] and f(3) != [0, 1, 2] and next(f(1)) == 0"),
        ("def f(n):\n    while True:\n        yield n", "for got, _ in zip(f(7), range(100)):\n    assert got == 7"),
        ("f = lambda x: map(str, x)", "assert sorted(f([2, 1])) == ['1', '2']"),
        ("from collections import deque\ndef f(x): return deque(x)",
         "d = f([1, 2])\nassert len(d) == 2 and d[1] == 2 and list(d) == [1, 2] and d"),
        ("def f(x): return range(x)", "assert len(f(4)) == 4 and f(4)[1] == 1 and not f(0)"),
        ("from fractions import Fraction\ndef f(x): return Fraction(1, x)", "assert f(2) == 0.5 and f(3) * 3 == 1"),
        ("from decimal import Decimal\ndef f(x): return Decimal(x) / 2", "assert f(1) == 0.5"),
        ("def f(x): return 10 ** x", "assert f(9000) == 10 ** 9000"),
        ("def f(values, kind): return [v for v in values if type(v) is kind]", "assert f([1, 'a', 2.0], int) == [1]"),
        ("class Node:\n    def __init__(self, v): self.v, self.left = v, None\n\n"
         "def f(n): return n.v + (f(n.left) if n.left else 0)",
         "root = Node(1)\nroot.left = Node(2)\nassert f(root) == 3 and root.left.v == 2 and root.left is root.left"),
        ("class Stack(list):\n    push = list.append", "s = Stack()\nassert s == []"),
        ("class Account:\n    def __init__(self): self.total = 0\n    def add(self, x): self.total += x; return self",
         "a = Account()\nassert a.add(3).add(4).total == 7"),
        ("def f(x):\n    x.sort()", "x = [3, 1, 2]\nassert f(x) is None and x == [1, 2, 3]"),
        ("def f(d, s, n):\n    d['k'] = [1]; s.discard(1); n[0].append(2)",
         "d, s, n = {}, {1, 2}, [[1]]\nf(d, s, n)\nassert (d, s, n) == ({'k': [1]}, {2}, [[1, 2]])"),
        ("def f(x):\n    x.sort()\n    return x", "x = [2, 1]\nassert f(x) == [1, 2] and x == [2, 1]"),
        ("def sum(a, b): return a + b", "assert sum(1, 2) == 3"),
        ("def int(x): return 35\ndef f(x): return x", "assert int(f(2.5)) == 2"),
        ("import sys\ndef f(x): return sys.getsizeof(x)", "assert f((1, 2)) == sys.getsizeof((1, 2))"),
        ("LIMIT = {'a': [1]}\ndef f(): return 1", "assert LIMIT['a'] == [f()]"),
        ("def f(x):\n    if x < 0: raise ValueError('negative')\n    return x",
         "try:\n    f(-1)\n    assert False\nexcept ValueError as error:\n    assert str(error) == 'negative'"),
        ("class TooBad(KeyError): pass\ndef f(): raise TooBad('x')",
         "try:\n    f()\nexcept LookupError as error:\n    assert 'TooBad' in str(error)"),
        ("def f(): b'\\xff'.decode()",
         "try:\n    f()\nexcept ValueError as error:\n    assert 'UnicodeDecodeError' in str(error)"),
        ("def f(): return f()", "try:\n    f()\nexcept RecursionError:\n    assert True"),
        ("def f(x): return -x",
         "import random\n\ndef check(candidate):\n    for _ in range(100):\n        n = random.randint(0, 9)\n"
         "        assert candidate(n) == -n\n\ncheck(f)"),
    ],
)  # fmt: skip
def test_right_answers_pass(program, tests, sandbox):
    assert sandbox.judge(program, tests) == PASSED


@pytest.mark.parametrize(
    "program, tests, detail",
    [
        ("def f(x): return x", "assert f(1) == 2", "assertion failed: assert f(1) == 2; ANSWER 1"),
        ("def f(x): return x", "assert f(\n    1\n) == 2, 'no'",
         "assertion failed: assert f( 1 ) == 2, 'no'; ANSWER 1"),
        ("def f(x): return 10 ** 5000", "assert f(1) == 2", "assertion failed: assert f(1) == 2; ANSWER a large int"),
        ("def f(x) return x", "assert f(1) == 2", "SyntaxError: "),
        ("def g(x): return x", "assert f(1) == 1", "NameError: name 'f' is not defined at assert f(1) == 1"),
        ("", "assert f(1) == 1", "NameError: name 'f' is not defined at assert f(1) == 1"),
        ("def f(x): return x", "assert 1 == 1", UNUSED),
        ("import math", "assert math.pi > 3", UNUSED),
        ("def f(x): return 1 / 0", "assert f(1) == 2", "ZeroDivisionError: division by zero at assert f(1) == 2"),
        ("1 / 0", "assert f(1) == 2", "ZeroDivisionError: division by zero"),
        ("def f(x): return bytes(3 << 30)", "assert f(1) == 2", "MemoryError"),
        ("def f(x): raise SystemExit(3)", "assert f(1) == 2", "SystemExit: 3"),
        ("def f(x): raise KeyboardInterrupt", "assert f(1) == 2", "KeyboardInterrupt: "),
        ("import os\ndef f(x): os._exit(3)", "try:\n    f(1)\nexcept:\n    pass", "exited with status 3"),
        ("def f(x): import ctypes; ctypes.string_at(0)", "assert f(1) == 2", "killed by signal 11 (Segm"),
        ("def f(x): return 'x' * (20 << 20)", "assert f(1) == 2", "Exception: BadMessage: a message of 209715"),
        ("def f(x): return x", "f('x' * (20 << 20))", "between tests and program: a message of"),
        ("def f(x):\n    return [f]", "assert f(1) == [f, f]", "assertion failed"),
        ("def f(g): return g(1)", "assert f(lambda x: x) == 1", "TypeError: the tests give the program a function"),
        ("def f(x): raise ValueError('\\ud800\\x1b[31m')", "assert f(1) == 2", "ValueError:   [31m at assert"),
        ("def f(x): return x", "import sys\nf(1)\nsys.exit(0)", "SystemExit: 0 at sys.exit(0)"),
        ("def f(x): return x", "f(1)\nimport os\nos._exit(0)", "the tests' process: exited with status 0"),
        ("def f(x): return x", "assert f(1) = 2", "SyntaxError: "),
        ("def f(x): return x", "", UNUSED),
        ("def f(x): return x", "def check(candidate):\n    assert candidate(1) == 2", UNUSED),
    ],
)  # fmt: skip
def test_what_went_wrong_is_said(program, tests, detail, sandbox):
    outcome = sandbox.judge(program, tests)
    assert not outcome.passed
    assert outcome.detail.startswith(detail.replace("ANSWER", "the program's last answer was"))


def test_a_program_of_megabytes_is_not_run(sandbox):
    passed, detail = sandbox.judge(f"{'x' * (20 << 20)!r}\ndef f(): return 1", "assert f() == 1")
    assert not passed
    assert detail.startswith("program and tests: a message of 2097")


@pytest.mark.parametrize(
    "program, tests",
    [
        ("def f(x):\n    while True: pass", "assert f(1) == 2"),
        ("while True: pass", "assert f(1) == 2"),
        ("import time\ndef f(x): time.sleep(60)", "assert f(1) == 2"),
        ("def f(x): return x", "f(1)\nwhile True: pass"),
    ],
)
def test_what_takes_too_long_is_said(program, tests, quick):
    passed, said = quick.judge(program, tests)
    assert not passed
    assert said.endswith("timeout")


def test_one_program_leaves_nothing_for_the_next(sandbox):
    leave = "import builtins, sys\nbuiltins.left = sys.left = 1\nopen('left', 'w').close()\ndef f(): return 1"
    look = "import builtins, os, sys\ndef f(): return hasattr(builtins, 'left') or hasattr(sys, 'left') or os.listdir()"
    outcomes = sandbox.judge_all([(leave, "assert f() == 1"), (look, "assert f() == []")] * 4)
    assert outcomes == [PASSED] * 8


def test_outcomes_are_in_order(sandbox):
    jobs = [(f"import time\ndef f():\n    time.sleep({0.1 * (i % 3)})\n    return {i}", f"assert f() == {i // 2 * 2}") for i in range(12)]  # fmt: skip # noqa: E501
    assert [outcome.passed for outcome in sandbox.judge_all(jobs)] == [True, False] * 6


def test_a_verdict_does_not_hang_on_luck(sandbox):
    program = "import random\ndef f(): return [random.random(), list({'a', 'b', 'c', 'd', 'e'})]"
    tests = "import random\nassert f() == [random.random(), list({'a', 'b', 'c', 'd', 'e'})]"
    assert sandbox.judge_all([(program, tests)] * 4) == [PASSED] * 4


SEARCH = """
import ctypes, os

def f(first, second):
    libc, fd = ctypes.CDLL(None), os.open("page", os.O_RDWR | os.O_CREAT)
    first, second, found, middle = first.encode(), second.encode(), 0, id(f) & ~0xFFFF
    for address in range(middle - (32 << 20), middle + (32 << 20), 0x10000):
        size = libc.pwrite(fd, ctypes.c_void_p(address), 0x10000, ctypes.c_long(0))  # fails where there is no memory
        parts = os.pread(fd, size, 0).split(first) if size > 0 else []
        found += any(part.startswith(second) for part in parts[1:])
    return found > 0
"""


def test_a_program_sees_no_test(sandbox):
    """Not even one of an earlier program, in the memory that its process began with."""
    text = "a sentence that stands in the tests alone"
    sandbox.judge_all([("def f(): return 1", f"assert f() == 1, {text!r}")] * 4)
    assert sandbox.judge(SEARCH, f"assert f({text[:9]!r}, {text[9:]!r}) is False") == PASSED
    assert sandbox.judge(SEARCH + f"\nhere = {text!r} * 2", f"assert f({text[:9]!r}, {text[9:]!r}) is True") == PASSED


def test_the_files_of_a_program_cannot_fill_the_disk(tmp_path):
    """The kernel bounds each file; all together are looked at, and what is written in between is bounded by that."""
    program = """
def f():
    for number in range(10_000):
        with open(f"part{number}", "wb") as file:
            file.write(bytes(8 << 20))
"""
    with Sandbox(num_workers=1, seconds=5) as sandbox:
        folder = sandbox._all[0]._folder
        before = os.statvfs(folder)
        assert sandbox.judge(program, "f()").detail.startswith("disk")
        assert not list((folder / "program").iterdir())
        after = os.statvfs(folder)
        assert (before.f_bfree - after.f_bfree) * after.f_frsize < 64 << 20
    assert not folder.exists()


def test_both_processes_are_gone_when_judge_returns(quick):
    for program in ("import time\ndef f(): time.sleep(60)", "def f(): return 1"):
        quick.judge(program, "f()")
    for worker in quick._all:
        assert Path(f"/proc/{worker._zygote.pid}/task/{worker._zygote.pid}/children").read_text() == ""


ORPHAN = """
import os, time

def f():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            while True:
                time.sleep(1)
        os._exit(0)
    time.sleep(0.1)
    return 1
"""


def test_even_the_unsafe_sandbox_ends_what_was_started(caplog):
    with Sandbox(num_workers=1, unsafe=True) as sandbox:
        assert "NO SANDBOX" in caplog.text
        assert sandbox.judge(ORPHAN, "assert f() == 1") == PASSED
        zygote = sandbox._all[0]._zygote.pid
        assert Path(f"/proc/{zygote}/task/{zygote}/children").read_text() == ""


def test_everything_ends_with_the_evaluating_process():
    code = """
import os, threading, time
from tiny_reasoning_jax.eval.sandbox import Sandbox

sandbox = Sandbox(num_workers=1, seconds=60)
threading.Thread(target=sandbox.judge, args=("def f():\\n    while True: pass", "f()"), daemon=True).start()
zygote = sandbox._all[0]._zygote.pid
children = f"/proc/{zygote}/task/{zygote}/children"
while len(open(children).read().split()) < 2:
    time.sleep(0.01)
print(sandbox._all[0]._folder, zygote, open(children).read(), flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    folder, *pids = done.stdout.split()
    assert len(pids) == 3, done.stderr
    assert done.stderr == ""
    deadline = time.monotonic() + 10
    while any(map(is_running, pids)) or os.path.exists(folder):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid: str) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[0] != "Z"
    return False


# The zygote is a process of its own; a broken step is put into the module that it loads.
BREAK = {
    "landlock": "from tiny_reasoning_jax.eval.sandbox import landlock\nlandlock.Ruleset.enter = fail",
    "seccomp": "from tiny_reasoning_jax.eval.sandbox import kernel\nkernel.install_filter = fail",
    "capabilities": "from tiny_reasoning_jax.eval.sandbox import kernel\nkernel.drop_capabilities = fail",
    "no new privileges": "from tiny_reasoning_jax.eval.sandbox import kernel\nkernel.forbid_new_privileges = fail",
    "limits": "import resource\nlimit = resource.setrlimit\nresource.setrlimit = lambda which, values: fail() if which == resource.RLIMIT_AS else limit(which, values)",  # fmt: skip # noqa: E501
    "session": "import os\nos.setsid = fail",
    "death while setting up": "import os\nos.setsid = lambda: os._exit(0)",
}


@pytest.mark.parametrize("step", BREAK)
def test_a_step_that_fails_means_that_nothing_is_run(step, tmp_path, monkeypatch):
    mark = tmp_path / "ran"
    broken = f"def fail(*_):\n    raise OSError('broken for a test')\n{BREAK[step]}\n"
    start = pool._START.replace("zygote.main(", f"exec({broken!r}); zygote.main(")
    assert start != pool._START
    monkeypatch.setattr(pool, "_START", start)
    with Sandbox(num_workers=1, unsafe=False) as sandbox:
        for _ in range(2):
            with pytest.raises(SandboxError, match="nothing was run"):
                sandbox.judge(f"open({str(mark)!r}, 'w')\ndef f(): return 1", "assert f() == 1")
    assert not mark.exists()


def test_a_dead_zygote_is_an_error_and_no_wrong_answer():
    with Sandbox(num_workers=1) as sandbox:
        sandbox._all[0]._zygote.kill()
        sandbox._all[0]._zygote.wait()
        with pytest.raises(SandboxError):
            sandbox.judge("def f(): return 1", "assert f() == 1")


def no_landlock():
    raise OSError(38, "Function not implemented")


@pytest.mark.parametrize(
    "patch, missing",
    [
        ((landlock, "find_version", no_landlock), "no Landlock that can be used here (Function not implemented)"),
        ((pool.platform, "machine", lambda: "riscv64"), "this machine is riscv64, not x86_64 or aarch64"),
        ((pool.os.path, "exists", lambda _: False), "no seccomp filters"),
    ],
)
def test_without_the_kernels_help_it_refuses(patch, missing, monkeypatch):
    monkeypatch.setattr(*patch)
    with pytest.raises(UserError) as error:
        Sandbox()
    assert missing in str(error.value)
    assert "eval.unsafe_code=True" in str(error.value)


@pytest.mark.parametrize("unsafe", [False, True])
def test_no_other_system_is_offered_what_it_cannot_do(unsafe, monkeypatch):
    monkeypatch.setattr(pool.sys, "platform", "darwin")
    with pytest.raises(UserError, match="this is darwin") as error:
        Sandbox(unsafe=unsafe)
    assert "unsafe" not in str(error.value)


def test_this_machine_has_what_it_takes():
    require_sandbox()


def test_the_rules_of_every_version_are_a_subset_of_the_next():
    """A right that a kernel does not know makes it refuse the whole set; one that is left out is not handled."""
    rights = [sum(bits for since, bits in landlock._FILE_RIGHTS.items() if since <= version) for version in range(1, 8)]
    assert rights == [0x1FFF, 0x3FFF, 0x7FFF, 0x7FFF, 0xFFFF, 0xFFFF, 0xFFFF]


@pytest.mark.parametrize("version", range(1, landlock.find_version() + 1) if sys.platform == "linux" else [])
def test_older_landlock_protects_as_well(version, monkeypatch, tmp_path):
    """As a kernel that knows only this version; seccomp keeps what such a one cannot."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    patch = f"from tiny_reasoning_jax.eval.sandbox import landlock; landlock.find_version = lambda: {version}; "
    monkeypatch.setattr(pool, "_START", pool._START.replace("zygote.main(", patch + "zygote.main("))
    attacks = [
        f"return open({str(precious)!r}).read()",
        f"import os; return os.open({str(precious)!r}, os.O_RDONLY | os.O_TRUNC)",
        f"import os; os.truncate({str(precious)!r}, 0)",
        f"import os; os.rename({str(precious)!r}, 'x')",
        "import socket; return socket.socket().fileno()",
        f"import os; os.kill({os.getpid()}, 0)",
    ]
    with Sandbox(num_workers=1) as sandbox:
        for attack in attacks:
            assert "Permission" in sandbox.judge(f"def f():\n    {attack}", "assert f() is None").detail
        assert sandbox.judge(ORDINARY["files of its own"], "assert f()") == PASSED
    assert precious.read_text() == "precious"


def test_installed_packages_cannot_be_read(sandbox):
    """Only Python's own library can; site-packages lies inside its folder."""
    library = Path(confine.python_libraries()[0])
    package = library / "site-packages"
    look = f"def f():\n    return open({str(library / 'this.py')!r}).read(3)"
    assert sandbox.judge(look, "assert f() == 's =' ") == PASSED
    for path in package.rglob("*.py"):
        assert "Permission" in sandbox.judge(f"def f():\n    return open({str(path)!r}).read()", "f()").detail
        break


def test_the_package_exports_what_evaluation_uses():
    assert set(package.__all__) == {"Outcome", "Sandbox", "SandboxError", "require_sandbox"}
    assert set(seccomp.MACHINES) == {"x86_64", "aarch64"}
    json.dumps(PASSED)
