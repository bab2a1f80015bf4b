"""Judging programs from the evaluating process: workers, and how long and how far each program may go."""

import contextlib
import json
import logging
import os
import platform
import queue
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval.sandbox import landlock, seccomp, wire, zygote

log = logging.getLogger(__name__)

DISK_BYTES = 64 << 20  # of all files of a program; looked up every _WATCH_SECONDS
FILES = 1000
THREADS = 256
_WATCH_SECONDS = 0.02
_WALL_PER_CPU = 3  # a program may sleep, and the machine may have others to serve
_VERDICT_BYTES = 64 << 10
_DETAIL_CHARS = 1000

# No secrets. Sets have one order, so that verdicts do not vary; threads share one heap, as each heap of their own takes
# 64 MiB of the address space that is limited.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "MALLOC_ARENA_MAX": "1"}
_ROOT = Path(__file__).parents[3]
_START = (
    "import sys; sys.path.append(sys.argv[1]); from tiny_reasoning_jax.eval.sandbox import zygote; "
    "zygote.main(sys.argv[2], int(sys.argv[3]), sys.argv[4] == 'unsafe')"
)


class Outcome(NamedTuple):
    """Whether a program passed its tests, and why not: "" or "timeout", "assertion failed: ...", and so on."""

    passed: bool
    detail: str


class SandboxError(RuntimeError):
    """The sandbox could not do its work, so nothing is known of the program, and it has not been run."""


def require_sandbox() -> None:
    """Checks that this machine can hold programs that nobody has read.

    Raises:
      UserError: it cannot; the message says what is missing.
    """
    _require_linux()
    missing = ""
    try:
        landlock.find_version()
    except OSError as error:
        missing = f"the kernel {platform.release()} has no Landlock that can be used here ({error.strerror})"
    if not os.path.exists("/proc/sys/kernel/seccomp/actions_avail"):
        missing = missing or f"the kernel {platform.release()} has no seccomp filters"
    if platform.machine() not in seccomp.MACHINES:
        missing = f"this machine is {platform.machine()}, not {' or '.join(seccomp.MACHINES)}"
    if missing:
        raise UserError(
            f"programs written by a model are run in a sandbox of Landlock (Linux 5.13 or newer, not switched off by "
            f"lsm= or a container) and seccomp, and {missing}. Evaluate on a machine that has them, leave out tasks "
            f"whose answers are programs, or set eval.unsafe_code=True to run the programs with all of your own rights"
        )


def _require_linux() -> None:
    if sys.platform != "linux":
        raise UserError(
            f"programs written by a model are run on Linux, and this is {sys.platform}; evaluate there, or leave out "
            "tasks whose answers are programs"
        )


class Sandbox:
    """Judges programs, each in two new processes; a context manager.

    Args:
      num_workers: programs that run at the same time.
      seconds: of processor time for a program, and as many for its tests; three times that on the clock. The slowest
        reference solution (an MBPP problem that counts to 9,999 squared) takes 5 s on a slow core.
      unsafe: without Landlock and seccomp. A program can then do whatever the user can.

    Raises:
      UserError: the machine lacks what the sandbox needs, and `unsafe` is False; or it is no Linux.
    """

    def __init__(self, num_workers: int = 2, seconds: int = 10, unsafe: bool = False) -> None:
        _require_linux()
        if unsafe:
            log.warning(
                "NO SANDBOX: programs written by a model run with all rights of user %d, files and network included, "
                "because eval.unsafe_code=True",
                os.getuid(),
            )
        else:
            require_sandbox()
        self._workers: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all = [_Worker(seconds, unsafe) for _ in range(num_workers)]
        for worker in self._all:
            self._workers.put(worker)

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_) -> None:
        for worker in self._all:
            worker.close()

    def judge(self, program: str, tests: str) -> Outcome:
        """Runs one program against its tests.

        Args:
          program: Python source that a model wrote.
          tests: Python statements that a right program passes. What they use besides the program's own names, they
            import themselves. Values go to the program as copies; lists, dicts and sets that a function changes are
            changed here too where it returns None.

        Raises:
          SandboxError: the sandbox failed; says nothing about the program.
        """
        worker = self._workers.get()
        try:
            return worker.judge(program, tests)
        finally:
            self._workers.put(worker)

    def judge_all(self, jobs: Iterable[tuple[str, str]]) -> list[Outcome]:
        """Runs many programs, each against its own tests; returns their outcomes in order. Raises as `judge`."""
        with ThreadPoolExecutor(len(self._all)) as executor:
            return list(executor.map(lambda job: self.judge(*job), jobs))


class _Worker:
    """One zygote with its folders; one program at a time."""

    def __init__(self, seconds: int, unsafe: bool) -> None:
        self._seconds = seconds
        self._folder = Path(tempfile.mkdtemp(prefix="sandbox-"))
        for name in zygote.FOLDERS:
            (self._folder / name).mkdir(mode=0o700)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        options = ["-S", "-s", "-P", "-B", "-X", "utf8"]  # no site-packages, nothing from the working folder
        arguments = [str(_ROOT), str(self._folder), str(seconds), "unsafe" if unsafe else "safe"]
        with theirs:
            self._zygote = subprocess.Popen(
                [sys.executable, *options, "-c", _START, *arguments],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,  # Ctrl-C is for the evaluating process, which then ends this one
            )

    def close(self) -> None:
        self._control.close()
        self._zygote.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def judge(self, program: str, tests: str) -> Outcome:
        job, jobs_child = socket.socketpair()
        link, links_child = socket.socketpair()
        with job:
            with jobs_child, link, links_child:
                fds = [jobs_child.fileno(), link.fileno(), links_child.fileno()]
                started = self._ask(lambda: socket.send_fds(self._control, [b"job"], fds))
            try:
                if "error" in started:
                    raise SandboxError(f"a child could not confine itself, so nothing was run:\n{started['error']}")
                verdict, stopped = self._follow(job, started["pids"], program, tests)
            finally:
                ended = self._ask(lambda: self._control.send(b"over"))
                self._clear()
        return self._conclude(verdict, stopped, ended["ends"])

    def _ask(self, send) -> dict:
        try:
            send()
            reply = self._control.recv(_VERDICT_BYTES)
        except OSError as error:
            raise SandboxError(f"the sandbox's process cannot be reached: {error}") from error
        if not reply:
            raise SandboxError(f"the sandbox's process ended with status {self._zygote.poll()}")
        return json.loads(reply)

    def _follow(self, job: socket.socket, pids: list[int], program: str, tests: str) -> tuple[list | None, str]:
        """Returns the verdict of the tests' process, None where it gave none, and why it was stopped, or ""."""
        try:
            wire.send(job.fileno(), [program, tests])
            data, stopped = self._read_verdict(job, pids)
        except wire.BadMessage as error:
            return None, f"program and tests: {error}"
        except ConnectionError:  # it was killed before it had read or written everything
            return None, ""
        try:
            said = wire.parse(data)
        except wire.BadMessage:  # cut off where it was stopped, or forged: no verdict
            return None, stopped
        match said:
            case [bool(), str(), bool()] as verdict:
                return verdict, stopped
        return None, stopped

    def _read_verdict(self, job: socket.socket, pids: list[int]) -> tuple[bytes, str]:
        """Reads until the tests' process closes its end, or the time or another bound is over: which, or ""."""
        deadline = time.monotonic() + _WALL_PER_CPU * self._seconds
        job.settimeout(_WATCH_SECONDS)
        data = bytearray()
        while len(data) <= _VERDICT_BYTES:
            with contextlib.suppress(TimeoutError):
                piece = job.recv(_VERDICT_BYTES)
                if not piece:
                    break
                data += piece
            stopped = "timeout" if time.monotonic() > deadline else self._find_overuse(pids)
            if stopped:
                return b"", stopped
        return bytes(data), ""

    def _find_overuse(self, pids: list[int]) -> str:
        """Returns which bound that the kernel does not keep for us has been passed, or ""."""
        num_bytes = num_files = 0
        for entry in self._list_files():
            with contextlib.suppress(FileNotFoundError):  # it went while it was looked at
                num_bytes += entry.stat(follow_symlinks=False).st_blocks * 512
            num_files += 1
        if num_bytes > DISK_BYTES or num_files > FILES:
            return f"disk: more than {DISK_BYTES >> 20} MiB or {FILES} files"
        for pid in pids:
            with contextlib.suppress(FileNotFoundError):  # it has ended
                if os.stat(f"/proc/{pid}/task").st_nlink - 2 > THREADS:
                    return f"more than {THREADS} threads"
        return ""

    def _conclude(self, verdict: list | None, stopped: str, ends: list) -> Outcome:
        tests_end, program_end = (self._describe_end(*end) for end in ends)
        if verdict is None:
            return Outcome(False, stopped or f"the tests' process: {tests_end}")
        passed, detail, ended = verdict
        detail = (program_end if ended else detail)[:_DETAIL_CHARS]
        return Outcome(passed, "".join(char if char.isprintable() else " " for char in detail))

    def _describe_end(self, status: int, cpu_seconds: float) -> str:
        if not os.WIFSIGNALED(status):
            return f"exited with status {os.waitstatus_to_exitcode(status)}"
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU or number == signal.SIGKILL and cpu_seconds > self._seconds:
            return "timeout"
        return f"killed by signal {number} ({signal.strsignal(number)})"

    def _clear(self) -> None:
        """Empties the folders; they stay, as the rules name them and not their paths."""
        for entry in self._list_files():
            if entry.is_dir(follow_symlinks=False):  # an unsafe program's
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                os.unlink(entry.path)

    def _list_files(self) -> list[os.DirEntry]:
        folders = [self._folder / name for name in zygote.FOLDERS]
        for folder in folders:
            folder.mkdir(mode=0o700, exist_ok=True)  # an unsafe program may have taken it away
        return [entry for folder in folders for entry in os.scandir(folder)]
