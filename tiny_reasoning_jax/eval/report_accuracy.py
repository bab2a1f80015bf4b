"""The report's numbers: what the models of results.json can do, by task, with how sure one may be of it."""

import html
from collections.abc import Callable
from urllib.parse import urlencode

import numpy as np

from tiny_reasoning_jax.eval import report_plots
from tiny_reasoning_jax.eval.report_page import figure, percent, wide
from tiny_reasoning_jax.eval.results import LABELS
from tiny_reasoning_jax.eval.statistics import margin

Cells = dict[str, dict]  # {label: cell}, labels in the order of LABELS
TITLES = {"before": "before training", "after": "after training", "model": "the model"}
OUTCOMES = ("correct", "wrong", "no answer", "cut off")
# What a number depends on.
ASKED = ("protocol", "thinking", "instruction", "temperature", "top_p", "top_k", "max_new_tokens")
TEST_SIZES = (30, 164, 500, 1319)  # problems of AIME, HumanEval, MATH-500, GSM8K


def tasks_of(results: dict) -> list[str]:
    """Task names in the order of results.json, those of the trained model first."""
    return list(
        dict.fromkeys(task for label in reversed(LABELS) for task in results.get(label, {"tasks": {}})["tasks"])
    )


def _cells(results: dict, task: str) -> Cells:
    found = {label: results[label]["tasks"].get(task) for label in LABELS if label in results}
    return {label: cell for label, cell in found.items() if cell is not None}


def _main(cells: Cells) -> str:
    """The label of the model that is shown where there is room for one only."""
    return next(label for label in ("after", "model", "before") if label in cells)


def _interval(ci95: list[float]) -> str:
    return f"{100 * ci95[0]:.1f}\u2013{100 * ci95[1]:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _p_value(value: float) -> str:
    return "p &lt; 0.001" if value < 0.001 else f"p = {value:.3f}"


# --- headline -------------------------------------------------------------------------------------


def headline(results: dict) -> str:
    """The page's first lines: one task's accuracies, or a table of several tasks'."""
    tasks = tasks_of(results)
    if len(tasks) == 1:
        sentence, rest = _verdict_on(results, tasks[0])
        return f"<h1>{sentence}</h1>{rest}"
    comparisons = [results["comparison"][task] for task in tasks if task in results.get("comparison", {})]
    rose, fell = (
        sum(is_sure(c["ci95"]) for c in comparisons) for is_sure in (lambda ci: ci[0] > 0, lambda ci: ci[1] < 0)
    )
    change = f": {rose} rose, {fell} fell, {len(comparisons) - rose - fell} without a clear difference"
    return f"<h1>Accuracy on {len(tasks)} tasks{change if comparisons else ''}</h1>{_overview(results, tasks)}"


def _overview(results: dict, tasks: list[str]) -> str:
    labels = [label for label in LABELS if label in results]
    is_paired = bool(results.get("comparison"))
    rows = []
    for task in tasks:
        cells, comparison = _cells(results, task), results.get("comparison", {}).get(task)
        problems = f"<td>{cells[_main(cells)]['n']:,}</td>"
        accuracies = "".join(_accuracy_cell(cells.get(label)) for label in labels)
        change = "<td></td><td></td>" if is_paired else ""
        if comparison:
            low, high = comparison["ci95"]
            interval = f"<small>{_points(low)} to {_points(high)}</small>"
            change = (
                f"<td>{_points(comparison['difference'])} {interval}</td><td>{_p_value(comparison['p_value'])}</td>"
            )
        rows.append(f"<tr><th>{html.escape(task)}</th>{problems}{accuracies}{change}</tr>")
    titles = ["", "problems", *labels, *(["points", "paired test"] if is_paired else [])]
    head = "".join(f"<th>{title}</th>" for title in titles)
    table = f'<table class="numbers overview"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return wide(table) + '<p class="note">Accuracy in %, each with its 95 % interval; details of each task below.</p>'


def _verdict_on(results: dict, task: str) -> tuple[str, str]:
    """One task's accuracies as a sentence, and as figures with the paired test under them."""
    cells, comparison = _cells(results, task), results.get("comparison", {}).get(task)
    where = f"on {cells[_main(cells)]['n']:,} test problems ({html.escape(task)})"
    if comparison is None:
        parts = [f"{TITLES[label]} {percent(cell['accuracy'])}" for label, cell in cells.items()]
        return f"Accuracy: {', '.join(parts)} {where}", _figures(cells)
    low, high = comparison["ci95"]
    verb = "rose" if low > 0 else "fell" if high < 0 else "went"
    accuracies = [percent(cells[label]["accuracy"]) for label in ("before", "after")]
    is_greedy = all(cells[label]["num_samples"] == 1 for label in ("before", "after"))
    test = "exact McNemar test" if is_greedy else "exact sign-flip test over the problems (McNemar's with one sample)"
    note = (
        f"Difference {_points(comparison['difference'])} points, 95 % interval {_points(low)} to {_points(high)} "
        f"(bootstrap over the {comparison['n']:,} problems that both were asked); {test} "
        f"{_p_value(comparison['p_value'])}."
    )
    if low <= 0 <= high:
        note += " The interval holds zero: these problems show no clear difference."
    sentence = f"Accuracy {verb} from {accuracies[0]} to {accuracies[1]} {where}"
    return sentence, f'{_figures(cells)}<p class="note">{note}</p>'


def _figures(cells: Cells) -> str:
    figures = []
    for label, cell in cells.items():
        total = cell["n"] * cell["num_samples"]
        arrow = "<i>&rarr;</i>" if label == "after" and "before" in cells else ""
        each = f", {cell['num_samples']} a problem" if cell["num_samples"] > 1 else ""
        figures.append(
            f'{arrow}<div class="{label}"><span>{TITLES[label]}</span><b>{percent(cell["accuracy"])}</b>'
            f"<small>95 % interval {_interval(cell['ci95'])}</small>"
            f"<small>{cell['correct']:,} of {total:,} right{each}</small></div>"
        )
    return f'<div class="figures">{"".join(figures)}</div>'


# --- all numbers ----------------------------------------------------------------------------------


def accuracy(results: dict | None, samples: list[dict]) -> str | None:
    """Every number of every task, with plots; None without results."""
    if results is None:
        return None
    tasks, parts = tasks_of(results), []
    for number, task in enumerate(tasks):
        cells = _cells(results, task)
        if len(tasks) > 1:
            sentence, rest = _verdict_on(results, task)
            parts.append(f'<h3 class="task">{sentence}</h3>{rest}')
        asked = [sample for sample in samples if sample["task"] == task]
        parts += [_numbers(cells), _parts(task, cells, f"bars{number}"), _lengths(asked, f"lengths{number}")]
    return "".join(parts) + _margins(results) + _models(results)


def _numbers(cells: Cells) -> str:
    """All that a cell holds, a row for each number and a column for each model."""
    shown = cells[_main(cells)]
    k = shown["num_samples"]
    share = lambda name: lambda cell: f"{100 * cell[name] / (cell['n'] * cell['num_samples']):.1f}"
    rows = {f"accuracy, mean of {k} samples" if k > 1 else "accuracy": _with_interval("accuracy", "ci95")}
    for size in list(shown["pass_at"])[1:]:
        rows[f"pass@{size}: one of {size} samples is right"] = _with_interval("pass_at", "pass_at_ci95", size)
    if shown["maj_at_k"] is not None:
        rows[f"maj@{k}: the most frequent answer is right"] = _with_interval("maj_at_k", "maj_at_k_ci95")
    rows |= {
        "no answer": share("unparsed"),
        "no answer, still thinking at the end": share("unclosed"),
        "cut off at the longest length": share("truncated"),
        "weak: only the last number": share("weak"),
        "tokens of a completion, mean": lambda cell: f"{cell['mean_tokens']:,.0f}",
        "tokens for each right answer": lambda cell: (
            "none right" if cell["tokens_per_correct"] is None else f"{cell['tokens_per_correct']:,.0f}"
        ),
    }
    head = "".join(f"<th>{label}</th>" for label in cells)
    body = "".join(
        f"<tr><th>{name}</th>{''.join(f'<td>{show(cell)}</td>' for cell in cells.values())}</tr>"
        for name, show in rows.items()
    )
    sizes = " and ".join(
        dict.fromkeys(f"{cell['n']:,} problems, {cell['num_samples']} of each" for cell in cells.values())
    )
    return (
        f'<div class="wide"><table class="numbers all"><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody>'
        f'</table></div><p class="note">In % of the samples ({sizes}), with 95 % intervals: Wilson&rsquo;s where there '
        "is one sample of a problem, otherwise a bootstrap over the problems. A completion without an answer counts "
        "as not right.</p>"
    )


def _with_interval(name: str, interval: str, size: str | None = None) -> Callable[[dict], str]:
    def show(cell: dict) -> str:
        value, ci95 = (cell[name], cell[interval]) if size is None else (cell[name].get(size), cell[interval].get(size))
        return "&ndash;" if value is None else f"{100 * value:.1f} <small>{_interval(ci95)}</small>"

    return show


def _margins(results: dict) -> str:
    """How far a number may be off by its number of problems alone."""
    own = {cell["n"] for task in tasks_of(results) for cell in _cells(results, task).values()}
    sizes = [
        f"{'<b>' if n in own else ''}{n:,} problems &plusmn;{100 * margin(n):.1f}{'</b>' if n in own else ''}"
        for n in sorted(own | set(TEST_SIZES))
    ]
    return (
        f'<p class="note" id="margins">How far an accuracy near 50 % may be off by chance, in points (95 %, one sample '
        f"of a problem): {', '.join(sizes)}. More samples of the same problems take away the part of it that lies in "
        "the draws; the part that lies in the choice of the problems stays.</p>"
    )


def _models(results: dict) -> str:
    lines = []
    for label in LABELS:
        if label in results:
            settings = results[label]["settings"]
            facts = {name: settings["eval"][name] for name in ASKED} | {"seed": settings["seed"]}
            asked = ", ".join(f"{name} {value}" for name, value in facts.items() if value != "")
            graders = sorted({summary["grader"] for summary in results[label]["tasks"].values()})
            name = html.escape(str(results[label]["model"]))
            lines.append(
                f"{label}: <code>{name}</code> ({html.escape(asked)}; grader {html.escape(', '.join(graders))})"
            )
    records = {task: n for label in LABELS for task, n in results.get(label, {}).get("unusable_records", {}).items()}
    unusable = "".join(f" {n:,} records of {html.escape(task)} could not be asked." for task, n in records.items())
    return f'<p class="note">Models: {"; ".join(lines)}.{unusable}</p>'


# --- parts ----------------------------------------------------------------------------------------


def _parts(task: str, cells: Cells, name: str) -> str:
    """The accuracies by category and difficulty; empty for a task that has one of each."""
    groups = _groups(cells)
    if len(groups["category"]) == len(groups["difficulty"]) == 1:
        return ""
    panels = {"all and by category": groups["all"] | groups["category"], "by difficulty": groups["difficulty"]}
    of = " before (grey) and after training" if {"before", "after"} <= cells.keys() else ""
    bars = figure(report_plots.plot_bars(panels, name), f"Accuracy{of}, with 95 % intervals.")
    return bars + _parts_table(groups) + _heat_map(task, cells)


def _groups(cells: Cells) -> dict[str, dict[str, Cells]]:
    """Returns {"all": ..., "category": ..., "difficulty": ...}, each {name: {label: cell}}."""
    groups: dict[str, dict[str, Cells]] = {"all": {"all problems": cells}}
    for kind in ("category", "difficulty"):
        names = sorted({name for summary in cells.values() for name in summary[f"by_{kind}"]})
        parts = {label: summary[f"by_{kind}"] for label, summary in cells.items()}
        groups[kind] = {name: {label: part[name] for label, part in parts.items() if name in part} for name in names}
    return groups


def _parts_table(groups: dict[str, dict[str, Cells]]) -> str:
    labels = list(groups["all"]["all problems"])
    bodies = []
    for kind, parts in groups.items():
        prefix = "difficulty " if kind == "difficulty" else ""
        lines = [_parts_row(prefix + name, cells, labels) for name, cells in parts.items()]
        bodies.append(f'<tbody class="{kind}">{"".join(lines)}</tbody>')
    change = ["points"] if {"before", "after"} <= set(labels) else []
    head = "".join(f"<th>{title}</th>" for title in ("", "n", *labels, *change, "no answer", "cut off"))
    return (
        f'<div class="wide"><table class="numbers"><thead><tr>{head}</tr></thead>{"".join(bodies)}</table>'
        f'</div><p class="note">In %, by n problems. The last two columns are of &ldquo;{_main(labels)}&rdquo;.</p>'
    )


def _parts_row(name: str, cells: Cells, labels: list[str]) -> str:
    change = ""
    if {"before", "after"} <= set(labels):
        both = {"before", "after"} <= cells.keys()
        change = f"<td>{_points(cells['after']['accuracy'] - cells['before']['accuracy']) if both else ''}</td>"
    shown = cells[_main(cells)]
    total = shown["n"] * shown["num_samples"]
    accuracies = "".join(_accuracy_cell(cells.get(label)) for label in labels)
    counts = "".join(f"<td>{100 * shown[key] / total:.1f}</td>" for key in ("unparsed", "truncated"))
    return f"<tr><th>{html.escape(name)}</th><td>{shown['n']:,}</td>{accuracies}{change}{counts}</tr>"


def _accuracy_cell(cell: dict | None) -> str:
    if cell is None:
        return "<td>&ndash;</td>"
    return f"<td>{100 * cell['accuracy']:.1f} <small>{_interval(cell['ci95'])}</small></td>"


def _heat_map(task: str, cells: Cells) -> str:
    label = _main(cells)
    shown = cells[label]["by_category_and_difficulty"]
    old = cells["before"]["by_category_and_difficulty"] if label == "after" and "before" in cells else {}
    levels = sorted({level for part in shown.values() for level in part})
    lines = []
    for category, part in shown.items():
        line = []
        for level in levels:
            address = urlencode(
                {"task": task, "model": label, "category": category, "difficulty": level}, errors="replace"
            )
            line.append(_heat_cell(old.get(category, {}).get(level), part.get(level), html.escape(address)))
        lines.append(f"<tr><th>{html.escape(category)}</th>{''.join(line)}</tr>")
    head = "".join(f"<th>difficulty {html.escape(level)}</th>" for level in levels)
    return (
        '<h3>Category &times; difficulty</h3><div class="wide"><table class="heat"><thead>'
        f"<tr><th></th>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
        f'<p class="note">Accuracy in %{", before &rarr; after" if old else ""}; each leads to its samples.</p>'
    )


def _heat_cell(old: dict | None, cell: dict | None, address: str) -> str:
    if cell is None:
        return "<td></td>"
    was = f"{100 * old['accuracy']:.0f} &rarr; " if old else ""
    return (
        f'<td style="--heat:{cell["accuracy"]:.3f}" title="95 % interval {_interval(cell["ci95"])}">'
        f'<a href="#samples?{address}"><small>{was}</small><b>{100 * cell["accuracy"]:.0f}</b>'
        f"<small>n = {cell['n']:,}</small></a></td>"
    )


# --- lengths --------------------------------------------------------------------------------------


def outcome(sample: dict) -> str:
    """One of OUTCOMES: what became of a sample, each sample being one thing only."""
    if sample["verdict"] == "correct":
        return "correct"
    if sample["truncated"]:
        return "cut off"
    return "wrong" if sample["verdict"] == "wrong" else "no answer"


def _lengths(samples: list[dict], name: str) -> str:
    """Completion tokens against what became of them; empty where there are no samples."""
    panels, medians = {}, []
    for label in LABELS:
        by_outcome: dict[str, list[int]] = {kind: [] for kind in OUTCOMES}
        for sample in samples:
            if sample["model"] == label:
                by_outcome[outcome(sample)].append(sample["num_tokens"])
        if any(by_outcome.values()):
            panels[label] = by_outcome
            kinds = [f"{kind} {np.median(tokens):,.0f}" for kind, tokens in by_outcome.items() if tokens]
            medians.append(f"{label}: {', '.join(kinds)}")
    if not panels:
        return ""
    caption = (
        "Completions by their length in tokens and what became of them; under it the share that is correct, by "
        f"groups of like length, with Wilson intervals as if samples were independent. Medians: {'; '.join(medians)}."
    )
    return figure(report_plots.plot_lengths(panels, name), caption)
