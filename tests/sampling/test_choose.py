"""python -m pytest tests/sampling/test_choose.py

Law: draws follow the exact probabilities after temperature, top-k and top-p, and stay in the set they leave.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.sampling.choose import Sampling, choose_tokens

PROBABILITIES = np.array([0.05, 0.3, 0.02, 0.2, 0.13, 0.16, 0.04, 0.1])
NUM_DRAWS = 20_000


def _draw(sampling, probabilities=PROBABILITIES):
    logits = jnp.broadcast_to(jnp.log(jnp.asarray(probabilities, jnp.float32)) + 3, (NUM_DRAWS, len(probabilities)))
    keys = jax.random.split(jax.random.key(0), NUM_DRAWS)
    tokens, logps = jax.jit(choose_tokens, static_argnums=2)(logits, keys, sampling)
    return np.asarray(tokens), np.asarray(logps)


def _expected(sampling):
    """The definition, written out in float64."""
    probabilities = PROBABILITIES ** (1 / sampling.temperature)
    order = np.argsort(-probabilities)
    kept = order[: sampling.top_k or len(order)]
    probabilities = probabilities / probabilities[kept].sum()
    before = np.cumsum(probabilities[kept]) - probabilities[kept]
    kept = kept[before < sampling.top_p]
    expected = np.zeros_like(probabilities)
    expected[kept] = probabilities[kept] / probabilities[kept].sum()
    return expected


@pytest.mark.parametrize(
    "sampling",
    [Sampling(1.0, 1.0, 0), Sampling(0.6, 1.0, 0), Sampling(1.0, 0.7, 0), Sampling(1.5, 1.0, 4),
     Sampling(1.3, 0.75, 5), Sampling(0.7, 0.9, 100)],
    ids=str,
)  # fmt: skip
def test_draws_follow_the_exact_probabilities(sampling):
    tokens, logps = _draw(sampling)
    counts, expected = np.bincount(tokens, minlength=len(PROBABILITIES)), NUM_DRAWS * _expected(sampling)
    kept = expected > 0
    assert not counts[~kept].any()
    chi2, df = ((counts - expected)[kept] ** 2 / expected[kept]).sum(), kept.sum() - 1
    assert chi2 < df + 4 * np.sqrt(2 * df)
    # The log-probability is the model's own, whatever was cut away.
    np.testing.assert_allclose(logps, np.log(PROBABILITIES)[tokens], atol=1e-5)


def test_the_token_that_crosses_top_p_is_kept_and_the_first_always():
    assert set(_draw(Sampling(1.0, 0.01, 0))[0]) == {1}
    assert set(_draw(Sampling(1.0, 0.29, 0))[0]) == {1}
    assert set(_draw(Sampling(1.0, 0.31, 0))[0]) == {1, 3}


def test_the_first_of_equals_is_the_best_and_nan_is_no_token_that_does_not_exist():
    logits = jnp.array([[1.0, 3.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0], [jnp.nan] * 4])
    tokens, _ = choose_tokens(logits, jax.random.split(jax.random.key(0), 3), Sampling(0.0, 1.0, 0))
    assert tokens[:2].tolist() == [1, 0] and 0 <= tokens[2] < 4


def test_greedy_and_top_k_1_take_the_best():
    assert set(_draw(Sampling(0.0, 0.5, 3))[0]) == {1}
    assert set(_draw(Sampling(1.0, 1.0, 1))[0]) == {1}


@pytest.mark.parametrize(
    "values", [(-0.1, 1.0, 0), (float("nan"), 1.0, 0), (1.0, 0.0, 0), (1.0, 1.1, 0), (1.0, 1.0, -1)]
)
def test_values_out_of_range_are_refused(values):
    with pytest.raises(UserError, match="=(-0.1|nan|0.0|1.1|-1) must"):
        Sampling(*values)
