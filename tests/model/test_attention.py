"""pytest tests/model/test_attention.py: every backend isolates packed examples and looks only back.

Those that run anywhere. The kernels are held to the same: test_attention_triton.py (interpreted),
test_attention_cudnn.py (emulated), and test_attention_choice.py where a card is attached.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model import attention
from tiny_reasoning_jax.model.attention import choice

# Long enough for blockwise to take several blocks; no segment ends where a block does, one has a single
# token.
LENGTHS = (300, 217, 1, 390, 64)
T, B, N, K, H = 1024, 2, 4, 2, 8
backends = pytest.mark.parametrize("backend", [name for name in attention.BACKENDS if name not in choice.KERNELS])


@functools.cache
def inputs():
    """q, k, v, segment_ids (in opposite order in the second row) and a cotangent of the output."""
    rng = np.random.default_rng(0)

    def normal(heads):
        return rng.standard_normal((B, T, heads, H)).astype(np.float32)

    numbers = [np.repeat(order, np.array(LENGTHS)[np.array(order) - 1]) for order in ((1, 2, 3, 4, 5), (5, 4, 3, 2, 1))]
    segment_ids = np.zeros((B, T), np.int32)
    segment_ids[:, : sum(LENGTHS)] = numbers
    return normal(N), normal(K), normal(K), segment_ids, normal(N) * (segment_ids != 0)[:, :, None, None]


def segments():
    """(row, slice) of every segment."""
    segment_ids = inputs()[3]
    for row in range(B):
        for i in range(1, len(LENGTHS) + 1):
            places = np.flatnonzero(segment_ids[row] == i)
            yield row, slice(places[0], places[-1] + 1)


@functools.partial(jax.jit, static_argnums=0)
def forward_backward(backend: str, q, k, v, segment_ids, cotangent):
    """The output, and the gradients of q, k and v for a cotangent of the output."""
    out, pull = jax.vjp(lambda q, k, v: attention.BACKENDS[backend](q, k, v, segment_ids), q, k, v)
    return out, pull(cotangent)


@functools.cache
def run(backend: str):
    """Output and gradients of the packed rows."""
    return jax.tree.map(np.asarray, forward_backward(backend, *inputs()))


def attend_alone(q, k, v):
    """Causal attention of one example [T, heads, H] as the formula says it, in float64 and head by head."""
    out = np.zeros(q.shape)
    for head in range(q.shape[1]):
        kv_head = head // (q.shape[1] // k.shape[1])
        scores = q[:, head].astype(np.float64) @ k[:, kv_head].T / np.sqrt(q.shape[-1])
        scores[~np.tri(len(q), dtype=bool)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, kv_head]
    return out


@backends
def test_packed_equals_apart(backend):
    q, k, v, _, _ = inputs()
    out, _ = run(backend)
    for row, place in segments():
        alone = attend_alone(q[row, place], k[row, place], v[row, place])
        np.testing.assert_allclose(out[row, place], alone, rtol=0, atol=1e-5)


@backends
def test_packed_gradients_equal_those_apart(backend):
    q, k, v, _, cotangent = inputs()
    _, grads = run(backend)
    for row, place in segments():
        part = (slice(row, row + 1), place)
        one = np.ones((1, place.stop - place.start), np.int32)
        _, alone = forward_backward("reference", q[part], k[part], v[part], one, cotangent[part])
        for packed, apart in zip(grads, alone, strict=True):
            np.testing.assert_allclose(packed[part], apart, rtol=0, atol=2e-5)


@backends
def test_changing_one_segment_changes_nothing_elsewhere(backend):
    q, k, v, segment_ids, cotangent = inputs()
    changed = segment_ids == 2
    q, k, v, cotangent = (np.where(changed[:, :, None, None], 3 * x + 1, x) for x in (q, k, v, cotangent))
    after = forward_backward(backend, q, k, v, segment_ids, cotangent)
    neighbours = (segment_ids != 0) & ~changed
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(run(backend)), strict=True):
        np.testing.assert_array_equal(np.asarray(a)[neighbours], b[neighbours])
        assert np.mean(np.asarray(a)[changed] != b[changed]) > 0.9


@backends
def test_the_future_has_no_influence(backend):
    """The gradient of early outputs by later keys and values is exactly zero, within one example too."""
    q, k, v, _, cotangent = inputs()
    one_segment, cut = np.ones((B, T), np.int32), 517
    early = cotangent * (np.arange(T) < cut)[None, :, None, None]
    _, (_, *grads) = forward_backward(backend, q, k, v, one_segment, early)
    for grad in map(np.asarray, grads):
        assert np.all(grad[:, cut:] == 0) and np.all(np.any(grad[:, : cut - 1] != 0, axis=-1))


@backends
def test_padding_is_finite_and_takes_no_gradient(backend):
    q, k, v, segment_ids, cotangent = inputs()
    for x in jax.tree.leaves(forward_backward(backend, q, k, v, 0 * segment_ids, cotangent)):
        assert np.all(np.isfinite(x))
    for grad in run(backend)[1]:
        assert np.all(grad[segment_ids == 0] == 0)


@backends
def test_bfloat16_keeps_scores_and_softmax_in_float32(backend):
    """Scores of some 20: rounded to bfloat16 they would be off by 0.06, and the weights by 6 %."""
    q, k, v, segment_ids, cotangent = inputs()
    low = [jnp.asarray(x, jnp.bfloat16) for x in (6 * q, k, v, cotangent)]
    q, k, v, cotangent = (jnp.asarray(x, jnp.float32) for x in low)
    expected, _ = forward_backward("reference", q, k, v, segment_ids, cotangent)
    out, grads = forward_backward(backend, *low[:3], segment_ids, low[3])
    assert all(x.dtype == jnp.bfloat16 for x in (out, *grads))
    error = np.abs(np.asarray(out, np.float32) - np.asarray(expected))[segment_ids != 0]
    assert error.max() < 0.02


def test_blockwise_equals_reference():
    for ours, reference in zip(jax.tree.leaves(run("blockwise")), jax.tree.leaves(run("reference")), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5)


def test_blockwise_really_works_in_blocks():
    """Nothing of size T x T is ever held."""
    q, k, v, segment_ids = inputs()[:4]
    in_blocks = lambda *inputs: attention.blockwise(*inputs, block=256)  # with 512 the queries of a group are T as well
    text = str(jax.make_jaxpr(in_blocks)(q, k, v, segment_ids))
    assert f"{T},{T}]" not in text and f"256,{T}]" in text
    assert f"{T},{T}]" in str(jax.make_jaxpr(attention.reference)(q, k, v, segment_ids))


def test_rows_that_blocks_do_not_divide_are_refused():
    q, k, v, segment_ids = map(jnp.asarray, inputs()[:4])
    with pytest.raises(UserError, match="train.seq_len=1023 is not a multiple of 512"):
        attention.blockwise(q[:, 1:], k[:, 1:], v[:, 1:], segment_ids[:, 1:])
    with pytest.raises(UserError, match="'flash' is unknown; choose one of reference, blockwise"):
        attention.select("flash")
