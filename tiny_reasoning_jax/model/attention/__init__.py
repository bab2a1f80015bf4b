"""Attention of training: who sees whom, and the backends that compute it.

A backend has the signature `attend(q, k, v, segment_ids) -> context`; rows are packed, and a token sees only earlier
tokens of its own segment. A backend that drops segment ids trains on a mixture of unrelated examples and says nothing:
every one must pass the laws in tests/model, and what runs only on a card its self-test there (self_test.py) as well.
Of padding the output is finite, no more, and its cotangent is 0: it is in no loss, and no other token sees it.
choice.py says which one trains where.
"""

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.attention import cudnn, triton
from tiny_reasoning_jax.model.attention.plain import blockwise, masked_attention, packed_mask, reference

__all__ = ["BACKENDS", "blockwise", "masked_attention", "packed_mask", "reference", "select"]

BACKENDS = {"reference": reference, "blockwise": blockwise, "cudnn": cudnn.attend, "triton": triton.triton}


def select(name: str):
    """The backend called `name`.

    Raises:
      UserError: no such backend.
    """
    if name not in BACKENDS:
        raise UserError(f"train.attention={name!r} is unknown; choose one of {', '.join(BACKENDS)}")
    return BACKENDS[name]
