"""The compiled parts of generation: `prefill` reads prompts, `insert` gives them to rows, `decode` writes.

All work on the parameters as training holds them: nothing is copied, merged or cast beforehand. A row's last prompt
token is not read by prefill but fed to its first step of decoding, so that every new token comes from the same code.
Letters: B rows, R prompts read together, P slots of their bucket, S slots of the cache, C steps, V vocabulary.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from tiny_reasoning_jax.model.cache import Block, Cache, create_cache, extend, spans, step
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.sampling.choose import Sampling, choose_tokens

LONGEST_STRETCH = 1024  # prompt tokens that attention reads at a time, with R * N * 1024 * 1024 scores in float32


class Rows(NamedTuple):
    """Where every row stands, between two calls of decode.

    Attributes:
      tokens: [B] the last token of each, not in the cache yet.
      positions: [B] its position.
      budgets: [B] tokens that the row may still write; 0 for a row that writes nothing.
      written: [B] tokens that it has written.
      draws: [B, 3] words that together with the seed and the number of a token decide how it is drawn.
    """

    tokens: Int[Array | np.ndarray, "B"]
    positions: Int[Array | np.ndarray, "B"]
    budgets: Int[Array | np.ndarray, "B"]
    written: Int[Array | np.ndarray, "B"]
    draws: UInt32[Array | np.ndarray, "B 3"]


class Written(NamedTuple):
    """What the rows wrote in one call.

    Attributes:
      tokens: [B, C]; a row's own are its first `counts`, its EOS included.
      logps: [B, C] log-probability of each of them, see choose_tokens.
      counts: [B].
    """

    tokens: Int[Array, "B C"]
    logps: Float[Array, "B C"]
    counts: Int[Array, "B"]


class _Loop(NamedTuple):
    step: Int[Array, ""]  # tokens that every row still running has written
    cache: Cache
    last: Int[Array, "B"]
    running: Bool[Array, "B"]
    written: Written


@functools.partial(jax.jit, static_argnames="model_def")
def prefill(model_def: ModelDef, params: Params, tokens: Int[Array, "R P"]) -> Cache:
    """Reads right-padded prompts into a new cache of P slots: a power of two, or up to LONGEST_STRETCH.

    The slots of the padding hold rubbish that no one sees: a query sees slots up to its own position, and by
    then the row has overwritten them.
    """
    model = model_def.bind(params)
    R, P = tokens.shape
    T = min(P, LONGEST_STRETCH)
    assert P % T == 0, f"prompts padded to {P}, not to a multiple of {LONGEST_STRETCH}"

    def read(i, cache):
        start = i * T
        stretch = jax.lax.dynamic_slice_in_dim(tokens, start, T, axis=1)
        positions = jnp.broadcast_to(start + jnp.arange(T), (R, T))
        through_cache = functools.partial(extend, start=start)
        return model(stretch, positions, kv_cache=cache, through_cache=through_cache)[1]

    return jax.lax.fori_loop(0, P // T, read, create_cache(model_def.spec, R, [P], jnp.dtype(model_def.dtype)))


@functools.partial(jax.jit, donate_argnames="cache")
def insert(
    cache: Cache, prompts: Cache, sources: Int[Array, "B"], targets: Int[Array, "B"], count: Int[Array, ""]
) -> Cache:
    """Copies row sources[i] of `prompts` to row targets[i] of `cache`, which is donated, for every i < count.

    Of what is longer, the rest is left: slots behind a prompt are padding, blocks behind it another row's.
    """

    def copy(i, cache):
        def one(slots, prompt):
            row = jax.lax.dynamic_slice_in_dim(prompt, sources[i], 1, axis=0)
            return jax.lax.dynamic_update_slice(slots, row, (targets[i], 0, 0, 0))

        new = []
        for blocks, ((keys, values),) in zip(cache, prompts, strict=True):
            parts = tuple(Block(keys[..., start:end], values[:, :, start:end]) for _, start, end in spans(blocks))
            new.append(jax.tree.map(one, blocks, parts))
        return tuple(new)

    return jax.lax.fori_loop(0, count, copy, cache)


@functools.partial(jax.jit, static_argnames=("model_def", "num_steps", "sampling"), donate_argnames="cache")
def decode(
    model_def: ModelDef,
    params: Params,
    cache: Cache,
    rows: Rows,
    fewest: Int[Array, ""],
    key: Key[Array, ""],
    eos_ids: Int[Array, "E"],
    *,
    num_steps: int,
    sampling: Sampling,
) -> tuple[Cache, Written]:
    """Continues every row until its EOS or the end of its budget, for num_steps at most.

    Args:
      model_def: the model.
      params: its parameters.
      cache: of the rows; donated, its memory is used in place.
      rows: where they stand.
      fewest: returns as soon as fewer rows than this are still writing, for others to take the place of the rest.
      key: of the draws, from the seed.
      eos_ids: tokens that end a row.
      num_steps: C.
      sampling: the rule for choosing tokens.
    """
    model = model_def.bind(params)
    B = len(rows.tokens)
    row_keys = functools.reduce(jax.vmap(jax.random.fold_in), rows.draws.T, jnp.broadcast_to(key, B))

    def body(loop: _Loop) -> _Loop:
        # A row that has ended goes on computing, but nothing is stored.
        positions = jnp.where(loop.running, rows.positions + loop.step, -1)
        through_cache = functools.partial(step, positions=positions)
        hidden, cache = model(loop.last[:, None], positions[:, None], kv_cache=loop.cache, through_cache=through_cache)
        keys = jax.vmap(jax.random.fold_in)(row_keys, rows.written + loop.step)
        token, logp = choose_tokens(model.logits(hidden[:, 0]), keys, sampling)
        written = Written(
            loop.written.tokens.at[:, loop.step].set(token),
            loop.written.logps.at[:, loop.step].set(logp),
            loop.written.counts + loop.running,
        )
        running = loop.running & ~jnp.isin(token, eos_ids) & (written.counts < rows.budgets)
        return _Loop(loop.step + 1, cache, token, running, written)

    def goes_on(loop: _Loop) -> Bool[Array, ""]:
        return (loop.step < num_steps) & (loop.running.sum() >= fewest)

    nothing = Written(
        jnp.zeros((B, num_steps), jnp.int32), jnp.zeros((B, num_steps), jnp.float32), jnp.zeros(B, jnp.int32)
    )
    loop = jax.lax.while_loop(goes_on, body, _Loop(jnp.int32(0), cache, rows.tokens, rows.budgets > 0, nothing))
    return loop.cache, loop.written
