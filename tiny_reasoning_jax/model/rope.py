"""Rotary position embedding in the half-split form of the Qwen and Llama checkpoints (arXiv 2104.09864)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

# Cosine and sine of every angle.
Angles = tuple[Float[Array, "B T half"], Float[Array, "B T half"]]


def rope_angles(positions: Int[Array, "B T"], head_dim: int, theta: float) -> Angles:
    """Cosines and sines of the angles, float32: bfloat16 cannot tell neighbouring positions apart beyond 256.

    On a CPU row by row in a loop, which is a wall to the compiler: it would compute them anew, number by number, in
    every one of the loops that turn queries and keys and their gradients, 8 % of the tiny recipe's step.
    """
    wavelengths = theta ** (jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)

    def turn(positions):
        angles = positions[..., None].astype(jnp.float32) / wavelengths
        return jnp.cos(angles), jnp.sin(angles)

    if positions.shape[1] == 1:  # a step of decoding has nothing to save
        return turn(positions)
    return jax.lax.platform_dependent(positions, cpu=lambda rows: jax.lax.map(turn, rows), default=turn)


@jax.custom_vjp
def rotate(x: Float[Array, "B T heads H"], angles: Angles) -> Float[Array, "B T heads H"]:
    """Turns dimensions (i, i + H/2) of every head by its angle; computed in float32, returned in x's dtype.

    On a CPU the two halves are computed apart and joined, which its compiler turns into faster loops. Elsewhere they
    change places by a reversed axis: behind a concatenation a GPU's compiler starts new kernels, 0.3 GB of traffic a
    layer at 16k tokens of Qwen3-1.7B. The derivative turns back; angles have none.
    """
    return jax.lax.platform_dependent(x, *angles, cpu=_join_halves, default=_reverse_halves)


def _join_halves(x, cos, sin):
    cos, sin = cos[:, :, None], sin[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


def _reverse_halves(x, cos, sin):
    cos, sin = cos[:, :, None, None], sin[:, :, None, None]
    halves = x.astype(jnp.float32).reshape(*x.shape[:-1], 2, -1)
    is_first = jax.lax.broadcasted_iota(jnp.int32, (2, 1), 0) == 0
    turned = halves * cos + jnp.where(is_first, -sin, sin) * halves[..., ::-1, :]
    return turned.reshape(x.shape).astype(x.dtype)


def _rotate_back(angles, d_out):
    cos, sin = angles
    return rotate(d_out, (cos, -sin)), None


rotate.defvjp(lambda x, angles: (rotate(x, angles), angles), _rotate_back)
