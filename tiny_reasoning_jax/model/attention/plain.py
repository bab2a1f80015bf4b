"""Attention in plain JAX: the reference, and the same in blocks of queries, on any device."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model import remat, rows


def masked_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
    attn_mask: Bool[Array, "B T S"],
) -> Float[Array, "B T N H"]:
    """Softmax attention under an explicit mask; grouped heads (N a multiple of K). Scores and softmax are float32.

    A query that may see nothing (padding) gets the mean of the values: finite, and masked out of every loss.
    """
    (B, T, N, H), (S, K) = q.shape, k.shape[1:3]
    # Heads in front, and the queries of a group one below the other: products of matrices as they lie in memory. With
    # the axes as they come the CPU compiler transposes (copies) all scores, forward and backward.
    grouped_q = jnp.einsum("btkgh->bkgth", q.reshape(B, T, K, N // K, H)).reshape(B, K, -1, H)  # N -> K, G; G, T -> one
    scores = jnp.einsum("bkth,bksh->bkts", grouped_q, k.swapaxes(1, 2), preferred_element_type=jnp.float32)
    scores = scores.reshape(B, K, N // K, T, S) * H**-0.5
    # The lowest finite number, not -inf: a row that is masked everywhere must not become NaN.
    scores = jnp.where(attn_mask[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = rows.softmax(scores).astype(v.dtype).reshape(B, K, -1, S)
    context = jnp.einsum("bkts,bksh->bkth", weights, v.swapaxes(1, 2)).reshape(B, K, N // K, T, H)
    return jnp.einsum("bkgth->btkgh", context).reshape(q.shape)


def reference(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
) -> Float[Array, "B T N H"]:
    """The plain form: holds scores [B, N, T, T] in float32, so it is for short rows and for checking the others."""
    return remat.name(masked_attention(q, k, v, packed_mask(segment_ids, segment_ids, 0)), remat.ATTENTION)


def packed_mask(
    query_segments: Int[Array, "B T"], key_segments: Int[Array, "B S"], first_query: int | Int[Array, ""]
) -> Bool[Array, "B T S"]:
    """True where query t (at row index first_query + t) may see key s: same segment, not later, not padding."""
    t = first_query + jnp.arange(query_segments.shape[1])[:, None]
    s = jnp.arange(key_segments.shape[1])[None, :]
    same = query_segments[:, :, None] == key_segments[:, None, :]
    return same & (s <= t) & (query_segments != 0)[:, :, None]


def blockwise(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    block: int = 512,
) -> Float[Array, "B T N H"]:
    """The reference, one block of queries at a time: scores [B, N, block, T], recomputed in the backward pass.

    Runs on any device at any length whose keys fit; memory grows with T, not with T squared. A row of one block is cut
    in two and keeps its weights: the first half of the queries sees no key of the second, a quarter of all scores.
    """
    T = q.shape[1]
    if T <= block:
        half = -(-T // 2)
        before, after = slice(0, half), slice(half, T)
        first = masked_attention(
            q[:, before], k[:, before], v[:, before], packed_mask(segment_ids[:, before], segment_ids[:, before], 0)
        )
        second = masked_attention(q[:, after], k, v, packed_mask(segment_ids[:, after], segment_ids, half))
        return remat.name(jnp.concatenate([first, second], axis=1), remat.ATTENTION)
    if reason := refusal(T, block):
        raise UserError(reason)

    @jax.checkpoint
    def one_block(first_query):
        q_block = jax.lax.dynamic_slice_in_dim(q, first_query, block, axis=1)
        query_segments = jax.lax.dynamic_slice_in_dim(segment_ids, first_query, block, axis=1)
        return masked_attention(q_block, k, v, packed_mask(query_segments, segment_ids, first_query))

    blocks = jax.lax.map(one_block, jnp.arange(0, T, block))  # [T / block, B, block, N, H]
    return remat.name(jnp.moveaxis(blocks, 0, 1).reshape(q.shape), remat.ATTENTION)


def refusal(T: int, block: int = 512) -> str | None:
    """Why rows of T tokens cannot be cut into blocks; None if they can."""
    if T <= block or T % block == 0:
        return None
    above = -(-T // block) * block
    return f"train.seq_len={T} is not a multiple of {block}, the query block of blockwise attention; take {above}"
