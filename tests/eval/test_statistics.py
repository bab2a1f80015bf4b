"""Run: pytest tests/eval/test_statistics.py. Against published numbers, scipy, brute force and simulations."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from tiny_reasoning_jax.eval.statistics import (
    _mean_intervals,
    compare,
    margin,
    paired_difference,
    pass_at,
    summarize,
    wilson_interval,
)


def make_sample(id, verdict, sample=0, category="algebra", difficulty=1, extracted="7", **more):
    if verdict == "unparsed":
        extracted = None
    return {
        "id": id, "sample": sample, "category": category, "difficulty": difficulty, "extracted": extracted,
        "how": "boxed" if extracted else None, "verdict": verdict, "truncated": False, "unclosed": False,
        "num_tokens": 10, "grader": "2", **more,
    }  # fmt: skip


def make_samples(table):
    """Samples of an evaluation [problems, k] of bools."""
    verdicts = {True: "correct", False: "wrong"}
    return [
        make_sample(str(row), verdicts[bool(right)], column, extracted="1" if right else "2")
        for row, part in enumerate(table)
        for column, right in enumerate(part)
    ]


def draw_evaluation(rng, n, k, alpha, beta):
    """An evaluation [n, k] of problems that differ: each is solved with its own probability."""
    return rng.random((n, k)) < rng.beta(alpha, beta, size=(n, 1))


# --- intervals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    # Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998),
    # table I, method 3 (score interval without continuity correction), four decimals.
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_matches_published_numbers(correct, n, low, high):
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)
    mirrored = wilson_interval(n - correct, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_interval_is_scipys_and_holds_the_rate():
    for n in (1, 2, 7, 164, 500):
        for correct in range(n + 1):
            low, high = wilson_interval(correct, n)
            assert 0.0 <= low <= correct / n <= high <= 1.0
            reference = stats.binomtest(correct, n).proportion_ci(method="wilson")
            assert (low, high) == pytest.approx((reference.low, reference.high), abs=1e-12)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(AssertionError):
        wilson_interval(3, 2)


def test_margin_is_half_the_interval_at_one_half():
    for n, points in ((30, 16.8), (164, 7.6), (500, 4.4), (1319, 2.7)):
        assert 100 * margin(n) == pytest.approx(points, abs=0.05)
        # Solved for n, Wilson's half width at 1/2 is z / 2 / sqrt(n + z^2).
        assert margin(n) == pytest.approx(stats.norm.ppf(0.975) / 2 / math.sqrt(n + stats.norm.ppf(0.975) ** 2))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_wilson_interval_covers_about_95_percent(rate):
    counts = np.random.default_rng(0).binomial(100, rate, size=2000)
    low, high = np.array([wilson_interval(int(count), 100) for count in counts]).T
    assert np.mean((low <= rate) & (rate <= high)) == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize(
    # Problems that differ as in a uniform law, that are mostly solved always or never, and very few of them.
    ("n", "k", "alpha", "beta"),
    [(30, 4, 2, 1.7), (60, 4, 0.3, 0.5), (12, 8, 1, 1), (500, 4, 1, 0.3)],
)
def test_intervals_of_several_samples_cover_95_percent_of_2000_simulated_evaluations(n, k, alpha, beta):
    rng, truth = np.random.default_rng(7), alpha / (alpha + beta)
    rates = [draw_evaluation(rng, n, k, alpha, beta).mean(axis=1, keepdims=True) for _ in range(2000)]
    low, high = np.concatenate([_mean_intervals(scores) for scores in rates]).T
    assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(0.95, abs=0.02)
    assert np.mean(truth < low) < 0.035 and np.mean(truth > high) < 0.035


def test_interval_of_several_samples_is_a_bootstrap_over_problems():
    table = draw_evaluation(np.random.default_rng(0), 400, 4, 1, 1)
    rates = table.mean(axis=1)
    plain = stats.bootstrap([rates], np.mean, n_resamples=20_000, method="percentile", random_state=1)
    summary = summarize(make_samples(table))
    assert summary["ci95"] == pytest.approx(list(plain.confidence_interval), abs=0.004)
    assert summary == summarize(make_samples(table))  # seeded
    wilson = np.diff(wilson_interval(table.sum(), table.size))[0]
    assert np.diff(summary["ci95"])[0] > 1.3 * wilson  # as if 1,600 problems had been asked


def test_problems_that_all_score_alike_still_leave_doubt():
    for rate in (0, 2, 4):
        table = np.tile(np.arange(4) < rate, (20, 1))
        assert summarize(make_samples(table))["ci95"] == pytest.approx(wilson_interval(5 * rate, 20))


# --- one model ------------------------------------------------------------------------------------


def test_a_cell_counts_every_sample_once():
    samples = [
        make_sample("a", "correct", num_tokens=40),
        make_sample("b", "wrong", how="last number"),
        make_sample("c", "unparsed", truncated=True, unclosed=True, num_tokens=100),
        make_sample("d", "unparsed"),
    ]
    summary = summarize(samples)
    parts = [summary.pop(name) for name in ("by_category", "by_difficulty", "by_category_and_difficulty")]
    assert parts[0] == {"algebra": {k: v for k, v in summary.items() if k != "grader"}}
    assert summary == {
        "n": 4, "num_samples": 1, "correct": 1, "accuracy": 0.25, "ci95": list(wilson_interval(1, 4)),
        "pass_at": {"1": 0.25}, "pass_at_ci95": {"1": list(wilson_interval(1, 4))},
        "maj_at_k": None, "maj_at_k_ci95": None, "truncated": 1, "unparsed": 2, "unclosed": 1, "weak": 1,
        "mean_tokens": 40.0, "tokens_per_correct": 160.0, "grader": "2",
    }  # fmt: skip
    assert summarize(samples[1:])["tokens_per_correct"] is None


def test_the_parts_are_those_of_category_and_difficulty():
    samples = [
        make_sample("a", "correct", category="algebra", difficulty=3),
        make_sample("b", "wrong", category="algebra", difficulty=1),
        make_sample("c", "wrong", category="algebra", difficulty=3),
        make_sample("d", "correct", category="logic", difficulty=3),
    ]
    summary = summarize(samples)
    names = summary["by_category"]["logic"].keys()

    def part(ids):
        alone = summarize([sample for sample in samples if sample["id"] in ids])
        return {name: alone[name] for name in names}

    assert summary["by_category"] == {"algebra": part("abc"), "logic": part("d")}
    assert summary["by_difficulty"] == {"1": part("b"), "3": part("acd")}
    both = summary["by_category_and_difficulty"]
    assert both == {"algebra": {"1": part("b"), "3": part("ac")}, "logic": {"3": part("d")}}
    assert list(both["algebra"]) == ["1", "3"]


def test_what_cannot_be_summed_up_is_refused():
    for samples in ([], [make_sample("a", "right")], [make_sample(name, "correct") for name in "aab"]):
        with pytest.raises(AssertionError):
            summarize(samples)


def test_pass_at_is_the_share_of_subsets_that_hold_a_correct_sample():
    for num_samples in range(1, 9):
        for correct in range(num_samples + 1):
            for size in range(1, num_samples + 1):
                subsets = list(itertools.combinations([True] * correct + [False] * (num_samples - correct), size))
                share = sum(map(any, subsets)) / len(subsets)
                assert pass_at(num_samples, correct, size) == pytest.approx(share, abs=1e-14)


def test_pass_at_of_a_summary_is_the_mean_over_problems():
    table = draw_evaluation(np.random.default_rng(3), 50, 5, 1, 2)
    summary = summarize(make_samples(table))
    assert list(summary["pass_at"]) == list(summary["pass_at_ci95"]) == ["1", "2", "4", "5"]
    for size, value in summary["pass_at"].items():
        subsets = itertools.combinations(range(5), int(size))
        assert value == pytest.approx(np.mean([table[:, part].any(axis=1) for part in subsets]))
        low, high = summary["pass_at_ci95"][size]
        assert low < value < high
    assert summary["pass_at"]["1"] == pytest.approx(summary["accuracy"])
    assert summary["pass_at_ci95"]["1"] == summary["ci95"]
    assert summary["correct"] == table.sum() and (summary["n"], summary["num_samples"]) == (50, 5)


def majority_by_hand(texts, answer):
    """Every vote counted as a number; a tie is decided by each of its answers in turn."""
    votes = Counter(Fraction(text) for text in texts if text is not None)
    winners = [value for value, count in votes.items() if count == max(votes.values())]
    return sum(value == Fraction(answer) for value in winners) / len(winners) if winners else 0.0


def test_majority_vote_is_that_of_counting_numbers():
    rng = np.random.default_rng(0)
    spellings = ["1", "1.0", "2", "4/2", "3", "6/2", "0.5", "1/2", None]
    samples, expected = [], []
    for number in range(300):
        texts = [spellings[i] for i in rng.integers(len(spellings), size=4)]
        for sample, text in enumerate(texts):
            right = text is not None and Fraction(text) == 1
            verdict = "unparsed" if text is None else "correct" if right else "wrong"
            samples.append(make_sample(str(number), verdict, sample, extracted=text))
        expected.append(majority_by_hand(texts, "1"))
    assert {0.0, 1.0, 0.5, 1 / 3} < set(expected)
    summary = summarize(samples)
    assert summary["maj_at_k"] == pytest.approx(np.mean(expected))
    low, high = summary["maj_at_k_ci95"]
    assert low < summary["maj_at_k"] < high


@pytest.mark.parametrize(
    ("votes", "score"),
    [
        ("11", 1),
        ("12", 1 / 2),
        ("1223", 0),
        ("1123", 1),
        ("123", 1 / 3),
        ("1?", 1),
        ("2?", 0),
        ("1122", 1 / 2),
    ],
)
def test_majority_vote_by_hand(votes, score):
    votes = votes + "?" * (4 - len(votes))
    verdicts = {"1": "correct", "?": "unparsed"}
    samples = [make_sample("a", verdicts.get(v, "wrong"), i, extracted=v) for i, v in enumerate(votes)]
    assert summarize(samples)["maj_at_k"] == score


@pytest.mark.parametrize("how", ["program", "task"])
def test_there_is_no_vote_where_answers_are_not_compared(how):
    samples = [make_sample(name, "correct", i, how=how) for name in "ab" for i in range(2)]
    samples += [make_sample("c", "unparsed", i) for i in range(2)]
    summary = summarize(samples)
    assert summary["maj_at_k"] is None and summary["maj_at_k_ci95"] is None
    assert summary["by_category"]["algebra"]["maj_at_k"] is None
    assert summarize(samples[-2:])["maj_at_k"] is None  # no answer says how it would be judged


# --- two models -----------------------------------------------------------------------------------


def pairs(lost, gained, both, neither):
    before = [True] * lost + [False] * gained + [True] * both + [False] * neither
    after = [False] * lost + [True] * gained + [True] * both + [False] * neither
    return before, after


@pytest.mark.parametrize(
    ("lost", "gained", "p_value"),
    # 2 * (C(6,0) + C(6,1)) / 2^6 = 14/64; 2 * (1 + 10 + 45) / 2^10; 2 / 2^10; an even split is no news.
    [(1, 5, 14 / 64), (5, 1, 14 / 64), (2, 8, 112 / 1024), (0, 10, 2 / 1024), (4, 4, 1.0), (0, 0, 1.0)],
)
def test_mcnemar_by_hand(lost, gained, p_value):
    result = paired_difference(*pairs(lost, gained, 7, 3))
    assert result["p_value"] == pytest.approx(p_value, abs=1e-14)
    assert result["difference"] == pytest.approx((gained - lost) / (lost + gained + 10))


def test_with_one_sample_the_test_is_mcnemars():
    rng = np.random.default_rng(0)
    for _ in range(50):
        before, after = rng.random(80) < 0.4, rng.random(80) < 0.55
        lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
        result = compare(make_samples(before[:, None]), make_samples(after[:, None]))
        assert result == {"n": 80, **paired_difference(before, after)}
        assert result["p_value"] == pytest.approx(stats.binomtest(lost, lost + gained).pvalue, abs=1e-13)


def test_with_several_samples_the_test_tries_every_sign():
    rng = np.random.default_rng(1)
    for k_before, k_after in ((4, 4), (3, 3), (2, 4), (4, 2), (2, 3)):
        before, after = draw_evaluation(rng, 11, k_before, 1, 2), draw_evaluation(rng, 11, k_after, 2, 1)
        result = compare(make_samples(before), make_samples(after))
        change = np.round(12 * (after.mean(axis=1) - before.mean(axis=1))).astype(int)
        sums = np.array(list(itertools.product([-1, 1], repeat=11))) @ change
        assert result["p_value"] == pytest.approx(np.mean(np.abs(sums) >= abs(change.sum())), abs=1e-13)
        assert result["difference"] == pytest.approx(after.mean() - before.mean())
        assert result["ci95"][0] < result["difference"] < result["ci95"][1]


def test_paired_interval_agrees_with_a_bootstrap_problem_by_problem():
    before, after = pairs(20, 60, 70, 50)
    result = paired_difference(before, after)
    change = np.subtract(after, before, dtype=float)
    plain = stats.bootstrap([change], np.mean, n_resamples=20_000, method="percentile", random_state=1)
    assert result["ci95"] == pytest.approx(list(plain.confidence_interval), abs=0.011)
    assert result["ci95"][0] < result["difference"] == 0.2 < result["ci95"][1]
    assert result == paired_difference(before, after)  # seeded


@pytest.mark.parametrize(("n", "k"), [(150, 1), (30, 4)])
def test_the_difference_is_covered_and_rarely_significant_where_there_is_none(n, k):
    rng = np.random.default_rng(2)
    held, significant, num_evaluations = 0, 0, 1000
    for _ in range(num_evaluations):
        chances = rng.beta(1, 1, size=(n, 1))
        tables = [rng.random((n, k)) < chances for _ in range(2)]
        result = compare(*map(make_samples, tables))
        low, high = result["ci95"]
        held += low <= 0 <= high
        significant += result["p_value"] <= 0.05
    assert held / num_evaluations == pytest.approx(0.95, abs=0.02)
    assert significant / num_evaluations < 0.07


def test_paired_difference_of_large_and_of_equal_runs():
    result = paired_difference(*pairs(0, 5000, 0, 0))
    unseen = wilson_interval(0, 5000)[1]
    assert result == {"difference": 1.0, "ci95": [1 - unseen, 1.0], "p_value": pytest.approx(0, abs=1e-12)}
    unseen = wilson_interval(0, 2)[1]
    assert paired_difference([True, False], [True, False]) == {
        "difference": 0,
        "ci95": [-unseen, unseen],
        "p_value": 1.0,
    }
    with pytest.raises(AssertionError):
        paired_difference([True], [True, False])


def test_only_problems_that_both_were_asked_are_compared():
    before = [make_sample(name, "wrong") for name in "abc"]
    after = [make_sample(name, "correct") for name in "dcb"]
    assert compare(before, after)["n"] == 2 and compare(before, after)["difference"] == 1.0
    assert compare(before[:1], after) is None
