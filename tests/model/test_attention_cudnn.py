"""pytest tests/model/test_attention_cudnn.py: what cuDNN is told about packed rows, checked without a card.

The kernels are emulated (emulated_cudnn.py); the program that calls the real ones is lowered for CUDA and read.
"""

import functools
import re

import emulated_cudnn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model import attention, remat
from tiny_reasoning_jax.model.attention import cudnn

T, B, N, K, H = 96, 2, 4, 2, 8
ROWS = {  # each row's segments by their lengths, 0 a position of padding
    "more segments than slots": ((5, 1, 30, 2, 2, 7, 1, 1, 20, 3, 9, 4), (40, 3, 1, 1, 6, 6, 11, 0, 0)),
    "one segment": ((T,), (T,)),
    "padding before, between and after": ((0, 0, 50, 0, 3, 0), (0, 1, 0, 1, 0, 80)),
    "an empty row": ((0,), (90, 6)),
    "only padding": ((0,), (0,)),
    "every token alone": ((1,) * T, (1,) * T),
}


def segment_ids_of(rows):
    ids = np.zeros((B, T), np.int32)
    for row, lengths in zip(ids, rows, strict=True):
        place = 0
        for number, length in enumerate(lengths, start=1):
            row[place : place + length] = number
            place += max(length, 1)
    return ids


def inputs(heads):
    rng = np.random.default_rng(0)
    q, k, v, cotangent = (rng.standard_normal((B, T, n, H)).astype(np.float32) for n in (N, heads, heads, N))
    return q, k, v, cotangent


@functools.partial(jax.jit, static_argnums=0)
def forward_backward(attend, q, k, v, segment_ids, cotangent):
    """The output and the gradients of q, k and v; padding has no cotangent, as in training."""
    out, pull = jax.vjp(lambda q, k, v: attend(q, k, v, segment_ids), q, k, v)
    return out, *pull(cotangent * (segment_ids != 0)[:, :, None, None])


@functools.cache
def with_slots(slots_per_row):
    """The backend without its refusal of float32."""
    return lambda q, k, v, segment_ids: cudnn._attend(q, k, v, segment_ids, slots_per_row)


def assert_equals_the_reference(attend, heads, rows):
    q, k, v, cotangent = inputs(heads)
    segment_ids = segment_ids_of(rows)
    real = (segment_ids != 0)[:, :, None, None]
    out, *gradients = forward_backward(attend, q, k, v, segment_ids, cotangent)
    expected = forward_backward(attention.reference, q, k, v, segment_ids, cotangent)
    for a, b in zip((np.where(real, out, 0), *gradients), expected, strict=True):
        np.testing.assert_allclose(a, np.where(real, b, 0), rtol=0, atol=1e-5)
    assert np.all(np.isfinite(out)) and not any(np.any(np.where(real, 0, gradient)) for gradient in gradients)


@pytest.fixture
def emulated(monkeypatch):
    monkeypatch.setattr(cudnn, "_kernel_forward", emulated_cudnn.forward)
    monkeypatch.setattr(cudnn, "_kernel_backward", emulated_cudnn.backward)


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_equals_the_reference(emulated, rows):
    """Grouped heads, one pass or many; the memory that the kernels left unwritten (NaN) is seen nowhere."""
    assert_equals_the_reference(with_slots(4), K, rows)


@pytest.mark.parametrize("heads, slots_per_row", ((1, 7), (4, 2)))
def test_heads_and_slots_make_no_difference(emulated, heads, slots_per_row):
    assert_equals_the_reference(with_slots(slots_per_row), heads, ROWS["more segments than slots"])


def test_offsets_of_an_example_by_hand():
    """Rows of 4 tokens, 16 query heads, 8 key/value heads, 128 wide; two slots a row, two passes."""
    ids = jnp.array([[1, 1, 2, 0], [1, 2, 3, 3], [0, 1, 2, 0]])
    segments = cudnn.find_segments(ids, 18)
    assert segments.count == 8
    np.testing.assert_array_equal(segments.number, [[0, 0, 1, 1], [2, 3, 4, 4], [5, 6, 7, 7]])
    slots = cudnn.fill_slots(segments, jnp.int32(0), 2, 16, 8, 128)
    np.testing.assert_array_equal(slots.lengths, [[2, 2], [1, 1], [2, 1]])
    tokens = np.array([[0, 2, 4], [5, 6, 8], [12, 12, 12]])  # six sequences, then the end
    np.testing.assert_array_equal(slots.q_offsets, tokens * 16 * 128)
    np.testing.assert_array_equal(slots.kv_offsets, tokens * 8 * 128)
    np.testing.assert_array_equal(slots.taken, [[0, 0, 1, 1], [2, 3, 4, 4], [5, -1, -1, -1]])
    rest = cudnn.fill_slots(segments, jnp.int32(6), 2, 16, 8, 128)
    np.testing.assert_array_equal(rest.lengths, [[1, 2], [0, 0], [0, 0]])
    np.testing.assert_array_equal(rest.kv_offsets.ravel(), [9 * 8 * 128, 10 * 8 * 128] + [12 * 8 * 128] * 7)
    np.testing.assert_array_equal(rest.taken, [[-1, -1, -1, -1], [-1, -1, -1, -1], [-1, 0, 1, 1]])


def test_offsets_are_those_of_jax_where_jax_is_right():
    """With as many key/value heads as query heads its private wrapper arranges the same operands."""
    fused = cudnn._fused_attention()
    lengths = np.array([[5, 1, 90], [40, 56, -1]], np.int32)
    offsets = np.array([[0, 5, 6, -1], [0, 40, -1, -1]], np.int32)
    like = jnp.zeros((B, T, N, H))
    theirs = fused._fix_seqlen_offsets(*map(jnp.asarray, (lengths, lengths, offsets, offsets)), like, like)
    segments = cudnn.find_segments(jnp.asarray(segment_ids_of(((5, 1, 90), (40, 56)))), B * T)
    ours = cudnn.fill_slots(segments, jnp.int32(0), 3, N, N, H)
    for a, b in zip((ours.lengths, ours.lengths, ours.q_offsets, ours.kv_offsets), theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def lowered_for_cuda(function, K=8):
    shapes = [(4, 4096, 16, 128), (4, 4096, K, 128), (4, 4096, K, 128)]
    q, k, v = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes)
    ids = jax.ShapeDtypeStruct((4, 4096), jnp.int32)
    return jax.jit(function).trace(q, k, v, ids).lower(lowering_platforms=("cuda",)).as_text()


def squares(q, k, v, ids):
    return jnp.sum(cudnn.attend(q, k, v, ids).astype(jnp.float32) ** 2)


def test_lowered_for_cuda_it_calls_the_packed_kernels():
    """The real head shape; a kernel in the first pass and one in the loop, each with lengths and offsets."""
    text = lowered_for_cuda(jax.grad(squares, (0, 1, 2)))
    calls = re.findall(r"@(__cudnn\$\w+).*max_seg_per_batch\\22: 4.*? : \((.*)\) -> ", text)
    assert [name for name, _ in calls] == 2 * ["__cudnn$fmhaSoftmax"] + 2 * ["__cudnn$fmhaSoftmaxBackward"]
    for _, operands in calls:
        assert operands.count("tensor<4x4xi32>") == 2 and operands.count("tensor<4x5xi32>") == 2
        assert operands.startswith("tensor<4x4096x16x128xbf16>, tensor<4x4096x8x128xbf16>, tensor<4x4096x8x128xbf16>")
    assert text.count("PADDING_CAUSAL") == 4


def test_a_rung_that_keeps_attention_runs_no_kernel_twice():
    step = lambda rung: jax.value_and_grad(remat.wrap(squares, rung), (0, 1, 2))
    calls = lambda rung: lowered_for_cuda(step(rung)).count("@__cudnn$fmhaSoftmax(")
    assert calls("some") == calls("none") == 2 and calls("full") == 4


def test_what_the_workspace_is_made_of():
    """16,384 tokens of the 1.7B model: 1 GiB, for which a plan made without a card must leave room."""
    one = cudnn.workspace_bytes(4, 4096, 16, 8, 128)
    assert one == 4 * 4 * 4096 * 16 * (4 * 128 + 4 + 2 * 2 * 128) and 1.0 < one / 2**30 < 1.01
    assert cudnn.workspace_bytes(4, 4096, 16, 16, 128) < one


def test_what_cudnn_does_not_take_is_refused():
    ids = jax.ShapeDtypeStruct((B, T), jnp.int32)
    shaped = lambda dtype, H, T=T: [jax.ShapeDtypeStruct((B, T, n, H), dtype) for n in (N, K, K)]
    with pytest.raises(UserError, match="takes bfloat16 and float16, not float32; set train.compute_dtype=bfloat16"):
        jax.eval_shape(cudnn.attend, *shaped(jnp.float32, 64), ids)
    for H in (12, 264):
        with pytest.raises(UserError, match=f"heads up to 256 wide, in steps of 8; the model's head_dim is {H}"):
            jax.eval_shape(cudnn.attend, *shaped(jnp.bfloat16, H), ids)
    long = 2**22
    with pytest.raises(UserError, match="2,147,483,648 elements, and cuDNN counts them in 31 bits"):
        ids = jax.ShapeDtypeStruct((B, long), jnp.int32)
        jax.eval_shape(cudnn.attend, *shaped(jnp.bfloat16, 64, long), ids)


def test_a_jax_without_these_kernels_is_refused_by_name(monkeypatch):
    monkeypatch.delattr(cudnn._fused_attention(), "_dot_product_attention_bwd_p")
    with pytest.raises(UserError, match="jax .* has no such kernels.*install jax 0.12, or set train.attention=triton"):
        lowered_for_cuda(squares)
