"""The files that keep an evaluation: eval/results.json and eval/samples.jsonl.

Every completion is kept with its verdict: a score that nobody can look behind is not written.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from tiny_reasoning_jax.eval import statistics
from tiny_reasoning_jax.eval.statistics import Sample
from tiny_reasoning_jax.workdir import write_json

Label = Literal["before", "after", "model"]  # this run's model before and after training, or one from elsewhere
LABELS: tuple[Label, ...] = ("before", "after", "model")  # in the order of the files


def write_results(workdir: Path, label: Label, facts: dict[str, Any], samples_by_task: dict[str, list[Sample]]) -> None:
    """Writes what one model achieved, in place of what `label` had; a file is replaced whole or not at all.

    results.json: {"before": {**facts, "tasks": {name: summary}}, "after": {...}, "model": {...}} and, once before and
    after are there, "comparison": {name: paired difference after - before over the problems that both answered}.
    samples.jsonl: every sample of all, with "model": label.

    Args:
      workdir: of the run.
      label: which model.
      facts: "model" (its name), and what else should stand beside the numbers.
      samples_by_task: from `evaluate`, at least one task, none empty.
    """
    folder = workdir / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    by_label = {name: [] for name in LABELS}
    for sample in load_samples(workdir):
        by_label[sample["model"]].append(sample)
    by_label[label] = [{"model": label, **sample} for samples in samples_by_task.values() for sample in samples]
    _write_lines(folder / "samples.jsonl", (sample for name in LABELS for sample in by_label[name]))
    tasks = {name: statistics.summarize(samples) for name, samples in samples_by_task.items()}
    results = {**load_results(workdir), label: {**facts, "tasks": tasks}}
    if "before" in results and "after" in results:
        results["comparison"] = _compare(by_label["before"], by_label["after"])
    # Last, because a finished evaluation is known by its entry here.
    write_json(folder / "results.json", results)


def forget_results(workdir: Path, label: Label) -> None:
    """Takes one model's results out of results.json; its samples stay until there are others."""
    results = load_results(workdir)
    write_json(workdir / "eval" / "results.json", {k: v for k, v in results.items() if k not in (label, "comparison")})


def load_results(workdir: Path) -> dict[str, Any]:
    """The content of eval/results.json; {} if there is none yet."""
    path = workdir / "eval" / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def load_samples(workdir: Path) -> list[Sample]:
    """The samples of eval/samples.jsonl; none if there is no such file yet."""
    path = workdir / "eval" / "samples.jsonl"
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _compare(before: list[Sample], after: list[Sample]) -> dict[str, Any]:
    """Paired differences by task."""
    comparison = {}
    for task in dict.fromkeys(sample["task"] for sample in before):
        of_task = [[sample for sample in samples if sample["task"] == task] for samples in (before, after)]
        if of_task[1] and (compared := statistics.compare(*of_task)):
            comparison[task] = compared
    return comparison


def _write_lines(path: Path, samples: Iterable[Sample]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as lines:
        for sample in samples:
            lines.write(json.dumps(sample, ensure_ascii=False) + "\n")
    temporary.replace(path)
