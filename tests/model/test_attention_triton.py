"""pytest tests/model/test_attention_triton.py: Triton kernels, interpreted, and compiled for cards that are not here.

What every backend must do, test_attention.py asks of the reference, and here the kernels must equal it. Their own are
tile sizes, tiles left out, groups of heads, and that a card's compiler takes them (where JAX's CUDA wheels are).
"""

import collections
import functools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model import attention, remat
from tiny_reasoning_jax.model.attention import triton_tiles
from tiny_reasoning_jax.model.attention.triton import triton
from tiny_reasoning_jax.model.attention.triton_tiles import Blocks, Plan
from tiny_reasoning_jax.xla import cuda_wheels

T, K, H = 256, 2, 16
# Of the three kernels one with longer tiles of queries, one with longer tiles of keys, one with both alike.
PLAN = Plan(Blocks(64, 16, 4, 2), Blocks(16, 32, 4, 2), Blocks(32, 32, 4, 2))
OTHER = Plan(Blocks(16, 64, 4, 2), Blocks(32, 32, 4, 2), Blocks(16, 64, 4, 2))
WHOLE_ROW = Plan(*[Blocks(T, T, 4, 2)] * 3)
ROWS = {
    "ragged": (70, 1, 1, 59, 64, 13),  # tiles with several segments, segments over several tiles, padding at the end
    "one": (T,),
    "singles": (1,) * 33,
    "whole tiles": (64, 128, 64),
    "short": (5,),
    "padding": (),
}


def segment_ids(*rows):
    """int32 [rows, T] with segments of the given lengths."""
    ids = np.zeros((len(rows), T), np.int32)
    for row, name in zip(ids, rows, strict=True):
        row[: sum(ROWS[name])] = np.repeat(1 + np.arange(len(ROWS[name])), ROWS[name])
    return ids


def inputs(groups: int, dtype=np.float32):
    """q, k, v, segment_ids and a cotangent of the output, of all rows."""
    rng = np.random.default_rng(groups)
    normal = lambda heads: rng.standard_normal((len(ROWS), T, heads, H)).astype(dtype)
    ids = segment_ids(*ROWS)
    return normal(groups * K), normal(K), normal(K), ids, normal(groups * K) * (ids != 0)[:, :, None, None]


@functools.partial(jax.jit, static_argnums=0)
def forward_backward(attend, q, k, v, segment_ids, cotangent):
    """The output, and the gradients of q, k and v for a cotangent of the output."""
    out, pull = jax.vjp(lambda q, k, v: attend(q, k, v, segment_ids), q, k, v)
    return out, *pull(cotangent)


@functools.cache
def interpreted(plan):
    return functools.partial(triton, plan=plan, interpret=True)


@functools.cache
def run(plan, groups):
    """Output and gradients of `inputs`."""
    return [np.asarray(x) for x in forward_backward(interpreted(plan), *inputs(groups))]


@pytest.mark.parametrize("plan, groups", ((PLAN, 4), (PLAN, 1), (OTHER, 2), (WHOLE_ROW, 2)))
def test_equals_the_reference(plan, groups):
    *qkv, ids, cotangent = inputs(groups)
    reference = forward_backward(attention.reference, *qkv, ids, cotangent)
    for ours, theirs in zip(run(plan, groups), reference, strict=True):
        np.testing.assert_allclose(ours[ids != 0], np.asarray(theirs)[ids != 0], rtol=0, atol=1e-5)
        assert np.all(ours[ids == 0] == 0)  # of padding the output too


def test_bfloat16_is_rounded_only_as_an_operand():
    """Against float32 arithmetic on the same numbers: the error is some roundings of the results' own dtype."""
    low = [jnp.asarray(x, jnp.bfloat16) if x.dtype == np.float32 else x for x in inputs(4)]
    exact = [x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x for x in low]
    ours = forward_backward(interpreted(PLAN), *low)
    for a, b in zip(ours, forward_backward(attention.reference, *exact), strict=True):
        assert a.dtype == jnp.bfloat16
        a, b = np.asarray(a, np.float32)[low[3] != 0], np.asarray(b)[low[3] != 0]
        assert np.abs(a - b).max() < 2 * float(jnp.finfo(jnp.bfloat16).eps) * np.abs(b).max()


def seen(ids):
    """bool [rows, T, T]: query t sees key s, as the formula says it."""
    return (ids[:, :, None] == ids[:, None, :]) & np.tri(T, dtype=bool) & (ids != 0)[:, :, None]


@pytest.mark.parametrize("blocks", ((16, 16), (64, 16), (16, 64), (T, 32)))
def test_a_tile_visits_what_it_sees_and_nothing_else(blocks):
    """Pairs of tiles are visited where anybody sees anybody: the fewest. Those where everybody does take no mask."""
    block_q, block_k = blocks
    ids = segment_ids(*ROWS)
    tiles = seen(ids).reshape(len(ids), T // block_q, block_q, T // block_k, block_k)
    anybody, everybody = tiles.any((2, 4)), tiles.all((2, 4))
    by_queries = np.asarray(triton_tiles.key_ranges(jnp.asarray(ids), block_q, block_k))
    by_keys = np.asarray(triton_tiles.query_ranges(jnp.asarray(ids), block_q, block_k))
    turn = lambda pairs: pairs.transpose(0, 2, 1)
    for ranges, some, whole in ((by_queries, anybody, everybody), (by_keys, turn(anybody), turn(everybody))):
        tile = np.arange(some.shape[-1])
        first, first_whole, end_whole, end = (ranges[:, :, i, None] for i in range(4))
        assert np.all((first <= first_whole) & (first_whole <= end_whole) & (end_whole <= end))
        np.testing.assert_array_equal((first <= tile) & (tile < end), some)
        np.testing.assert_array_equal((first_whole <= tile) & (tile < end_whole), whole)


def test_work_follows_the_squares_of_lengths():
    """Eight segments of an eighth each: an eighth of the pairs of tiles, but for the diagonal."""
    T, block = 32_768, 128

    def pairs(ids):
        ranges = np.asarray(triton_tiles.key_ranges(jnp.asarray(ids), block, block))
        return int(np.sum(ranges[:, :, 3] - ranges[:, :, 0]))

    n = T // block
    assert pairs(np.ones((1, T), np.int32)) == n * (n + 1) // 2
    assert pairs(1 + np.arange(T, dtype=np.int32)[None] // (T // 8)) == 8 * (n // 8) * (n // 8 + 1) // 2


def test_tiles_left_out_are_not_read():
    """NaN in the middle segment, whose tiles are its own, reaches nobody; with all tiles read 0 * NaN would."""
    *arrays, ids, cotangent = inputs(4)
    middle = (ids == 2) & (np.array(list(ROWS)) == "whole tiles")[:, None]
    q, k, v, cotangent = (np.where(middle[:, :, None, None], np.float32(np.nan), x) for x in (*arrays, cotangent))
    poisoned = forward_backward(interpreted(PLAN), q, k, v, ids, cotangent)
    for a, b in zip(map(np.asarray, poisoned), run(PLAN, 4), strict=True):
        np.testing.assert_array_equal(a[~middle], b[~middle])
        assert np.all(np.isnan(a[middle]))


def test_the_future_and_the_past_are_not_read_where_nobody_looks():
    """Within a segment: keys after a query's tile, and, for the gradients of keys, queries before a key's tile."""
    q, k, v, ids, cotangent = inputs(4)
    half, nan = T // 2, np.float32(np.nan)
    late = (np.arange(T) >= half)[None, :, None, None]
    late_keys = np.where(late, nan, k), np.where(late, nan, v)
    out, dq, _, _ = forward_backward(interpreted(PLAN), q, *late_keys, ids, cotangent)
    assert np.all(np.isfinite(out[:, :half])) and np.all(np.isfinite(dq[:, :half]))
    early_queries, early_cotangent = np.where(late, q, nan), np.where(late, cotangent, nan)
    _, _, dk, dv = forward_backward(interpreted(PLAN), early_queries, k, v, ids, early_cotangent)
    assert np.all(np.isfinite(dk[:, half:])) and np.all(np.isfinite(dv[:, half:]))


def test_scores_far_apart_neither_overflow_nor_vanish():
    """Scores of some hundreds, of both signs: exp2 of a score alone would be infinite or 0."""
    q, k, v, ids, cotangent = inputs(4)
    ours = forward_backward(interpreted(PLAN), 300 * q, k, v, ids, cotangent)
    for a, b in zip(ours, forward_backward(attention.reference, 300 * q, k, v, ids, cotangent), strict=True):
        a, b = np.asarray(a)[ids != 0], np.asarray(b)[ids != 0]
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-4 * np.abs(b).max())  # scores keep 7 digits


def test_nothing_grows_with_the_square_of_a_row():
    q, k, v, ids, cotangent = map(jnp.asarray, inputs(2))
    text = str(jax.make_jaxpr(functools.partial(forward_backward, interpreted(PLAN)))(q, k, v, ids, cotangent))
    assert text.count("pallas_call") == 3 and f"{T},{T}" not in text


def used_kernels(jaxpr):
    """Names of the kernels whose results are used; of the others a compiler leaves nothing."""
    used = {id(var) for equation in jaxpr.eqns for var in equation.invars} | {id(var) for var in jaxpr.outvars}
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            if any(id(var) in used for var in equation.outvars):
                yield equation.params["name"]
            continue
        for inner in equation.params.values():
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from used_kernels(inner)


@pytest.mark.parametrize("rung, forwards", (("none", 1), ("most", 1), ("some", 1), ("full", 2)))
def test_a_rung_that_keeps_attention_runs_the_kernel_once(rung, forwards):
    q, k, v, ids, _ = map(jnp.asarray, inputs(2))
    layer = remat.wrap(lambda q, k, v: jnp.sin(interpreted(PLAN)(q, k, v, ids)), rung)
    jaxpr = jax.make_jaxpr(jax.grad(lambda *qkv: layer(*qkv).sum(), argnums=(0, 1, 2)))(q, k, v)
    counts = collections.Counter(used_kernels(jaxpr.jaxpr))
    assert counts == {"attention_forward": forwards, "attention_backward_q": 1, "attention_backward_kv": 1}


def test_what_does_not_fit_is_refused():
    x = lambda T, H=64: jnp.ones((1, T, 2, H), jnp.bfloat16)
    ids = lambda T: jnp.ones((1, T), jnp.int32)
    for T in (200, 48, 8):
        with pytest.raises(
            UserError, match=f"train.seq_len={T} is not a multiple of 128, .* take {128 * -(-T // 128)}"
        ):
            triton(x(T), x(T), x(T), ids(T))
    for H in (8, 80, 256):
        with pytest.raises(UserError, match=f"the heads are {H} wide, .* 16, 32, 64 or 128; set train.attention=block"):
            triton(x(128, H), x(128, H), x(128, H), ids(128))
    for T in (16, 64, 384):
        jax.eval_shape(triton, x(T), x(T), x(T), ids(T))
    with pytest.raises(ValueError, match="[Ii]nterpret"):  # not computed by other means behind the user's back
        triton(x(128), x(128), x(128), ids(128))


@pytest.mark.skipif(not cuda_wheels(), reason="needs JAX's CUDA wheels; no card")
@pytest.mark.parametrize("name", ("h100", "a100-80", "rtx4090"))
def test_a_cards_compiler_takes_the_kernels(name, monkeypatch):
    """Within its shared memory, or it would refuse; and nothing is copied or transposed around the three kernels."""
    from tiny_reasoning_jax.plan import cards

    card = cards.CARDS[name]
    device = types.SimpleNamespace(compute_capability="{}.{}".format(*card.capability))
    monkeypatch.setattr(jax, "local_devices", lambda *_, **__: [device])
    plan = triton_tiles.choose(jnp.bfloat16)
    monkeypatch.undo()
    sharding = cards.sharding(card)
    array = lambda *shape, dtype=jnp.bfloat16: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    B, T, N, K, H = 1, 32_768, 16, 8, 128
    q, kv, ids = array(B, T, N, H), array(B, T, K, H), array(B, T, dtype=jnp.int32)
    layer = lambda q, k, v, ids: remat.wrap(functools.partial(triton, plan=plan), "some")(q, k, v, ids)
    with cards.as_if_here(sharding):
        lowered = jax.jit(functools.partial(forward_backward, layer)).lower(q, kv, kv, ids, q)
    compiled = lowered.compile()
    text = compiled.as_text()
    assert text.count('custom_call_target="__gpu$xla.gpu.triton"') == 3 or text.count("triton_kernel_call") == 3
    assert not re.search(r" = \S+ (copy|transpose)\(", text)
    # Log-sum-exp and delta, float32 each, and ranges of tiles.
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * 4 * B * N * T + 2**20
