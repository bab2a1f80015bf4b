"""pytest tests/train/test_losses.py"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiny_reasoning_jax.train import losses


def plain(hidden, head, targets, loss_mask):
    logits = jnp.einsum("btd,vd->btv", hidden, head)
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
    return jnp.sum(nll * loss_mask)


def inputs(B=3, T=7, D=8, V=50):
    rng = np.random.default_rng(0)
    return (
        jnp.asarray(rng.normal(size=(B, T, D)), jnp.float32),
        jnp.asarray(rng.normal(size=(V, D)), jnp.float32),
        jnp.asarray(rng.integers(0, V, (B, T)), jnp.int32),
        jnp.asarray(rng.random((B, T)) < 0.6),
    )


@pytest.mark.parametrize("chunk", [1, 4, 5, 21, 1000])
def test_any_chunk_gives_the_plain_loss_and_gradients(chunk):
    hidden, head, targets, mask = inputs()
    want, want_grads = jax.value_and_grad(plain, (0, 1))(hidden, head, targets, mask)
    # A factor outside checks that the cotangent reaches both gradients.
    scaled = lambda h, w: 3.0 * losses.cross_entropy_sum(h, w, targets, mask, chunk)
    got, got_grads = jax.value_and_grad(scaled, (0, 1))(hidden, head)
    np.testing.assert_allclose(got, 3 * want, rtol=1e-6)
    for g, w in zip(got_grads, want_grads, strict=True):
        np.testing.assert_allclose(g, 3 * w, rtol=1e-5, atol=1e-5)
    no_grad = losses.cross_entropy_sum(hidden, head, targets, mask, chunk)
    np.testing.assert_allclose(no_grad, want, rtol=1e-6)


def test_a_target_outside_the_mask_changes_nothing():
    hidden, head, targets, mask = inputs()
    other = jnp.where(mask, targets, (targets + 17) % head.shape[0])
    f = jax.value_and_grad(lambda h, t: losses.cross_entropy_sum(h, head, t, mask, 4))
    (loss_a, grad_a), (loss_b, grad_b) = f(hidden, targets), f(hidden, other)
    assert loss_a == loss_b and jnp.array_equal(grad_a, grad_b)
    assert not jnp.any(grad_a[~mask]) and jnp.any(grad_a[mask])


def test_an_infinite_hidden_state_outside_the_mask_stays_out_of_the_loss():
    hidden, head, targets, mask = inputs()
    hidden = hidden.at[0, 0].set(jnp.inf)
    loss = losses.cross_entropy_sum(hidden, head, targets, mask.at[0, 0].set(False), 4)
    assert jnp.isfinite(loss)


def test_whole_logits_never_exist_at_the_size_of_the_real_vocabulary():
    B, T, D, V, chunk = 2, 1024, 16, 151_936, 256
    shape = jax.ShapeDtypeStruct
    args = (shape((B, T, D), jnp.bfloat16), shape((V, D), jnp.bfloat16), shape((B, T), jnp.int32), shape((B, T), bool))
    step = jax.jit(jax.grad(lambda h, w, t, m: losses.cross_entropy_sum(h, w, t, m, chunk), (0, 1)))
    plan = step.lower(*args).compile().memory_analysis()
    whole = B * T * V * 4
    # Logits, probabilities and their gradient of one chunk, and the head's gradient; the whole would be 1.2 GB each.
    assert plan.temp_size_in_bytes < 4 * chunk * V * 4 + 4 * V * D * 4 < whole
