"""How the next token is chosen: the best one, or a draw after temperature, top-k and top-p (in this order).

The settings are static: what is switched off costs nothing, and over 151,936 logits a sort is not nothing.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from tiny_reasoning_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sampling:
    """The rule by which tokens are chosen; hashable, so that it can be a static argument.

    Attributes:
      temperature: divides the logits; 0 takes the most likely token and ignores the rest.
      top_p: draw from the smallest set of tokens that holds this probability; 1 keeps all.
      top_k: draw from this many most likely tokens; 0 keeps all.

    Raises:
      UserError: a value outside its range.
    """

    temperature: float
    top_p: float
    top_k: int

    def __post_init__(self):
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"temperature={self.temperature} must be 0 (greedy) or a number above it, such as 0.6")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} must be above 0 and at most 1; 1 keeps every token")
        if self.top_k < 0:
            raise UserError(f"top_k={self.top_k} must not be below 0; 0 keeps every token")


def choose_tokens(
    logits: Float[Array, "B V"], keys: Key[Array, "B"], sampling: Sampling
) -> tuple[Int[Array, "B"], Float[Array, "B"]]:
    """Returns one token per row and its log-probability under the model itself.

    That is log_softmax(logits): before temperature, top-k and top-p. Each row draws with its own key.
    """
    if sampling.temperature == 0:
        tokens = _find_best(logits)
    else:
        tokens = _draw(logits / sampling.temperature, keys, sampling)
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return tokens, chosen - jax.nn.logsumexp(logits, axis=-1)


def _draw(logits: Float[Array, "B V"], keys: Key[Array, "B"], sampling: Sampling) -> Int[Array, "B"]:
    """Draws after top-k and top-p. The largest of logits + Gumbel noise is a draw from softmax(logits)."""
    if sampling.top_k == 0 and sampling.top_p == 1:
        return _find_best(logits + _gumbel(keys, logits.shape[-1]))
    num_kept = min(sampling.top_k or logits.shape[-1], logits.shape[-1])
    logits, tokens = jax.lax.top_k(logits, num_kept)  # sorted, the most likely first
    if sampling.top_p < 1:
        probabilities = jax.nn.softmax(logits, axis=-1)
        # A token stays if those before it do not hold top_p yet: the one that crosses the line is in, and the
        # first always.
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        logits = jnp.where(before < sampling.top_p, logits, -jnp.inf)
    best = _find_best(logits + _gumbel(keys, num_kept))
    return jnp.take_along_axis(tokens, best[:, None], axis=-1)[:, 0]


def _find_best(values: Float[Array, "B V"]) -> Int[Array, "B"]:
    """The first index of each row's highest value; argmax takes ten times longer on a CPU, number by number."""
    V = values.shape[-1]
    is_best = values == values.max(axis=-1, keepdims=True)
    return jnp.where(is_best, jnp.arange(V), V).min(axis=-1, initial=V - 1)  # V - 1 where all are NaN


def _gumbel(keys: Key[Array, "B"], size: int) -> Float[Array, "B size"]:
    return jax.vmap(lambda key: jax.random.gumbel(key, (size,)))(keys)
