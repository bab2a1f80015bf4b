"""The rematerialisation ladder: what a layer keeps for its backward pass, and what it computes a second time.

The layer's values are named where they are made (`name`), and a rung says which names are kept:

  rung   kept of a layer beside its input                 computed again
  none   what the compiler likes                          what the compiler likes
  most   ATTENTION, MLP                                   norms, rope, silu: no matrix product
  some   ATTENTION                                        the same, and the products with gate and up
  full   nothing                                          everything but the product with down, whose result is not used

ATTENTION is q, k and v as they leave their products (before their norm, whose gradient needs them so), the context,
the log-sum-exp of a kernel, and the sum after the residual; MLP is the results of gate and up.

Why "some" keeps attention: per byte kept, a product with a [D, *] matrix saves D FLOPs, the attention itself as many
as a token sees keys on average (twice 2 N H a key, for 2 N H bytes), at about half the speed of a product. From a
few thousand keys on attention is worth more than gate and up; below, they are about equal.

An attention backend names its result itself. One with a custom_vjp names what its backward rule takes over inside its
forward rule (`name(out, ATTENTION), name(lse, ATTENTION)`): a name put on its result outside does not reach these
residuals, and the kernel would run a second time.
"""

import jax
from jax.ad_checkpoint import checkpoint_name as name

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.spec import ModelSpec

__all__ = ["ATTENTION", "MLP", "RUNGS", "kept_bytes_per_token", "name", "recomputed_flops_per_token", "wrap"]

ATTENTION, MLP = "attention", "mlp"
# From the most memory to the most work.
RUNGS = ("none", "most", "some", "full")
_KEPT = {"most": (ATTENTION, MLP), "some": (ATTENTION,), "full": ()}


def wrap(layer, rung: str):
    """The function `layer` as `rung` differentiates it.

    Raises:
      UserError: no such rung.
    """
    if rung not in RUNGS:
        raise UserError(f"train.remat={rung!r} is unknown; choose one of {', '.join(RUNGS)}")
    if rung == "none":
        return layer
    return jax.checkpoint(layer, policy=jax.checkpoint_policies.save_only_these_names(*_KEPT[rung]))


def kept_bytes_per_token(spec: ModelSpec, rung: str, itemsize: int = 2) -> int:
    """Bytes that all layers together keep of one token until the backward pass; itemsize is the activations'.

    For "none" an upper bound: every operand of a matrix product, norm, rotation and gate. A compiler that computes some
    of them again in the kernel that reads them keeps less.
    """
    D, F, H = spec.hidden_size, spec.intermediate_size, spec.head_dim
    N, K = spec.num_attention_heads, spec.num_key_value_heads
    values = D
    if rung != "full":
        values += (N + 2 * K) * H + N * H + D  # q, k, v; context; the sum after attention
    if rung in ("most", "none"):
        values += 2 * F  # gate, up
    if rung == "none":
        values += 2 * D + (N + K) * H + F  # both norms' results, rotated q and k, the gated product
    log_sum_exp = 0 if rung == "full" else 4 * N  # float32, of kernels
    return spec.num_hidden_layers * (values * itemsize + log_sum_exp)


def recomputed_flops_per_token(spec: ModelSpec, rung: str, mean_keys: float) -> float:
    """FLOPs of matrix products (2 a multiply-add) that the backward pass spends a second time on one token.

    Args:
      spec: the model's shape.
      rung: of RUNGS.
      mean_keys: keys that a token sees on average; half its segment's length under a causal mask.
    """
    D, F, H = spec.hidden_size, spec.intermediate_size, spec.head_dim
    N, K = spec.num_attention_heads, spec.num_key_value_heads
    flops = 0.0
    if rung in ("some", "full"):
        flops += 2 * D * 2 * F  # gate, up
    if rung == "full":
        flops += 2 * D * (2 * N + 2 * K) * H  # q, k, v, o
        flops += 2 * 2 * N * H * mean_keys  # scores, context
    return spec.num_hidden_layers * flops
