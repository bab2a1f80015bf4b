"""The key/value cache of generation, and attention through it.

One slot per position, so a row's length is all that says what is valid. The slots lie in blocks whose borders are
fixed: a cache grows by a block, and nothing is moved. `extend` reads a stretch of prompt into a single block, `step`
one token per row into many.
"""

import functools
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tiny_reasoning_jax.model.spec import ModelSpec

_LOWEST = jnp.finfo(jnp.float32).min  # not -inf: the difference of two of them must be 0


class Block(NamedTuple):
    """Slots of one layer.

    They are the last axis of the keys and the last but one of the values, so that either product of attention finds its
    sums as it needs them: with slots first, XLA transposes (copies) the whole cache at every step.

    Attributes:
      keys: [B, K, H, S].
      values: [B, K, S, H].
    """

    keys: Float[Array, "B K H S"]
    values: Float[Array, "B K S H"]


LayerCache = tuple[Block, ...]
Cache = tuple[LayerCache, ...]  # of every layer


def block_sizes(num_slots: int) -> list[int]:
    """Slots of each block of a cache for num_slots positions or more: 288, 96, twice 192, twice 384, twice 768 ...

    Attention reads whole blocks, up to the last that a row has reached: at most half as much again as needed, in few
    blocks. Where a block begins and how long it is depends on nothing, see `step`.
    """
    sizes = [288]
    while sum(sizes) < num_slots:
        sizes.append(96 << len(sizes) // 2)
    return sizes


def create_cache(spec: ModelSpec, batch_size: int, sizes: list[int], dtype) -> Cache:
    """Empty blocks of these sizes for every layer; batch_size * sum(sizes) * slot_bytes(spec, dtype) bytes."""
    B, K, H = batch_size, spec.num_key_value_heads, spec.head_dim
    create = lambda S: Block(jnp.zeros((B, K, H, S), dtype), jnp.zeros((B, K, S, H), dtype))
    return tuple(tuple(create(S) for S in sizes) for _ in range(spec.num_hidden_layers))


def slot_bytes(spec: ModelSpec, dtype) -> int:
    """Bytes that one position of one row takes in a cache of this dtype."""
    return 2 * spec.num_hidden_layers * spec.num_key_value_heads * spec.head_dim * jnp.dtype(dtype).itemsize


def spans(blocks: LayerCache) -> Iterator[tuple[Block, int, int]]:
    """Each block with the position of its first slot and the one behind its last."""
    ends = itertools.accumulate(block.keys.shape[3] for block in blocks)
    return ((block, end - block.keys.shape[3], end) for block, end in zip(blocks, ends, strict=True))


def extend(
    blocks: LayerCache,
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    *,
    start: int | Int[Array, ""],
) -> tuple[Float[Array, "B T N H"], LayerCache]:
    """Stores T positions from `start` on, a multiple of T, in every row of a single block; each sees all up to itself.

    Scores exist for T slots at a time, [B, N, T, T], and slots behind the last query are not read.
    """
    (B, T, N, H), K = q.shape, k.shape[2]
    ((keys, values),) = blocks
    keys = jax.lax.dynamic_update_slice_in_dim(keys, jnp.einsum("btkh->bkht", k), start, axis=3)
    values = jax.lax.dynamic_update_slice_in_dim(values, v.swapaxes(1, 2), start, axis=2)
    q = q.reshape(B, T, K, N // K, H)  # N -> K, G

    def read(i, carry):
        """Adds the i-th T slots to a softmax that is normalised at the end (arXiv 1805.02867)."""
        highest, total, context = carry
        slots = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=i * T, slice_size=T)
        scores = jnp.einsum("btkgh,bkhs->bkgts", q, slots(keys, axis=3), preferred_element_type=jnp.float32)
        seen = i * T + jnp.arange(T) <= (start + jnp.arange(T))[:, None]
        scores = jnp.where(seen, scores * H**-0.5, _LOWEST)
        higher = jnp.maximum(highest, scores.max(-1))
        weights, kept = jnp.exp(scores - higher[..., None]), jnp.exp(highest - higher)
        part = jnp.einsum(
            "bkgts,bksh->bkgth", weights.astype(v.dtype), slots(values, axis=2), preferred_element_type=jnp.float32
        )
        return higher, total * kept + weights.sum(-1), context * kept[..., None] + part

    empty = jnp.zeros((B, K, N // K, T), jnp.float32)
    carry = (empty + _LOWEST, empty, jnp.zeros((*empty.shape, H), jnp.float32))
    _, total, context = jax.lax.fori_loop(0, start // T + 1, read, carry)
    context = (context / total[..., None]).astype(v.dtype)
    return jnp.einsum("bkgth->btkgh", context).reshape(B, T, N, H), (Block(keys, values),)


def step(
    blocks: LayerCache,
    q: Float[Array, "B 1 N H"],
    k: Float[Array, "B 1 K H"],
    v: Float[Array, "B 1 K H"],
    *,
    positions: Int[Array, "B"],
) -> tuple[Float[Array, "B 1 N H"], LayerCache]:
    """Stores one token of each row at its position, and lets it see all slots up to there.

    A negative position is not stored: it is a finished row's, whose context is rubbish.

    What a row gets does not depend, to the last bit, on how many blocks there are, which follows its neighbours: each
    block is worked out by itself, and one that the row has not reached weighs exactly 0. A longer sum over all slots
    would be split up in another way, and round differently.
    """
    (B, _, N, H), K = q.shape, k.shape[2]
    q = q.reshape(B, K, N // K, H)  # N -> K, G
    written, parts = [], []
    for block, start, end in spans(blocks):
        slots = jnp.where((positions >= start) & (positions < end), positions - start, end)  # `end` is dropped
        keys = block.keys.at[jnp.arange(B), :, :, slots].set(k[:, 0], mode="drop")
        values = block.values.at[jnp.arange(B), :, slots].set(v[:, 0], mode="drop")
        written.append(Block(keys, values))
        # The barrier keeps XLA on a GPU from making one product of all blocks, for which it would copy them together.
        own_q, _ = jax.lax.optimization_barrier((q, slots))
        scores = jnp.einsum("bkgh,bkhs->bkgs", own_q, keys, preferred_element_type=jnp.float32)
        seen = jnp.arange(start, end) <= positions[:, None, None, None]
        scores = jnp.where(seen, scores * H**-0.5, _LOWEST)
        highest = scores.max(-1)
        weights = jnp.exp(scores - highest[..., None])
        context = jnp.einsum("bkgs,bksh->bkgh", weights.astype(v.dtype), values, preferred_element_type=jnp.float32)
        parts.append((highest, weights.sum(-1), context))
    highest = functools.reduce(jnp.maximum, [part[0] for part in parts])
    scales = [jnp.exp(part[0] - highest) for part in parts]
    total = sum(scale * part[1] for scale, part in zip(scales, parts, strict=True))
    context = sum(scale[..., None] * part[2] for scale, part in zip(scales, parts, strict=True))
    return (context / total[..., None]).astype(v.dtype).reshape(B, 1, N, H), tuple(written)
