"""A small process that forks the sandboxed ones: to fork a running Python costs a millisecond, to start one thirty.

It never sees a program or a test: each child reads its own from a socket that the evaluating process made for it, so
that no child finds another's tests in the memory that it inherits. Its standard input is a socket, for job after job:

    <- three descriptors        the tests' socket to the evaluating process; the tests' and the program's to each other
    -> {"pids": [...]} or {"error": ...}
    <- anything                 the job is over: both children, and all that they started, are killed
    -> {"ends": [[wait status, seconds of processor time], ...]}

It ends when the evaluating process does, and its children end with it.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable

from tiny_reasoning_jax.eval.sandbox import kernel, program, tester
from tiny_reasoning_jax.eval.sandbox.confine import Confinement, limit_descriptors, python_libraries

FOLDERS = ("tests", "program")  # of the two children, below the worker's
_READY = b"ready"
_ERROR_CHARS = 4000
# What programs import most, once for all of them. Those that link to libraries of the system (bz2, ctypes, decimal,
# hashlib, lzma, zlib) must be here: a child cannot open those libraries. A Python may be built without some.
_PRELOADED = (
    "array bisect bz2 calendar cmath collections copy csv ctypes dataclasses datetime decimal enum fractions functools "
    "hashlib heapq io itertools json lzma math numbers operator queue random re statistics string struct textwrap "
    "threading time typing uuid zlib"
)


def main(folder: str, seconds: int, unsafe: bool) -> None:
    """Serves jobs until the other end closes."""
    control = socket.socket(fileno=0)
    limit_descriptors()
    kernel.adopt_orphans()
    for name in _PRELOADED.split():
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.path[:] = python_libraries()
    sys.dont_write_bytecode = True
    confinements = [Confinement(os.path.join(folder, name), seconds, unsafe) for name in FOLDERS]
    gc.collect()
    gc.freeze()  # children that collect garbage leave the shared memory alone
    with contextlib.suppress(ConnectionError):  # the evaluating process ended meanwhile; the children end with this one
        while _serve_job(control, confinements):
            pass
    shutil.rmtree(folder, ignore_errors=True)  # the evaluating process cannot, where it was killed


def _serve_job(control: socket.socket, confinements: list[Confinement]) -> bool:
    """Returns whether there was a job."""
    message, sockets, _, _ = socket.recv_fds(control, 64, 3)
    if not message:
        return False
    pids, error = _start_both(sockets, confinements)
    control.send(json.dumps({"error": error[-_ERROR_CHARS:]} if error else {"pids": pids}).encode())
    control.recv(64)
    ends = [_end(pid) for pid in pids]
    _end_orphans()
    control.send(json.dumps({"ends": ends}).encode())
    return True


def _start_both(sockets: list[int], confinements: list[Confinement]) -> tuple[list[int], str]:
    """Starts the tests' child, then the program's. Returns the numbers of those started, and what failed, or ""."""
    job, tests_link, program_link = sockets
    roles = (
        (functools.partial(tester.serve, job, tests_link), {job, tests_link}),
        (functools.partial(program.serve, program_link), {program_link}),
    )
    pids, error = [], ""
    for (serve, keep), confinement in zip(roles, confinements, strict=True):
        if not error:
            pid, error = _start(serve, keep, confinement)
            pids.append(pid)
    for fd in sockets:
        os.close(fd)
    return pids, error


def _start(serve: Callable[[], None], keep: set[int], confinement: Confinement) -> tuple[int, str]:
    """Forks a child that confines itself and serves. Returns its number, and why it could not, "" if it could."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _serve_confined(serve, confinement, keep, writer)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        report = pipe.read()
    return pid, "" if report == _READY else report.decode(errors="replace") or "the child ended while setting up"


def _serve_confined(serve: Callable[[], None], confinement: Confinement, keep: set[int], writer: int) -> None:
    try:
        confinement.enter(keep | {writer})
    except BaseException:
        os.write(writer, traceback.format_exc().encode())
        return
    os.write(writer, _READY)
    os.close(writer)
    random.seed(0)  # a verdict does not hang on luck: tests that draw their cases draw the same ones every time
    serve()


def _end(pid: int) -> tuple[int, float]:
    """Kills a child with its process group. Returns its wait status and the processor time that it took."""
    with contextlib.suppress(ProcessLookupError):  # it failed before it had a group of its own
        os.killpg(pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return status, usage.ru_utime + usage.ru_stime


def _end_orphans() -> None:
    """Kills what children left behind: nothing, unless the sandbox is unsafe. It has been adopted, so it is listed."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            with open(f"/proc/self/task/{os.getpid()}/children") as children:
                for orphan in map(int, children.read().split()):
                    os.kill(orphan, signal.SIGKILL)
