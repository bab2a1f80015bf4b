"""Writes report.html: what a run did, as one page that opens anywhere, without a network.

The page is made only of what the stages left in the workdir. A part whose file is absent says so in words and
the rest is written all the same. Everything that a model or a data set wrote is escaped.
"""

import html
import json
import os
from collections.abc import Iterator
from pathlib import Path

from tiny_reasoning_jax import events
from tiny_reasoning_jax.errors import DamagedError, UserError
from tiny_reasoning_jax.eval import report_plots
from tiny_reasoning_jax.eval.report_accuracy import accuracy, headline
from tiny_reasoning_jax.eval.report_page import depth, figure, make_page, percent, render, wide
from tiny_reasoning_jax.eval.report_samples import SCRIPT, browser, shorten
from tiny_reasoning_jax.eval.results import LABELS
from tiny_reasoning_jax.workdir import flatten

# What stages write; config.json is written by every command whose settings are others than the last one's.
SOURCES = ("metrics.jsonl", "eval/results.json", "eval/samples.jsonl", "data/summary.json", "run.json")


def is_current(workdir: Path) -> bool:
    """Whether there is a report, and none of its sources was written after it."""
    path, sources = workdir / "report.html", [workdir / name for name in SOURCES]
    newest = max((source.stat().st_mtime_ns for source in sources if source.exists()), default=0)
    return path.exists() and path.stat().st_mtime_ns >= newest


def write_report(workdir: Path) -> Path:
    """Writes workdir/report.html from SOURCES, config.json and events.jsonl.

    Raises:
      UserError: one of these files exists and is not JSON, or an earlier version of the program evaluated this run.
    """
    workdir = Path(workdir)
    results = _load_results(workdir / "eval" / "results.json")
    samples = _load_samples(workdir / "eval" / "samples.jsonl")
    metrics = list(_read_json_lines(workdir / "metrics.jsonl", may_be_torn=True))
    config = _load_json(workdir / "config.json")
    happened = events.load_events(workdir)
    body = [
        _header(results, workdir.resolve().name),
        _section("training", "How it learned", _training(metrics, config, happened), "metrics.jsonl", "train"),
        _section("accuracy", "What it can do", accuracy(results, samples), "eval/results.json", "eval"),
        _section("samples", "What it writes", browser(samples), "eval/samples.jsonl", "eval"),
        _section("data", "What it learned from", _data(workdir), "data/summary.json", "data"),
        _section("cost", "What it cost", _cost(workdir, metrics), "run.json", "train"),
        _section("configuration", "Configuration", _configuration(config), "config.json", "data"),
    ]
    page = make_page(f"{workdir.resolve().name}: report", "\n".join(body), SCRIPT)
    path = workdir / "report.html"
    partial = path.with_suffix(".html.tmp")
    # A lone surrogate in a completion is no character that a file can hold.
    partial.write_bytes(page.encode("utf-8", errors="replace"))
    os.replace(partial, path)
    return path


def _load_json(path: Path):
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON ({error}); delete it and run its stage again") from error


def _read_json_lines(path: Path, may_be_torn: bool = False) -> Iterator[dict]:
    """The lines of a file, one by one; none without a file.

    Args:
      path: the file.
      may_be_torn: True: a last line without an end is what a kill or a full disk left, and none.

    Raises:
      DamagedError: a line is not JSON.
    """
    if not path.exists():
        return
    number = 0
    try:
        with path.open(encoding="utf-8") as file:  # str.splitlines would also split inside a completion
            for number, line in enumerate(file, start=1):  # noqa: B007
                if line.endswith("\n") or not may_be_torn:
                    yield json.loads(line)
    except ValueError as error:
        raise DamagedError(f"{path}, line {number} is not JSON ({error}); delete that line") from error


def _load_results(path: Path) -> dict | None:
    results = _load_json(path) or {}
    for label in LABELS:
        for task, summary in results.get(label, {"tasks": {}})["tasks"].items():
            _refuse_older(path, "num_samples", summary, f"{task} ({label})")
    return results or None


def _load_samples(path: Path) -> list[dict]:
    """The samples as far as the page shows them: a long completion is not held whole."""
    samples = []
    for sample in _read_json_lines(path):
        _refuse_older(path, "how", sample, f"sample {len(samples) + 1}")
        samples.append(shorten(sample))
    return samples


def _refuse_older(path: Path, key: str, part: dict, name: str) -> None:
    if key not in part:
        raise UserError(
            f"{path} was written by an earlier version of this program: {name} has no {key}; evaluate again with "
            f"--config.stages=eval, or delete {path.parent} to have a report without it"
        )


def _section(name: str, title: str, body: str | None, file: str, stage: str) -> str:
    missing = f'<p class="missing">No {file} in this folder: the {stage} stage has left nothing to show yet.</p>'
    return f'<section id="{name}"><h2>{title}</h2>{missing if body is None else body}</section>'


def _header(results: dict | None, name: str) -> str:
    lines = "<h1>This run has not been evaluated yet</h1>" if results is None else headline(results)
    return f'<header id="headline"><p class="run">{html.escape(name)}</p>{lines}</header>'


# --- training -------------------------------------------------------------------------------------


def _training(metrics: list[dict], config: dict | None, happened: list[dict]) -> str | None:
    if not metrics:
        return None
    # A run that was killed and continued may have written a step twice; the later line counts.
    rows = sorted({row["step"]: row for row in metrics}.values(), key=lambda row: row["step"])
    validated = [row for row in rows if row.get("validation_loss") is not None]
    caption = (
        f"Training loss per token over {len(rows):,} steps: each step faint, their running mean as a line; "
        f"{rows[0]['loss']:.3f} at the first step, {rows[-1]['loss']:.3f} at the last."
    )
    if validated:
        caption += f" Dots are the validation loss, last {validated[-1]['validation_loss']:.3f}."
    rates = "Learning rate, throughput and gradient norm (before clipping) by step."
    interruptions = events.interruptions(happened)
    if interruptions:
        ends = ", ".join(f"at step {step:,} ({how})" for step, how in interruptions)
        caption += f" Dashed lines: where the run was interrupted and went on, {html.escape(ends)}."
    loss = figure(report_plots.plot_loss(rows, validated, [step for step, _ in interruptions]), caption)
    return loss + _mixture(rows, config) + figure(report_plots.plot_rates(rows), rates)


def _mixture(rows: list[dict], config: dict | None) -> str:
    """What was trained on and what the model could then do, by difficulty; empty for a run that has not noted it."""
    rows = [row for row in rows if row.get("mixture_1") is not None]
    if not rows:
        return ""
    flat = flatten(config or {})
    name = html.escape(str(flat.get("data.curriculum", "not known")))
    caption = f"Share of the steps' tokens by difficulty, their running mean; curriculum: {name}"
    caption += ", its draws shuffled (control)." if flat.get("data.control") else "."
    num_probe = min(flat.get("train.num_probe", 0), flat.get("data.num_validation", 0))
    title = f"accuracy on {num_probe:,} validation problems" if num_probe else "accuracy on validation problems"
    if any("pass_rate" in key for row in rows for key in row):
        few = f", each of about {num_probe / 5:.3g} problems" if num_probe else ""
        caption += f" Below, {title} by difficulty{few}, at the steps with a dot."
    return figure(report_plots.plot_mixture(rows, title), caption)


# --- data, cost, configuration --------------------------------------------------------------------


def _data(workdir: Path) -> str | None:
    summary = _load_json(workdir / "data" / "summary.json")
    if summary is None:
        return None
    # What is deep needs the whole width: under a title of its own, before the single facts.
    deep = {key: value for key, value in summary.items() if depth(value) > 1}
    facts = {key: value for key, value in summary.items() if key not in deep}
    blocks = [f"<h3>{html.escape(key)}</h3>{wide(render(value))}" for key, value in deep.items()]
    return "".join(blocks) + (f"<h3>settings</h3>{wide(render(facts))}" if facts else "")


def _cost(workdir: Path, metrics: list[dict]) -> str | None:
    run = _load_json(workdir / "run.json")
    if run is None:
        return None
    facts = {}
    for key, value in run.items():
        if key.endswith("_seconds") and value is not None:
            facts[key.removesuffix("_seconds") + " time"] = _duration(value)
        else:
            facts[key.replace("num_", "").replace("_", " ")] = value
    if run.get("tokens") and run.get("train_seconds"):
        facts["tokens per second"] = round(run["tokens"] / run["train_seconds"])
    waited = sum(row.get("data_wait_seconds") or 0.0 for row in metrics)
    if waited and run.get("train_seconds"):
        facts["waiting for data"] = f"{percent(waited / run['train_seconds'])} of the training time"
    nested = {key: value for key, value in facts.items() if isinstance(value, dict)}
    plain = {key: value for key, value in facts.items() if key not in nested}
    return wide(render(plain | nested))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _configuration(config: dict | None) -> str | None:
    if config is None:
        return None
    flat = {key: json.dumps(value) for key, value in flatten(config).items()}  # so that 1, 1.0 and "1" stay apart
    return f"<details><summary>{len(flat)} keys</summary>{wide(render(flat))}</details>"
