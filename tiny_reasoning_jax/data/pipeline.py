"""From a prepared split to whole optimizer steps: Grain iterators that draw by difficulty and pack.

What comes next depends on the split, the settings and a state of a few hundred bytes, never on threads or the
machine, so a run can stop anywhere. Refused: examples longer than a row. Nothing is cut or dropped here.
"""

import bisect
import zlib
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from tiny_reasoning_jax.data.batch import Batch, StepBatch
from tiny_reasoning_jax.data.curriculum import difficulty_weights
from tiny_reasoning_jax.data.packing import fill_rows, pack_rows
from tiny_reasoning_jax.data.prepared import PreparedSplit
from tiny_reasoning_jax.data.problems import DIFFICULTIES
from tiny_reasoning_jax.errors import UserError

# Mean-sized examples that wait beyond what a step needs: the choice from which the last rows are filled. 64
# pack above 98 % unless most examples are longer than a third of a row, and make an example wait a few steps
# at most.
_NUM_LOOKAHEAD = 64

# Keeps the random streams of one seed apart.
_DRAW_STREAM, _SHUFFLE_STREAM = 0, 1


def _lengths(split: PreparedSplit, seq_len: int) -> np.ndarray:
    """Returns int64 [num_examples], the positions that each example takes; refuses what no row can hold."""
    lengths = np.diff(split.offsets) - 1
    if len(lengths) and lengths.max() > seq_len:
        longest, num_long = int(lengths.max()), int((lengths > seq_len).sum())
        raise UserError(
            f"{num_long} prepared examples do not fit into a row: the longest needs {longest} "
            f"positions and train.seq_len={seq_len}. Set that to {longest} or more, or prepare the data "
            "again with this train.seq_len, which drops and counts them"
        )
    assert (split.prompt_lengths <= lengths).all(), "an example has no completion token to train on"
    return lengths


def _check_settings(num_steps: int, batch_size: int, accum_steps: int, seq_len: int, seed: int) -> None:
    sizes = {"num_steps": num_steps, "batch_size": batch_size, "accum_steps": accum_steps, "seq_len": seq_len}
    for name, value in sizes.items():
        if value < 1:
            raise UserError(f"train.{name}={value} is too small; set train.{name}=1 or more")
    if seed < 0:
        raise UserError(f"seed={seed} is negative; choose 0 or more")
    if batch_size % accum_steps:
        below = batch_size - batch_size % accum_steps
        fitting = " or ".join(str(size) for size in (below, below + accum_steps) if size)
        raise UserError(
            f"train.batch_size={batch_size} rows cannot be shared evenly by train.accum_steps={accum_steps} "
            f"micro-batches; try train.batch_size={fitting}"
        )


class StepDataset(grain.IterDataset):
    """An endless dataset of StepBatch, one for each optimizer step. See `make_train_iterator`."""

    def __init__(
        self,
        split: PreparedSplit,
        *,
        curriculum: str,
        num_steps: int,
        batch_size: int,
        accum_steps: int,
        seq_len: int,
        seed: int,
    ):
        super().__init__()
        _check_settings(num_steps, batch_size, accum_steps, seq_len, seed)
        if not len(split):
            raise UserError(
                "there are 0 training examples, 1 is needed at least; data/summary.json says what was dropped"
            )
        self.split, self.curriculum, self.num_steps, self.seed = split, curriculum, num_steps, seed
        self.batch_size, self.accum_steps, self.seq_len = batch_size, accum_steps, seq_len
        self.lengths = _lengths(split, seq_len)
        self.window_tokens = batch_size * seq_len + int(_NUM_LOOKAHEAD * self.lengths.mean())
        self.members = [np.flatnonzero(split.difficulty == level) for level in DIFFICULTIES]
        self.counts = np.array([len(members) for members in self.members])
        assert self.counts.sum() == len(split), "a difficulty is outside 1 to 5"
        # Grain reshuffles each epoch: index i of an order is place i % n of epoch i // n.
        seeds = np.random.SeedSequence([seed, _SHUFFLE_STREAM]).generate_state(len(DIFFICULTIES))
        self.orders = [
            grain.MapDataset.range(len(members)).shuffle(seed=int(level_seed))
            for members, level_seed in zip(self.members, seeds, strict=True)
        ]
        self.weights_at(0)  # an unknown curriculum fails here and not in the prefetching thread

    def weights_at(self, step: int) -> np.ndarray:
        """Returns float64 [5], the probability of each difficulty among the examples drawn at `step`."""
        return difficulty_weights(self.curriculum, step / self.num_steps, self.counts)

    def fingerprint(self) -> int:
        """Returns a checksum of the split's layout: indices in a state mean something for this split only."""
        checksum = zlib.crc32(np.ascontiguousarray(self.split.offsets))
        checksum = zlib.crc32(np.ascontiguousarray(self.split.prompt_lengths), checksum)
        return zlib.crc32(np.ascontiguousarray(self.split.difficulty), checksum)

    def __iter__(self) -> "StepIterator":
        return StepIterator(self)


class StepIterator(grain.DatasetIterator):
    """Iterator of a StepDataset; its state: step, a cursor per difficulty, the examples still to pack."""

    def __init__(self, dataset: StepDataset):
        super().__init__()
        self._dataset = dataset
        self._fingerprint = dataset.fingerprint()
        self._step = 0
        self._cursors = [0] * len(DIFFICULTIES)
        self._pending: list[int] = []

    def __next__(self) -> StepBatch:
        data = self._dataset
        window = self._pending + self._draw()
        rows, left = pack_rows(data.lengths[window].tolist(), num_rows=data.batch_size, seq_len=data.seq_len)
        self._pending = [window[i] for i in left]
        self._step += 1
        return _step_batch(data, [[window[i] for i in row] for row in rows])

    def _draw(self) -> list[int]:
        """Draws examples until the window holds what a step needs and the look-ahead."""
        data, drawn = self._dataset, []
        num_tokens = int(data.lengths[self._pending].sum()) if self._pending else 0
        rng = np.random.default_rng([data.seed, _DRAW_STREAM, self._step])
        cumulative = np.cumsum(data.weights_at(self._step))
        # Divided so that the last level with a weight ends at 1, above every draw: no empty level is hit.
        cumulative = (cumulative / cumulative[-1]).tolist()
        while num_tokens < data.window_tokens:
            level = bisect.bisect_right(cumulative, rng.random())
            example = int(data.members[level][data.orders[level][self._cursors[level]]])
            self._cursors[level] += 1
            num_tokens += int(data.lengths[example])
            drawn.append(example)
        return drawn

    def get_state(self) -> dict[str, Any]:
        """Returns JSON values, alike in structure at every step as Grain asks (hence `pending` as text)."""
        return {
            "step": self._step,
            "cursors": list(self._cursors),
            "pending": " ".join(map(str, self._pending)),
            "split": self._fingerprint,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a state of an iterator over the same split.

        Raises:
          UserError: the state belongs to another split.
        """
        if state["split"] != self._fingerprint:
            raise UserError(
                f"the saved place in the training data belongs to other data (checksum {state['split']}, "
                f"here {self._fingerprint}); restore that run's data or start again in a new workdir"
            )
        self._step = state["step"]
        self._cursors = list(state["cursors"])
        self._pending = [int(example) for example in state["pending"].split()]


def _step_batch(data: StepDataset, rows: list[list[int]]) -> StepBatch:
    """Returns the batch of one step: rows are dealt to micro-batches in order."""
    batch = fill_rows(data.split, rows, num_rows=data.batch_size, seq_len=data.seq_len)
    num_trained_tokens = int(batch.loss_mask.sum())
    per_micro_batch = data.batch_size // data.accum_steps
    arrays = [x.reshape(data.accum_steps, per_micro_batch, data.seq_len) for x in batch[:-1]]
    loss_denom = np.full(data.accum_steps, num_trained_tokens, np.float32)
    ids = [
        [data.split.ids[i] for row in rows[start : start + per_micro_batch] for i in row]
        for start in range(0, data.batch_size, per_micro_batch)
    ]
    num_tokens = sum(int(data.lengths[row].sum()) for row in rows)
    return StepBatch(Batch(*arrays, loss_denom), ids, num_tokens, num_trained_tokens)


def make_train_iterator(
    split: PreparedSplit,
    *,
    curriculum: str,
    num_steps: int,
    batch_size: int,
    accum_steps: int,
    seq_len: int,
    seed: int,
    prefetch_steps: int,
) -> grain.DatasetIterator:
    """Returns an endless Grain iterator of StepBatch, one element per optimizer step, all of the same shapes.

    `get_state()` belongs to the last element handed out, whatever has been prefetched; it is JSON of a few
    hundred bytes, and `set_state()` takes the same time at any step. A run that goes on must use the same
    arguments (prefetch_steps apart). Each epoch of a difficulty visits each of its examples once. `close()`
    ends the thread.

    Args:
      split: the training examples.
      curriculum: see `difficulty_weights`.
      num_steps: optimizer steps over which the curriculum moves; beyond them it stays at its end.
      batch_size: rows of one optimizer step.
      accum_steps: micro-batches that share those rows.
      seq_len: positions in a row.
      seed: 0 or more.
      prefetch_steps: steps that a background thread prepares ahead; 0 prepares each when it is asked for.

    Raises:
      UserError: a setting is out of range, batch_size cannot be shared by accum_steps, the split is empty, an
        example is longer than a row, or the curriculum is unknown.
    """
    if prefetch_steps < 0:
        raise UserError(f"data.prefetch_steps={prefetch_steps} is negative; set 0 (no prefetching) or more")
    dataset = StepDataset(
        split,
        curriculum=curriculum,
        num_steps=num_steps,
        batch_size=batch_size,
        accum_steps=accum_steps,
        seq_len=seq_len,
        seed=seed,
    )
    return iter(grain.experimental.ThreadPrefetchIterDataset(dataset, prefetch_buffer_size=prefetch_steps))


def validation_batches(split: PreparedSplit, *, batch_size: int, seq_len: int) -> Iterator[Batch]:
    """Yields every example exactly once, in the same order each time, as Batch arrays [batch_size, seq_len].

    The last batch is completed with empty rows, so that one compilation serves all; loss_denom is 1.

    Raises:
      UserError: an example is longer than a row.
    """
    lengths = _lengths(split, seq_len)
    waiting = list(range(len(split)))
    while waiting:
        rows, left = pack_rows(lengths[waiting].tolist(), num_rows=batch_size, seq_len=seq_len)
        examples = [[waiting[i] for i in row] for row in rows]
        waiting = [waiting[i] for i in left]
        yield fill_rows(split, examples, num_rows=batch_size, seq_len=seq_len)
