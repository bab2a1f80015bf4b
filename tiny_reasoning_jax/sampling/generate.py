"""Batched generation: requests in, completions out as they end.

Rows that end are refilled with waiting requests (batch.py); the device works in three compiled parts (decode.py), whose
shapes are few (plan.py). It knows token ids only; text and grades belong to eval/.
"""

import dataclasses
import hashlib
import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.sampling.batch import Batch, Completion, Prompt, Settings
from tiny_reasoning_jax.sampling.choose import Sampling
from tiny_reasoning_jax.sampling.plan import bucket, plan_rows, prompts_together

FEWEST_ROWS = 8  # of a batch that shares the requests with others on a CPU


class Request(NamedTuple):
    """What to continue.

    Attributes:
      prompt: token ids, at least one.
      sample: number of the sample of this prompt; each is drawn by itself.
    """

    prompt: Sequence[int]
    sample: int


def generate(
    model_def: ModelDef,
    params: Params,
    requests: Sequence[Request],
    *,
    max_new_tokens: int,
    eos_ids: Sequence[int],
    batch_size: int,
    temperature: float,
    top_p: float,
    top_k: int,
    seed: int,
    should_stop: Callable[[list[int]], bool] | None = None,
    give_up: Callable[[], bool] | None = None,
) -> Iterator[tuple[int, Completion]]:
    """Continues every request until EOS or max_new_tokens; yields (its index, its completion) as they end.

    What a request is continued with, tokens and log-probabilities to the last bit, depends on the model, the request
    and the settings alone, not on the other requests, nor on how many there are. Another batch_size, or another number
    of rows where memory or cores are fewer, may round differently.

    Args:
      model_def: the model.
      params: its parameters, as training holds them.
      requests: what to continue; those with the same prompt share the reading of it.
      max_new_tokens: longest completion, its EOS included; tokens.
      eos_ids: ids that end a completion.
      batch_size: rows decoded together, at most: fewer where their cache would not fit.
      temperature: see Sampling, as are top_p and top_k.
      top_p: see Sampling.
      top_k: see Sampling.
      seed: of the draws, which depend on (seed, prompt, sample, number of the token) alone.
      should_stop: asked with the tokens of a row that goes on, after every STOP_EVERY of them; True ends it there.
      give_up: asked whenever the host has a turn, in any thread; True ends everything: what goes on is not yielded.

    Raises:
      UserError: a setting outside its range, or not even one row fits into the memory.
    """
    sampling = Sampling(temperature, top_p, top_k)
    for name, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")
    assert all(request.prompt for request in requests), "a prompt without tokens has nothing to continue"
    if not requests:
        return iter(())
    model_def = dataclasses.replace(model_def, remat="none")  # there is no backward pass to save memory for
    settings = Settings(max_new_tokens, tuple(eos_ids), sampling, seed, should_stop, give_up)
    longest = max(len(request.prompt) for request in requests)
    num_rows = plan_rows(model_def, batch_size, longest, max_new_tokens)
    # One batch keeps one core of a CPU busy, so several work side by side.
    on_cpu = jax.default_backend() == "cpu"
    num_batches = max(1, min(os.cpu_count() or 1, num_rows // FEWEST_ROWS)) if on_cpu else 1
    batches = [Batch(model_def, params, settings, num_rows // num_batches) for _ in range(num_batches)]
    waiting = deque(_group(requests))
    runs = batches[0].run(waiting) if num_batches == 1 else _run_together(batches, waiting)
    return (one for ended in runs for one in ended)


def _group(requests: Sequence[Request]) -> list[list[Prompt]]:
    """The different prompts, those that are read together in one entry, the longest first."""
    prompts: dict[tuple[int, ...], Prompt] = {}
    for index, (tokens, sample) in enumerate(requests):
        tokens = tuple(tokens)
        if tokens not in prompts:
            digest = hashlib.sha256(np.array(tokens, "<i4").tobytes()).digest()
            words = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")
            prompts[tokens] = Prompt(tokens, words, [])
        prompts[tokens].samples.append((index, sample))
    by_bucket: dict[int, list[Prompt]] = {}
    for prompt in prompts.values():
        by_bucket.setdefault(bucket(len(prompt.tokens) - 1), []).append(prompt)
    entries = []
    for size in sorted(by_bucket, reverse=True):
        count = prompts_together(size)
        entries += [by_bucket[size][start : start + count] for start in range(0, len(by_bucket[size]), count)]
    return entries


def _run_together(batches: list[Batch], waiting: deque[list[Prompt]]) -> Iterator[list[tuple[int, Completion]]]:
    """Runs the batches in threads that take from the same waiting prompts; yields what they do."""
    results: queue.SimpleQueue = queue.SimpleQueue()
    stopped = threading.Event()

    def work(batch: Batch) -> None:
        try:
            for ended in batch.run(waiting):
                results.put(ended)
                if stopped.is_set():
                    return
        except BaseException:  # told now, and not when the others have written everything
            stopped.set()
            raise
        finally:
            results.put(None)

    with ThreadPoolExecutor(len(batches)) as pool:
        working = [pool.submit(work, batch) for batch in batches]
        try:
            for _ in batches:
                yield from iter(results.get, None)
        finally:  # the caller may have had enough
            stopped.set()
        for one in working:
            one.result()
