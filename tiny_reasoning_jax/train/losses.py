"""Cross-entropy over a vocabulary of 151,936 columns without ever holding [B, T, V].

The loss runs over chunks of trained tokens; positions outside loss_mask (prompts, padding) never meet the head. Its
gradient is formed in the same pass, while a chunk's logits exist, so that the backward pass recomputes nothing: three
matrix products instead of four. Logits are made and turned into their gradient half a chunk at a time, which leaves
4 bytes of each instead of 6; the products that sum over a chunk, and read and write the head's gradient, see it whole.

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
      chunk: tokens whose gradient of logits [chunk, V], in hidden's dtype, exists at one time; of float32 logits half.
      loss_denom: divides while a chunk's gradient is formed: dividing the sum would make a second array of the head's
        gradient, 1.16 GiB at 151,936 x 2,048.
    """
    rows, factor = hidden.reshape(-1, hidden.shape[-1]), 1 / jnp.asarray(loss_denom, jnp.float32)
    return _summed(min(chunk, targets.size), rows, head, targets.reshape(-1), loss_mask.reshape(-1), factor)


def _trained_first(hidden, targets, loss_mask, chunk):
    """The trained tokens in order, chunk by chunk, and how many chunks they fill.

    Returns:
      hidden states [C, chunk, D], targets [C, chunk] and which places are taken [C, chunk]; chunks in use.
    """
    num_tokens = loss_mask.size
    num_places = -(-num_tokens // chunk) * chunk
    order = jnp.nonzero(loss_mask, size=num_places, fill_value=num_tokens)[0].reshape(-1, chunk)
    # Zeros in free places: an inf at a position that is not trained must stay out of the sums.
    rows, row_targets = (x.at[order].get(mode="fill", fill_value=0) for x in (hidden, targets))
    return (rows, row_targets, order < num_tokens), -(-jnp.sum(loss_mask, dtype=jnp.int32) // chunk)


def _logits_loss(head, rows, targets, taken):
    """Summed loss of the rows that are taken, float32 logits and log-normalisers of all."""
    logits = jnp.einsum("cd,vd->cv", rows, head, preferred_element_type=jnp.float32)
    log_normalizer = log_sum_exp(logits)
    target_logits = jnp.take_along_axis(logits, targets[:, None], axis=-1)[:, 0]
    loss = jnp.sum(jnp.where(taken, log_normalizer - target_logits, 0.0))
    return loss, logits, log_normalizer


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(chunk, hidden, head, targets, loss_mask, factor):
    """hidden [tokens, D], head [V, D], targets and loss_mask [tokens], factor [] -> scalar sum times factor."""
    chunks, num_chunks = _trained_first(hidden, targets, loss_mask, chunk)
    head = head.astype(hidden.dtype)
    one_chunk = lambda i, total: total + _logits_loss(head, *(x[i] for x in chunks))[0]
    return factor * jax.lax.fori_loop(0, num_chunks, one_chunk, jnp.float32(0))


def _forward(chunk, hidden, head, targets, loss_mask, factor):
    half = -(-chunk // 2)
    (rows, row_targets, taken), num_chunks = _trained_first(hidden, targets, loss_mask, 2 * half)
    like_head = jnp.zeros(0, head.dtype)  # the head's dtype rides along: residuals must be arrays
    # Before the loop: the cast of a float32 image of bfloat16 parameters costs nothing here, but inside in every round.
    head = head.astype(hidden.dtype)

    def one_half(j, carry, chunk):
        total, d_logits = carry
        rows, targets, taken = (jax.lax.dynamic_slice_in_dim(x, j * half, half) for x in chunk)
        loss, logits, log_normalizer = _logits_loss(head, rows, targets, taken)
        probabilities = jnp.exp(logits - log_normalizer[:, None])
        is_target = jnp.arange(head.shape[0]) == targets[:, None]
        d_half = jnp.where(taken[:, None], factor * (probabilities - is_target), 0.0).astype(hidden.dtype)
        return total + loss, jax.lax.dynamic_update_slice_in_dim(d_logits, d_half, j * half, 0)

    def one_chunk(i, carry):
        total, rows_or_gradients, d_head, d_logits = carry
        rows = rows_or_gradients[i]
        # A loop is a wall: a compiler that saw both halves would make the second before it has used up the first.
        halves = functools.partial(one_half, chunk=(rows, row_targets[i], taken[i]))
        total, d_logits = jax.lax.fori_loop(0, 2, halves, (total, d_logits))
        d_rows = jnp.einsum("cv,vd->cd", d_logits, head)
        d_head += jnp.einsum("cv,cd->vd", d_logits, rows, preferred_element_type=jnp.float32)
        return total, jax.lax.dynamic_update_index_in_dim(rows_or_gradients, d_rows, i, 0), d_head, d_logits

    # A zero that the compiler does not know: it would share an array of zeros with others of this size, and keep it.
    zero = jax.lax.optimization_barrier(jnp.float32(0))
    d_logits = jnp.zeros((2 * half, head.shape[0]), hidden.dtype)
    start = (jnp.float32(0), rows, jnp.full(head.shape, zero), d_logits)
    total, d_rows, d_head, _ = jax.lax.fori_loop(0, num_chunks, one_chunk, start)
    # Back to their places by reading, not by scattering: each trained token knows how many precede it.
    place = jnp.cumsum(loss_mask) - 1
    d_hidden = jnp.where(loss_mask[:, None], d_rows.reshape(-1, hidden.shape[-1])[place], 0)
    return factor * total, (d_hidden, d_head, like_head)


def _backward(chunk, residuals, cotangent):
    d_hidden, d_head, like_head = residuals
    d_hidden = (cotangent * d_hidden.astype(jnp.float32)).astype(d_hidden.dtype)
    return d_hidden, (cotangent * d_head).astype(like_head.dtype), None, None, None


_summed.defvjp(_forward, _backward)
