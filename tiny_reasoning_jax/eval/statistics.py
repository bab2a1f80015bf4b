"""What graded samples say about accuracy, and how sure one may be of it.

Every accuracy comes with its 95 % interval (Wilson), every difference with its interval (paired bootstrap
over the problems) and its exact p-value (McNemar). What it refuses: an accuracy over no problems.
"""

import math
from collections import Counter
from collections.abc import Iterable

import numpy as np

Z_95 = 1.959963984540054  # two-sided 95 % point of the standard normal distribution
NUM_RESAMPLES = 2000


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """Returns the 95 % Wilson score interval (low, high) of a proportion; (0, 1) when nothing was seen.

    Unlike the textbook normal interval it never leaves [0, 1] and is honest at 0 % and 100 %.
    """
    assert 0 <= correct <= n, f"correct={correct} of n={n}"
    if n == 0:
        return 0.0, 1.0
    rate, z2 = correct / n, Z_95 * Z_95
    center = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(rate * (1 - rate) / n + z2 / (4 * n * n))
    # At the ends the formula gives exactly 0 or 1; rounding must not push the interval off the rate itself.
    low = 0.0 if correct == 0 else center - half
    high = 1.0 if correct == n else center + half
    return low, high


def cell(samples: list[dict]) -> dict:
    """Counts graded samples (dicts with "verdict" and "truncated").

    Returns: {"n", "correct", "accuracy" in [0, 1], "ci95": [low, high], "unparsed" and "truncated": counts}.
    A sample without a readable answer is not correct, so accuracy is over all n.
    """
    assert samples, "an accuracy over no problems means nothing"
    verdicts = Counter(str(sample["verdict"]) for sample in samples)
    assert verdicts.keys() <= {"correct", "wrong", "unparsed"}, f"unknown verdicts in {dict(verdicts)}"
    n, correct = len(samples), verdicts["correct"]
    return {
        "n": n,
        "correct": correct,
        "accuracy": correct / n,
        "ci95": list(wilson_interval(correct, n)),
        "unparsed": verdicts["unparsed"],
        "truncated": sum(bool(sample["truncated"]) for sample in samples),
    }


def summarize(samples: list[dict]) -> dict:
    """Returns the cell of all samples and the cells of their parts, only those that occur, in sorted order.

    Returns: cell + "by_category" {category: cell}, "by_difficulty" {"1".."5": cell} and
    "by_category_and_difficulty" {category: {"1".."5": cell}}.
    """
    by_category = _group(samples, "category")
    return {
        **cell(samples),
        "by_category": {name: cell(group) for name, group in by_category.items()},
        "by_difficulty": {level: cell(group) for level, group in _group(samples, "difficulty").items()},
        "by_category_and_difficulty": {
            name: {level: cell(part) for level, part in _group(group, "difficulty").items()}
            for name, group in by_category.items()
        },
    }


def _group(samples: list[dict], key: str) -> dict[str, list[dict]]:
    groups: dict[str, list[dict]] = {}
    for sample in samples:
        groups.setdefault(str(sample[key]), []).append(sample)
    return dict(sorted(groups.items()))


def paired_difference(before: Iterable[bool], after: Iterable[bool]) -> dict:
    """Compares two models on the same problems, given in the same order: was each problem solved?

    Returns: {"difference": accuracy after - before in [-1, 1], "ci95": [low, high] by a bootstrap over the
    problems (2,000 resamples, fixed seed), "p_value": exact two-sided McNemar test}. Where no problem changed
    sides the bootstrap has nothing to vary and its interval is a point.
    """
    before, after = np.asarray(list(before), bool), np.asarray(list(after), bool)
    assert before.shape == after.shape and before.size, f"unpaired or empty: {before.size} and {after.size}"
    n, num_lost, num_gained = before.size, int((before & ~after).sum()), int((after & ~before).sum())
    # A resample of n problems is a draw of how many of them are lost, gained and unchanged: the same
    # distribution as drawing problem by problem, for 2,000 x 3 numbers instead of 2,000 x n.
    shares = np.array([num_lost, num_gained, n - num_lost - num_gained]) / n
    draws = np.random.default_rng(0).multinomial(n, shares, size=NUM_RESAMPLES)
    low, high = np.quantile((draws[:, 1] - draws[:, 0]) / n, [0.025, 0.975])
    return {
        "difference": (num_gained - num_lost) / n,
        "ci95": [float(low), float(high)],
        "p_value": _mcnemar(num_lost, num_gained),
    }


def _mcnemar(num_lost: int, num_gained: int) -> float:
    """Exact two-sided p-value: were the changed problems a fair coin, how likely is a split this uneven?"""
    changed, rarer = num_lost + num_gained, min(num_lost, num_gained)
    tail = sum(math.comb(changed, k) for k in range(rarer + 1))
    return min(1.0, 2 * tail / 2**changed)  # integers of any size; Python divides them with one rounding
