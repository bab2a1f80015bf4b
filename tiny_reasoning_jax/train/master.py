"""The float32 master of the parameters, and storing it in 16 bits beside the bfloat16 parameters.

Parameters are the master rounded to the nearest bfloat16. "remainder16" keeps of the master only its low 16 bits:
rounding went up where the low half's top bit is set, so parameter and remainder give every bit of the master back
(the idea of TransformerEngine's store_param_remainders). It costs 4 bytes a parameter in place of 6.

Ties go away from zero, in both forms. To even they cannot go: 65,537 float32 numbers round to an even bfloat16 and
65,535 to an odd one, which no 16 bits tell apart. Away from zero every bfloat16 stands for exactly 65,536. One number
in 65,536 is a tie; where it goes is no better or worse, but it has to be the same in both forms.
"""

import jax
import jax.numpy as jnp

from tiny_reasoning_jax.model.qwen3 import Params

CANONICAL_NAN = 0x7FC00000  # low half zero, so that it survives the split


def split(master: jax.Array) -> tuple[jax.Array, jax.Array]:
    """float32 -> (bfloat16 parameter, uint16 remainder), any shape.

    Written in integers, which a compiler cannot drop: XLA may take float32 -> bfloat16 -> float32 for the identity.
    Infinity stays infinity, a NaN becomes the canonical one; what is within half an ulp of infinity rounds to it.
    """
    bits = jax.lax.bitcast_convert_type(master, jnp.uint32)
    bits = jnp.where(jnp.isnan(master), jnp.uint32(CANONICAL_NAN), bits)
    rounded = (bits + 0x8000) >> 16
    return jax.lax.bitcast_convert_type(rounded.astype(jnp.uint16), jnp.bfloat16), bits.astype(jnp.uint16)


def join(params: jax.Array, remainder: jax.Array) -> jax.Array:
    """The float32 master, bit for bit, of what `split` made."""
    low = remainder.astype(jnp.uint32)
    rounded = jax.lax.bitcast_convert_type(params, jnp.uint16).astype(jnp.uint32)
    high = rounded - (low >> 15)  # take back the rounding up
    return jax.lax.bitcast_convert_type((high << 16) | low, jnp.float32)


def create(params: Params, form: str) -> Params:
    """What train.master=`form` keeps beside fresh bfloat16 `params`: float32 leaves, or uint16 remainders (zero)."""
    if form == "float32":
        return {name: leaf.astype(jnp.float32) for name, leaf in params.items()}
    return {name: jnp.zeros(leaf.shape, jnp.uint16) for name, leaf in params.items()}


def load(params: Params, stored: Params) -> Params:
    """The float32 master of parameters and what is kept beside them, in either form."""
    return {name: join(params[name], kept) if kept.dtype == jnp.uint16 else kept for name, kept in stored.items()}


def store(master: Params, like: Params) -> tuple[Params, Params]:
    """(parameters, what is kept beside them in the form of `like`) of a float32 master."""
    parts = {name: split(leaf) for name, leaf in master.items()}
    params = {name: rounded for name, (rounded, _) in parts.items()}
    kept = {name: parts[name][1] if like[name].dtype == jnp.uint16 else leaf for name, leaf in master.items()}
    return params, kept
