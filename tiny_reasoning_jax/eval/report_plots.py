"""The report's plots, drawn by matplotlib and returned as inline SVG in the colours of the page's theme."""

import io
import re

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator

from tiny_reasoning_jax.eval.statistics import wilson_interval

MAX_CURVE_POINTS = 1500  # of one plotted line, to bound the size of the page

# matplotlib writes literal colours. These stand for the page's CSS variables and are replaced by them.
_INK, _MUTED, _LINE = "#010101", "#020202", "#030303"
_BEFORE, _AFTER, _WARM, _GOOD, _BAD = "#040404", "#050505", "#060606", "#070707", "#080808"
_LEVELS = ("#0a0a0a", "#0b0b0b", "#0c0c0c", "#0d0d0d", "#0e0e0e")  # difficulties, easy to hard
_VARIABLES = {
    _INK: "ink", _MUTED: "muted", _LINE: "line", _BEFORE: "before", _AFTER: "after", _WARM: "warm",
    _GOOD: "good", _BAD: "bad",
    **{color: f"level-{level}" for level, color in enumerate(_LEVELS, start=1)},
}  # fmt: skip
_BARS = {"before": _BEFORE, "after": _AFTER, "model": _AFTER}
_STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "report", "font.size": 8.5, "text.parse_math": False,
    "text.color": _INK, "axes.labelcolor": _MUTED, "axes.titlecolor": _INK, "axes.titlesize": 9,
    "axes.edgecolor": _LINE, "axes.spines.top": False, "axes.spines.right": False,
    "axes.spines.left": False, "axes.grid": True, "axes.grid.axis": "y", "axes.axisbelow": True,
    "grid.color": _LINE, "grid.linewidth": 0.7, "xtick.color": _LINE, "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED, "ytick.labelcolor": _MUTED, "ytick.major.size": 0,
}  # fmt: skip
_ROUND_STEPS = [1, 2, 2.5, 5, 10]


def plot_loss(rows: list[dict], validated: list[dict], interrupted: list[int]) -> str:
    """Loss by step, each step and their running mean, with the rows that hold a "validation_loss" as dots.

    The steps from which an interrupted run went on are dashed lines.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10, 3.4), layout="constrained")
        axes = figure.subplots()
        thin = _thinned(rows, MAX_CURVE_POINTS)
        steps, loss = _column(rows, "step"), _column(rows, "loss")
        axes.plot(steps[thin], loss[thin], color=_AFTER, alpha=0.35, linewidth=0.8)
        axes.plot(steps[thin], _running_mean(loss)[thin], color=_AFTER, linewidth=2, label="training")
        if validated:
            points = _column(validated, "step"), _column(validated, "validation_loss")
            axes.plot(*points, "o", color=_WARM, markersize=4.5, label="validation")
        for step in interrupted:
            label = "interrupted" if step == interrupted[0] else None
            axes.axvline(step, color=_MUTED, linestyle="--", linewidth=1, label=label)
        axes.set(xlabel="step", ylabel="loss, nats per token")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.015)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=_ROUND_STEPS))
        axes.legend(frameon=False, labelcolor=_INK)
        return _to_svg(figure, "loss", "Training loss by step")


def plot_rates(rows: list[dict]) -> str:
    """Three small panels by step: learning rate, throughput, gradient norm."""
    panels = {
        "learning_rate": "learning rate",
        "tokens_per_second": "tokens per second",
        "grad_norm": "gradient norm",
    }
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10, 2), layout="constrained")
        figure.get_layout_engine().set(wspace=0.04)
        thin = _thinned(rows, MAX_CURVE_POINTS // 3)
        for axes, (key, title) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            axes.plot(_column(rows, "step")[thin], _column(rows, key)[thin], color=_AFTER, linewidth=1.2)
            axes.set_title(title, loc="left")
            axes.set_ylim(bottom=0)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=_ROUND_STEPS))
            axes.yaxis.set_major_locator(MaxNLocator(4, steps=_ROUND_STEPS))
            axes.yaxis.set_major_formatter(EngFormatter(sep="") if key == "tokens_per_second" else "{x:g}")
        return _to_svg(figure, "rates", "Learning rate, throughput and gradient norm by step")


def plot_mixture(rows: list[dict], title: str) -> str:
    """Share of the tokens by difficulty as stacked areas; under it, if any row has "pass_rate_*", those by step."""
    probed = any("pass_rate" in key for row in rows for key in row)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10, 4.6 if probed else 2.4), layout="constrained")
        figure.get_layout_engine().set(hspace=0.06)
        panels = figure.subplots(1 + probed, sharex=True, squeeze=False)[:, 0]
        thin = _thinned(rows, MAX_CURVE_POINTS // 5)
        shares = [100 * _running_mean(_column(rows, f"mixture_{level}"))[thin] for level in range(1, 6)]
        labels = ["difficulty 1, easy", "2", "3", "4", "5, hard"]
        panels[0].stackplot(_column(rows, "step")[thin], shares, colors=_LEVELS, labels=labels, linewidth=0)
        panels[0].set_title("share of the tokens trained on", loc="left")
        panels[0].legend(
            loc="lower right", bbox_to_anchor=(1, 0.97), ncols=5, frameon=False, labelcolor=_INK, handlelength=1.2
        )
        for level, color in enumerate(_LEVELS, start=1):
            key = f"pass_rate_{level}"
            asked = [row for row in rows if row.get(key) is not None]
            if asked:
                points = _column(asked, "step"), 100 * _column(asked, key)
                panels[1].plot(*points, "o-", color=color, markersize=4, linewidth=1.8, clip_on=False)
        if probed:
            panels[1].set_title(title, loc="left")
        for axes in panels:
            axes.set_ylim(0, 100)
            axes.set_yticks([0, 25, 50, 75, 100])
            axes.margins(x=0.015)
            axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=_ROUND_STEPS))
            axes.yaxis.set_major_formatter("{x:g} %")
        panels[-1].set_xlabel("step")
        return _to_svg(figure, "mixture", "Mixture of difficulties and accuracy by difficulty, by step")


def plot_bars(panels: dict[str, dict[str, dict[str, dict]]], name: str) -> str:
    """Bars with 95 % error bars: {panel title: {group: {label of a model: cell}}}."""
    labels = list(dict.fromkeys(label for groups in panels.values() for cells in groups.values() for label in cells))
    width = 0.76 / len(labels)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10, 3.2), layout="constrained")
        figure.get_layout_engine().set(wspace=0.04)
        ratios = [max(2, len(groups)) for groups in panels.values()]
        grid = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=ratios)[0]
        for axes, (title, groups) in zip(grid, panels.items(), strict=True):
            for number, label in enumerate(labels):
                offset = (number - (len(labels) - 1) / 2) * width
                bars = [(x + offset, cells[label]) for x, cells in enumerate(groups.values()) if label in cells]
                height = np.array([100 * cell["accuracy"] for _, cell in bars])
                ends = 100 * np.array([cell["ci95"] for _, cell in bars]).reshape(-1, 2).T
                error = {"yerr": np.abs(ends - height), "ecolor": _INK, "capsize": 2.5}
                axes.bar([x for x, _ in bars], height, 0.9 * width, color=_BARS[label], alpha=0.8, **error)
            ticks = [group if len(group) <= 14 else group[:13] + "\u2026" for group in groups]
            slant = {"rotation": 30, "ha": "right"} if sum(map(len, ticks)) > 60 else {}
            axes.set_xticks(range(len(groups)), ticks, **slant)
            axes.set_title(title, loc="left")
            axes.set_ylim(0, 101)
            axes.tick_params(axis="x", length=0)
        grid[0].set_ylabel("accuracy, %")
        return _to_svg(figure, name, "Accuracy with error bars")


def plot_lengths(panels: dict[str, dict[str, list[int]]], name: str) -> str:
    """Completion tokens by outcome, {label of a model: {outcome: tokens of its samples}}, and the share correct."""
    colors = {"correct": _GOOD, "wrong": _BAD, "no answer": _WARM, "cut off": _MUTED}
    tokens = [np.concatenate([np.array(part, int) for part in panel.values()]) for panel in panels.values()]
    longest, shortest = max(map(np.max, tokens)), max(1, min(map(np.min, tokens)))
    bins = np.geomspace(shortest, max(longest, shortest + 1) * 1.0001, 33)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10, 4), layout="constrained")
        grid = figure.subplots(2, len(panels), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 2))
        for column, (label, panel) in enumerate(panels.items()):
            counts, shares = grid[:, column]
            parts = [np.maximum(part, shortest) for part in panel.values()]
            color = [colors[outcome] for outcome in panel]
            counts.hist(parts, bins, stacked=True, color=color, label=list(panel), alpha=0.85, linewidth=0)
            counts.set_title(label, loc="left")
            x, share, error = _shares_by_length(panel)
            shares.errorbar(
                x, share, error, fmt="o-", color=_GOOD, ecolor=_MUTED, markersize=4, capsize=2, linewidth=1.2
            )
            shares.set(xscale="log", ylim=(0, 101), xlabel="tokens of the completion")
            shares.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            shares.xaxis.set_minor_locator(NullLocator())
            shares.xaxis.set_major_formatter("{x:,.0f}")
        grid[0, 0].set_ylabel("completions")
        grid[1, 0].set_ylabel("correct, %")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=4, frameon=False)
        return _to_svg(figure, name, "Completions by length and outcome, and the share correct by length")


def _shares_by_length(panel: dict[str, list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median tokens, % correct and its error bars [2, groups] of up to eight groups of like length."""
    rows = sorted((length, outcome == "correct") for outcome, part in panel.items() for length in part)
    groups = [np.array(part) for part in np.array_split(rows, min(8, len(rows)))]
    share = np.array([100 * part[:, 1].mean() for part in groups])
    ends = 100 * np.array([wilson_interval(int(part[:, 1].sum()), len(part)) for part in groups]).T
    return np.array([max(1, np.median(part[:, 0])) for part in groups]), share, np.abs(ends - share)


def _column(rows: list[dict], key: str) -> np.ndarray:
    return np.array([np.nan if row.get(key) is None else row[key] for row in rows], dtype=float)


def _thinned(rows: list[dict], num_points: int) -> slice:
    return slice(None, None, -(-len(rows) // num_points))


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of a 25th of the curve, narrower towards the ends so that it never lags."""
    index = np.arange(len(values))
    half = np.minimum(np.minimum(index, index[::-1]), len(values) // 50)
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    num_known = counts[index + half + 1] - counts[index - half]
    total = sums[index + half + 1] - sums[index - half]
    return np.where(num_known > 0, total / np.maximum(num_known, 1), np.nan)


def _to_svg(figure: Figure, name: str, label: str) -> str:
    """Renders a figure as inline SVG without namespaces or style sheet, its ids prefixed by name."""
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    svg = buffer.getvalue().partition("<svg")[2]
    view_box = re.search(r'viewBox="[^"]*"', svg).group()
    svg = svg.partition(">")[2]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", svg).replace("xlink:href", "href")
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    return f'<svg class="plot" {view_box} role="img" aria-label="{label}">{svg}'
