"""What graded samples say about a model, and how sure one may be of it.

Every number is a mean over problems, and so is its uncertainty: samples of one problem are alike, and count as one
problem however many there are. With one sample a problem the 95 % interval is Wilson's, with several it is a
bootstrap that draws whole problems. Two models are compared on the problems that both were asked. What it refuses:
numbers over no problems, and problems with different numbers of samples.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import ndtr, stdtrit

from tiny_reasoning_jax import answers

Sample = dict[str, Any]  # one line of eval/samples.jsonl
Interval = tuple[float, float]

Z_95 = 1.959963984540054  # two-sided 95 % point of the standard normal distribution
NUM_RESAMPLES = 2000


# --- intervals ------------------------------------------------------------------------------------


def wilson_interval(correct: float, n: float) -> Interval:
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


def margin(n: int) -> float:
    """How far an accuracy of 50 % over n problems may be off: half of its 95 % interval, in [0, 0.5]."""
    low, high = wilson_interval(n / 2, n)
    return (high - low) / 2


def _bootstrap(scores: np.ndarray) -> np.ndarray:
    """95 % intervals [m, 2] of the means of scores [n, m], problems by m numbers; a constant column has a point.

    Percentiles of resampled means are too narrow for few problems: by sqrt((n - 1) / n), and because the spread is
    itself an estimate (Student's t). Percentiles further out make up for both.
    """
    n = len(scores)
    rows, counts = np.unique(scores, axis=0, return_counts=True)
    if len(rows) == 1:
        return np.repeat(rows.T, 2, axis=1)
    # Which problem has which score does not matter to a mean: resampling the rows' counts is the same distribution.
    means = np.random.default_rng(0).multinomial(n, counts / n, size=NUM_RESAMPLES) @ rows / n
    tail = ndtr(math.sqrt(n / (n - 1)) * stdtrit(n - 1, 0.025))
    return np.quantile(means, [tail, 1 - tail], axis=0).T


def _mean_intervals(scores: np.ndarray) -> list[Interval]:
    """95 % intervals of the means of scores [n, m] in [0, 1].

    Where all problems score the same the bootstrap has nothing to vary; n equal problems then say as much as n
    problems with one sample each.
    """
    intervals = []
    for column, (low, high) in zip(scores.T, _bootstrap(scores), strict=True):
        same = (column == column[0]).all()
        intervals.append(wilson_interval(float(column.sum()), len(column)) if same else (float(low), float(high)))
    return intervals


# --- one model ------------------------------------------------------------------------------------


class _Tally(NamedTuple):
    """One problem: its samples, how many are correct, and its score under majority vote (None: has none)."""

    samples: list[Sample]
    correct: int
    majority: float | None


def summarize(samples: list[Sample]) -> dict[str, Any]:
    """Returns the numbers of one model on one task: of all samples, and of their parts in sorted order.

    Args:
      samples: lines of samples.jsonl, as many for each problem.

    Returns:
      A cell + "grader" (versions) + "by_category" {category: cell}, "by_difficulty" {"1".."5": cell} and
      "by_category_and_difficulty" {category: {"1".."5": cell}}. A cell is
        n, num_samples: problems, and samples of each; correct: of all samples
        accuracy, ci95: mean over all samples, in [0, 1], and its interval
        pass_at, pass_at_ci95: {"1", "2", "4" .. num_samples: at least one of so many samples is correct, unbiased}
        maj_at_k, maj_at_k_ci95: the most frequent answer of the num_samples is correct, a tie counting in part;
          None with one sample, where nothing was answered, and where answers are not judged by comparison (programs,
          tasks with own judges)
        truncated, unparsed, unclosed, weak: samples cut off, without an answer, that still think at their end, and
          whose answer is merely their last number
        mean_tokens, tokens_per_correct: tokens of a completion; all tokens by correct samples, None without any.
    """
    tallies = _tally(samples)
    by_category = _group(tallies, "category")
    return {
        **_cell(tallies),
        "grader": ", ".join(sorted({str(sample["grader"]) for sample in samples})),
        "by_category": {name: _cell(part) for name, part in by_category.items()},
        "by_difficulty": {level: _cell(part) for level, part in _group(tallies, "difficulty").items()},
        "by_category_and_difficulty": {
            name: {level: _cell(cell) for level, cell in _group(part, "difficulty").items()}
            for name, part in by_category.items()
        },
    }


def _tally(samples: list[Sample]) -> list[_Tally]:
    assert samples, "numbers over no problems mean nothing"
    verdicts = {sample["verdict"] for sample in samples}
    assert verdicts <= {"correct", "wrong", "unparsed"}, f"unknown verdicts in {verdicts}"
    by_problem: dict[str, list[Sample]] = {}
    for sample in samples:
        by_problem.setdefault(sample["id"], []).append(sample)
    sizes = {len(part) for part in by_problem.values()}
    assert len(sizes) == 1, f"problems with different numbers of samples: {sorted(sizes)}"
    found = {sample["how"] for sample in samples} - {None}
    has_vote = sizes != {1} and bool(found) and not found & {"program", "task"}
    return [
        _Tally(part, sum(s["verdict"] == "correct" for s in part), _majority(part) if has_vote else None)
        for part in by_problem.values()
    ]


def _majority(samples: list[Sample]) -> float:
    """The share of the most frequent answers of one problem that is correct: 1, 0, or 1 / t if t answers tie.

    Samples without an answer have no vote. Correct answers equal the reference and so each other; wrong ones are
    compared only where that can decide, because it may take long.
    """
    correct = sum(sample["verdict"] == "correct" for sample in samples)
    wrong = Counter(sample["extracted"] for sample in samples if sample["verdict"] == "wrong")
    if correct > wrong.total():
        return 1.0
    if correct < max(wrong.values(), default=1):
        return 0.0
    votes = _merge_equal(wrong)
    return 1 / (1 + votes.count(correct)) if max(votes) <= correct else 0.0


def _merge_equal(texts: Counter[str]) -> list[int]:
    """How many votes each answer has when spellings of one answer are put together."""
    votes: dict[str, int] = {}
    for text, count in texts.most_common():
        same = next((known for known in votes if answers.equal(text, known)), text)
        votes[same] = votes.get(same, 0) + count
    return list(votes.values())


def _group(tallies: list[_Tally], key: str) -> dict[str, list[_Tally]]:
    groups: dict[str, list[_Tally]] = {}
    for tally in tallies:
        groups.setdefault(str(tally.samples[0][key]), []).append(tally)
    return dict(sorted(groups.items()))


def _cell(tallies: list[_Tally]) -> dict[str, Any]:
    samples = [sample for tally in tallies for sample in tally.samples]
    n, k = len(tallies), len(tallies[0].samples)
    correct = sum(tally.correct for tally in tallies)
    num_tokens = sum(sample["num_tokens"] for sample in samples)
    sizes = [size for size in (2**power for power in range(k.bit_length())) if size < k] + [k]
    scores = [[pass_at(k, tally.correct, size) for size in sizes] for tally in tallies]
    has_vote = tallies[0].majority is not None
    if has_vote:
        scores = [[*row, tally.majority] for row, tally in zip(scores, tallies, strict=True)]
    scores = np.array(scores)
    means, intervals = scores.mean(axis=0).tolist(), _mean_intervals(scores)
    if k == 1:
        intervals = [wilson_interval(correct, n)]
    names = list(map(str, sizes))
    return {
        "n": n,
        "num_samples": k,
        "correct": correct,
        "accuracy": correct / (n * k),
        "ci95": list(intervals[0]),
        "pass_at": dict(zip(names, means, strict=False)),
        "pass_at_ci95": dict(zip(names, map(list, intervals), strict=False)),
        "maj_at_k": means[-1] if has_vote else None,
        "maj_at_k_ci95": list(intervals[-1]) if has_vote else None,
        "truncated": sum(bool(sample["truncated"]) for sample in samples),
        "unparsed": sum(sample["verdict"] == "unparsed" for sample in samples),
        "unclosed": sum(bool(sample["unclosed"]) for sample in samples),
        "weak": sum(sample["how"] == "last number" for sample in samples),
        "mean_tokens": num_tokens / (n * k),
        "tokens_per_correct": num_tokens / correct if correct else None,
    }


def pass_at(num_samples: int, correct: int, size: int) -> float:
    """Chance that at least one of `size` samples is correct, drawn without replacement from num_samples.

    Unbiased for fresh samples, unlike 1 - (1 - correct / num_samples) ** size.
    """
    assert 0 <= correct <= num_samples and 1 <= size <= num_samples, (num_samples, correct, size)
    return 1.0 - math.comb(num_samples - correct, size) / math.comb(num_samples, size)


# --- two models -----------------------------------------------------------------------------------


def compare(before: list[Sample], after: list[Sample]) -> dict[str, Any] | None:
    """Compares two models on the problems of one task that both were asked; None if there is no such problem.

    Returns: {"n": those problems} and what `paired_difference` returns, for accuracies over all samples.
    """
    old, new = ({tally.samples[0]["id"]: tally for tally in _tally(samples)} for samples in (before, after))
    both = [name for name in old if name in new]
    if not both:
        return None
    k_old, k_new = (len(tallies[both[0]].samples) for tallies in (old, new))
    unit = math.lcm(k_old, k_new)
    changes = [new[name].correct * unit // k_new - old[name].correct * unit // k_old for name in both]
    return {"n": len(both), **_paired(np.array(changes), unit)}


def paired_difference(before: Iterable[bool], after: Iterable[bool]) -> dict[str, Any]:
    """Compares two models on the same problems, given in the same order: was each problem solved?

    Returns: {"difference": accuracy after - before in [-1, 1], "ci95": [low, high] by a bootstrap over the problems,
    "p_value": exact two-sided McNemar test}.
    """
    before, after = np.asarray(list(before), bool), np.asarray(list(after), bool)
    assert before.shape == after.shape and before.size, f"unpaired or empty: {before.size} and {after.size}"
    return _paired(after.astype(int) - before.astype(int), 1)


def _paired(changes: np.ndarray, unit: int) -> dict[str, Any]:
    """Difference, interval and p-value from each problem's change [n], in whole `unit`ths of a problem."""
    n = len(changes)
    ((low, high),) = _bootstrap(changes[:, None] / unit)
    if low == high:
        # All problems changed alike, and the bootstrap has nothing to vary: others may still do so, as seldom as
        # what was not seen in n problems may occur.
        unseen = wilson_interval(0, n)[1]
        low, high = max(-1.0, low - unseen), min(1.0, high + unseen)
    return {
        "difference": float(changes.sum() / unit / n),
        "ci95": [float(low), float(high)],
        "p_value": _sign_flip_test(changes),
    }


def _sign_flip_test(changes: np.ndarray) -> float:
    """Exact two-sided p-value of whole changes [n]; where they are -1, 0 and 1 it is McNemar's exact test.

    If the two models were equally good, every change might as well have been its opposite: of all 2^n ways to choose
    the signs, the share whose sum is as far from zero as the sum that was seen. The ways are counted through the
    characteristic function of the part of the total that is turned round, to about 1e-15.
    """
    sizes, counts = np.unique(np.abs(changes[changes != 0]), return_counts=True)
    total = int((sizes * counts).sum())
    turns = np.exp(-2j * np.pi * np.arange(total + 1) / (total + 1))
    spectrum = np.ones(total + 1, complex)
    for size, count in zip(sizes, counts, strict=True):
        spectrum *= ((1 + turns**size) / 2) ** count
    chances = np.fft.ifft(spectrum).real
    is_as_far = np.abs(total - 2 * np.arange(total + 1)) >= abs(int(changes.sum()))
    return float(np.clip(chances[is_as_far].sum(), 0.0, 1.0))
