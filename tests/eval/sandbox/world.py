"""What attacks are aimed at, and whether anything of it was reached. Standard library only: other users run it too."""

import contextlib
import inspect
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attacks_files
import attacks_limits
import attacks_network
import attacks_processes

SECRET = "the secret of this machine"
ATTACKS = {
    name: function
    for module in (attacks_files, attacks_network, attacks_processes, attacks_limits)
    for name, function in inspect.getmembers(module, inspect.isfunction)
}
# What only root can do without a sandbox; what the other user of the tests may not do although no sandbox forbids it.
ROOT_ONLY = {
    "become_other_user", "change_owner", "change_root", "make_device", "mount", "open_packet", "open_raw",
    "raise_own_limits", "read_by_handle",
}  # fmt: skip
# What kernels are built or set up without; there, an attack cannot be shown to work.
OPTIONAL = {
    "add_key", "connect_tcp6", "count_events", "enter_through_32_bits", "handle_page_faults", "leave_namespaces",
    "load_bpf", "read_memory", "read_other_memory", "set_up_io_uring", "steal_descriptor", "trace",
}  # fmt: skip
SLOW = {name for name in ATTACKS if name.startswith(("spin_", "sleep"))}


class World:
    """Files, sockets and a process that a program has no business with; a context manager."""

    def __enter__(self) -> "World":
        self._stack = contextlib.ExitStack()
        root = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="world-")))
        (root / "outside").mkdir()
        (root / "empty").mkdir()
        (root / "cwd").mkdir()
        (root / "secret").write_text(SECRET)
        (root / "precious").write_text("precious")
        self.inherited = os.open(root / "secret", os.O_RDONLY)
        self._stack.callback(os.close, self.inherited)
        os.set_inheritable(self.inherited, True)
        with (root / "secret").open() as stdin:
            self.victim = subprocess.Popen(
                ["sleep", "60"], stdin=stdin, env={"API_TOKEN": SECRET}, start_new_session=True
            )
        self._stack.callback(self.victim.wait)
        self._stack.callback(self.victim.kill)
        self._listen(root)
        self.facts = {
            "secret": str(root / "secret"),
            "precious": str(root / "precious"),
            "outside": str(root / "outside"),
            "empty": str(root / "empty"),
            "victim": self.victim.pid,
            "stack": self._find_stack(),
            "tcp": self._sockets[0].getsockname()[1],
            "udp": self._sockets[1].getsockname()[1],
            "unix": str(root / "socket"),
            "abstract": f"{root.name}-abstract",
        }
        self.cwd = root / "cwd"
        self._before = self._look()
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def is_touched(self) -> bool:
        """Whether a file changed, a message came or the process was stopped, since this was last asked."""
        before, self._before = self._before, self._look()
        return self._before != before

    def _listen(self, root: Path) -> None:
        kinds = ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM))
        kinds += ((socket.AF_UNIX, socket.SOCK_STREAM),) * 2
        addresses = (("127.0.0.1", 0), ("127.0.0.1", 0), str(root / "socket"), f"\0{root.name}-abstract")
        self._sockets = []
        for (family, kind), address in zip(kinds, addresses, strict=True):
            server = self._stack.enter_context(socket.socket(family, kind))
            server.bind(address)
            if kind == socket.SOCK_STREAM:
                server.listen()
            self._sockets.append(server)

    def _find_stack(self) -> tuple[int, int]:
        """Returns where the victim's environment lies in its memory."""
        for _ in range(500):  # until it is sleep and no longer a copy of this process
            if Path(f"/proc/{self.victim.pid}/comm").read_text() == "sleep\n":
                break
            time.sleep(0.01)
        lines = Path(f"/proc/{self.victim.pid}/maps").read_text().splitlines()
        start, end = next(line for line in lines if line.endswith("[stack]")).split()[0].split("-")
        return int(start, 16), int(end, 16)

    def _look(self) -> tuple:
        precious = Path(self.facts["precious"])
        files = [(path.name, path.lstat().st_mode) for path in sorted(precious.parent.rglob("*"))]
        files = [file for file in files if self.cwd.name not in file[0]]
        facts = precious.stat() if precious.exists() else None
        state = facts and (precious.read_text(), facts.st_uid, facts.st_mtime)
        time.sleep(0.01)  # a signal takes a moment
        alive = self.victim.poll() is None
        threads = Path(f"/proc/{self.victim.pid}/stat").read_text().rsplit(")")[1].split()[0] if alive else ""
        return files, state, threads, bool(select.select(self._sockets, [], [], 0)[0])


def make_program(name: str) -> str:
    """Returns a program whose function `attack` is the named attack."""
    return inspect.getsource(ATTACKS[name]) + f"\n\nattack = {name}\n"


def make_tests(facts: dict) -> str:
    """Returns tests that pass exactly if the attack got what it wanted."""
    return f"assert attack({facts!r}) in (True, {SECRET!r})\n"


def run_without_sandbox(name: str, world: World) -> tuple[bool, str]:
    """Runs an attack in a plain Python. Returns whether it got what it wanted, and what it printed."""
    code = f"{make_program(name)}\n{make_tests(world.facts)}"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        capture_output=True,
        text=True,
        cwd=world.cwd,
        env={"API_TOKEN": SECRET, "PATH": os.environ.get("PATH", "")},
        pass_fds=[world.inherited],
        start_new_session=True,
        timeout=60,
    )
    flooded = len(done.stdout) + len(done.stderr) > 10 << 20
    return done.returncode == 0 or flooded or world.is_touched(), done.stderr[-500:]


def run_all(sandbox, world: World) -> dict[str, list]:
    """Runs the attacks in a sandbox. Returns by name: passed, detail, whether the world was touched.

    Those that only take long are left out: the limit of processor time asks nobody who they are.
    """
    outcomes = {}
    for name in ATTACKS.keys() - SLOW:
        outcome = sandbox.judge(make_program(name), make_tests(world.facts))
        outcomes[name] = [*outcome, world.is_touched()]
    return outcomes


if __name__ == "__main__":  # python world.py NAME,...: every attack as this user; the named ones without a sandbox too
    from tiny_reasoning_jax.eval.sandbox import Sandbox

    os.environ["API_TOKEN"] = SECRET
    with World() as world, Sandbox(num_workers=1, seconds=1) as sandbox:
        outcomes = run_all(sandbox, world)
    plain = {}
    for name in sys.argv[1].split(","):
        with World() as world:
            plain[name] = run_without_sandbox(name, world)
    json.dump([os.getuid(), outcomes, plain], sys.stdout)
