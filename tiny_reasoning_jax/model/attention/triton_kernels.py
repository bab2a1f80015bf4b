"""The three kernels of packed attention, each the work of one program on one tile.

The calls in triton.py take a block's leading axes away, so that refs have the shapes in the docstrings here; G is the
query heads of a group. Scores here are q k, not yet over sqrt(H), and so is lse, their log-sum-exp: the factor to the
exponent of 2, which is what the hardware has, is `to_log2` for both.
"""

import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl


def forward(ranges_ref, ids_ref, q_ref, k_ref, v_ref, out_ref, lse_ref, *, block_k: int):
    """A tile of queries of one head, against its keys with a running softmax.

    ranges [4], ids [T], q and out [block_q, H], k and v [T, H], lse [block_q].
    """
    block_q, H = q_ref.shape
    first_query = _late_first() * block_q
    q, query_ids = q_ref[...], ids_ref[pl.ds(first_query, block_q)]
    to_log2 = H**-0.5 * math.log2(math.e)

    def body(tile, carry, masked):
        acc, high, total = carry
        keys = pl.ds(tile * block_k, block_k)
        scores = _product(q, k_ref[keys, :].T)
        if masked:
            visible = _visible(query_ids[:, None], first_query, ids_ref[keys][None, :], tile * block_k)
            scores = jnp.where(visible, scores, -jnp.inf)
        new_high = jnp.maximum(high, jnp.max(scores, axis=1))
        # A query that has seen nothing yet stands at -inf; taken from itself that would be NaN.
        level = jnp.where(new_high == -jnp.inf, 0.0, new_high) if masked else new_high
        weights = jnp.exp2(scores * to_log2 - (level * to_log2)[:, None])
        shrink = jnp.exp2((high - level) * to_log2)
        total = total * shrink + jnp.sum(weights, axis=1)
        v = v_ref[keys, :]
        return _product(weights.astype(v.dtype), v, acc * shrink[:, None]), new_high, total

    nothing = jnp.zeros((block_q, H), jnp.float32), jnp.full(block_q, -jnp.inf), jnp.zeros(block_q)
    acc, high, total = _visit(ranges_ref, body, nothing)
    sees = total > 0  # padding does not
    total = jnp.where(sees, total, 1.0)
    out_ref[...] = (acc / total[:, None]).astype(out_ref.dtype)
    # Of padding +inf: whatever meets it weighs 0.
    lse_ref[...] = jnp.where(sees, high + jnp.log2(total) / to_log2, jnp.inf)


def backward_q(
    ranges_ref, ids_ref, q_ref, k_ref, v_ref, out_ref, lse_ref, d_out_ref, dq_ref, delta_ref, *, block_k: int
):
    """The gradient of a tile of queries of one head, and delta = sum(out * d_out), which the other kernel needs.

    ranges [4], ids [T], q, out, d_out and dq [block_q, H], k and v [T, H], lse and delta [block_q].
    """
    block_q, H = q_ref.shape
    first_query = _late_first() * block_q
    q, d_out, query_ids = q_ref[...], d_out_ref[...], ids_ref[pl.ds(first_query, block_q)]
    delta = jnp.sum(d_out.astype(jnp.float32) * out_ref[...].astype(jnp.float32), axis=1)
    delta_ref[...] = delta
    minus_delta, minus_lse = -delta[:, None], -lse_ref[...][:, None]
    to_log2 = H**-0.5 * math.log2(math.e)

    def body(tile, dq, masked):
        keys = pl.ds(tile * block_k, block_k)
        k = k_ref[keys, :]
        weights = jnp.exp2(_product(q, k.T, minus_lse) * to_log2)
        if masked:
            visible = _visible(query_ids[:, None], first_query, ids_ref[keys][None, :], tile * block_k)
            weights = jnp.where(visible, weights, 0.0)
        d_scores = weights * _product(d_out, v_ref[keys, :].T, minus_delta)
        return _product(d_scores.astype(k.dtype), k, dq)

    dq = _visit(ranges_ref, body, jnp.zeros((block_q, H), jnp.float32))
    dq_ref[...] = (dq * H**-0.5).astype(dq_ref.dtype)


def backward_kv(
    ranges_ref, ids_ref, q_ref, k_ref, v_ref, lse_ref, delta_ref, d_out_ref, dk_ref, dv_ref, *, block_q: int
):
    """The gradients of a tile of keys and values of one head, from all query heads of its group.

    ranges [4], ids [T], q and d_out [T, G, H], k, v, dk and dv [block_k, H], lse and delta [G, T]. Scores stand
    transposed here, [block_k, block_q]: as the left operand of both products that add up they stay in registers.
    """
    block_k, H = k_ref.shape
    first_key = pl.program_id(0) * block_k
    k, v, key_ids = k_ref[...], v_ref[...], ids_ref[pl.ds(first_key, block_k)]
    to_log2 = H**-0.5 * math.log2(math.e)

    def one_head(g, sums):
        def body(tile, sums, masked):
            dk, dv = sums
            queries = pl.ds(tile * block_q, block_q)
            q, d_out = q_ref[queries, g, :], d_out_ref[queries, g, :]
            # Subtracted here, where backward_q starts from it: Triton does not fetch ahead what a product starts from.
            weights = jnp.exp2((_product(k, q.T) - lse_ref[g, queries][None, :]) * to_log2)
            if masked:
                visible = _visible(ids_ref[queries][None, :], tile * block_q, key_ids[:, None], first_key)
                weights = jnp.where(visible, weights, 0.0)
            dv = _product(weights.astype(d_out.dtype), d_out, dv)
            d_scores = weights * (_product(v, d_out.T) - delta_ref[g, queries][None, :])
            return _product(d_scores.astype(q.dtype), q, dk), dv

        return _visit(ranges_ref, body, sums)

    nothing = jnp.zeros((block_k, H), jnp.float32)
    dk, dv = jax.lax.fori_loop(0, q_ref.shape[1], one_head, (nothing, nothing))
    dk_ref[...] = (dk * H**-0.5).astype(dk_ref.dtype)
    dv_ref[...] = dv.astype(dv_ref.dtype)


def _late_first():
    """Tile of this program where late tiles, which see most keys, start first: what is left at the end is short."""
    return pl.num_programs(0) - 1 - pl.program_id(0)


def _visit(ranges_ref, body, carry):
    """carry = body(tile, carry, masked) for the tiles of a range: those without a mask, then those at its ends."""
    first, first_whole, end_whole, end = (ranges_ref[i] for i in range(4))
    carry = jax.lax.fori_loop(first_whole, end_whole, lambda tile, carry: body(tile, carry, False), carry)
    before = first_whole - first

    def at_an_end(i, carry):
        return body(jnp.where(i < before, first + i, end_whole - before + i), carry, True)

    return jax.lax.fori_loop(0, before + end - end_whole, at_an_end, carry)


def _visible(query_ids, first_query, key_ids, first_key):
    """Who sees whom; ids are [block_q, 1] and [1, block_k], or [1, block_q] and [block_k, 1]."""
    at = lambda first, ids: first + jnp.arange(ids.size).reshape(ids.shape)
    return (query_ids == key_ids) & (query_ids != 0) & (at(first_query, query_ids) >= at(first_key, key_ids))


def _product(a, b, start=None):
    """start + a @ b in float32; the tensor cores add to `start` by themselves.

    Of float32 operands all bits count: they are for checks, not for speed.
    """
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    product = jnp.dot(a, b, precision=precision, preferred_element_type=jnp.float32)
    return product if start is None else start + product
