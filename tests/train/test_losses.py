"""pytest tests/train/test_losses.py"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.jaxprs import equations
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
    scaled = lambda h, w: 6.0 * losses.cross_entropy_sum(h, w, targets, mask, chunk, jnp.float32(2))
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
    ends = (jnp.array([0, -1]), jnp.array([0, -1]))  # the last token is next to the places that are free
    hidden, mask = hidden.at[ends].set(jnp.inf), mask.at[ends].set(False)
    loss, grads = jax.value_and_grad(losses.cross_entropy_sum, (0, 1))(hidden, head, targets, mask, 5)
    assert jnp.sum(mask) % 5, "no place is free"
    assert all(jnp.isfinite(x).all() for x in (loss, *grads))


@pytest.mark.parametrize("trained", [(), (0,), (20,), (3, 4, 5, 6, 11), range(21), range(9, 21)])
@pytest.mark.parametrize("chunk", [4, 5, 64])
def test_any_mask_gives_the_plain_loss_and_gradients(trained, chunk):
    hidden, head, targets, _ = inputs()
    mask = jnp.zeros(targets.size, bool).at[jnp.array(trained, int)].set(True).reshape(targets.shape)
    want, want_grads = jax.value_and_grad(plain, (0, 1))(hidden, head, targets, mask)
    ours = lambda h, w: losses.cross_entropy_sum(h, w, targets, mask, chunk)
    got, got_grads = jax.value_and_grad(ours, (0, 1))(hidden, head)
    np.testing.assert_allclose([got, ours(hidden, head)], [want, want], rtol=1e-6)
    for g, w in zip(got_grads, want_grads, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("trained", [0, 1, 4, 5, 20, 21])
def test_only_the_chunks_that_trained_tokens_fill_are_computed(monkeypatch, trained):
    hidden, head, targets, _ = inputs()
    mask = jnp.arange(21).reshape(targets.shape) >= 21 - trained
    computed, logits_loss = [], losses._logits_loss

    def counted(*args):
        jax.debug.callback(lambda: computed.append(1))
        return logits_loss(*args)

    monkeypatch.setattr(losses, "_logits_loss", counted)
    ours = lambda h: losses.cross_entropy_sum(h, head, targets, mask, 4)
    for function, times in ((jax.jit(ours), 1), (jax.jit(jax.grad(ours)), 2)):  # with gradients, half by half
        computed.clear()
        jax.block_until_ready(function(hidden))
        jax.effects_barrier()
        assert len(computed) == times * -(-trained // 4)


def test_one_compilation_whatever_is_trained():
    hidden, head, targets, mask = inputs()
    step = jax.jit(jax.grad(lambda h, t, m: losses.cross_entropy_sum(h, head, t, m, 4)))
    for some in (mask, ~mask, mask & False):
        step(hidden, targets, some)
    assert step._cache_size() == 1


def test_the_heads_gradient_is_summed_in_float32():
    """A hundred chunks of one bfloat16 token, against one chunk: summed in bfloat16 they differ by a hundredth."""
    rng = np.random.default_rng(3)
    hidden = jnp.asarray(1 + 0.1 * rng.normal(size=(1, 100, 8)), jnp.bfloat16)
    head, targets = jnp.asarray(rng.normal(size=(50, 8)), jnp.float32), jnp.zeros((1, 100), jnp.int32)
    grad = jax.jit(jax.grad(losses.cross_entropy_sum, 1), static_argnums=4)
    d_head = lambda chunk: grad(hidden, head, targets, targets == 0, chunk)
    assert d_head(1).dtype == jnp.float32
    np.testing.assert_allclose(d_head(1), d_head(100), rtol=1e-4, atol=1e-4)


B, T, D, V, CHUNK = 2, 1024, 16, 151_936, 256


def real_vocabulary():
    """The gradient at the float32 image of bfloat16 parameters, as training takes it, and its arguments."""
    shape = jax.ShapeDtypeStruct
    args = (shape((B, T, D), jnp.bfloat16), shape((V, D), jnp.bfloat16), shape((B, T), jnp.int32), shape((B, T), bool))
    loss = lambda h, w, t, m: losses.cross_entropy_sum(h, w, t, m, CHUNK)
    return lambda h, w, t, m: jax.grad(loss, (0, 1))(h, w.astype(jnp.float32), t, m), args


def test_whole_logits_never_exist_at_the_size_of_the_real_vocabulary():
    step, args = real_vocabulary()
    compiled = jax.jit(step).lower(*args).compile()
    shapes = {
        tuple(map(int, dims.split(",")))
        for dims in re.findall(r"\b\w+\[([\d,]+)\]", compiled.as_text())
        if str(V) in dims.split(",")
    }
    assert (CHUNK, V) in shapes, "the text names no logits"
    assert max(np.prod(shape) for shape in shapes) == CHUNK * V, shapes
    # Logits and their gradient of one chunk, and the head's gradient.
    assert compiled.memory_analysis().temp_size_in_bytes < 3 * CHUNK * V * 4 + 2 * V * D * 4


def test_only_half_a_chunks_logits_exist_in_float32():
    """The other half of them is there as the gradient already, in half the bytes; 0.58 GiB of 2,048 tokens."""
    step, args = real_vocabulary()
    made = [(e.primitive.name, e.outvars[0].aval) for e in equations(jax.make_jaxpr(step)(*args).jaxpr)]
    sizes = lambda dtype: {a.shape for _, a in made if getattr(a, "dtype", None) == dtype and a.shape[-1:] == (V,)}
    assert sizes(jnp.float32) == {(CHUNK // 2, V)} and (CHUNK, V) in sizes(jnp.bfloat16)


def test_no_round_of_the_loop_casts_the_head():
    """Each would read and write the whole head, and keep its float32 image: 1.2 GB of Qwen3-1.7B."""
    step, args = real_vocabulary()
    (loop,) = [e for e in equations(jax.make_jaxpr(step)(*args).jaxpr) if e.primitive.name == "while"]
    inside = list(equations(loop.params["body_jaxpr"].jaxpr))
    assert any(e.primitive.name == "dot_general" for e in inside)
    assert not [e for e in inside if e.primitive.name == "convert_element_type" and e.outvars[0].aval.shape == (V, D)]
