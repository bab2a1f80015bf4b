"""The two compiled halves of generation: `prefill` reads prompts, `decode` writes until every row has ended.

Both work on the parameters as training holds them: nothing is copied, merged or cast beforehand.
Letters: B rows, P slots of the longest prompt, S slots of the cache, R new tokens at most, V vocabulary.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from tiny_reasoning_jax.model.cache import Cache, create_cache
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.sampling.choose import Sampling, choose_tokens

CHUNK = 256  # prompt tokens read at a time: attention holds B * N * CHUNK * P scores, in float32


class Decoded(NamedTuple):
    """What the rows of one batch have written.

    Attributes:
      tokens: [B, R]; a row's own are its first `num_tokens`, its EOS included.
      logps: [B, R] log-probability of each of them, see choose_tokens.
      num_tokens: [B]; 0 for a row that was finished from the start.
    """

    tokens: Int[Array, "B R"]
    logps: Float[Array, "B R"]
    num_tokens: Int[Array, "B"]


class _Loop(NamedTuple):
    step: Int[Array, ""]  # tokens that every unfinished row has chosen so far
    cache: Cache
    finished: Bool[Array, "B"]
    decoded: Decoded


@functools.partial(jax.jit, static_argnames=("model_def", "num_slots"))
def prefill(
    model_def: ModelDef,
    params: Params,
    tokens: Int[Array, "B P"],
    prompt_lengths: Int[Array, "B"],
    *,
    num_slots: int,
) -> tuple[Cache, Float[Array, "B V"]]:
    """Reads right-padded prompts into a new cache of num_slots; returns it and the logits after each prompt.

    The slots of the padding hold rubbish that no one sees: a query sees slots up to its own position, and by
    then the row has overwritten them.
    """
    model = model_def.bind(params)
    (B, P), dtype = tokens.shape, jnp.dtype(model_def.dtype)
    size = min(P, CHUNK)
    assert P % size == 0, f"prompts padded to {P}, not to a multiple of {CHUNK}"

    def read(i, carry):
        """Reads the i-th chunk; keeps the hidden state of the rows that end in it."""
        cache, last = carry
        start = i * size
        chunk = jax.lax.dynamic_slice_in_dim(tokens, start, size, axis=1)
        hidden, cache = model(chunk, jnp.broadcast_to(start + jnp.arange(size), (B, size)), kv_cache=cache)
        index = (prompt_lengths - 1 - start)[:, None, None]
        here = jnp.take_along_axis(hidden, index.clip(0, size - 1), axis=1)
        return cache, jnp.where((index >= 0) & (index < size), here, last)

    # Prompts attend to a cache of their own length; the slots of the completions are appended afterwards.
    cache = create_cache(model_def.spec, B, P, dtype)
    cache, last = jax.lax.fori_loop(0, P // size, read, (cache, jnp.zeros((B, 1, model_def.spec.hidden_size), dtype)))
    cache = jax.tree.map(lambda slots: jnp.pad(slots, ((0, 0), (0, 0), (0, num_slots - P), (0, 0))), cache)
    return cache, model.logits(last[:, 0])


@functools.partial(jax.jit, static_argnames=("model_def", "max_new_tokens", "sampling"), donate_argnames="cache")
def decode(
    model_def: ModelDef,
    params: Params,
    cache: Cache,
    logits: Float[Array, "B V"],
    prompt_lengths: Int[Array, "B"],
    finished: Bool[Array, "B"],
    row_ids: Int[Array, "B"],
    key: Key[Array, ""],
    eos_ids: Int[Array, "E"],
    *,
    max_new_tokens: int,
    sampling: Sampling,
) -> tuple[Decoded, Cache]:
    """Continues every row that is not `finished` until EOS or max_new_tokens.

    Args:
      model_def: the model.
      params: its parameters.
      cache: from prefill; donated, and returned only so that its memory is used in place.
      logits: from prefill.
      prompt_lengths: tokens of each prompt.
      finished: rows that are only there to fill the batch.
      row_ids: name of each row; with `key` and the number of the token it decides the row's draws.
      key: of the draws.
      eos_ids: tokens that end a row.
      max_new_tokens: longest completion, its EOS included.
      sampling: the rule for choosing tokens.
    """
    model = model_def.bind(params)
    B, _, num_slots, _ = cache.keys[0].shape
    row_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, row_ids)

    def choose(loop: _Loop, logits) -> _Loop:
        """Takes the next token of every unfinished row."""
        keys = jax.vmap(jax.random.fold_in, (0, None))(row_keys, loop.step)
        token, logp = choose_tokens(logits, keys, sampling)
        tokens, logps, num_tokens = loop.decoded
        decoded = Decoded(
            tokens.at[:, loop.step].set(token),
            logps.at[:, loop.step].set(logp),
            num_tokens + ~loop.finished,
        )
        ended = jnp.isin(token, eos_ids)
        return _Loop(loop.step + 1, loop.cache, loop.finished | ended, decoded)

    def body(loop: _Loop) -> _Loop:
        last = jax.lax.dynamic_index_in_dim(loop.decoded.tokens, loop.step - 1, axis=1)
        # A finished row is moved out of the cache: it goes on computing, but nothing is stored.
        position = jnp.where(loop.finished, num_slots, prompt_lengths + loop.step - 1)
        hidden, cache = model(last, position[:, None], kv_cache=loop.cache)
        return choose(loop._replace(cache=cache), model.logits(hidden[:, 0]))

    empty = Decoded(
        jnp.zeros((B, max_new_tokens), jnp.int32),
        jnp.zeros((B, max_new_tokens), jnp.float32),
        jnp.zeros(B, jnp.int32),
    )
    first = choose(_Loop(jnp.int32(0), cache, finished, empty), logits)
    loop = jax.lax.while_loop(lambda loop: (loop.step < max_new_tokens) & ~loop.finished.all(), body, first)
    return loop.decoded, loop.cache
