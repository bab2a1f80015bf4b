"""Batched generation: prompts in, completions out, in the same order.

Prompts of similar length share a batch, and batches are padded to a few lengths (powers of two), so that a
handful of compilations serves any set of prompts. What a row writes depends on its prompt, its place in the
list and the seed, never on its neighbours. It knows token ids only; text and grades belong to eval/.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.cache import create_cache
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.sampling.choose import Sampling
from tiny_reasoning_jax.sampling.decode import Decoded, decode, prefill

SHORTEST_BUCKET = 64  # slots; below this another compilation costs more than the padding it saves
MAX_CACHE_BYTES = 2**30  # of all batches that a CPU decodes side by side


@dataclasses.dataclass(frozen=True, slots=True)
class Completion:
    """What one prompt was continued with.

    Attributes:
      tokens: ids without the EOS.
      logps: log-probability of every token chosen, under the model itself (before temperature, top-k and
        top-p). When stop_reason is "eos" the last one is that of the EOS: one more than there are tokens.
      stop_reason: "eos", or "length" if max_new_tokens were written without one.
    """

    tokens: list[int]
    logps: list[float]
    stop_reason: Literal["eos", "length"]


def generate(
    model_def: ModelDef,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    batch_size: int,
    temperature: float,
    top_p: float,
    top_k: int,
    seed: int,
    on_batch: Callable[[list[Completion]], None] | None = None,
) -> list[Completion]:
    """Continues every prompt until EOS or max_new_tokens.

    Args:
      model_def: the model.
      params: its parameters, as training holds them.
      prompts: token ids, at least one each.
      max_new_tokens: longest completion, its EOS included; tokens.
      eos_ids: ids that end a completion.
      batch_size: prompts decoded together.
      temperature: see Sampling, as are top_p and top_k.
      top_p: see Sampling.
      top_k: see Sampling.
      seed: of the draws; prompt i's draws depend on (seed, i, number of the token) alone.
      on_batch: called with the completions of each batch when they are there, the longest prompts first.

    Returns:
      One completion per prompt, in the order of the prompts.

    Raises:
      UserError: a setting outside its range.
    """
    sampling = Sampling(temperature, top_p, top_k)
    for name, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")
    assert all(prompts), "a prompt without tokens has nothing to continue"
    if not prompts:
        return []
    model_def = dataclasses.replace(model_def, remat=False)  # there is no backward pass to save memory for
    num_rows = min(batch_size, len(prompts))

    def run(indices: list[int]) -> list[Completion]:
        tokens, lengths = _pad([prompts[i] for i in indices], num_rows)
        num_fillers = num_rows - len(indices)
        cache, logits = prefill(model_def, params, tokens, lengths, num_slots=tokens.shape[1] + max_new_tokens)
        decoded, _ = decode(
            model_def, params, cache, logits, lengths, np.arange(num_rows) >= len(indices),
            np.array(indices + [0] * num_fillers), jax.random.key(seed), np.array(eos_ids, np.int32),
            max_new_tokens=max_new_tokens, sampling=sampling,
        )  # fmt: skip
        return _read(decoded, len(indices), eos_ids)

    batches = _batches(prompts, batch_size)
    cache_bytes = _cache_bytes(model_def, num_rows, _bucket(max(map(len, prompts))) + max_new_tokens)
    completions: list[Completion | None] = [None] * len(prompts)
    for indices, done in zip(batches, _map(run, batches, cache_bytes), strict=True):
        for index, completion in zip(indices, done, strict=True):
            completions[index] = completion
        if on_batch is not None:
            on_batch(done)
    return completions


def _map(run: Callable, batches: list[list[int]], cache_bytes: int) -> Iterator[list[Completion]]:
    """Runs the batches in order; on a CPU several side by side: one decode loop keeps only one core busy."""
    on_cpu = jax.default_backend() == "cpu"
    num_at_once = min(os.cpu_count() or 1, MAX_CACHE_BYTES // cache_bytes) if on_cpu else 1
    if num_at_once <= 1:
        yield from map(run, batches)
        return
    pool = ThreadPoolExecutor(num_at_once)
    try:
        yield from pool.map(run, batches)
    finally:
        pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C nothing new is begun


def _cache_bytes(model_def: ModelDef, num_rows: int, num_slots: int) -> int:
    shapes = jax.eval_shape(lambda: create_cache(model_def.spec, num_rows, num_slots, jnp.dtype(model_def.dtype)))
    return sum(shape.size * shape.dtype.itemsize for shape in jax.tree.leaves(shapes))


def _batches(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Indices of the prompts of each batch, the longest first: what does not fit in memory fails at once."""
    order = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _bucket(length: int) -> int:
    """The power of two that a prompt of this length is padded to."""
    return max(SHORTEST_BUCKET, 1 << (length - 1).bit_length())


def _pad(prompts: list[Sequence[int]], num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens [num_rows, bucket], zeros on the right, and lengths [num_rows]; a filling row is one token."""
    tokens = np.zeros((num_rows, _bucket(max(map(len, prompts)))), np.int32)
    lengths = np.ones(num_rows, np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
        lengths[row] = len(prompt)
    return tokens, lengths


def _read(decoded: Decoded, num_rows: int, eos_ids: Sequence[int]) -> list[Completion]:
    """The first num_rows of a batch as completions."""
    all_tokens, all_logps, counts = (values[:num_rows].tolist() for values in jax.device_get(decoded))
    completions = []
    for tokens, logps, count in zip(all_tokens, all_logps, counts, strict=True):
        ended = tokens[count - 1] in eos_ids
        completions.append(Completion(tokens[: count - ended], logps[:count], "eos" if ended else "length"))
    return completions
