"""Compares two finished runs: what must be equal to the bit, and what only tells of time and sessions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

TIMINGS = ("tokens_per_second", "data_wait_seconds", "seconds")
# Compared byte for byte; of folders every file, and that there are no others.
SAME_BYTES = ("data", "hf", "grades.jsonl", "grades.json", "export.json", "eval/samples.jsonl", "config.json")


def saved_arrays(workdir: Path, step: int) -> dict[str, Any]:
    """Every array of a checkpoint and the state of its data, read without our own code."""
    folder = workdir / "checkpoints" / str(step)
    with ocp.PyTreeCheckpointer() as checkpointer:
        arrays = {item: checkpointer.restore((folder / item).absolute()) for item in ("params", "state")}
    return {**arrays, "data": json.loads((folder / "data" / "metadata").read_text())}


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """{"params/embed": leaf, ...}."""
    if not isinstance(tree, (dict, list, tuple)):
        return {prefix: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {name: leaf for key, sub in items for name, leaf in flat(sub, f"{prefix}/{key}").items()}


def metrics(workdir: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what tells of time; a torn one raises."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in TIMINGS} for line in lines]


def steps(workdir: Path) -> list[int]:
    """The committed checkpoints."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*") if path.name.isdecimal())


def describe(workdir: Path) -> dict[str, Any]:
    """All that must be equal in two runs, by name; leaves are bytes or JSON values."""
    found: dict[str, Any] = {"metrics.jsonl": metrics(workdir), "checkpoints": steps(workdir)}
    found["lines of metrics.jsonl"] = [line["step"] for line in found["metrics.jsonl"]]
    for step in found["checkpoints"]:
        for name, leaf in flat(saved_arrays(workdir, step)).items():
            array = np.asarray(leaf)
            found[f"step {step}{name}"] = (str(array.dtype), array.shape, array.tobytes())
        meta = json.loads((workdir / "checkpoints" / str(step) / "meta" / "metadata").read_text())
        found[f"step {step}/meta"] = meta
    for name in SAME_BYTES:
        path = workdir / name
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            found[file.relative_to(workdir).as_posix()] = file.read_bytes()
    for name in ("eval/results.json", "hf/eval_results.json"):
        if (workdir / name).exists():
            found[name] = {
                label: {key: value for key, value in part.items() if key != "last_session_seconds"}
                for label, part in json.loads((workdir / name).read_text()).items()
            }
    found["names"] = sorted(path.name for path in workdir.iterdir())
    return found


def differences(reference: dict[str, Any], workdir: Path) -> list[str]:
    """Names of what is not equal, of two finished runs; empty if all is."""
    found = describe(workdir)
    return sorted(name for name in reference | found if reference.get(name) != found.get(name))
