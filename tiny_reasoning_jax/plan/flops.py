"""Floating-point operations of training, counted from shapes: what a rate in tokens/s means for a card.

A multiply-add counts two. Attention is causal and stays within a segment: a token sees on average half its segment's
length, so packed rows cost less than their length suggests, and counting whole rows would flatter the rate. Norms,
rotations, the softmax and the optimizer are left out, as everybody does.
"""

from collections.abc import Iterable
from typing import NamedTuple

from tiny_reasoning_jax.model.spec import ModelSpec

# Backward takes two products for each of forward: one for the operand's gradient, one for the matrix's.
TRAINING_PER_FORWARD = 3


class Forward(NamedTuple):
    """FLOPs of one token's forward pass, by what spends them."""

    linear: float  # matrices of the layers
    head: float  # output matrix
    attention: float  # scores and context


def forward_flops_per_token(spec: ModelSpec, mean_keys: float) -> Forward:
    """FLOPs of one token's forward pass.

    Args:
      spec: the model's shape.
      mean_keys: keys that a token sees on average, see `mean_keys`.
    """
    D, F, H, L = spec.hidden_size, spec.intermediate_size, spec.head_dim, spec.num_hidden_layers
    N, K = spec.num_attention_heads, spec.num_key_value_heads
    linear = 2 * L * (2 * D * (N + K) * H + 3 * D * F)
    attention = L * 2 * 2 * N * H * mean_keys
    return Forward(linear, 2 * D * spec.vocab_size, attention)


def training_flops_per_token(spec: ModelSpec, mean_keys: float) -> float:
    """FLOPs that training needs for one token; what is computed a second time to save memory does not count."""
    return TRAINING_PER_FORWARD * sum(forward_flops_per_token(spec, mean_keys))


def mean_keys(lengths: Iterable[int]) -> float:
    """Keys that a token sees on average in segments of these lengths: sum(length^2) / 2 over all tokens."""
    lengths = list(lengths)
    return sum(length * length for length in lengths) / 2 / sum(lengths)


def utilisation(tokens_per_second: float, flops_per_token: float, peak_flops: float) -> float:
    """MFU: the part of the card's peak that a rate in tokens/s makes use of, 0 to 1."""
    return tokens_per_second * flops_per_token / peak_flops
