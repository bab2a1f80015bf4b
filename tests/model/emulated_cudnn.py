"""What cuDNN's packed kernels do, in plain JAX: they read sequences at offsets of flat memory and write what they read.

Only the operands say where anything lies: with wrong offsets this reads other tokens, as the card would. Places that no
sequence covers are NaN.
"""

import jax
import jax.numpy as jnp


def _check(q, k, lengths, q_offsets, kv_offsets):
    B, M = lengths.shape
    assert M > 1, "with one slot a row XLA takes the layout for one that is not packed"
    assert q_offsets.shape == kv_offsets.shape == (B, M + 1) and B == q.shape[0]
    assert {x.dtype for x in (lengths, q_offsets, kv_offsets)} == {jnp.dtype("int32")}
    return q_offsets.ravel()[: B * M], kv_offsets.ravel()[: B * M], lengths.ravel()


def _places(offset, T, heads, H):
    return offset + jnp.arange(T)[:, None, None] * heads * H + jnp.arange(heads)[:, None] * H + jnp.arange(H)


def _read(memory, offset):
    _, T, heads, H = memory.shape
    return memory.ravel()[_places(offset, T, heads, H) % memory.size].astype(jnp.float32)


def _write(like, offsets, lengths, sequences):
    """Sequences [slots, T, heads, H] at their offsets in memory shaped as `like`."""
    _, T, heads, H = like.shape
    places = jax.vmap(lambda offset: _places(offset, T, heads, H))(offsets)
    places = jnp.where(jnp.arange(T)[:, None, None] < lengths[:, None, None, None], places, like.size)
    memory = jnp.full(like.size, jnp.nan, like.dtype)
    return memory.at[places.ravel()].set(sequences.ravel().astype(like.dtype), mode="drop").reshape(like.shape)


def _scores(q, k, length):
    """[N, T, T] of one sequence; -inf where nothing is seen."""
    T, N, H = q.shape
    k = jnp.repeat(k, N // k.shape[1], axis=1)
    t = jnp.arange(T)
    seen = (t[None, :] <= t[:, None]) & (t[:, None] < length)
    return jnp.where(seen, jnp.einsum("tnh,snh->nts", q, k) * H**-0.5, -jnp.inf)


def forward(q, k, v, lengths, q_offsets, kv_offsets):
    """As cudnn._kernel_forward."""
    q_offsets, kv_offsets, lengths = _check(q, k, lengths, q_offsets, kv_offsets)

    def one(slot):
        q_offset, kv_offset, length = slot
        one_v = jnp.repeat(_read(v, kv_offset), q.shape[2] // v.shape[2], axis=1)
        scores = _scores(_read(q, q_offset), _read(k, kv_offset), length)
        return jnp.einsum("nts,snh->tnh", jax.nn.softmax(scores, axis=-1), one_v), jax.nn.logsumexp(scores, axis=-1)

    out, stats = jax.lax.map(one, (q_offsets, kv_offsets, lengths))
    written = jnp.arange(q.shape[1]) < lengths[:, None, None]
    return [_write(q, q_offsets, lengths, out), jnp.where(written, stats, jnp.nan)]


def backward(q, k, v, lengths, q_offsets, kv_offsets, stats, out, d_out):
    """As cudnn._kernel_backward."""
    q_offsets, kv_offsets, lengths = _check(q, k, lengths, q_offsets, kv_offsets)
    groups = q.shape[2] // k.shape[2]

    def one(slot):
        q_offset, kv_offset, length, one_stats = slot
        one_q, one_out, one_d_out = (_read(x, q_offset) for x in (q, out, d_out))
        one_k, one_v = _read(k, kv_offset), _read(v, kv_offset)
        real = jnp.arange(q.shape[1]) < length
        # What lies behind the sequence is not read: not even multiplied by 0.
        one_out, one_d_out = (jnp.where(real[:, None, None], x, 0) for x in (one_out, one_d_out))
        weights = jnp.where(real[:, None], jnp.exp(_scores(one_q, one_k, length) - one_stats[:, :, None]), 0)
        d_weights = jnp.einsum("tnh,snh->nts", one_d_out, jnp.repeat(one_v, groups, axis=1))
        d_scores = weights * (d_weights - jnp.einsum("tnh,tnh->nt", one_out, one_d_out)[:, :, None])
        d_scores = d_scores * q.shape[-1] ** -0.5
        sum_group = lambda x: x.reshape(x.shape[0], -1, groups, x.shape[2]).sum(2)
        dq = jnp.einsum("nts,snh->tnh", d_scores, jnp.repeat(one_k, groups, axis=1))
        dk = sum_group(jnp.einsum("nts,tnh->snh", d_scores, one_q))
        return dq, dk, sum_group(jnp.einsum("nts,tnh->snh", weights, one_d_out))

    dq, dk, dv = jax.lax.map(one, (q_offsets, kv_offsets, lengths, stats))
    return [
        _write(q, q_offsets, lengths, dq), _write(k, kv_offsets, lengths, dk), _write(v, kv_offsets, lengths, dv),
    ]  # fmt: skip
