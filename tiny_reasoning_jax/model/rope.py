"""Rotary position embedding in the half-split form of the Qwen and Llama checkpoints (arXiv 2104.09864)."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def rope_angles(positions: Int[Array, "B T"], head_dim: int, theta: float) -> Float[Array, "B T half"]:
    """Angles in radians, float32: bfloat16 cannot tell neighbouring positions apart beyond 256."""
    wavelengths = theta ** (jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    return positions[..., None].astype(jnp.float32) / wavelengths


def rotate(x: Float[Array, "B T heads H"], angles: Float[Array, "B T half"]) -> Float[Array, "B T heads H"]:
    """Turns dimensions (i, i + H/2) of every head by angles[..., i]; computed in float32, returned in x's dtype."""
    cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
