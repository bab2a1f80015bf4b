"""The key/value cache of generation: one slot per position, so a row's length is all that says what is valid."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tiny_reasoning_jax.model.spec import ModelSpec


class Cache(NamedTuple):
    """Keys and values of every layer, static in size.

    Heads come before slots: attention multiplies head by head, and with slots first XLA transposes (copies)
    the whole cache at every step.

    Attributes:
      keys: L arrays [B, K, S, H]; slot s of a row holds the token at position s.
      values: the same for values.
    """

    keys: tuple[Float[Array, "B K S H"], ...]
    values: tuple[Float[Array, "B K S H"], ...]


def create_cache(spec: ModelSpec, batch_size: int, num_slots: int, dtype) -> Cache:
    """An empty cache of num_slots positions; 2 * L * B * S * K * H numbers of `dtype`."""
    shape = (batch_size, spec.num_key_value_heads, num_slots, spec.head_dim)
    layers = range(spec.num_hidden_layers)
    return Cache(*(tuple(jnp.zeros(shape, dtype) for _ in layers) for _ in range(2)))


def write(
    slots: Float[Array, "B K S H"], new: Float[Array, "B T K H"], positions: Int[Array, "B T"]
) -> Float[Array, "B K S H"]:
    """Stores each new row entry at its position; a position outside the cache is dropped (it is a finished row's)."""
    rows = jnp.arange(slots.shape[0])[:, None]
    return slots.at[rows, :, positions].set(new.astype(slots.dtype), mode="drop")
