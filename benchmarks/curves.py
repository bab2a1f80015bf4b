"""Loss curves of several trainings on the same batches: overlaid, and how far they lie from ours."""

from pathlib import Path

import numpy as np


def compare_losses(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Largest difference within the first step, the first 10, and every further stretch of the steps that both did."""
    difference = distance(ours, theirs)
    ends = [end for end in (1, 10, 50, 100, 200, 400, 800) if end < len(difference)] + [len(difference)]
    starts = [0, *ends[:-1]]
    return {f"steps {a + 1}-{b}": float(difference[a:b].max()) for a, b in zip(starts, ends, strict=True)}


def distance(ours: list[float], theirs: list[float]) -> np.ndarray:
    """Of every step that both did."""
    both = min(len(ours), len(theirs))
    return np.abs(np.array(ours[:both]) - np.array(theirs[:both]))


def thin(losses: list[float], most: int = 100) -> dict[str, list[float]]:
    steps = np.unique(np.linspace(1, len(losses), min(most, len(losses))).astype(int))
    return {"steps": steps.tolist(), "losses": [round(losses[step - 1], 6) for step in steps]}


def plot(curves: dict[str, list[float]], path: Path) -> None:
    """Losses overlaid, and their distance from ours below."""
    import matplotlib  # here: the figures need none

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7, 6), sharex=True, height_ratios=[3, 2])
    for number, (name, losses) in enumerate(curves.items()):
        steps = np.arange(1, len(losses) + 1)
        above.plot(steps, losses, label=name, linewidth=3.5 - number, alpha=0.8)
        if name != "ours":
            apart = np.maximum(distance(curves["ours"], losses), 1e-9)
            below.semilogy(steps[: len(apart)], apart, color=f"C{number}", linewidth=0.8, label=f"|{name} - ours|")
    above.set_ylabel("loss of the step")
    below.set_ylabel("difference")
    below.set_xlabel("step")
    for axes in (above, below):
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def compare_curves(curves: dict[str, list[float]]) -> dict:
    """The largest differences from ours, and the curves thinned; nothing without ours."""
    if "ours" not in curves:
        return {}
    differences = {n: compare_losses(curves["ours"], losses) for n, losses in curves.items() if n != "ours"}
    return {"largest_loss_difference_from_ours": differences, "losses": {n: thin(ls) for n, ls in curves.items()}}
