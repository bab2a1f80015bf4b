"""Puts whole examples side by side into rows of fixed length, and writes the arrays that training reads.

An example is never cut and never crosses a row. One of n tokens takes n - 1 positions: its last token is only
ever a target.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from tiny_reasoning_jax.data.batch import Batch
from tiny_reasoning_jax.data.prepared import PreparedSplit


def _choose(lengths: Sequence[int], seq_len: int) -> list[int]:
    """Returns indices, the first always among them, whose lengths fill the row: as well as they can, or well enough.

    Exact subset sum over bit sets: bit s of reachable[k] says that some of the first k + 1 lengths, the first
    included, add up to s. It stops at the first prefix that can fill the row but for 1/400, and takes a late example
    only where the earlier ones cannot do without it: so the ones that have waited longest go first, and no short one,
    which a long one may need, is spent on the last few positions.
    """
    enough = seq_len - seq_len // 400
    reachable = [1 << lengths[0]]
    within_row = (1 << (seq_len + 1)) - 1
    for length in lengths[1:]:
        if reachable[-1] >> enough:
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
    """Fills up to `num_rows` rows from a window of waiting examples.

    The first half of the rows start with the longest example still waiting, the others with the oldest. The long ones
    go first because few short ones fit beside them, and those are soon used up: where most examples are longer than
    half a row this fills 2 % more. Because of the oldest an example with w others before it is packed within
    w // (num_rows - num_rows // 2) + 1 calls, whatever its length.

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
        first = waiting[0] if len(rows) >= num_rows // 2 else max(waiting, key=lengths.__getitem__)
        waiting.remove(first)
        # A row never holds more than seq_len examples, so later ones need no look.
        beside = waiting[: seq_len - 1]
        chosen = _choose([lengths[first], *[lengths[i] for i in beside]], seq_len)
        rows.append([first, *[beside[k - 1] for k in chosen[1:]]])
        for k in reversed(chosen[1:]):
            del waiting[k - 1]
    return rows, waiting


def fill_rows(split: PreparedSplit, rows: list[list[int]], *, num_rows: int, seq_len: int) -> Batch:
    """Reads examples and writes them into rows.

    Args:
      split: where the examples are.
      rows: example indices of each row, in order; rows beyond the last one given stay empty.
      num_rows: rows of the result.
      seq_len: positions in a row.

    Returns:
      Batch of arrays [num_rows, seq_len] with loss_denom 1. An input position is trained where its target
      belongs to the completion: the first completion token is predicted from the last prompt token, and the
      end of turn is a target once.
    """
    return read_rows(split, rows, num_rows=num_rows, seq_len=seq_len)[0]


def read_rows(
    split: PreparedSplit, rows: list[list[int]], *, num_rows: int, seq_len: int
) -> tuple[Batch, list[list[str]]]:
    """Returns what `fill_rows` does, and the ids of each row's examples."""
    shape = (num_rows, seq_len)
    tokens, targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    segment_ids, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    loss_mask = np.zeros(shape, bool)
    ramp = np.arange(seq_len, dtype=np.int32)
    examples = np.fromiter(itertools.chain.from_iterable(rows), np.int64)
    records = zip(split.read(examples.tolist()), split.prompt_lengths[examples].tolist(), strict=True)
    ids = []
    for row, members in enumerate(rows):
        begin, names = 0, []
        for segment, ((name, example), prompt_length) in enumerate(itertools.islice(records, len(members)), start=1):
            end = begin + len(example) - 1
            tokens[row, begin:end] = example[:-1]
            targets[row, begin:end] = example[1:]
            loss_mask[row, begin + max(prompt_length - 1, 0) : end] = True
            segment_ids[row, begin:end] = segment
            positions[row, begin:end] = ramp[: end - begin]
            begin = end
            names.append(name)
        ids.append(names)
    return Batch(tokens, targets, loss_mask, segment_ids, positions, np.float32(1.0)), ids
