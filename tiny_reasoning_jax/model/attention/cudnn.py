"""cuDNN's flash attention on packed rows, for NVIDIA cards from Hopper on.

JAX wraps these kernels, but not for packed rows: jax.nn.dot_product_attention knows no segments (jax#29731), and the
private wrapper that does multiplies the key/value offsets by the query heads (jax#39521, in 0.10.2 and 0.11.0), so that
grouped heads read other tokens' keys and say nothing. Its two primitives below that wrapper only pass on what they are
given. They are bound here, with offsets computed here: right in every version, nothing of JAX is patched, and what
the wrapper asks of the attached device stays out of the way of compiling for another card.

What cuDNN is told: sequences, each by an offset in elements into the whole of q, k and v, and a length. It takes them
from a list whose size is static, `slots_per_row` for each row, pooled over all rows of a micro-batch. For each slot,
used or not, it lays out a workspace for a sequence as long as a row, and clears it in the backward pass: see
`workspace_bytes`. A list long enough for the shortest examples would take many GiB. So the list is short, and a
micro-batch with more segments than slots takes several passes, as many as it needs and no more: the result is the same,
and each pass costs its clearing, and but for the first the merging of its results and a look of the host at a number on
the device.

The backward pass is not asked for cuDNN's deterministic algorithm (XLA does under --xla_gpu_deterministic_ops): without
it gradients of queries are added up in the order in which they come, and two equal runs may differ in the last bits.

Sources, besides JAX's fused_attention_stablehlo.py: XLA's cuda_dnn.cc (GetCudnnFlashAttention*OperationGraph), and
cudnn-frontend's scaled_dot_product_flash_attention.h. Not measured on a GPU.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model import remat

WIDEST_HEAD = 256


def attend(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    slots_per_row: int = 4,
) -> Float[Array, "B T N H"]:
    """Attention of packed rows; a segment is a run of equal ids. Padding (0) is seen by none; its output is finite.

    Its cotangent must be 0, as in training, or keys and values of the segment before it take some of it.

    Args:
      q: queries, bfloat16 or float16.
      k: keys, as the values with K heads of which N is a multiple.
      v: values.
      segment_ids: who belongs together.
      slots_per_row: sequences of one pass over the micro-batch, divided by its rows; at least 2. With 4 one pass
        suffices for examples of a quarter of a row on average, which traces of reasoning reach.

    Raises:
      UserError: a dtype, a head width or a size that cuDNN does not take.
    """
    reason = refusal(q.dtype, q.shape[-1]) or _size_refusal(q.size)
    if reason:
        raise UserError(f"train.attention='cudnn': {reason}")
    return _attend(q, k, v, segment_ids, slots_per_row)


def refusal(dtype, head_dim: int) -> str | None:
    """Why cuDNN cannot attend with such heads; None if it can."""
    if jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        return f"cuDNN takes bfloat16 and float16, not {jnp.dtype(dtype).name}; set train.compute_dtype=bfloat16"
    if head_dim > WIDEST_HEAD or head_dim % 8:
        return f"cuDNN takes heads up to {WIDEST_HEAD} wide, in steps of 8; the model's head_dim is {head_dim}"
    return None


def _size_refusal(size: int) -> str | None:
    if size >= 2**31:
        return (
            f"the queries of a micro-batch have {size:,} elements, and cuDNN counts them in 31 bits; take smaller "
            "micro-batches (a larger train.accum_steps)"
        )
    return None


def workspace_bytes(B: int, T: int, N: int, K: int, H: int, slots_per_row: int = 4) -> int:
    """What the backward pass takes from the device beside its inputs and results, one layer at a time.

    A compiler without a GPU does not know it, so it is missing from a plan made there. By cudnn-frontend: for each slot
    a row of float32 query gradients and of softmax sums, and with grouped heads one of key and of value gradients for
    every query head (16 bits). Not measured on a GPU.
    """
    per_head_and_token = 4 * H + 4 + (2 * 2 * H if K != N else 0)
    return B * slots_per_row * T * N * per_head_and_token


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q, k, v, segment_ids, slots_per_row):
    return _forward(q, k, v, segment_ids, slots_per_row)[0]


def _attend_forward(q, k, v, segment_ids, slots_per_row):
    out, lse = _forward(q, k, v, segment_ids, slots_per_row)
    # Named here, or a rung that keeps attention would run the kernel again for what the backward pass takes from it.
    out, lse = remat.name(out, remat.ATTENTION), remat.name(lse, remat.ATTENTION)
    return out, (q, k, v, segment_ids, out, lse)


def _attend_backward(slots_per_row, residuals, d_out):
    return *_backward(*residuals, d_out, slots_per_row), None


_attend.defvjp(_attend_forward, _attend_backward)


class Segments(NamedTuple):
    """The segments of a micro-batch in the order in which they lie, B * T tokens one after the other.

    Padding belongs to the segment before it, which does not see it, or is one of its own where a row begins with it: of
    an empty row that is the whole row, with the work of one. In exchange the kernels write every place. To put right
    what they leave unwritten, output and gradients would be read and written once more, 0.4 GB a layer at 16k tokens of
    Qwen3-1.7B, 1 % of a step on an H100 (computed), for the few places that packing leaves empty.

    Attributes:
      starts: index of each segment's first token; B * T for what is not there.
      lengths: its tokens; 0 for what is not there.
      count: how many there are.
      number: of each token, that of its segment.
    """

    starts: Int[Array, "S"]
    lengths: Int[Array, "S"]
    count: Int[Array, ""]
    number: Int[Array, "B T"]


def find_segments(segment_ids: Int[Array, "B T"], size: int) -> Segments:
    """The segments as a list of `size`, which must hold them all: B * T or more."""
    last = segment_ids.size
    begins = (segment_ids != 0) & (segment_ids != jnp.roll(segment_ids, 1, axis=1))
    begins = begins.at[:, 0].set(True).ravel()  # a row does not go on from the one above it
    starts = jnp.nonzero(begins, size=size, fill_value=last)[0].astype(jnp.int32)
    number = jnp.cumsum(begins, dtype=jnp.int32).reshape(segment_ids.shape) - 1
    return Segments(starts, jnp.diff(starts, append=last), jnp.sum(begins, dtype=jnp.int32), number)


class Slots(NamedTuple):
    """What one pass computes, in cuDNN's terms; M slots for each row.

    Attributes:
      lengths: tokens of each sequence; 0: an empty slot.
      q_offsets: where each begins in q and in all of its shape, in elements. As XLA takes it: all slots one after the
        other regardless of rows, then the end of the tensor.
      kv_offsets: the same in k and v, whose tokens are K * H elements and not N * H.
      starts: first token of each sequence, of B * T.
      taken: of each token, the slot that it is computed in; -1: not in this pass.
    """

    lengths: Int[Array, "B M"]
    q_offsets: Int[Array, "B M+1"]
    kv_offsets: Int[Array, "B M+1"]
    starts: Int[Array, "B*M"]
    taken: Int[Array, "B T"]


def fill_slots(segments: Segments, first: Int[Array, ""], slots_per_row: int, N: int, K: int, H: int) -> Slots:
    """The slots of the pass that begins with segment `first`."""
    B, T = segments.number.shape
    starts = jax.lax.dynamic_slice_in_dim(segments.starts, first, B * slots_per_row)
    lengths = jax.lax.dynamic_slice_in_dim(segments.lengths, first, B * slots_per_row)
    tokens = jnp.concatenate([starts, jnp.full(B, B * T, jnp.int32)]).reshape(B, slots_per_row + 1)
    slot = segments.number - first
    taken = jnp.where((slot >= 0) & (slot < B * slots_per_row), slot, -1)
    return Slots(lengths.reshape(B, slots_per_row), tokens * (N * H), tokens * (K * H), starts, taken)


def _in_passes(segment_ids, slots_per_row: int, heads: tuple[int, int, int], compute: Callable):
    """Runs `compute(slots) -> arrays [B, T, ...]` on all segments, as many at a time as there are slots."""
    B, T = segment_ids.shape
    slots = B * slots_per_row
    segments = find_segments(segment_ids, -(-B * T // slots) * slots)

    def one_pass(carry):
        first, results = carry
        filled = fill_slots(segments, first, slots_per_row, *heads)
        mine = lambda x: (filled.taken >= 0).reshape(B, T, *[1] * (x.ndim - 2))
        # What the kernel did not write may be anything, NaN included.
        merged = (jnp.where(mine(new), new, old) for new, old in zip(compute(filled), results, strict=True))
        return first + slots, tuple(merged)

    # The first pass has nothing to be merged with: what it did not write, a later one will.
    first_pass = tuple(compute(fill_slots(segments, jnp.int32(0), slots_per_row, *heads)))
    goes_on = lambda carry: carry[0] < segments.count
    return jax.lax.while_loop(goes_on, one_pass, (jnp.int32(slots), first_pass))[1]


def _forward(q, k, v, segment_ids, slots_per_row):
    """The output, and the log-sum-exp of each query's scores, float32 [B, T, N].

    cuDNN gives the latter for every slot as long as a row; kept between the passes is one value for each query.
    """
    B, T, N, H = q.shape
    positions = jnp.arange(B * T, dtype=jnp.int32).reshape(B, T)

    def compute(slots):
        out, stats = _kernel_forward(q, k, v, slots.lengths, slots.q_offsets, slots.kv_offsets)  # stats [B*M, N, T]
        slot = jnp.maximum(slots.taken, 0)
        place = jnp.where(slots.taken >= 0, positions - slots.starts[slot], 0)
        return out, stats[slot, :, place]

    return _in_passes(segment_ids, slots_per_row, (N, k.shape[2], H), compute)


def _backward(q, k, v, segment_ids, out, lse, d_out, slots_per_row):
    """The gradients of q, k and v."""
    B, T, N, H = q.shape

    def compute(slots):
        token = slots.starts[:, None] + jnp.arange(T, dtype=jnp.int32)  # behind a segment's end: not read
        stats = lse.reshape(B * T, N)[jnp.minimum(token, B * T - 1)]  # [B*M, T, N]
        arrays = (stats.swapaxes(1, 2), out, d_out)
        return _kernel_backward(q, k, v, slots.lengths, slots.q_offsets, slots.kv_offsets, *arrays)

    return _in_passes(segment_ids, slots_per_row, (N, k.shape[2], H), compute)


def _kernel_forward(q, k, v, lengths, q_offsets, kv_offsets):
    """Output [B, T, N, H] and log-sum-exp float32 [B*M, N, T] of the sequences given; other places hold anything."""
    fused, unused = _fused_attention(), jnp.zeros(0, q.dtype)
    operands = (q, k, v, unused, lengths, lengths, q_offsets, kv_offsets, unused, unused)
    return fused._dot_product_attention_fwd_p.bind(*operands, is_training=True, **_settings(fused, q))


def _kernel_backward(q, k, v, lengths, q_offsets, kv_offsets, stats, out, d_out):
    """Gradients of q, k and v of the sequences given; other places hold anything."""
    fused, unused = _fused_attention(), jnp.zeros(0, q.dtype)
    operands = (q, k, v, unused, lengths, lengths, q_offsets, kv_offsets, unused, unused, stats, out, d_out)
    return fused._dot_product_attention_bwd_p.bind(*operands, **_settings(fused, q))


def _settings(fused, q) -> dict:
    no_change_of_scores = dict(score_mod_name=None, score_mod_jaxpr=None) if jax.__version_info__ >= (0, 12) else {}
    return dict(
        scale=q.shape[-1] ** -0.5,
        seed=0,
        dropout_rate=0.0,
        variadic_args=(False, False),  # no bias, no gradient of one
        mask_type=fused.MaskType.PADDING_CAUSAL,
        layout=fused.AttentionLayout.BTNH.value,
        sliding_window_length=0,
        **no_change_of_scores,
    )


def _fused_attention():
    """JAX's private module, read in 0.10.2, 0.11 and 0.12.0; a later one is refused here or by the self-test."""
    try:
        from jax._src.cudnn import fused_attention_stablehlo as fused

        _ = fused._dot_product_attention_fwd_p, fused._dot_product_attention_bwd_p, fused.MaskType.PADDING_CAUSAL
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"train.attention='cudnn': jax {jax.__version__} has no such kernels where 0.10 to 0.12 have them "
            f"({error}); install jax 0.12, or set train.attention=triton"
        ) from None
    return fused
