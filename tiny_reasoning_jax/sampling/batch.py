"""Rows that write together: prompts take the places of rows that have ended, until none are waiting.

The host knows where every row stands; the device keeps the cache. Between two calls of decode the host takes what the
rows wrote, and fills the places of those that have ended.
"""

import dataclasses
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.cache import Cache, block_sizes, create_cache
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.sampling.choose import Sampling
from tiny_reasoning_jax.sampling.decode import Rows, decode, insert, prefill
from tiny_reasoning_jax.sampling.plan import bucket, prompts_together

NUM_STEPS = 64  # most tokens that a row writes before the host looks at it
STOP_EVERY = 32  # tokens after which should_stop is asked; fixed, so that the answer does not depend on the batch


@dataclasses.dataclass(frozen=True, slots=True)
class Completion:
    """What one prompt was continued with.

    Attributes:
      tokens: ids without the EOS.
      logps: log-probability of every token chosen, under the model itself (before temperature, top-k and
        top-p). When stop_reason is "eos" the last one is that of the EOS: one more than there are tokens.
      stop_reason: "eos", "length" if max_new_tokens were written without one, or "stop" if should_stop said so.
    """

    tokens: list[int]
    logps: list[float]
    stop_reason: Literal["eos", "length", "stop"]


class Prompt(NamedTuple):
    """A prompt and the samples of it that are wanted.

    Attributes:
      tokens: its ids.
      words: its hash, in two words of 32 bits.
      samples: (index of the request, number of the sample) of each.
    """

    tokens: tuple[int, ...]
    words: tuple[int, int]
    samples: list[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all rows have in common; see generate."""

    max_new_tokens: int
    eos_ids: tuple[int, ...]
    sampling: Sampling
    seed: int
    should_stop: Callable[[list[int]], bool] | None
    give_up: Callable[[], bool] | None


@dataclasses.dataclass(slots=True)
class _Row:
    """A sample that is being written."""

    index: int  # of its request
    draws: tuple[int, int, int]
    position: int  # of its last token, which is not in the cache yet
    last: int
    tokens: list[int] = dataclasses.field(default_factory=list)  # with the EOS
    logps: list[float] = dataclasses.field(default_factory=list)


class Batch:
    """num_rows rows and their cache, whose slots follow the longest of them."""

    def __init__(self, model_def: ModelDef, params: Params, settings: Settings, num_rows: int):
        self._model_def, self._params, self._settings = model_def, params, settings
        self._key = jax.random.key(settings.seed)
        self._rows: list[_Row | None] = [None] * num_rows
        self._cache: Cache = ((),) * model_def.spec.num_hidden_layers
        self._read: Cache | None = None  # the prompts read last
        self._ready: deque[tuple[int, _Row]] = deque()  # their samples that have no row yet, with the place in _read

    def run(self, waiting: deque[list[Prompt]]) -> Iterator[list[tuple[int, Completion]]]:
        """Takes prompts from `waiting`, reads those of an entry together, and continues their samples.

        Yields, after every call of decode, what has ended in it, perhaps nothing.
        """
        give_up = self._settings.give_up or (lambda: False)
        while True:
            self._refill(waiting)
            if not any(self._rows) or give_up():
                return
            yield self._write(more_to_come=bool(self._ready or waiting))

    def _refill(self, waiting: deque[list[Prompt]]) -> None:
        """Begins samples in the places that are free."""
        free = deque(place for place, row in enumerate(self._rows) if row is None)
        while free and (self._ready or self._read_next(waiting)):
            count = min(len(free), len(self._ready))
            sources, targets = np.zeros((2, len(self._rows)), np.int32)
            for i in range(count):
                targets[i] = free.popleft()
                sources[i], self._rows[targets[i]] = self._ready.popleft()
            self._fit_cache()
            # Only the blocks that the prompts reach: how many others there are is not another compilation.
            reached = len(block_sizes(self._read[0][0].keys.shape[3]))
            begun = insert(tuple(blocks[:reached] for blocks in self._cache), self._read, sources, targets, count)
            self._cache = tuple(new + blocks[reached:] for new, blocks in zip(begun, self._cache, strict=True))

    def _read_next(self, waiting: deque[list[Prompt]]) -> bool:
        """Reads the next prompts, all but the last token of each; False if there are none."""
        try:
            prompts = waiting.popleft()
        except IndexError:  # another batch took the last ones
            return False
        size = bucket(len(prompts[0].tokens) - 1)
        tokens = np.zeros((prompts_together(size), size), np.int32)
        for place, prompt in enumerate(prompts):
            *begin, last = prompt.tokens
            tokens[place, : len(begin)] = begin
            for index, sample in prompt.samples:
                self._ready.append((place, _Row(index, (*prompt.words, sample), len(begin), last)))
        self._read = None  # those before are given up first
        self._read = prefill(self._model_def, self._params, tokens)
        return True

    def _fit_cache(self) -> None:
        """Gives the cache as many slots as the rows can fill before the host sees them again."""
        needed = max(row.position + min(NUM_STEPS, self._budget(row)) for row in self._rows if row is not None)
        sizes, held = block_sizes(needed), len(self._cache[0])
        spec, dtype = self._model_def.spec, jnp.dtype(self._model_def.dtype)
        more = create_cache(spec, len(self._rows), sizes[held:], dtype)
        self._cache = tuple(blocks[: len(sizes)] + new for blocks, new in zip(self._cache, more, strict=True))

    def _write(self, more_to_come: bool) -> list[tuple[int, Completion]]:
        """Lets the rows write, and returns what has ended, whose places are free then."""
        settings, num_rows = self._settings, len(self._rows)
        # To come back for every row that ends would cost as much as its place is worth.
        fewest = num_rows - max(1, num_rows // 16) + 1 if more_to_come else 1
        self._fit_cache()
        self._cache, written = decode(
            self._model_def, self._params, self._cache, self._state(), fewest, self._key,
            np.array(settings.eos_ids, np.int32),
            num_steps=min(NUM_STEPS, settings.max_new_tokens), sampling=settings.sampling,
        )  # fmt: skip
        ended = []
        for place, tokens, logps, count in zip(
            range(num_rows), *(values.tolist() for values in jax.device_get(written)), strict=True
        ):
            row = self._rows[place]
            if row is None:
                continue
            if broken := [logp for logp in logps[:count] if not math.isfinite(logp)]:
                raise UserError(
                    f"the model gives log-probabilities that are no numbers ({broken[0]}): its weights hold "
                    "NaN or infinity, or overflow in its compute dtype; take another checkpoint, or compute in float32"
                )
            row.tokens += tokens[:count]
            row.logps += logps[:count]
            row.position, row.last = row.position + count, row.tokens[-1]
            if completion := self._complete(row, count):
                self._rows[place] = None
                ended.append((row.index, completion))
        return ended

    def _complete(self, row: _Row, num_new: int) -> Completion | None:
        """The completion of a row that has ended, num_new tokens of which were not looked at yet."""
        settings, total = self._settings, len(row.tokens)
        ended = row.last in settings.eos_ids or self._budget(row) == 0
        if settings.should_stop is not None:
            next_place = (total - num_new) // STOP_EVERY * STOP_EVERY + STOP_EVERY
            for end in range(next_place, total + (not ended), STOP_EVERY):
                if settings.should_stop(row.tokens[:end]):
                    return Completion(row.tokens[:end], row.logps[:end], "stop")
        if row.last in settings.eos_ids:
            return Completion(row.tokens[:-1], row.logps, "eos")
        return Completion(row.tokens, row.logps, "length") if ended else None

    def _budget(self, row: _Row) -> int:
        """Tokens that the row may still write."""
        return self._settings.max_new_tokens - len(row.tokens)

    def _state(self) -> Rows:
        idle = _Row(-1, (0, 0, 0), 0, 0)
        rows = [idle if row is None else row for row in self._rows]
        numbers = [(row.last, row.position, 0 if row is idle else self._budget(row), len(row.tokens)) for row in rows]
        draws = np.array([row.draws for row in rows], np.uint32)
        return Rows(*np.array(numbers, np.int32).T, draws)
