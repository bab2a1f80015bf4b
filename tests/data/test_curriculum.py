"""pytest tests/data/test_curriculum.py"""

import numpy as np
import pytest

from tiny_reasoning_jax.data.curriculum import CURRICULA, difficulty_weights
from tiny_reasoning_jax.errors import UserError

COUNTS = np.array([300, 100, 400, 50, 150])
EVEN = np.array([10, 10, 10, 10, 10])
SHARES = COUNTS / COUNTS.sum()
NAN = float("nan")
PASSES, FAILS, BETWEEN = [0.9] * 5, [0.1] * 5, [0.5] * 5


def steepness(weights, counts=COUNTS):
    """How much more often an example of one level is drawn than one of the level below; one number if it is a tilt."""
    ratios = (weights / counts)[1:] / (weights / counts)[:-1]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-9)
    return ratios[0]


def adaptive(observed, counts=COUNTS):
    return difficulty_weights("adaptive", 0.5, counts, observed)


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0, 3.0])
def test_none_draws_every_example_alike_at_any_time(progress):
    np.testing.assert_allclose(difficulty_weights("none", progress, COUNTS), SHARES, rtol=1e-12)


def test_linear_favours_each_level_over_the_next_at_the_start():
    per_example = difficulty_weights("linear", 0.0, COUNTS) / COUNTS
    assert (per_example[:-1] > 1.5 * per_example[1:]).all()


def test_linear_moves_in_a_straight_line_to_the_data_s_own_shares():
    start, end = difficulty_weights("linear", 0.0, COUNTS), difficulty_weights("linear", 1.0, COUNTS)
    np.testing.assert_allclose(end, SHARES, rtol=1e-12)
    for progress in (0.1, 0.5, 0.9):
        between = (1 - progress) * start + progress * end
        np.testing.assert_allclose(difficulty_weights("linear", progress, COUNTS), between, rtol=1e-12)
    np.testing.assert_array_equal(difficulty_weights("linear", 1.7, COUNTS), end)


def test_staged_admits_one_level_more_in_each_fifth_of_the_run_in_the_data_s_own_shares():
    for stage in range(5):
        admitted = np.where(np.arange(5) <= stage, COUNTS, 0)
        for progress in (stage / 5 + 0.01, stage / 5 + 0.19):
            weights = difficulty_weights("staged", progress, COUNTS)
            np.testing.assert_allclose(weights, admitted / admitted.sum(), rtol=1e-12)
    np.testing.assert_allclose(difficulty_weights("staged", 1.0, COUNTS), SHARES, rtol=1e-12)


def test_staged_wastes_no_stage_on_a_level_without_examples():
    counts = [0, 30, 0, 10, 0]
    for progress, expected in ((0.0, [0, 1, 0, 0, 0]), (0.49, [0, 1, 0, 0, 0]), (0.51, [0, 0.75, 0, 0.25, 0])):
        np.testing.assert_allclose(difficulty_weights("staged", progress, counts), expected, rtol=1e-12)


def test_anneal_moves_without_turning_back_from_mostly_easy_to_mostly_hard():
    path = np.array([difficulty_weights("anneal", p, EVEN) for p in np.linspace(0, 1, 101)])
    assert path[0, :2].sum() > 0.75 and path[-1, -2:].sum() > 0.75
    np.testing.assert_allclose(path[50], EVEN / EVEN.sum(), rtol=1e-9)
    np.testing.assert_allclose(path[::-1, ::-1], path, rtol=1e-9)
    mean_level = path @ np.arange(1, 6)
    assert (np.diff(mean_level) > 0).all()
    assert abs(np.diff(path, axis=0)).max() < 0.03  # smooth: a hundredth of the run changes little


def test_anneal_leaves_every_level_a_fifth_of_its_share_at_any_time():
    lowest = np.min([difficulty_weights("anneal", p, COUNTS) / SHARES for p in np.linspace(0, 1, 101)], axis=0)
    assert (lowest >= 0.2).all()
    assert lowest[0] < 0.25 and lowest[-1] < 0.25  # and the floor is reached, so it is what holds them


def test_adaptive_starts_easy_first_and_ignores_the_progress():
    assert steepness(adaptive(())) == pytest.approx(0.5)
    for progress in (0.0, 1.0):
        weights = difficulty_weights("adaptive", progress, COUNTS, [PASSES, BETWEEN])
        np.testing.assert_array_equal(weights, adaptive([PASSES, BETWEEN]))


def test_adaptive_goes_harder_above_the_band_easier_below_and_stays_inside():
    start = steepness(adaptive(()))
    assert steepness(adaptive([PASSES])) == pytest.approx(start * 2**0.5)
    assert steepness(adaptive([FAILS])) == pytest.approx(start / 2**0.5)
    for inside in (0.2, 0.5, 0.8):
        assert steepness(adaptive([[inside] * 5])) == pytest.approx(start)
    assert steepness(adaptive([PASSES, FAILS, BETWEEN, PASSES])) == pytest.approx(start * 2**0.5)


def test_adaptive_is_clipped_and_turns_back_at_once():
    assert steepness(adaptive([PASSES] * 100)) == pytest.approx(4)
    assert steepness(adaptive([FAILS] * 100)) == pytest.approx(1 / 4)
    assert steepness(adaptive([PASSES] * 100 + [FAILS])) == pytest.approx(4 / 2**0.5)


def test_adaptive_judges_by_the_mixture_that_is_trained_on_then():
    # 0.62, 0.25, 0.10, 0.03, 0.01 of the draws at the start: the easy levels decide, later the hard ones.
    only_easy = [1.0, 1.0, 0.0, 0.0, 0.0]
    tilts = [steepness(adaptive([only_easy] * n, EVEN), EVEN) for n in range(12)]
    assert tilts[1] == tilts[0]  # 0.774 of the first mixture, within the band
    passes_four = [1.0, 1.0, 1.0, 1.0, 0.0]
    mixtures = [adaptive([passes_four] * n, EVEN) for n in range(12)]
    passed = [mixture @ passes_four for mixture in mixtures]
    assert passed[0] > passed[1] > 0.8 >= round(passed[2], 9) > 0.2  # harder until it is within the band
    for mixture in mixtures[2:]:
        np.testing.assert_array_equal(mixture, mixtures[2])  # and then no further


def test_adaptive_leaves_out_what_was_not_asked_or_is_not_trained_on():
    start = steepness(adaptive(()))
    assert steepness(adaptive([[NAN] * 5])) == pytest.approx(start)
    assert steepness(adaptive([[0.9, NAN, NAN, NAN, NAN]])) == pytest.approx(start * 2**0.5)
    counts = np.array([0, 10, 10, 0, 0])
    weights = adaptive([[0.0, 0.9, 0.9, 0.0, 0.0]], counts)
    assert weights[2] / weights[1] == pytest.approx(start * 2**0.5)
    np.testing.assert_array_equal(adaptive([[0.0, NAN, NAN, 0.0, 0.0]], counts), adaptive((), counts))


def test_adaptive_is_a_fold_so_that_a_resumed_run_goes_on_alike():
    rng = np.random.default_rng(0)
    observed = rng.random((30, 5)).tolist()
    first = [adaptive(observed[:n]).tolist() for n in range(31)]
    assert [adaptive(observed[:n]).tolist() for n in range(31)] == first
    assert adaptive([[None, 0.9, 0.9, 0.9, 0.9]]).tolist() == adaptive([[NAN, 0.9, 0.9, 0.9, 0.9]]).tolist()


@pytest.mark.parametrize("curriculum", CURRICULA)
@pytest.mark.parametrize("counts", [COUNTS, [0, 3, 0, 5, 1], [0, 0, 0, 0, 7], [1, 0, 0, 0, 0], [1, 1, 1, 1, 10**9]])
def test_weights_are_a_distribution_over_the_levels_that_have_examples(curriculum, counts):
    for progress in np.linspace(-0.1, 1.1, 13):
        for observed in ((), [PASSES] * 9, [FAILS] * 9):
            weights = difficulty_weights(curriculum, float(progress), np.array(counts), observed)
            assert weights.shape == (5,) and weights.dtype == np.float64
            assert abs(weights.sum() - 1) < 1e-12
            if curriculum == "staged" and progress < 0.99:
                assert (np.array(counts)[weights > 0] > 0).all()
            else:
                np.testing.assert_array_equal(weights > 0, np.array(counts) > 0)


@pytest.mark.parametrize("curriculum", ["none", "linear", "staged", "anneal"])
def test_only_adaptive_looks_at_what_was_observed(curriculum):
    expected = difficulty_weights(curriculum, 0.3, COUNTS)
    np.testing.assert_array_equal(difficulty_weights(curriculum, 0.3, COUNTS, [PASSES, FAILS]), expected)


def test_an_unknown_curriculum_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"'steep'.*none, linear, staged, anneal, adaptive"):
        difficulty_weights("steep", 0.0, COUNTS)
