"""Cross-entropy over a vocabulary of 151,936 columns without ever holding [B, T, V].

The loss runs over chunks of tokens. Its gradient is formed in the same pass, while a chunk's logits exist, so that the
backward pass recomputes nothing: three matrix products instead of four.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def cross_entropy_sum(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    loss_mask: Bool[Array, "B T"],
    chunk: int,
) -> Float[Array, ""]:
    """Sum over the trained positions of -log p(target); the divisor belongs to the whole optimizer step.

    Args:
      hidden: final hidden states.
      head: output matrix; its gradient is summed over chunks in float32.
      targets: ids to predict; ignored where loss_mask is False.
      loss_mask: which positions count.
      chunk: tokens whose float32 logits [chunk, V] exist at one time.
    """
    D = hidden.shape[-1]
    num_tokens = targets.size
    chunk = min(chunk, num_tokens)
    padding = -num_tokens % chunk  # the last chunk is filled up with masked tokens
    rows = lambda x, *tail: jnp.pad(x.reshape(-1, *tail), [(0, padding)] + [(0, 0)] * len(tail)).reshape(
        -1, chunk, *tail
    )
    return _chunked(rows(hidden, D), head, rows(targets), rows(loss_mask))


@jax.custom_vjp
def _chunked(hidden, head, targets, loss_mask):
    """hidden [C, chunk, D], head [V, D], targets and loss_mask [C, chunk] -> scalar sum."""
    one_chunk = lambda total, xs: (total + _chunk_loss(head, *xs)[0], None)
    return jax.lax.scan(one_chunk, jnp.float32(0), (hidden, targets, loss_mask))[0]


def _chunk_loss(head, hidden, targets, loss_mask):
    """One chunk: (summed loss, logits, log-normaliser), all float32."""
    logits = jnp.einsum("cd,vd->cv", hidden, head.astype(hidden.dtype), preferred_element_type=jnp.float32)
    log_normalizer = jax.nn.logsumexp(logits, axis=-1)
    target_logits = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    # where, not a product: an inf at a position that is not trained must stay out of the sum.
    return jnp.sum(jnp.where(loss_mask, log_normalizer - target_logits, 0.0)), logits, log_normalizer


def _forward(hidden, head, targets, loss_mask):
    def one_chunk(carry, xs):
        total, d_head = carry
        chunk_hidden, chunk_targets, chunk_mask = xs
        loss, logits, log_normalizer = _chunk_loss(head, *xs)
        probabilities = jnp.exp(logits - log_normalizer[:, None])
        is_target = jnp.arange(head.shape[0]) == chunk_targets[:, None]
        d_logits = jnp.where(chunk_mask[:, None], probabilities - is_target, 0.0).astype(hidden.dtype)
        d_hidden = jnp.einsum("cv,vd->cd", d_logits, head.astype(hidden.dtype))
        d_head += jnp.einsum("cv,cd->vd", d_logits, chunk_hidden, preferred_element_type=jnp.float32)
        return (total + loss, d_head), d_hidden

    start = (jnp.float32(0), jnp.zeros(head.shape, jnp.float32))
    (total, d_head), d_hidden = jax.lax.scan(one_chunk, start, (hidden, targets, loss_mask))
    # The head's dtype rides along as an empty array: residuals must be arrays.
    return total, (d_hidden, d_head, jnp.zeros(0, head.dtype))


def _backward(residuals, cotangent):
    d_hidden, d_head, like_head = residuals
    d_hidden = (cotangent * d_hidden.astype(jnp.float32)).astype(d_hidden.dtype)
    return d_hidden, (cotangent * d_head).astype(like_head.dtype), None, None


_chunked.defvjp(_forward, _backward)
