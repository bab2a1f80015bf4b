"""Runs fuzz_worker.py and outlives it: a crash or a hang is the outcome of one input, and the next is run."""

import collections
import dataclasses
import json
import subprocess
import sys
import threading
from pathlib import Path

SILENT_SECONDS = 90.0  # more than an input may take there: what holds on longer does not even see its alarm


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
    while start < stop:
        command = [
            sys.executable,
            str(Path(__file__).with_name("fuzz_worker.py")),
            reader,
            str(seed),
            str(start),
            str(stop),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            errors = []
            drain = threading.Thread(target=lambda: errors.extend(process.stderr))  # noqa: B023
            drain.start()
            ready = _read_line(process)
            if ready != "ready\n":
                process.kill()
                drain.join()
                raise RuntimeError(f"{reader}: the worker did not start: {''.join(errors)[-2000:]}")
            ended = False
            while line := _read_line(process):
                if not line.endswith("\n"):
                    break
                number, outcome, detail, *seconds = json.loads(line)
                if number == "end":
                    ended = True
                    summary.peak_mb = max(summary.peak_mb, detail)
                    if outcome:
                        summary.others.append((stop, f"files appeared or are gone: {outcome}"))
                    break
                start = number + 1
                summary.outcomes[outcome] += 1
                summary.slowest = max(summary.slowest, seconds[0])
                if outcome == "other":
                    summary.others.append((number, detail))
                elif outcome == "refused":
                    summary.messages.add(detail)
            process.kill() if not ended else process.wait()
            drain.join()
        if not ended:
            summary.outcomes["other"] += 1
            summary.others.append((start, f"the process ended with {process.wait()}: {''.join(errors)[-1500:]}"))
            start += 1
        else:
            start = stop
    return summary


def _read_line(process: subprocess.Popen) -> str:
    timer = threading.Timer(SILENT_SECONDS, process.kill)
    timer.start()
    try:
        return process.stdout.readline()
    finally:
        timer.cancel()
