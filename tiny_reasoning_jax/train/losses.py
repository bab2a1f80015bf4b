"""Cross-entropy over a vocabulary of 151,936 columns without ever holding [B, T, V].

The loss runs over chunks of trained tokens; positions outside loss_mask (prompts, padding) never meet the head. Its
gradient is formed in the same pass, while a chunk's logits exist, so that the backward pass recomputes nothing: three
matrix products instead of four.

How many chunks a batch needs is known on the device alone, and shapes must not depend on it: a loop with that many
rounds. Before each round a GPU's host reads one flag, which holds up the queue of kernels for some tens of
microseconds (not measured on a GPU); a chunk of 2048 tokens of Qwen3-1.7B is 3.8 TFLOP, 5 ms on an H100, and every
chunk that prompts do not fill is saved. lax.cond in a loop of fixed length would read a flag for the skipped ones too.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from tiny_reasoning_jax.model.rows import log_sum_exp


def cross_entropy_sum(
    hidden: Float[Array, "B T D"],
    head: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    loss_mask: Bool[Array, "B T"],
    chunk: int,
    loss_denom: float | Float[Array, ""] = 1.0,
) -> Float[Array, ""]:
    """Sum over the trained positions of -log p(target) / loss_denom; that belongs to the whole optimizer step.

    Args:
      hidden: final hidden states.
      head: output matrix; its gradient is summed over chunks in float32.
      targets: ids to predict; ignored where loss_mask is False.
      loss_mask: which positions count; the work is that of ceil(trained / chunk) chunks.
      chunk: tokens whose float32 logits [chunk, V] exist at one time.
      loss_denom: divides while a chunk's gradient is formed: dividing the sum would make a second array of the head's
        gradient, 1.16 GiB at 151,936 x 2,048.
    """
    rows, factor = hidden.reshape(-1, hidden.shape[-1]), 1 / jnp.asarray(loss_denom, jnp.float32)
    return _summed(min(chunk, targets.size), rows, head, targets.reshape(-1), loss_mask.reshape(-1), factor)


def _trained_first(loss_mask, chunk):
    """Indices [C, chunk] of the trained tokens, in order, free places one past the last token; and chunks in use."""
    num_tokens = loss_mask.size
    num_places = -(-num_tokens // chunk) * chunk
    order = jnp.nonzero(loss_mask, size=num_places, fill_value=num_tokens)[0]
    return order.reshape(-1, chunk), -(-jnp.sum(loss_mask, dtype=jnp.int32) // chunk)


def _chunk_loss(head, hidden, targets, indices):
    """One chunk: its summed loss, hidden states, targets, which places are taken, logits, log-normaliser."""
    taken = indices < targets.size
    # Zeros in free places: an inf at a position that is not trained must stay out of the sums.
    rows = hidden.at[indices].get(mode="fill", fill_value=0)
    row_targets = targets.at[indices].get(mode="fill", fill_value=0)
    logits = jnp.einsum("cd,vd->cv", rows, head, preferred_element_type=jnp.float32)
    log_normalizer = log_sum_exp(logits)
    target_logits = jnp.take_along_axis(logits, row_targets[:, None], axis=-1)[:, 0]
    loss = jnp.sum(jnp.where(taken, log_normalizer - target_logits, 0.0))
    return loss, rows, row_targets, taken, logits, log_normalizer


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(chunk, hidden, head, targets, loss_mask, factor):
    """hidden [tokens, D], head [V, D], targets and loss_mask [tokens], factor [] -> scalar sum times factor."""
    order, num_chunks = _trained_first(loss_mask, chunk)
    head = head.astype(hidden.dtype)
    one_chunk = lambda i, total: total + _chunk_loss(head, hidden, targets, order[i])[0]
    return factor * jax.lax.fori_loop(0, num_chunks, one_chunk, jnp.float32(0))


def _forward(chunk, hidden, head, targets, loss_mask, factor):
    order, num_chunks = _trained_first(loss_mask, chunk)
    like_head = jnp.zeros(0, head.dtype)  # the head's dtype rides along: residuals must be arrays
    # Before the loop: the cast of a float32 image of bfloat16 parameters costs nothing here, but inside in every round.
    head = head.astype(hidden.dtype)

    def one_chunk(i, carry):
        total, d_hidden, d_head = carry
        loss, rows, row_targets, taken, logits, log_normalizer = _chunk_loss(head, hidden, targets, order[i])
        probabilities = jnp.exp(logits - log_normalizer[:, None])
        is_target = jnp.arange(head.shape[0]) == row_targets[:, None]
        d_logits = jnp.where(taken[:, None], factor * (probabilities - is_target), 0.0).astype(hidden.dtype)
        d_rows = jnp.einsum("cv,vd->cd", d_logits, head)
        d_hidden = jax.lax.dynamic_update_index_in_dim(d_hidden, d_rows, i, 0)
        d_head += jnp.einsum("cv,cd->vd", d_logits, rows, preferred_element_type=jnp.float32)
        return total + loss, d_hidden, d_head

    nothing = jnp.zeros((*order.shape, hidden.shape[-1]), hidden.dtype)
    # A zero that the compiler does not know: it would share an array of zeros with others of this size, and keep it.
    zero = jax.lax.optimization_barrier(jnp.float32(0))
    start = (jnp.float32(0), nothing, jnp.full(head.shape, zero))
    total, d_hidden, d_head = jax.lax.fori_loop(0, num_chunks, one_chunk, start)
    # Back to their places by reading, not by scattering: each trained token knows how many precede it.
    place = jnp.cumsum(loss_mask) - 1
    d_hidden = jnp.where(loss_mask[:, None], d_hidden.reshape(-1, hidden.shape[-1])[place], 0)
    return factor * total, (d_hidden, d_head, like_head)


def _backward(chunk, residuals, cotangent):
    d_hidden, d_head, like_head = residuals
    d_hidden = (cotangent * d_hidden.astype(jnp.float32)).astype(d_hidden.dtype)
    return d_hidden, (cotangent * d_head).astype(like_head.dtype), None, None, None


_summed.defvjp(_forward, _backward)
