"""One JSON object a step in metrics.jsonl, and the same numbers as TensorBoard events."""

import json
import math
from collections.abc import Iterable
from pathlib import Path

from tensorboardX import SummaryWriter

from tiny_reasoning_jax.data.problems import DIFFICULTIES


def by_difficulty(name: str, values: Iterable[float]) -> dict[str, float]:
    """{"<name>_1": ..., "<name>_5": ...} of five values; a NaN, which JSON does not know, is left out."""
    return {
        f"{name}_{level}": float(value)
        for level, value in zip(DIFFICULTIES, values, strict=True)
        if not math.isnan(value)
    }


class MetricsWriter:
    """Appends to workdir/metrics.jsonl and workdir/tensorboard; continues after `start_step`.

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
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=start_step + 1)

    def write(self, metrics: dict[str, int | float]) -> None:
        """Writes one step's numbers; `metrics["step"]` says which."""
        self._file.write(json.dumps(metrics) + "\n")
        for name, value in metrics.items():
            if name != "step":
                self._events.add_scalar(name, value, metrics["step"])

    def close(self) -> None:
        """Flushes and closes both files."""
        self._file.close()
        self._events.close()


def load_metrics(workdir: Path) -> list[dict[str, int | float]]:
    """All whole lines of metrics.jsonl; a line cut off by a killed process is left out."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # what follows the last newline was never finished
