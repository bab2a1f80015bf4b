"""Attention of training: who sees whom, and the backends that compute it.

A backend has the signature `attend(q, k, v, segment_ids) -> context`; rows are packed, and a token sees only earlier
tokens of its own segment. Every backend in BACKENDS must pass tests/model/test_attention.py (packed == apart, grouped
heads included): a backend that drops segment ids trains on a mixture of unrelated examples and says nothing.
"""

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.attention.plain import blockwise, masked_attention, packed_mask, reference

__all__ = ["BACKENDS", "blockwise", "masked_attention", "packed_mask", "reference", "select"]

BACKENDS = {"reference": reference, "blockwise": blockwise}


def select(name: str):
    """The backend called `name`.

    Raises:
      UserError: no such backend.
    """
    if name not in BACKENDS:
        raise UserError(f"train.attention={name!r} is unknown; choose one of {', '.join(BACKENDS)}")
    return BACKENDS[name]
