"""Run: pytest tests/model/test_rows.py. What is computed along rows, against its plain form in float64 on the host."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiny_reasoning_jax.model import rows

# One lane group; several lane groups; a row that lanes do not divide; more rows than a stage has, and an odd number.
SHAPES = [(4, 3, 16), (2, 768), (5, 7), (64, 48), (96, 2048), (67, 32)]


def draw(shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape) * 3


@pytest.mark.parametrize("shape", SHAPES)
def test_reductions_are_the_plain_ones(shape):
    x = draw(shape)
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(jax.jit(rows.row_sum)(x), exact.sum(-1), rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(jax.jit(rows.row_max)(x), np.asarray(x).max(-1))
    np.testing.assert_allclose(jax.jit(rows.column_sum)(x), exact.sum(tuple(range(x.ndim - 1))), rtol=1e-5, atol=1e-4)
    for log_sum_exp in (rows.log_sum_exp, rows._log_sum_exp_in_one_pass):  # a CPU's, and a GPU's
        np.testing.assert_allclose(jax.jit(log_sum_exp)(x), np.log(np.exp(exact).sum(-1)), rtol=1e-6)


@pytest.mark.parametrize("log_sum_exp", [rows.log_sum_exp, rows._log_sum_exp_in_one_pass])
def test_a_log_sum_exp_neither_overflows_nor_hides_what_is_not_finite(log_sum_exp):
    row = np.linspace(-50, 50, 64, dtype=np.float32)
    for factor in (0.0, 1.0, 1e4, 1e30):
        exact = np.logaddexp.reduce(np.float64(factor * row))
        np.testing.assert_allclose(log_sum_exp(jnp.asarray(factor * row)), exact, rtol=1e-6)
    for bad in (np.nan, np.inf):
        assert not np.isfinite(log_sum_exp(jnp.asarray(row).at[17].set(bad)))


def test_softmax_and_its_derivative_are_jax_s_own():
    x, d_out = draw((6, 5, 64)), draw((6, 5, 64), 1)
    ours, pull = jax.vjp(rows.softmax, x)
    theirs, pull_theirs = jax.vjp(jax.nn.softmax, x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(pull(d_out)[0], pull_theirs(d_out)[0], rtol=1e-4, atol=1e-6)
    lowest = jnp.full((1, 64), jnp.finfo(jnp.float32).min)  # a row that is masked everywhere
    np.testing.assert_allclose(rows.softmax(lowest), 1 / 64, rtol=1e-6)


def test_the_norm_s_derivative_is_jax_s_own():
    x, scale = draw((3, 5, 32)), 1 + 0.1 * draw((32,), 1)

    def plain(x, scale):
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * scale

    d_out = draw((3, 5, 32), 2)
    for ours, theirs in zip(
        jax.vjp(lambda x, s: rows.rms_norm(x, s, 1e-6), x, scale)[1](d_out),
        jax.vjp(plain, x, scale)[1](d_out),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_scale_s_gradient_is_summed_in_float32():
    """4,096 ones add up to 256 in bfloat16, where 256 + 1 is 256."""
    x, scale = jnp.ones((4096, 16), jnp.bfloat16), jnp.ones(16, jnp.bfloat16)
    _, d_scale = jax.vjp(lambda x, s: rows.rms_norm(x, s, 0.0), x, scale)[1](jnp.ones_like(x))
    assert d_scale.dtype == jnp.bfloat16 and (d_scale == 4096).all()


def test_nothing_is_left_of_the_choice_between_devices():
    compiled = jax.jit(lambda x: rows.softmax(x) * rows.log_sum_exp(x)[:, None]).lower(draw((4, 64))).compile()
    assert "conditional" not in compiled.as_text()
