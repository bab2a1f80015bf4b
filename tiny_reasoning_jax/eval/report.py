"""Writes report.html: what a run did, as one page that opens anywhere, without a network.

The page is made only of what the stages left in the workdir. A part whose file is absent says so in words and
the rest is written all the same. Everything that a model or a data set wrote is escaped.
"""

import html
import json
import os
from collections import Counter
from pathlib import Path

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval import report_plots
from tiny_reasoning_jax.eval.report_page import PAGE, depth, render
from tiny_reasoning_jax.workdir import flatten

NUM_SAMPLES = 10  # shown of each kind, right and wrong
MAX_TEXT_CHARS = 6000  # of one prompt or completion; the whole is in eval/samples.jsonl


def write_report(workdir: Path) -> Path:
    """Writes workdir/report.html from metrics.jsonl, eval/, data/summary.json, run.json and config.json.

    Raises:
      UserError: one of these files exists and is not JSON.
    """
    workdir = Path(workdir)
    results = _load_json(workdir / "eval" / "results.json")
    samples = _load_json_lines(workdir / "eval" / "samples.jsonl")
    metrics = _load_json_lines(workdir / "metrics.jsonl")
    config = _load_json(workdir / "config.json")
    body = [
        _headline(results, workdir.resolve().name),
        _section("training", "How it learned", _training(metrics, config), "metrics.jsonl", "train"),
        _section("accuracy", "What it can do", _accuracy(results), "eval/results.json", "eval"),
        _section("samples", "What it writes", _samples(samples), "eval/samples.jsonl", "eval"),
        _section("data", "What it learned from", _data(workdir), "data/summary.json", "data"),
        _section("cost", "What it cost", _cost(workdir, metrics), "run.json", "train"),
        _section("configuration", "Configuration", _configuration(config), "config.json", "data"),
    ]
    title = html.escape(f"{workdir.resolve().name}: report")
    page = PAGE.replace("{title}", title).replace("{body}", "\n".join(body))
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


def _load_json_lines(path: Path) -> list[dict] | None:
    if not path.exists():
        return None
    rows, number = [], 0
    try:
        with path.open(encoding="utf-8") as file:  # str.splitlines would also split inside a completion
            for number, line in enumerate(file, start=1):  # noqa: B007
                rows.append(json.loads(line))
    except ValueError as error:
        raise UserError(f"{path}, line {number} is not JSON ({error}); delete that line") from error
    return rows


def _section(name: str, title: str, body: str | None, file: str, stage: str) -> str:
    missing = f'<p class="missing">No {file} in this folder: the {stage} stage has left nothing to show yet.</p>'
    return f'<section id="{name}"><h2>{title}</h2>{missing if body is None else body}</section>'


def _percent(value: float) -> str:
    return f"{100 * value:.1f}\u202f%"


def _interval(ci95: list[float]) -> str:
    return f"{100 * ci95[0]:.1f}\u2013{100 * ci95[1]:.1f}"


# --- headline -------------------------------------------------------------------------------------


def _headline(results: dict | None, name: str) -> str:
    parts = [f'<header id="headline"><p class="run">{html.escape(name)}</p>']
    if not results:
        parts.append("<h1>This run has not been evaluated yet</h1>")
    for task in _tasks(results):
        parts.append(_headline_of_task(results, task))
    return "".join(parts) + "</header>"


def _tasks(results: dict | None) -> list[str]:
    """Task names in the order of results.json, those of the trained model first."""
    both = [(results or {}).get(when, {"tasks": {}})["tasks"] for when in ("after", "before")]
    return list(dict.fromkeys([*both[0], *both[1]]))


def _cells(results: dict, task: str) -> tuple[dict | None, dict | None]:
    before, after = (results.get(when, {"tasks": {}})["tasks"].get(task) for when in ("before", "after"))
    return before, after


def _headline_of_task(results: dict, task: str) -> str:
    before, after = _cells(results, task)
    n = (after or before)["n"]
    where = f"on {n:,} test problems ({html.escape(task)})"
    if before is None or after is None:
        when = "after" if before is None else "before"
        sentence = f"Accuracy {when} training: {_percent((after or before)['accuracy'])} {where}"
        return f"<h1>{sentence}</h1>" + _figures(before, after)
    comparison = results.get("comparison", {}).get(task)
    low, high = comparison["ci95"] if comparison else (0.0, 0.0)
    verb = "rose" if low > 0 else "fell" if high < 0 else "went"
    sentence = f"Accuracy {verb} from {_percent(before['accuracy'])} to {_percent(after['accuracy'])} {where}"
    note = ""
    if comparison:
        p_value = comparison["p_value"]
        p_text = "p &lt; 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"
        note = (
            f"Difference {100 * comparison['difference']:+.1f} points, 95 % interval {100 * low:+.1f} to "
            f"{100 * high:+.1f} (paired bootstrap over the problems); exact McNemar test {p_text}."
        )
        if low <= 0 <= high:
            note += " The interval holds zero: these problems show no clear difference."
        note = f'<p class="note">{note}</p>'
    return f"<h1>{sentence}</h1>{_figures(before, after)}{note}"


def _figures(before: dict | None, after: dict | None) -> str:
    figures = [
        f'<div class="{kind}"><span>{kind} training</span><b>{_percent(cell["accuracy"])}</b>'
        f"<small>95 % interval {_interval(cell['ci95'])} &middot; {cell['correct']:,} of {cell['n']:,} right"
        "</small></div>"
        for kind, cell in (("before", before), ("after", after))
        if cell
    ]
    return f'<div class="figures">{"<i>&rarr;</i>".join(figures)}</div>'


# --- training -------------------------------------------------------------------------------------


def _training(metrics: list[dict] | None, config: dict | None) -> str | None:
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
    loss = _figure(report_plots.plot_loss(rows, validated), caption)
    return loss + _mixture(rows, config) + _figure(report_plots.plot_rates(rows), rates)


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
    return _figure(report_plots.plot_mixture(rows, title), caption)


def _figure(plot: str, caption: str) -> str:
    return f"<figure>{plot}<figcaption>{caption}</figcaption></figure>"


# --- accuracy -------------------------------------------------------------------------------------


def _accuracy(results: dict | None) -> str | None:
    if not results:
        return None
    parts = []
    for number, task in enumerate(_tasks(results)):
        before, after = _cells(results, task)
        groups = _groups(before, after)
        panels = {
            "all and by category": groups["all"] | groups["category"],
            "by difficulty": groups["difficulty"],
        }
        caption = "Accuracy before (grey) and after training, with 95 % Wilson intervals."
        parts += [
            f"<h3>{html.escape(task)}</h3>",
            _figure(report_plots.plot_bars(panels, f"bars{number}"), caption),
            _accuracy_table(groups),
            _heat_map(before, after),
        ]
    models = [(when, results[when]["model"]) for when in ("before", "after") if when in results]
    names = "; ".join(f"{when}: <code>{html.escape(str(model))}</code>" for when, model in models)
    return "".join(parts) + f'<p class="note">Models: {names}.</p>'


def _groups(before: dict | None, after: dict | None) -> dict[str, dict[str, tuple]]:
    """Returns {"all": ..., "category": ..., "difficulty": ...}, each {name: (cell before, cell after)}."""
    groups = {"all": {"all problems": (before, after)}}
    for kind in ("category", "difficulty"):
        old, new = ((summary or {}).get(f"by_{kind}", {}) for summary in (before, after))
        groups[kind] = {name: (old.get(name), new.get(name)) for name in sorted({*old, *new})}
    return groups


def _accuracy_table(groups: dict[str, dict[str, tuple]]) -> str:
    bodies = []
    for kind, pairs in groups.items():
        prefix = "difficulty " if kind == "difficulty" else ""
        lines = [_accuracy_row(prefix + name, *pair) for name, pair in pairs.items()]
        bodies.append(f'<tbody class="{kind}">{"".join(lines)}</tbody>')
    titles = ("", "n", "before", "after", "points", "no answer", "cut off")
    head = "".join(f"<th>{title}</th>" for title in titles)
    return (
        f'<div class="wide"><table class="numbers"><thead><tr>{head}</tr></thead>{"".join(bodies)}</table>'
        '</div><p class="note">Accuracy in % with its 95 % interval. The last two columns count completions '
        "(after training, where there are any) without a readable answer, and those stopped at the longest "
        "allowed length. A completion without an answer counts as not right.</p>"
    )


def _accuracy_row(name: str, before: dict | None, after: dict | None) -> str:
    change = f"{100 * (after['accuracy'] - before['accuracy']):+.1f}" if before and after else ""
    shown = after or before
    accuracies = f"{_accuracy_cell(before)}{_accuracy_cell(after)}<td>{change}</td>"
    counts = f"<td>{shown['unparsed']:,}</td><td>{shown['truncated']:,}</td>"
    return f"<tr><th>{html.escape(name)}</th><td>{shown['n']:,}</td>{accuracies}{counts}</tr>"


def _accuracy_cell(cell: dict | None) -> str:
    if cell is None:
        return "<td>&ndash;</td>"
    return f"<td>{100 * cell['accuracy']:.1f} <small>{_interval(cell['ci95'])}</small></td>"


def _heat_map(before: dict | None, after: dict | None) -> str:
    shown = (after or before)["by_category_and_difficulty"]
    old = before["by_category_and_difficulty"] if before and after else {}
    levels = sorted({level for cells in shown.values() for level in cells})
    lines = []
    for category, cells in shown.items():
        line = [_heat_cell(old.get(category, {}).get(level), cells.get(level)) for level in levels]
        lines.append(f"<tr><th>{html.escape(category)}</th>{''.join(line)}</tr>")
    head = "".join(f"<th>difficulty {html.escape(level)}</th>" for level in levels)
    return (
        '<h3>Category &times; difficulty</h3><div class="wide"><table class="heat"><thead>'
        f"<tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="note">Accuracy in %{", before &rarr; after" if old else ""}.</p>'
    )


def _heat_cell(old: dict | None, cell: dict | None) -> str:
    if cell is None:
        return "<td></td>"
    was = f"{100 * old['accuracy']:.0f} &rarr; " if old else ""
    return (
        f'<td style="--heat:{cell["accuracy"]:.3f}" title="95 % interval {_interval(cell["ci95"])}">'
        f"<small>{was}</small><b>{100 * cell['accuracy']:.0f}</b><small>n = {cell['n']:,}</small></td>"
    )


# --- samples --------------------------------------------------------------------------------------


def _samples(samples: list[dict] | None) -> str | None:
    if not samples:
        return None
    model = "after" if any(sample["model"] == "after" for sample in samples) else "before"
    graded = [sample for sample in samples if sample["model"] == model]
    columns = []
    for title, is_right in (("Right", True), ("Wrong", False)):
        matching = [sample for sample in graded if (sample["verdict"] == "correct") == is_right]
        chosen = _choose(matching, NUM_SAMPLES)
        cards = "".join(_sample_card(sample, is_open=not number) for number, sample in enumerate(chosen))
        cards = cards or f'<p class="missing">None of the {len(graded):,} completions is {title.lower()}.</p>'
        columns.append(f"<div><h3>{title} <small>{len(matching):,} of {len(graded):,}</small></h3>{cards}</div>")
    note = f"The model {model} training. A fixed rule spreads the samples over categories and difficulties."
    return f'<p class="note">{note}</p><div class="samples">{"".join(columns)}</div>'


def _choose(samples: list[dict], count: int) -> list[dict]:
    """Picks up to count samples, each time one of the category and difficulty that were picked least."""
    left = sorted(samples, key=lambda sample: (sample["task"], sample["id"]))
    chosen, seen = [], Counter()
    while left and len(chosen) < count:
        best = min(left, key=lambda s: (seen["c", s["category"]], seen["d", s["difficulty"]], s["difficulty"]))
        left.remove(best)
        chosen.append(best)
        seen.update([("c", best["category"]), ("d", best["difficulty"])])
    return chosen


def _sample_card(sample: dict, is_open: bool) -> str:
    verdict, extracted = sample["verdict"], sample["extracted"]
    mark = {"correct": "&check; right", "wrong": "&cross; wrong"}.get(verdict, "? no answer")
    given = "<em>none</em>" if extracted is None else f"<code>{_cut(extracted, 300)}</code>"
    problem = f"<pre>{_cut(sample['prompt'], 500)}</pre>"
    if len(sample["prompt"]) > 500:
        problem = _fold(sample["prompt"], "the problem", is_open)
    cut_off = ", cut off" if sample["truncated"] else ""
    tags = (
        sample["category"],
        f"difficulty {sample['difficulty']}",
        f"{sample['num_tokens']:,} tokens{cut_off}",
    )
    return (
        f'<article class="{html.escape(verdict)}"><p class="tags"><b>{mark}</b>'
        f"{''.join(f'<span>{html.escape(tag)}</span>' for tag in tags)}</p>"
        f"{problem}"
        f'<p class="answers">answered {given}, expected <code>{_cut(sample["answer"], 300)}</code></p>'
        f"{_fold(sample['completion'], 'what the model wrote', is_open)}</article>"
    )


def _fold(text: str, summary: str, is_open: bool) -> str:
    state = " open" if is_open else ""
    return f"<details{state}><summary>{summary}</summary><pre>{_cut(text, MAX_TEXT_CHARS)}</pre></details>"


def _cut(text: str, max_chars: int) -> str:
    """Escapes a text, shortened to max_chars with a note of how much is left out."""
    left_out = len(text) - max_chars
    note = f"\u2026 [{left_out:,} more characters in eval/samples.jsonl]" if left_out > 0 else ""
    return html.escape(text[:max_chars]) + note


# --- data, cost, configuration --------------------------------------------------------------------


def _data(workdir: Path) -> str | None:
    summary = _load_json(workdir / "data" / "summary.json")
    if summary is None:
        return None
    # What is deep needs the whole width: under a title of its own, before the single facts.
    deep = {key: value for key, value in summary.items() if depth(value) > 1}
    facts = {key: value for key, value in summary.items() if key not in deep}
    blocks = [f"<h3>{html.escape(key)}</h3>{_wide(render(value))}" for key, value in deep.items()]
    return "".join(blocks) + (f"<h3>settings</h3>{_wide(render(facts))}" if facts else "")


def _wide(content: str) -> str:
    return f'<div class="wide">{content}</div>'


def _cost(workdir: Path, metrics: list[dict] | None) -> str | None:
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
    waited = sum(row.get("data_wait_seconds") or 0.0 for row in metrics or [])
    if waited and run.get("train_seconds"):
        facts["waiting for data"] = f"{_percent(waited / run['train_seconds'])} of the training time"
    nested = {key: value for key, value in facts.items() if isinstance(value, dict)}
    plain = {key: value for key, value in facts.items() if key not in nested}
    return _wide(render(plain | nested))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _configuration(config: dict | None) -> str | None:
    if config is None:
        return None
    flat = {key: json.dumps(value) for key, value in flatten(config).items()}  # so that 1, 1.0 and "1" stay apart
    return f"<details><summary>{len(flat)} keys</summary>{_wide(render(flat))}</details>"
