"""From a prepared split to whole optimizer steps: Grain iterators over a plan that read its examples' tokens.

What comes next depends on the split, the settings and a state of a few hundred bytes, never on threads or the
machine, so a run can stop anywhere. On several hosts each makes the whole plan and reads only its own rows. Refused:
examples longer than a row. Nothing is cut or dropped here.
"""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from tiny_reasoning_jax.data.batch import Batch, StepBatch
from tiny_reasoning_jax.data.packing import fill_rows, pack_rows, read_rows
from tiny_reasoning_jax.data.plan import Plan, count_positions
from tiny_reasoning_jax.data.prepared import PreparedSplit
from tiny_reasoning_jax.data.problems import DIFFICULTIES
from tiny_reasoning_jax.errors import UserError

# What is observed after step s changes the draws from step s + OBSERVE_LAG on. A prefetching thread has begun step
# s + 1 + prefetch_steps at most, so how far it happened to be makes no difference.
OBSERVE_LAG = 16

_Observed = tuple[tuple[int, tuple[float, ...]], ...]


def _check_settings(
    num_steps: int, batch_size: int, accum_steps: int, seq_len: int, seed: int, process_count: int
) -> None:
    sizes = {"num_steps": num_steps, "batch_size": batch_size, "accum_steps": accum_steps, "seq_len": seq_len}
    for name, value in sizes.items():
        if value < 1:
            raise UserError(f"train.{name}={value} is too small; set train.{name}=1 or more")
    if seed < 0:
        raise UserError(f"seed={seed} is negative; choose 0 or more")
    if batch_size % (shares := accum_steps * process_count):
        below = batch_size - batch_size % shares
        fitting = " or ".join(str(size) for size in (below, below + shares) if size)
        hosts = f" on each of {process_count} hosts" if process_count > 1 else ""
        raise UserError(
            f"train.batch_size={batch_size} rows cannot be shared evenly by train.accum_steps={accum_steps} "
            f"micro-batches{hosts}; try train.batch_size={fitting}"
        )


def _check_prefetch(prefetch_steps: int, curriculum: str) -> None:
    if prefetch_steps < 0:
        raise UserError(f"data.prefetch_steps={prefetch_steps} is negative; set 0 (no prefetching) or more")
    most = OBSERVE_LAG - 2
    if curriculum == "adaptive" and prefetch_steps > most:
        raise UserError(
            f'data.prefetch_steps={prefetch_steps} is above {most}: data.curriculum="adaptive" acts {OBSERVE_LAG} '
            f"steps after it observes, and they must not be prepared before; set data.prefetch_steps={most} or less"
        )


class _Observations:
    """What one iterator has been told. See `TrainIterator.observe` for why two threads may share it."""

    def __init__(self):
        self.all: _Observed = ()

    def in_effect(self, step: int) -> list[tuple[float, ...]]:
        return [rates for observed_at, rates in self.all if observed_at + OBSERVE_LAG <= step]


class _StepIterator(grain.DatasetIterator):
    """Follows the plan and reads this host's rows; what runs in the prefetching thread."""

    def __init__(self, dataset: "TrainDataset", observations: _Observations):
        super().__init__()
        self._dataset, self._observations = dataset, observations
        self._place = dataset.plan.start()

    def __next__(self) -> StepBatch:
        observed = self._observations.in_effect(self._place.step + 1)
        return self._dataset.read_step(self._dataset.plan.next_rows(self._place, observed))

    def get_state(self) -> dict[str, Any]:
        return self._dataset.plan.dump(self._place)

    def set_state(self, state: dict[str, Any]) -> None:
        self._place = self._dataset.plan.load(state)


class _Steps(grain.IterDataset):
    """The steps of one `TrainIterator`, in the form that Grain's prefetching takes."""

    def __init__(self, dataset: "TrainDataset", observations: _Observations):
        super().__init__()
        self._dataset, self._observations = dataset, observations

    def __iter__(self) -> _StepIterator:
        return _StepIterator(self._dataset, self._observations)


class TrainDataset(grain.IterDataset):
    """An endless dataset of StepBatch, one for each optimizer step, all of the same shapes.

    Each epoch of a difficulty (with weights: of a difficulty of a source) visits each of its examples once.

    Args:
      split: the training examples.
      curriculum: see `difficulty_weights`.
      num_steps: optimizer steps over which the curriculum moves; beyond them it stays at its end.
      batch_size: rows of one optimizer step, over all hosts.
      accum_steps: micro-batches that share those rows.
      seq_len: positions in a row.
      seed: 0 or more.
      prefetch_steps: steps that a background thread prepares ahead; 0 prepares each when it is asked for.
      weights: how often each source is drawn, against the others; None draws every example alike.
      control: draw in random order the very examples that the curriculum would draw over num_steps, those included that
        would still wait for a row at its end. Should fuller rows want a few more near the end, the curriculum goes on.
        Costs planning all steps at the start.
      process_index, process_count: this host, and how many there are. Each makes the whole plan; the rows that they
        read are disjoint and complete.

    Raises:
      UserError: a setting is out of range, batch_size cannot be shared by accum_steps and hosts, the split is empty, an
        example is longer than a row, a weight belongs to no example, the curriculum is unknown, or has no control.
    """

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
        prefetch_steps: int,
        weights: Sequence[float] | None = None,
        control: bool = False,
        process_index: int = 0,
        process_count: int = 1,
    ):
        super().__init__()
        assert 0 <= process_index < process_count, (process_index, process_count)
        _check_settings(num_steps, batch_size, accum_steps, seq_len, seed, process_count)
        _check_prefetch(prefetch_steps, curriculum)
        self.plan = Plan(
            split,
            curriculum=curriculum,
            num_steps=num_steps,
            batch_size=batch_size,
            seq_len=seq_len,
            seed=seed,
            weights=weights,
            control=control,
        )
        self.curriculum, self.prefetch_steps = curriculum, prefetch_steps
        self._split, self._seq_len, self._accum_steps = split, seq_len, accum_steps
        # Rows are dealt to micro-batches in order, and a micro-batch's rows to the hosts in order.
        rows = np.arange(batch_size).reshape(accum_steps, process_count, -1)
        self._own_rows: list[int] = rows[:, process_index].ravel().tolist()
        self._trained = self.plan.positions - np.maximum(split.prompt_lengths - 1, 0)

    def read_step(self, rows: list[list[int]]) -> StepBatch:
        """Returns the step whose rows hold these examples; reads the tokens of this host's rows only."""
        num_rows = len(self._own_rows)
        own = [rows[i] for i in self._own_rows]
        batch, ids = read_rows(self._split, own, num_rows=num_rows, seq_len=self._seq_len)
        arrays = [x.reshape(self._accum_steps, -1, self._seq_len) for x in batch[:-1]]
        examples = np.concatenate(rows)
        num_trained_tokens = int(self._trained[examples].sum())
        loss_denom = np.full(self._accum_steps, num_trained_tokens, np.float32)
        positions, levels = self.plan.positions[examples], self._split.difficulty[examples]
        difficulty_tokens = np.bincount(levels, positions, minlength=1 + len(DIFFICULTIES))[1:].astype(np.int64)
        per_micro_batch = num_rows // self._accum_steps
        return StepBatch(
            Batch(*arrays, loss_denom),
            [sum(ids[start : start + per_micro_batch], []) for start in range(0, num_rows, per_micro_batch)],
            int(positions.sum()),
            num_trained_tokens,
            difficulty_tokens,
        )

    def __iter__(self) -> "TrainIterator":
        return TrainIterator(self)


class TrainIterator(grain.DatasetIterator):
    """Iterator of a TrainDataset that prefetches and takes observations.

    Its state is the place of the last element handed out, and what has been observed by now.
    """

    def __init__(self, dataset: TrainDataset):
        super().__init__()
        self._adaptive = dataset.curriculum == "adaptive"
        self._observations = _Observations()
        steps = _Steps(dataset, self._observations)
        self._prefetched = iter(
            grain.experimental.ThreadPrefetchIterDataset(steps, prefetch_buffer_size=dataset.prefetch_steps)
        )

    def __next__(self) -> StepBatch:
        try:
            return next(self._prefetched)
        except Exception as error:  # of the thread, which has ended with it
            error.add_note(f"Raised while the data of step {self._prefetched.get_state()['step'] + 1} were prepared.")
            raise

    def observe(self, step: int, pass_rates: Sequence[float]) -> None:
        """Takes in how much the model passes; only the adaptive curriculum keeps it.

        It changes the draws from step `step` + OBSERVE_LAG on, whatever is prefetched. Call it before the next element
        is taken.

        Args:
          step: the last step handed out, from 1.
          pass_rates: [5], the share of problems of each difficulty that the model solves, NaN where unknown.
        """
        # The prefetching thread reads what is written here. It reads one tuple, which is replaced and never changed.
        # Whether it sees a new observation early or late makes no difference: it begins step t only after step
        # t - 1 - prefetch_steps was taken from its queue (whose lock orders the two), so after every call of observe
        # with step <= t - 2 - prefetch_steps; and it uses those with step <= t - OBSERVE_LAG, which are among them.
        current = self._prefetched.get_state()["step"]
        assert step == current, f"observed step {step} after step {current} was handed out"
        assert len(pass_rates) == len(DIFFICULTIES), pass_rates
        if self._adaptive:
            self._observations.all += ((step, tuple(map(float, pass_rates))),)

    def get_state(self) -> dict[str, Any]:
        """Returns JSON values, alike in structure at every step as Grain asks (hence text)."""
        observed = [[step, [None if math.isnan(x) else x for x in rates]] for step, rates in self._observations.all]
        return {"place": self._prefetched.get_state(), "observed": json.dumps(observed)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from a state of an iterator over the same split.

        Raises:
          UserError: the state belongs to another split.
        """
        self._prefetched.set_state(state["place"])  # ends the thread, which begins again with the next element
        self._observations.all = tuple(
            (step, tuple(math.nan if x is None else x for x in rates)) for step, rates in json.loads(state["observed"])
        )

    def close(self) -> None:
        """Ends the thread."""
        super().close()
        self._prefetched.close()


def make_train_iterator(split: PreparedSplit, **settings: Any) -> TrainIterator:
    """Returns an endless iterator of StepBatch, one element per optimizer step; `settings` are those of TrainDataset.

    `get_state()` belongs to the last element handed out, whatever has been prefetched; it is JSON of a few
    hundred bytes (and what has been observed), and `set_state()` takes the same time at any step. A run that goes on
    must use the same settings, prefetch_steps apart. `close()` ends the thread.

    Raises:
      UserError: as TrainDataset.
    """
    return iter(TrainDataset(split, **settings))


def validation_batches(split: PreparedSplit, *, batch_size: int, seq_len: int) -> Iterator[Batch]:
    """Yields every example exactly once, in the same order each time, as Batch arrays [batch_size, seq_len].

    The last batch is completed with empty rows, so that one compilation serves all; loss_denom is 1.

    Raises:
      UserError: an example is longer than a row.
    """
    lengths = count_positions(split, seq_len)
    waiting = list(range(len(split)))
    while waiting:
        rows, left = pack_rows(lengths[waiting].tolist(), num_rows=batch_size, seq_len=seq_len)
        examples = [[waiting[i] for i in row] for row in rows]
        waiting = [waiting[i] for i in left]
        yield fill_rows(split, examples, num_rows=batch_size, seq_len=seq_len)
