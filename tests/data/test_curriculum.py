"""pytest tests/data/test_curriculum.py"""

import numpy as np
import pytest

from tiny_reasoning_jax.data.curriculum import difficulty_weights
from tiny_reasoning_jax.errors import UserError

COUNTS = np.array([300, 100, 400, 50, 150])


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0, 3.0])
def test_none_draws_every_example_alike_at_any_time(progress):
    np.testing.assert_allclose(difficulty_weights("none", progress, COUNTS), COUNTS / COUNTS.sum(), rtol=1e-12)


def test_linear_favours_each_level_over_the_next_at_the_start():
    per_example = difficulty_weights("linear", 0.0, COUNTS) / COUNTS
    assert (per_example[:-1] > 1.5 * per_example[1:]).all()


def test_linear_moves_in_a_straight_line_to_the_data_s_own_shares():
    start, end = difficulty_weights("linear", 0.0, COUNTS), difficulty_weights("linear", 1.0, COUNTS)
    np.testing.assert_allclose(end, COUNTS / COUNTS.sum(), rtol=1e-12)
    for progress in (0.1, 0.5, 0.9):
        between = (1 - progress) * start + progress * end
        np.testing.assert_allclose(difficulty_weights("linear", progress, COUNTS), between, rtol=1e-12)
    np.testing.assert_array_equal(difficulty_weights("linear", 1.7, COUNTS), end)


@pytest.mark.parametrize("curriculum", ["linear", "none"])
@pytest.mark.parametrize("counts", [COUNTS, [0, 3, 0, 5, 1], [0, 0, 0, 0, 7], [1, 0, 0, 0, 0], [1, 1, 1, 1, 10**9]])
def test_weights_are_a_distribution_over_the_levels_that_have_examples(curriculum, counts):
    for progress in np.linspace(0, 1, 11):
        weights = difficulty_weights(curriculum, float(progress), np.array(counts))
        assert weights.shape == (5,) and weights.dtype == np.float64
        assert abs(weights.sum() - 1) < 1e-12
        np.testing.assert_array_equal(weights > 0, np.array(counts) > 0)


def test_an_unknown_curriculum_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match=r"'steep'.*linear, none"):
        difficulty_weights("steep", 0.0, COUNTS)
