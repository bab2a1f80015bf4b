"""Puts whole examples side by side into rows of fixed length, and writes the arrays that training reads.

An example is never cut and never crosses a row. One of n tokens takes n - 1 positions: its last token is only
ever a target.
"""

from collections.abc import Sequence

import numpy as np

from tiny_reasoning_jax.data.batch import Batch
from tiny_reasoning_jax.data.prepared import PreparedSplit


def _choose(lengths: Sequence[int], seq_len: int) -> list[int]:
    """Returns indices, the first always among them, whose lengths add up as close to `seq_len` as they can.

    Exact subset sum over bit sets: bit s of reachable[k] says that some of the first k + 1 lengths, the first
    included, add up to s. It stops at the first prefix that can fill the row, and takes a late example only
    where the earlier ones cannot do without it: so the ones that have waited longest go first.
    """
    reachable = [1 << lengths[0]]
    within_row = (1 << (seq_len + 1)) - 1
    for length in lengths[1:]:
        if reachable[-1] >> seq_len:
            break
        reachable.append((reachable[-1] | reachable[-1] << length) & within_row)
    total = reachable[-1].bit_length() - 1
    chosen = []
    for k in range(len(reachable) - 1, 0, -1):
        if not reachable[k - 1] >> total & 1:
            chosen.append(k)
            total -= lengths[k]
    assert total == lengths[0], "the sum does not lead back to the first example"
    return [0, *reversed(chosen)]


def pack_rows(lengths: Sequence[int], *, num_rows: int, seq_len: int) -> tuple[list[list[int]], list[int]]:
    """Fills up to `num_rows` rows from a window of waiting examples, the oldest first.

    Every row starts with the oldest example still waiting, whatever its length; so an example with w others
    before it is packed within w // num_rows + 1 calls.

    Args:
      lengths: positions that each waiting example takes, oldest first; each 1 to seq_len.
      num_rows: rows to fill.
      seq_len: positions in a row.

    Returns:
      The rows, as indices into `lengths` (fewer rows if the examples run out), and the indices left waiting,
      oldest first.
    """
    assert all(0 < length <= seq_len for length in lengths), "an example is empty or longer than a row"
    waiting = list(range(len(lengths)))
    rows = []
    while waiting and len(rows) < num_rows:
        # A row never holds more than seq_len examples, so later ones need no look.
        chosen = _choose([lengths[i] for i in waiting[:seq_len]], seq_len)
        rows.append([waiting[k] for k in chosen])
        for k in reversed(chosen):
            del waiting[k]
    return rows, waiting


def fill_rows(split: PreparedSplit, rows: list[list[int]], *, num_rows: int, seq_len: int) -> Batch:
    """Writes examples into rows.

    Args:
      split: where the examples' tokens are.
      rows: example indices of each row, in order; rows beyond the last one given stay empty.
      num_rows: rows of the result.
      seq_len: positions in a row.

    Returns:
      Batch of arrays [num_rows, seq_len] with loss_denom 1. An input position is trained where its target
      belongs to the completion: the first completion token is predicted from the last prompt token, and the
      end of turn is a target once.
    """
    shape = (num_rows, seq_len)
    tokens, targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    segment_ids, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    loss_mask = np.zeros(shape, bool)
    ramp = np.arange(seq_len, dtype=np.int32)
    source = np.asarray(split.tokens)  # a plain view: slicing a np.memmap costs microseconds more
    for row, examples in enumerate(rows):
        begin = 0
        for segment, example in enumerate(examples, start=1):
            first, last = int(split.offsets[example]), int(split.offsets[example + 1]) - 1
            end = begin + last - first
            tokens[row, begin:end] = source[first:last]
            targets[row, begin:end] = source[first + 1 : last + 1]
            loss_mask[row, begin + max(int(split.prompt_lengths[example]) - 1, 0) : end] = True
            segment_ids[row, begin:end] = segment
            positions[row, begin:end] = ramp[: end - begin]
            begin = end
    return Batch(tokens, targets, loss_mask, segment_ids, positions, np.float32(1.0))
