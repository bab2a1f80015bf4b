"""One JSON object a step in metrics.jsonl, and the same numbers as TensorBoard events."""

import json
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from tiny_reasoning_jax.data.problems import DIFFICULTIES
from tiny_reasoning_jax.errors import DamagedError


def by_difficulty(name: str, values: Iterable[float]) -> dict[str, float]:
    """{"<name>_1": ..., "<name>_5": ...} of five values; a NaN, which JSON does not know, is left out."""
    return {
        f"{name}_{level}": float(value)
        for level, value in zip(DIFFICULTIES, values, strict=True)
        if not math.isnan(value)
    }


class _TensorBoard:
    """The same numbers for TensorBoard: one event a step.

    Without tensorboardX's own SummaryWriter, whose thread dies of a full disk: a traceback, then its queue takes ten
    numbers more and holds up the training for good, whether there is room again or not.
    """

    SECONDS = 30.0  # at most so long are numbers kept in memory

    def __init__(self, folder: Path, start_step: int):
        folder.mkdir(exist_ok=True)
        self._file = EventsWriter(str(folder / "events"), f".{os.getpid()}")
        session = Event(wall_time=time.time(), step=start_step + 1, session_log=SessionLog(status=SessionLog.START))
        self._file.write_event(session)  # what other files hold from this step on is not shown
        self._flushed = time.monotonic()

    def write(self, metrics: dict[str, int | float]) -> None:
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items() if name != "step"]
        self._file.write_event(Event(wall_time=time.time(), step=metrics["step"], summary=Summary(value=values)))
        if time.monotonic() - self._flushed > self.SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        self._file.close()


class MetricsWriter:
    """A context manager. Appends to workdir/metrics.jsonl and workdir/tensorboard; continues after `start_step`.

    Lines of steps that a stopped run had done after its last checkpoint are removed, because they will be done again:
    the file of a resumed run is that of an uninterrupted one, but for the timings.
    """

    def __init__(self, workdir: Path, start_step: int):
        path = workdir / "metrics.jsonl"
        kept = [m for m in load_metrics(workdir) if m["step"] <= start_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(m) + "\n" for m in kept), encoding="utf-8")
        temporary.replace(path)
        self.seconds_before = kept[-1]["seconds"] if kept else 0.0
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._tensorboard = _TensorBoard(workdir / "tensorboard", start_step)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, kind, *_) -> None:
        try:
            self.close()
        except OSError:  # a full disk, once more
            if kind is None:  # otherwise what ended the training is told, and not this
                raise

    def write(self, metrics: dict[str, int | float]) -> None:
        """Writes one step's numbers; `metrics["step"]` says which.

        Raises:
          OSError: the disk is full.
        """
        self._file.write(json.dumps(metrics) + "\n")
        self._tensorboard.write(metrics)

    def close(self) -> None:
        """Flushes and closes both files."""
        try:
            self._file.close()
        finally:
            self._tensorboard.close()


def load_metrics(workdir: Path) -> list[dict[str, int | float]]:
    """All whole lines of metrics.jsonl; a line cut off by a killed process is left out.

    Raises:
      DamagedError: another line is not JSON.
    """
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = []
    try:
        for line in path.read_bytes().split(b"\n")[:-1]:  # what follows the last newline was never finished
            lines.append(json.loads(line))
    except ValueError as error:
        raise DamagedError(
            f"{path}, line {len(lines) + 1} is damaged ({str(error)[:100]}); put back a copy of the "
            "file, or delete that line: the run goes on without its numbers"
        ) from error
    return lines
