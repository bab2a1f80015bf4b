"""Ends a training that hangs, and says where: a stage of the loop that takes longer than it may is a hang.

A driver that never answers, a data thread that waits for a dead disk: such a process would sit on its card until
someone looks. It cannot be trusted to come back either, so the process is ended as it stands; what is saved stays as it
is, and the same command goes on from there.
"""

import datetime
import faulthandler
import os
import sys
import threading
from pathlib import Path

from tiny_reasoning_jax import events
from tiny_reasoning_jax.errors import StalledError

FIRST_TIME = 4  # times as long may a stage take when it comes for the first time: it compiles
_LOOKS = 50  # times per limit that the thread looks


class Watchdog:
    """A context in which every stage must be followed by the next within `seconds`; with 0 there is no limit.

    Use: `with Watchdog(1800, workdir) as watchdog: watchdog.at("waiting for data", step); ...`

    Raises nothing: it writes all threads' stacks to workdir/hang-<time>.txt, an event and a message, and ends the
    process with StalledError's exit code. A thread that keeps Python's lock while it hangs would stop this one, too;
    JAX and the file system give it up while they wait.
    """

    def __init__(self, seconds: float, workdir: Path):
        self._seconds, self._workdir = seconds, workdir
        self._known: set[str] = set()
        self._where, self._limit, self._looks = "", seconds, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="watchdog")

    def __enter__(self) -> "Watchdog":
        if self._seconds:
            self.at("the start of training", 0)
            self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._done.set()
        if self._seconds:
            self._thread.join()

    def at(self, stage: str, step: int) -> None:
        """What was at work is done, and `stage` of this step begins."""
        first = stage not in self._known
        self._known.add(stage)
        self._where = f"{stage} (step {step})"
        self._limit, self._looks = self._seconds * (FIRST_TIME if first else 1), 0

    def _watch(self) -> None:
        # Looks are counted and not the clock: a machine that was suspended, or a process that was stopped and goes on,
        # has not been hanging.
        pause = self._seconds / _LOOKS
        while not self._done.wait(pause):
            self._looks += 1
            if self._looks * pause > self._limit:
                self._end(self._where, self._limit)

    def _end(self, where: str, limit: float) -> None:
        try:
            now = datetime.datetime.now(datetime.UTC)
            path = self._workdir / f"hang-{now:%Y%m%dT%H%M%SZ}.txt"
            message = (
                f"{where} has not ended within {limit:g} s (train.watchdog_seconds={self._seconds:g}, "
                f"{FIRST_TIME} times that for the first of its kind). The process is ended and its checkpoints are "
                f"left as they are: the same command goes on from the newest. What every thread was doing: {path}"
            )
            with path.open("w", encoding="utf-8") as file:
                file.write(message + "\n\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
            events.record(self._workdir, "hang", where=where, seconds=limit, stacks=path.name)
            print(f"error: {message}", file=sys.stderr, flush=True)
        finally:
            os._exit(StalledError.exit_code)  # whatever happens: exit() would wait for the thread that hangs
