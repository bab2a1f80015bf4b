"""Runs fuzz_worker.py and outlives it: a crash or a hang is the outcome of one input, and the next is run."""

import collections
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SILENT_SECONDS = 600.0  # more than an input may take there, or a start on a busy machine


@dataclasses.dataclass
class Summary:
    """What became of one reader's inputs.

    Attributes:
      outcomes: how many were "accepted", had "records dropped" with a reason, were "refused", or "other".
      others: of each of those, its number and what happened. Every one is a defect.
      slowest: most seconds of processor time that an input took.
      peak_mb: most memory that a process held, with all that it had imported.
    """

    reader: str
    outcomes: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    others: list[tuple[int, str]] = dataclasses.field(default_factory=list)
    messages: set[str] = dataclasses.field(default_factory=set)
    slowest: float = 0.0
    peak_mb: int = 0


def fuzz(reader: str, count: int, seed: int = 0, start: int = 0) -> Summary:
    """Runs the inputs start to start + count of one reader."""
    summary, stop = Summary(reader), start + count
    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # in memory: every input is a file
    while start < stop:
        with tempfile.TemporaryDirectory(dir=shm) as root:
            start = _run(summary, [root, reader, str(seed), str(start), str(stop)], start, stop)
    return summary


def _run(summary: Summary, args: list[str], start: int, stop: int) -> int:
    """Runs one process, which may end before its time; returns the number of the next input."""
    command = [sys.executable, str(Path(__file__).with_name("fuzz_worker.py")), *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        errors: list[str] = []
        drain = threading.Thread(target=lambda: errors.extend(process.stderr))
        drain.start()
        if _read_line(process) != "ready\n":
            process.kill()
            drain.join()
            raise RuntimeError(f"{summary.reader}: the worker did not start: {''.join(errors)[-2000:]}")
        while (line := _read_line(process)).endswith("\n"):
            number, outcome, detail, *seconds = json.loads(line)
            if number == "end":
                summary.peak_mb = max(summary.peak_mb, detail)
                if outcome:
                    summary.others.append((stop, f"files appeared or are gone: {outcome}"))
                process.wait()
                drain.join()
                return stop
            start = number + 1
            summary.outcomes[outcome] += 1
            summary.slowest = max(summary.slowest, seconds[0])
            if outcome == "other":
                summary.others.append((number, detail))
            elif outcome == "refused":
                summary.messages.add(detail)
        code = process.wait()
        drain.join()
    summary.outcomes["other"] += 1
    summary.others.append((start, f"the process ended with {code}: {''.join(errors)[-1500:]}"))
    return start + 1


def _read_line(process: subprocess.Popen) -> str:
    timer = threading.Timer(SILENT_SECONDS, process.kill)
    timer.start()
    try:
        return process.stdout.readline()
    finally:
        timer.cancel()
