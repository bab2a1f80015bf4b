"""Adam's moments in fewer bytes: optax's own Adam, whose state is decoded before an update and encoded after it.

  float32   8 bytes a parameter
  bfloat16  4
  int8      2.03; block-wise, as in 8-bit Adam (arXiv 2110.02861), with other codes

Rounding is stochastic and unbiased. Rounding to nearest would stall: a step moves the second moment v by the part
1 - b2 at most, and where that is less than half a step of the code, it never moves. The random bits are a hash of the
element, the leaf and the step: the same in every process, and no state.

int8 codes of a matrix, in blocks of 128 neighbours (row-major):
  v  unsigned float of 5 exponent and 3 mantissa bits, as a part of the block's largest v (float32, one a block): 32
     octaves. What lies below them takes the smallest code, never 0: v would be underestimated and the update explode.
     To Adam this is an eps of 2**-16 of the block's largest sqrt(v).
  m  linear, as a multiple of the element's own sqrt(v), as decoded. Adam's update is m / sqrt(v) up to two factors of
     the step count, so this is the very number that must be right; it is bounded (see `max_ratio`), so that it needs
     no scale, and whatever happens to v no update is larger than MAX_RATIO.
Vectors (norm scales) and leaves that blocks do not divide stay float32: they hold next to nothing.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

BLOCK = 128
MAX_RATIO = 2.5  # largest |m| / sqrt(v) that int8 holds
# A block whose largest v is below this holds zeros: the root, 2**-50, is far below Adam's eps of 1e-8.
SMALLEST_SCALE = 2.0**-100
_FIRST_CODE = (
    127 << 3
) - 255  # upper bits (exponent and 3 of mantissa) of the float32 that code 0 would be; 255 is 1.0


class Blocks(NamedTuple):
    """A second moment in 8 bits."""

    codes: jax.Array  # uint8, the leaf's shape; 0 is zero
    scale: jax.Array  # float32 [size / BLOCK], largest value of each block


def max_ratio(b1: float, b2: float) -> float:
    """The largest |m| / sqrt(v) that Adam can reach, over all sequences of gradients (Cauchy-Schwarz)."""
    if b1**2 >= b2 or b2 >= 1:
        return math.inf
    return (1 - b1) / math.sqrt((1 - b2) * (1 - b1**2 / b2))


def stored_as(form: str, adamw: optax.GradientTransformation) -> optax.GradientTransformation:
    """`adamw` with its moments kept in `form`, "float32", "bfloat16" or "int8"; updates are float32 as ever.

    Its update takes `leaf_ids`, {name: place in the whole tree}, where the tree that it is given is a part of one.

    Args:
      form: train.moments.
      adamw: a chain that begins with optax.scale_by_adam, as optax.adamw does.
    """
    if form == "float32":
        return adamw
    encode, decode = {"bfloat16": (_encode_bfloat16, _decode_bfloat16), "int8": (_encode_int8, _decode_int8)}[form]

    def packed(state, leaf_ids=None):
        adam, *rest = state
        ids = leaf_ids or {name: i for i, name in enumerate(adam.mu)}
        pairs, step = {}, adam.count
        # One leaf after the other: the codes of all would wait together for their places, 1 GiB at 1.7B parameters. The
        # largest comes last, when all gradients but its own are gone.
        for name, m in sorted(adam.mu.items(), key=lambda leaf: leaf[1].size):
            pairs[name] = encode(m, adam.nu[name], _hash(m.shape, ids[name], step))
            if pairs[name][0].dtype == jnp.int8:
                # Behind a barrier, or XLA computes the code that the next leaf waits for a second time, from the old
                # state, and copies that before it is overwritten: 0.5 GiB. What is stored is not behind it, or to keep
                # the old state after a step that is not applied would be a pass of its own.
                held = jax.lax.optimization_barrier(pairs[name][0])
                step += held.reshape(-1)[0] == -128  # no code is, which no compiler knows
        mu, nu = ({name: pair[i] for name, pair in pairs.items()} for i in (0, 1))
        return (adam._replace(mu=mu, nu=nu), *rest)

    def unpacked(state):
        adam, *rest = state
        pairs = {name: decode(adam.mu[name], adam.nu[name]) for name in adam.mu}
        mu, nu = ({name: pair[i] for name, pair in pairs.items()} for i in (0, 1))
        return (adam._replace(mu=mu, nu=nu), *rest)

    def update(updates, state, params=None, *, leaf_ids=None, **others):
        del others
        updates, state = adamw.update(updates, unpacked(state), params)
        return updates, packed(state, leaf_ids)

    def init(params):
        # Shapes alone: Adam begins with zeros, which every form stores as zeros.
        shapes = jax.eval_shape(lambda params: packed(adamw.init(params)), params)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    return optax.GradientTransformationExtraArgs(init, update)


def _hash(shape: tuple[int, ...], leaf: int | jax.Array, step: jax.Array) -> jax.Array:
    """32 random bits for each element, a function of its place, its leaf and the step (Wellons' lowbias32)."""
    x = jax.lax.iota(jnp.uint32, math.prod(shape)).reshape(shape)
    x += (step.astype(jnp.uint32) * 1024 + leaf) * jnp.uint32(0x9E3779B9)
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _bits(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, jnp.uint32)


def _float(bits: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _round_bfloat16(x, random):
    """float32 -> bfloat16, up or down with the chances that keep its mean; `random` is below 2**16."""
    high = ((_bits(x) + random) >> 16).astype(jnp.uint16)
    return jax.lax.bitcast_convert_type(high, jnp.bfloat16)


def _encode_bfloat16(m, v, random):
    return _round_bfloat16(m, random & 0xFFFF), _round_bfloat16(v, random >> 16)


def _decode_bfloat16(m, v):
    return m.astype(jnp.float32), v.astype(jnp.float32)


def _encode_int8(m, v, random):
    if m.ndim < 2 or m.size % BLOCK:
        return m, v
    scale = jnp.max(v.reshape(-1, BLOCK), axis=1)
    scale = jnp.where(scale < SMALLEST_SCALE, 0.0, scale)
    part = v / _over_blocks(jnp.where(scale == 0, 1.0, scale), v.shape)
    # Of a float32 the upper bits are the code; adding random lower bits rounds it up with the right chance.
    upper = (_bits(part) + (random & 0xFFFFF)) >> 20
    codes = jnp.clip(upper.astype(jnp.int32) - _FIRST_CODE, 1, 255)
    codes = jnp.where((v == 0) | _over_blocks(scale == 0, v.shape), 0, codes).astype(jnp.uint8)
    root = jnp.sqrt(_decode_blocks(codes, scale))
    ratio = m / jnp.where(root == 0, 1.0, root) * (127 / MAX_RATIO)
    chance = (random >> 20).astype(jnp.float32) / 4096
    rounded = jnp.clip(jnp.floor(ratio + chance), -127, 127)
    return (rounded * (root > 0)).astype(jnp.int8), Blocks(codes, scale)


def _over_blocks(values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """A block's value at each of its elements, in the leaf's shape, in which all arithmetic is done.

    What is computed in another shape a GPU's compiler writes down in between: 5 bytes a parameter of an update's 23,
    but for leaves whose last axis is a block.
    """
    return jnp.broadcast_to(values[:, None], (values.size, BLOCK)).reshape(shape)


def _decode_blocks(codes, scale):
    part = _float((codes.astype(jnp.uint32) + _FIRST_CODE) << 20)
    # Multiplied, not selected: XLA would keep an array of zeros, as large as the leaf, for all that ask for one.
    return part * (codes > 0) * _over_blocks(scale, codes.shape)


def _decode_int8(m, v):
    if not isinstance(v, Blocks):
        return m, v
    v = _decode_blocks(*v)
    return m.astype(jnp.float32) * (MAX_RATIO / 127) * jnp.sqrt(v), v
