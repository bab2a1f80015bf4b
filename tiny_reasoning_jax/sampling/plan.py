"""How many rows are decoded together and which shapes they have: known before anything is allocated."""

import logging

import jax

from tiny_reasoning_jax.device import free_memory
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.cache import block_sizes, slot_bytes
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.sampling.decode import LONGEST_STRETCH

log = logging.getLogger(__name__)

SHORTEST_BUCKET = 64  # tokens; below this another compilation costs more than the padding it saves
PREFILL_TOKENS = 256  # read together, so that several short prompts share the reading of the weights
MAX_CACHE_BYTES = 4 * 2**30  # where the allocator does not tell of a limit, as on a CPU
GIB = 2**30


def bucket(num_tokens: int) -> int:
    """The power of two that so many tokens of a prompt are padded to: the shape depends on nothing else."""
    return max(SHORTEST_BUCKET, 1 << (num_tokens - 1).bit_length())


def prompts_together(size: int) -> int:
    """How many prompts of one bucket are read together."""
    return max(1, PREFILL_TOKENS // size)


def plan_rows(model_def: ModelDef, batch_size: int, longest_prompt: int, max_new_tokens: int) -> int:
    """Returns how many rows to decode together: batch_size, or the first of its halves that fits.

    Halves, because every number of rows is a compilation, and what is free differs from call to call.

    Raises:
      UserError: not even one fits.
    """
    free = free_memory(jax.local_devices()[0])
    # A twentieth is left to fragmentation and to what compiled programs hold besides arrays.
    available = MAX_CACHE_BYTES if free is None else int(0.95 * free) - _prefill_bytes(model_def, longest_prompt)
    row_bytes = lambda num_slots: _row_bytes(model_def, sum(block_sizes(num_slots)))
    needed = longest_prompt + max_new_tokens
    num_rows = batch_size
    while num_rows * row_bytes(needed) > available and num_rows:
        num_rows //= 2
    if num_rows == batch_size:
        return batch_size
    needs = (
        f"a prompt of {longest_prompt:,} tokens with max_new_tokens={max_new_tokens:,} needs "
        f"{row_bytes(needed) / GIB:.2f} GiB of cache, and there are {max(0, available) / GIB:.2f} GiB for all rows"
    )
    if num_rows > 0:
        log.warning(f"{needs}: {num_rows} rows are decoded together, not batch_size={batch_size}")
        return num_rows
    fits = needed
    while fits > 0 and row_bytes(fits) > available:
        fits = sum(block_sizes(fits)[:-1])  # up to the block before
    if fits > longest_prompt:
        raise UserError(f"{needs}: lower max_new_tokens to {fits - longest_prompt:,} or less")
    raise UserError(
        f"{needs}: only prompts that come to {fits:,} tokens with max_new_tokens fit; leave out longer ones"
    )


def _row_bytes(model_def: ModelDef, num_slots: int) -> int:
    """Of one row: its cache and its logits."""
    # Four float32 arrays: logits, noise, and what sorting them takes.
    return num_slots * slot_bytes(model_def.spec, model_def.dtype) + 4 * 4 * model_def.spec.vocab_size


def _prefill_bytes(model_def: ModelDef, longest_prompt: int) -> int:
    """Of prompts that are being read: their cache, their scores, and the activations of a layer."""
    spec, padded = model_def.spec, bucket(longest_prompt - 1)
    R, T = prompts_together(padded), min(padded, LONGEST_STRETCH)
    scores = 3 * 4 * R * spec.num_attention_heads * T * T
    activations = 4 * R * T * (8 * spec.hidden_size + 3 * spec.intermediate_size)
    # The keys may be there twice: a GPU reads them in another order, and transposes them at the end.
    return R * padded * slot_bytes(spec, model_def.dtype) * 3 // 2 + scores + activations
