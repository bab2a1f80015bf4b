"""Runs main.py with one fault each: killed, or its disk filled up, at the n-th call of a function or after a time.

The package knows nothing of it: a server process imports everything once and uses JAX never; for every run it forks,
and the child replaces one function by one that strikes (see POINTS), and is main.py from there on. A real SIGKILL goes
to the whole process group. Start the server through `Runner`.
"""

import contextlib
import ctypes
import errno
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]


class Fault(NamedTuple):
    """What happens to a run, and when.

    Attributes:
      point: one of POINTS; "" for no fault, or one of `Runner.run`'s clock.
      call: at the how-manieth call that belongs to the point.
      when: "before" or "after" the call, or "torn": after it, with half of what it appended cut off again.
      step: for points of the training: only at this step.
      file: for "replace": the name that the file or folder gets.
      delay: seconds from there, in which the process goes on.
      ballast: "" kills. Otherwise the disk is filled up with this file.
      leave: bytes that stay free then.
    """

    point: str = ""
    call: int = 1
    when: str = "before"
    step: int = 0
    file: str = ""
    delay: float = 0.0
    ballast: str = ""
    leave: int = 0


NO_FAULT = Fault()


class Ended(NamedTuple):
    """How a process ended: exit code, or minus the signal; seconds of processor time; what it printed."""

    status: int
    cpu_seconds: float
    output: str


# --- in the server's children -----------------------------------------------------------------------


def _strike(fault: Fault) -> None:
    if fault.delay:
        timer = threading.Timer(fault.delay, _strike, [fault._replace(delay=0.0)])
        timer.daemon = True
        timer.start()
    elif fault.ballast:
        fill(Path(fault.ballast), fault.leave)
    else:
        os.killpg(os.getpid(), signal.SIGKILL)


def fill(ballast: Path, leave: int = 0) -> None:
    """Writes a file until its disk is full, but for `leave` bytes."""
    with ballast.open("ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        file.truncate(max(file.tell() - leave, 0))


def _replace(owner: Any, name: str, fault: Fault, matches=lambda *args, **kwargs: True, appended_to=None) -> None:
    """Makes owner.name strike at the call that the fault asks for."""
    original, calls = getattr(owner, name), []

    def replaced(*args, **kwargs):
        is_it = False
        if matches(*args, **kwargs):
            calls.append(1)
            is_it = len(calls) == fault.call
        if is_it and fault.when == "before":
            _strike(fault)
        result = original(*args, **kwargs)
        if is_it and fault.when == "torn":
            path = appended_to(*args)
            line = path.read_bytes()[:-1].rpartition(b"\n")[2]
            os.truncate(path, path.stat().st_size - 1 - len(line) // 2)
            _strike(fault)
        if is_it and fault.when == "after":
            _strike(fault)
        return result

    setattr(owner, name, replaced)


def _at_step(fault: Fault):
    """True for calls with a state at fault.step. The first state is asked for its step; calls are counted from then."""
    first, calls = [], []

    def matches(train_step, state, arrays, *rest):
        if not first:
            first.append(int(state.step))
        calls.append(1)
        return first[0] + len(calls) == fault.step

    return matches


def _micro_step(fault: Fault) -> None:
    """Between two accumulations of a step: the first `call` micro-batches are added, the next is not."""
    import jax

    from tiny_reasoning_jax.train import loop

    run_step, is_step = loop.run_step, _at_step(fault)

    def run(train_step, state, arrays, *rest):
        if not is_step(train_step, state, arrays):
            return run_step(train_step, state, arrays, *rest)
        added = []

        def accumulate(state, batch):
            state = train_step.accumulate(state, batch)
            added.append(1)
            if len(added) == fault.call:
                jax.block_until_ready(state)
                _strike(fault)
            return state

        return run_step(train_step._replace(accumulate=accumulate), state, arrays, *rest)

    loop.run_step = run


def _export_tensor(fault: Fault) -> None:
    from convert import tensor_files

    original = tensor_files.write_bfloat16_file

    def write(file, shapes, get_tensor):
        holder = type("Holder", (), {"get": staticmethod(get_tensor)})
        _replace(holder, "get", fault)
        return original(file, shapes, holder.get)

    tensor_files.write_bfloat16_file = write


def _step(fault: Fault) -> None:
    from tiny_reasoning_jax.train import loop

    _replace(loop, "run_step", fault, _at_step(fault))


def _save(fault: Fault) -> None:
    from tiny_reasoning_jax.train.checkpoint import Checkpoints

    _replace(Checkpoints, "save", fault, lambda self, step, *_: fault.step in (0, step))


def _save_has_room(fault: Fault) -> None:
    from tiny_reasoning_jax.train import checkpoint

    _replace(checkpoint, "require_disk", fault)


def _checksums(fault: Fault) -> None:
    from tiny_reasoning_jax.train.checkpoint import Checkpoints

    _replace(Checkpoints, "_write_checksums", fault, lambda self: fault.step in (0, self._saving))


def _validation(fault: Fault) -> None:
    from tiny_reasoning_jax.train import loop

    _replace(loop, "_measure", fault, lambda step, *_: fault.step in (0, step))


def _pack(fault: Fault) -> None:
    from tiny_reasoning_jax.data import plan

    _replace(plan, "pack_rows", fault)


def _read_rows(fault: Fault) -> None:
    from tiny_reasoning_jax.data import pipeline

    _replace(pipeline, "read_rows", fault)


def _metrics_line(fault: Fault) -> None:
    from tiny_reasoning_jax.train.metrics import MetricsWriter

    _replace(
        MetricsWriter,
        "write",
        fault,
        lambda self, line: fault.step in (0, line["step"]),
        lambda self, *_: Path(self._file.name),
    )


def _event(fault: Fault) -> None:
    from tiny_reasoning_jax import events

    _replace(events, "record", fault, lambda *_, **__: True, lambda workdir, *_: workdir / events.FILE)


def _judged(fault: Fault) -> None:
    from tiny_reasoning_jax.eval import grade

    _replace(grade, "judge", fault)


def _completion(fault: Fault) -> None:
    from tiny_reasoning_jax.eval.journal import Journal

    _replace(Journal, "add", fault, appended_to=lambda self, *_: self.path)


def _tokenise(fault: Fault) -> None:
    from tiny_reasoning_jax.data import prepare

    _replace(prepare, "_tokenise", fault)


def _report(fault: Fault) -> None:
    from tiny_reasoning_jax import stages

    _replace(stages, "write_report", fault)


def _replaced_file(fault: Fault) -> None:
    matches = lambda path, target: Path(target).name == fault.file
    for name in ("replace", "rename"):
        _replace(Path, name, fault, matches)


POINTS = {
    "tokenise": _tokenise,  # the data stage writes its arrays
    "pack": _pack,  # the data thread chooses examples for the rows of a step
    "read rows": _read_rows,  # and reads them
    "step": _step,
    "micro-step": _micro_step,
    "validation": _validation,
    "metrics line": _metrics_line,
    "save": _save,  # Checkpoints.save, which returns while the background still writes
    "save has room": _save_has_room,  # after the look at the free space
    "checksums": _checksums,  # in the background, all items written, the step not committed
    "event": _event,
    "judged": _judged,  # an answer of the grade stage
    "completion": _completion,  # of an evaluation, written down
    "export tensor": _export_tensor,
    "replace": _replaced_file,  # a file or folder gets its name
    "report": _report,
}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: whoever ends a benchmark or a test leaves nothing


def _be_main(request: dict[str, Any]) -> None:
    os.setsid()
    _die_with_parent()
    os.chdir(request["folder"])
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number, target in ((os.open(os.devnull, os.O_RDONLY), 0), (log, 1), (log, 2)):
        os.dup2(number, target)
    import jax

    if request["cache"]:
        jax.config.update("jax_compilation_cache_dir", request["cache"])
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        # A kill must not leave half an entry: only runs without a fault write.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1e9 if request["frozen"] else 0.0)
    fault = Fault(*request["fault"])
    if fault.point:
        POINTS[fault.point](fault)
    sys.argv = ["main.py", *request["flags"]]
    runpy.run_path(str(ROOT / "main.py"), run_name="__main__")


def _serve() -> None:
    _die_with_parent()
    sys.path.insert(0, str(ROOT))
    from tiny_reasoning_jax import xla

    xla.set_environment()
    import configs.reason  # noqa: F401 - imported once for all runs
    from tiny_reasoning_jax import stages  # noqa: F401

    print(json.dumps({"threads": len(os.listdir("/proc/self/task"))}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            _be_main(request)
            return
        if request["kill_after"]:
            timer = threading.Timer(request["kill_after"], _kill_group, [pid])
            timer.start()
        _, status, used = os.wait4(pid, 0)
        if request["kill_after"]:
            timer.cancel()
            timer.join()
        print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime]), flush=True)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it ended before its time
        os.killpg(pid, signal.SIGKILL)


# --- for benchmarks and tests -----------------------------------------------------------------------


class Runner:
    """Runs main.py in processes of its own, one at a time. A context manager.

    Args:
      flags: of every run; --config.workdir=run is added: equal names make equal files.
      cache: folder of compiled programs. They are the same as compiled anew, and a run without it is compared with
        those that have it.
    """

    def __init__(self, flags: list[str], cache: Path | None = None):
        self.flags, self.cache = flags, cache
        environment = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"} | dict(os.environ)
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment | {"PYTHONPATH": str(ROOT)},
        )
        assert self._server.stdout.readline(), "the server did not start"

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_) -> None:
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()

    def run(
        self,
        folder: Path,
        fault: Fault = NO_FAULT,
        *,
        kill_after: float = 0.0,
        flags: list[str] | None = None,
        with_cache: bool = True,
        log: Path | None = None,
    ) -> Ended:
        """Runs main.py until it ends, with workdir `folder`/run.

        Args:
          folder: made if it is not there.
          fault: what happens to it.
          kill_after: seconds after which it is killed, 0 for never.
          flags: instead of the runner's.
          with_cache: False compiles everything.
          log: where its output goes; default `folder`/log.
        """
        folder.mkdir(parents=True, exist_ok=True)
        log = log or folder / "log"
        request = {
            "folder": str(folder),
            "log": str(log),
            "fault": fault,
            "kill_after": kill_after,
            "flags": [*(self.flags if flags is None else flags), "--config.workdir=run"],
            "cache": str(self.cache) if self.cache and with_cache else "",
            "frozen": bool(fault.point or kill_after),
        }
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return Ended(*json.loads(self._server.stdout.readline()), log.read_text(errors="replace"))


if __name__ == "__main__":
    _serve()
