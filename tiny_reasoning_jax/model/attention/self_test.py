"""Numeric test of an attention kernel on the device at hand, before training believes it.

A kernel that mixes packed examples, reads another head's keys or drops a part of a gradient trains on, and the loss
curve looks like one. So before the first step the kernel computes a small micro-batch of the run's own heads and dtype,
and must give, in output and gradients, what plain attention gives in float32 (one row of many ragged examples, one with
a long one, both with padding), and what it gives itself for every example alone in its row.

How far off it may be: both sides start from the same 16-bit inputs, and a kernel computes scores, softmax and sums in
float32. What it rounds to 16 bits are the weights (or their gradients) that enter the second product, the output, also
where the backward pass reads it, and the results: each time by at most 2**-9 of the value in bfloat16, independently of
each other, so that a sum over many keys is off by a few 2**-9 of its size; where terms cancel, of the size that other
tokens' results have. Measured in bfloat16 on a CPU: 0.009 of plain attention, 0.012 of the Triton kernels, interpreted.
The tolerance is four times that; a gradient that is off by a tenth exceeds it, and every other fault in
tests/model/test_attention_choice.py by far.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.attention import plain
from tiny_reasoning_jax.model.attention.choice import KERNELS

LONGEST_ROW = 1024  # several tiles of every kernel; longer rows only take longer
TOLERANCE = 0.05
PARTS = ("the output", "the gradient of q", "the gradient of k", "the gradient of v")


class Outcome(NamedTuple):
    """The largest error of a test, as a part of the values' own size, and what it was an error of."""

    error: float
    where: str

    @property
    def passed(self) -> bool:
        """Whether the kernel may train."""
        return self.error <= TOLERANCE


def settle(asked: str, names: tuple[str, ...], backends: dict[str, Callable], **shape) -> tuple[str, list[str]]:
    """The first backend that passes, and what to tell the user about the way there.

    Args:
      asked: train.attention, for messages.
      names: backends to try, the best first; the ones in choice.KERNELS are tested, others are taken as they are.
      backends: their functions.
      **shape: what `test` takes.

    Raises:
      UserError: none is left.
    """
    said = []
    for name in names:
        if name not in KERNELS:
            return name, [*said, f"attention: {name}"]
        failure, outcome = None, None
        try:
            outcome = test(backends[name], **shape)
        # Whatever a compiler or a driver raises about a kernel, it is a reason not to take it.
        except Exception as error:
            failure = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300] if str(error) else ''}"
        if outcome and outcome.passed:
            figures = f"largest error {outcome.error:.4f} ({outcome.where}), tolerance {TOLERANCE}"
            return name, [*said, f"attention: {name}, self-test passed: {figures}"]
        failure = failure or f"{outcome.where} is off by {outcome.error:.3g} of its size, tolerance {TOLERANCE}"
        said.append(
            f"WARNING: attention backend {name!r} FAILED its self-test on this device and is not used: {failure}"
        )
    raise UserError(
        f"train.attention={asked!r}: " + "; ".join(said) + ". Take --config.train.attention=blockwise, which is plain "
        "JAX, and report this with the versions of jax, driver and card"
    )


def test(attend: Callable, *, N: int, K: int, H: int, dtype, seq_len: int) -> Outcome:
    """Compares `attend` with plain float32 attention and with itself on unpacked rows.

    Args:
      attend: a backend.
      N: query heads.
      K: key/value heads.
      H: head width.
      dtype: of queries, keys and values.
      seq_len: tokens of the run's rows; the test's are not longer than LONGEST_ROW.
    """
    segment_ids = ragged_rows(min(seq_len, LONGEST_ROW))
    arrays = _random(segment_ids, N, K, H, dtype)
    run = functools.partial(jax.jit(_forward_backward, static_argnums=0), attend)
    packed = _numpy(run(*arrays, segment_ids))
    real = segment_ids != 0
    for part, values in zip(PARTS, packed, strict=True):
        if not np.all(np.isfinite(values)):
            return Outcome(float("inf"), f"{part}, not finite,")
        if part != PARTS[0] and np.any(values[~real]):
            return Outcome(float("inf"), f"{part}, not 0 at padding,")
    wide = [x.astype(jnp.float32) for x in arrays]
    plainly = _numpy(jax.jit(_forward_backward, static_argnums=0)(plain.reference, *wide, segment_ids))
    apart = _apart(run, arrays, segment_ids)
    outcomes = [
        Outcome(_largest_error(ours[real], theirs[real]), f"{part} against {which}")
        for which, expected in (("plain attention in float32", plainly), ("the same examples apart", apart))
        for part, ours, theirs in zip(PARTS, packed, expected, strict=True)
    ]
    return max(outcomes, key=lambda outcome: outcome.error)


def ragged_rows(T: int) -> np.ndarray:
    """Segment ids int32 [2, T]: a row of short examples of many lengths, and one that a long example begins."""
    rows = np.zeros((2, T), np.int32)
    for row, lengths in zip(rows, ([], [5 * T // 8 + 1]), strict=True):
        end, ragged = T - T // 16 - 1, (1, 37, 128, 5, 250, 64, 199, 3)
        while sum(lengths) < end:
            lengths = [*lengths, min(ragged[len(lengths) % len(ragged)], end - sum(lengths))]
        row[:end] = np.repeat(np.arange(len(lengths)) + 1, lengths)
    return rows


def _random(segment_ids: np.ndarray, N: int, K: int, H: int, dtype) -> list[jax.Array]:
    """q, k, v and a cotangent of the output, which padding has none of."""
    rng = np.random.default_rng(0)
    q, k, v, d_out = (rng.standard_normal((*segment_ids.shape, heads, H), np.float32) for heads in (N, K, K, N))
    return [jnp.asarray(x, dtype) for x in (q, k, v, d_out * (segment_ids != 0)[:, :, None, None])]


def _forward_backward(attend: Callable, q, k, v, d_out, segment_ids):
    out, pull = jax.vjp(lambda q, k, v: attend(q, k, v, segment_ids), q, k, v)
    return out, *pull(d_out)


def _numpy(arrays) -> list[np.ndarray]:
    return [np.asarray(x, np.float32) for x in arrays]


def _apart(run: Callable, arrays: list[jax.Array], segment_ids: np.ndarray) -> list[np.ndarray]:
    """Output and gradients of every example alone at the start of a row, put back where it lies in the packed rows.

    As many examples at a time as there are rows: in the shape that is compiled already.
    """
    B, T = segment_ids.shape
    arrays = [np.asarray(x) for x in arrays]
    places = [
        (row, np.flatnonzero(ids == number))
        for row, ids in enumerate(segment_ids)
        for number in range(1, ids.max() + 1)
    ]
    results = [np.zeros(arrays[i].shape, np.float32) for i in (0, 0, 1, 2)]
    for first in range(0, len(places), B):
        some = places[first : first + B]
        alone, ids = [np.zeros_like(x) for x in arrays], np.zeros_like(segment_ids)
        for b, (row, place) in enumerate(some):
            ids[b, : len(place)] = 1
            for to, x in zip(alone, arrays, strict=True):
                to[b, : len(place)] = x[row, place]
        outs = _numpy(run(*alone, ids))
        for b, (row, place) in enumerate(some):
            for to, out in zip(results, outs, strict=True):
                to[row, place] = out[b, : len(place)]
    return results


def _largest_error(ours: np.ndarray, expected: np.ndarray) -> float:
    """The largest error, over the size of its token's numbers and of typical ones. Arrays [tokens, heads, H]."""
    flat = lambda x: np.abs(x).reshape(len(x), -1).max(axis=1)
    typical = max(np.sqrt(np.mean(expected**2)), 1e-6)
    error = float(np.max(flat(ours - expected) / (flat(expected) + typical)))
    return error if error == error else float("inf")  # NaN would not compare
