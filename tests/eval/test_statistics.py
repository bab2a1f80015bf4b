"""Run: pytest tests/eval/test_statistics.py. Against published numbers and counts by hand."""

import numpy as np
import pytest

from tiny_reasoning_jax.eval.statistics import cell, paired_difference, summarize, wilson_interval


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


def test_wilson_interval_holds_the_rate_and_stays_in_bounds():
    for n in (1, 2, 7, 500):
        for correct in range(n + 1):
            low, high = wilson_interval(correct, n)
            assert 0.0 <= low <= correct / n <= high <= 1.0
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(AssertionError):
        wilson_interval(3, 2)


def test_wilson_interval_covers_about_95_percent():
    rng = np.random.default_rng(0)
    for rate in (0.1, 0.5, 0.8):
        intervals = [wilson_interval(int(k), 100) for k in rng.binomial(100, rate, size=2000)]
        assert np.mean([low <= rate <= high for low, high in intervals]) == pytest.approx(0.95, abs=0.025)


def make_sample(verdict, category="algebra", difficulty=1, truncated=False):
    return {"verdict": verdict, "category": category, "difficulty": difficulty, "truncated": truncated}


SAMPLES = [
    make_sample("correct", "algebra", 1),
    make_sample("wrong", "algebra", 1),
    make_sample("unparsed", "algebra", 3, truncated=True),
    make_sample("correct", "logic", 3),
]


def test_cell_counts_every_sample_once():
    counted = cell(SAMPLES)
    assert counted.pop("ci95") == list(wilson_interval(2, 4))
    assert counted == {"n": 4, "correct": 2, "accuracy": 0.5, "unparsed": 1, "truncated": 1}
    with pytest.raises(AssertionError):
        cell([])
    with pytest.raises(AssertionError):
        cell([make_sample("right")])


def test_summarize_splits_by_category_and_difficulty():
    summary = summarize(SAMPLES)
    assert summary["by_category"] == {"algebra": cell(SAMPLES[:3]), "logic": cell(SAMPLES[3:])}
    assert summary["by_difficulty"] == {"1": cell(SAMPLES[:2]), "3": cell(SAMPLES[2:])}
    both = summary["by_category_and_difficulty"]
    assert both == {
        "algebra": {"1": cell(SAMPLES[:2]), "3": cell(SAMPLES[2:3])},
        "logic": {"3": cell(SAMPLES[3:])},
    }
    assert list(summarize(SAMPLES[::-1])["by_difficulty"]) == ["1", "3"]
    assert summary["n"] == sum(part["n"] for levels in both.values() for part in levels.values())


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
    assert result["p_value"] == pytest.approx(p_value, rel=1e-12)
    assert result["difference"] == pytest.approx((gained - lost) / (lost + gained + 10))


def test_paired_interval_agrees_with_a_bootstrap_problem_by_problem():
    before, after = pairs(20, 60, 70, 50)
    result = paired_difference(before, after)
    change = np.subtract(after, before, dtype=float)
    rng = np.random.default_rng(1)
    plain = change[rng.integers(change.size, size=(20_000, change.size))].mean(axis=1)
    assert result["ci95"] == pytest.approx(np.quantile(plain, [0.025, 0.975]), abs=0.011)
    assert result["ci95"][0] < result["difference"] == 0.2 < result["ci95"][1]
    assert result == paired_difference(before, after)  # seeded


def test_paired_difference_of_large_and_of_equal_runs():
    result = paired_difference(*pairs(0, 5000, 0, 0))
    assert result == {"difference": 1.0, "ci95": [1.0, 1.0], "p_value": 0.0}
    assert paired_difference([True, False], [True, False]) == {
        "difference": 0,
        "ci95": [0, 0],
        "p_value": 1.0,
    }
    with pytest.raises(AssertionError):
        paired_difference([True], [True, False])
