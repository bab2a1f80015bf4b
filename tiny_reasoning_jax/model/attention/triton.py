"""Packed attention in Triton kernels, for NVIDIA cards from Ampere on: written in Pallas, forward and backward.

After FlashAttention-2 (Dao 2023, arXiv:2307.08691), with two differences. A tile visits only what its segments can see
(triton_tiles.py), in the backward pass too. And the query heads of a group read their key/value head where it lies,
nothing is repeated; in the backward pass one program adds up the gradients of a whole group.

Everything but the operands of matrix products is float32: scores, softmax, sums. There are no atomic additions, so
equal inputs give equal bits. The layout is the model's, [B, T, heads, H]: nothing is transposed around a kernel.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu
from jaxtyping import Array, Float, Int

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model import remat
from tiny_reasoning_jax.model.attention import triton_kernels, triton_tiles


def triton(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    plan: triton_tiles.Plan | None = None,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """Attention of packed rows; a segment is a run of equal ids, 0 is padding, whose output is 0.

    Args:
      q: queries, bfloat16 or float16; float32 is for checks: its products leave tensor cores aside.
      k: keys; as the values with K heads, of which N is a multiple.
      v: values.
      segment_ids: who belongs together.
      plan: tile sizes; None for those of the attached card.
      interpret: compute in plain JAX what the kernels say, slowly and on any device. For tests.

    Raises:
      UserError: a head width or a row length that no tile fits.
    """
    T, H = q.shape[1], q.shape[3]
    if reason := triton_tiles.refusal(T, H):
        raise UserError(f"train.attention='triton' cannot run: {reason}")
    plan = triton_tiles.shorten(plan or triton_tiles.choose(q.dtype), T)
    return _attend(q, k, v, segment_ids, plan, interpret)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attend(q, k, v, segment_ids, plan, interpret):
    return _forward(q, k, v, segment_ids, plan.forward, interpret)[0]


def _attend_forward(q, k, v, segment_ids, plan, interpret):
    out, lse = _forward(q, k, v, segment_ids, plan.forward, interpret)
    # Named here: outside, a rung that keeps attention would not reach them, and the kernel would run a second time.
    out, lse = remat.name(out, remat.ATTENTION), remat.name(lse, remat.ATTENTION)
    return out, (q, k, v, segment_ids, out, lse)


def _attend_backward(plan, interpret, residuals, d_out):
    q, k, v, segment_ids, out, lse = residuals
    dq, delta = _backward_q(q, k, v, segment_ids, out, lse, d_out, plan.backward_q, interpret)
    dk, dv = _backward_kv(q, k, v, segment_ids, lse, delta, d_out, plan.backward_kv, interpret)
    return dq, dk, dv, None


_attend.defvjp(_attend_forward, _attend_backward)


def _forward(q, k, v, segment_ids, blocks, interpret):
    """The output, and lse: float32 [B, N, T]."""
    B, T, N, _ = q.shape
    ranges = triton_tiles.key_ranges(segment_ids, blocks.q, blocks.k)
    of_rows, a_tile, all_keys, numbers = _specs_of_query_tiles(q, k, blocks)
    return pl.pallas_call(
        functools.partial(triton_kernels.forward, block_k=blocks.k),
        grid=(T // blocks.q, N, B),
        in_specs=[*of_rows, a_tile, all_keys, all_keys],
        out_specs=[a_tile, numbers],
        out_shape=[_like(q), jax.ShapeDtypeStruct((B, N, T), jnp.float32)],
        name="attention_forward",
        **_how(blocks, interpret),
    )(ranges, segment_ids, q, k, v)


def _backward_q(q, k, v, segment_ids, out, lse, d_out, blocks, interpret):
    """The gradient of q, and delta: float32 [B, N, T]."""
    B, T, N, _ = q.shape
    ranges = triton_tiles.key_ranges(segment_ids, blocks.q, blocks.k)
    of_rows, a_tile, all_keys, numbers = _specs_of_query_tiles(q, k, blocks)
    return pl.pallas_call(
        functools.partial(triton_kernels.backward_q, block_k=blocks.k),
        grid=(T // blocks.q, N, B),
        in_specs=[*of_rows, a_tile, all_keys, all_keys, a_tile, numbers, a_tile],
        out_specs=[a_tile, numbers],
        out_shape=[_like(q), _like(lse)],
        name="attention_backward_q",
        **_how(blocks, interpret),
    )(ranges, segment_ids, q, k, v, out, lse, d_out)


def _backward_kv(q, k, v, segment_ids, lse, delta, d_out, blocks, interpret):
    """The gradients of k and v."""
    B, T, K, H = k.shape
    G = q.shape[2] // K
    ranges = triton_tiles.query_ranges(segment_ids, blocks.q, blocks.k)
    a_tile = pl.BlockSpec((None, blocks.k, None, H), lambda i, n, b: (b, i, n, 0))
    all_queries = pl.BlockSpec((None, T, G, H), lambda i, n, b: (b, 0, n, 0))
    numbers = pl.BlockSpec((None, G, T), lambda i, n, b: (b, n, 0))
    return pl.pallas_call(
        functools.partial(triton_kernels.backward_kv, block_q=blocks.q),
        grid=(T // blocks.k, K, B),
        in_specs=[
            pl.BlockSpec((None, None, 4), lambda i, n, b: (b, i, 0)),
            pl.BlockSpec((None, T), lambda i, n, b: (b, 0)),
            all_queries,
            a_tile,
            a_tile,
            numbers,
            numbers,
            all_queries,
        ],
        out_specs=[a_tile, a_tile],
        out_shape=[_like(k), _like(v)],
        name="attention_backward_kv",
        **_how(blocks, interpret),
    )(ranges, segment_ids, q, k, v, lse, delta, d_out)


def _specs_of_query_tiles(q, k, blocks):
    """(Of ranges and ids, of a tile of queries, of all keys of its head, of a number a query); late tiles first."""
    T, N, H = q.shape[1:]
    G, last = N // k.shape[2], T // blocks.q - 1
    of_rows = (
        pl.BlockSpec((None, None, 4), lambda i, n, b: (b, last - i, 0)),
        pl.BlockSpec((None, T), lambda i, n, b: (b, 0)),
    )
    a_tile = pl.BlockSpec((None, blocks.q, None, H), lambda i, n, b: (b, last - i, n, 0))
    all_keys = pl.BlockSpec((None, T, None, H), lambda i, n, b: (b, 0, n // G, 0))
    return of_rows, a_tile, all_keys, pl.BlockSpec((None, None, blocks.q), lambda i, n, b: (b, n, last - i))


def _like(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _how(blocks, interpret):
    params = plgpu.CompilerParams(num_warps=blocks.warps, num_stages=blocks.stages)
    return {"compiler_params": params, "interpret": interpret}
