"""Which examples make up each optimizer step: drawn by difficulty and source, then put into rows. Indices, no tokens.

A plan is a pure function of the split's index arrays, the settings and a state of a few hundred bytes: never of
threads, hosts or the machine. Refused: examples longer than a row. Nothing is cut or dropped here.
"""

import bisect
import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tiny_reasoning_jax.data.curriculum import difficulty_weights
from tiny_reasoning_jax.data.packing import pack_rows
from tiny_reasoning_jax.data.prepared import PreparedSplit
from tiny_reasoning_jax.data.problems import DIFFICULTIES
from tiny_reasoning_jax.errors import UserError

# Mean-sized examples that wait beyond what a step needs: the choice from which the last rows are filled. It matters
# where examples are long (64 fill 1 % less if their median is half a row); but what waits lags behind the curriculum,
# so it is never more than what so many steps take.
_NUM_LOOKAHEAD, _LOOKAHEAD_STEPS = 256, 4

# Keeps the random streams of one seed apart.
_DRAW_STREAM, _SHUFFLE_STREAM, _CONTROL_STREAM = 0, 1, 2


def count_positions(split: PreparedSplit, seq_len: int) -> np.ndarray:
    """Returns int32 [num_examples], the positions that each example takes; refuses what no row can hold."""
    positions = split.lengths - 1
    if len(positions) and positions.max() > seq_len:
        longest, num_long = int(positions.max()), int((positions > seq_len).sum())
        raise UserError(
            f"{num_long} prepared examples do not fit into a row: the longest needs {longest} "
            f"positions and train.seq_len={seq_len}. Set that to {longest} or more, or prepare the data "
            "again with this train.seq_len, which drops and counts them"
        )
    assert (split.prompt_lengths <= positions).all(), "an example has no completion token to train on"
    return positions


def _mix_sources(split: PreparedSplit, weights: Sequence[float] | None) -> tuple[np.ndarray, np.ndarray]:
    """Returns the source of each example, [num_examples], and how often each is drawn, float64 [num_sources]."""
    if weights is None:
        return np.zeros(len(split), np.int16), np.ones(1)
    sizes = np.bincount(split.source, minlength=len(weights))
    assert len(sizes) == len(weights), f"{len(weights)} weights for {len(sizes)} sources"
    shares = np.asarray(weights, np.float64)
    if not np.isfinite(shares).all() or shares.min() < 0 or not shares.any():
        raise UserError(f"data.weights={list(weights)} must be 0 or more, one of them above 0; try 1 for each source")
    empty = np.flatnonzero((shares > 0) & (sizes == 0)).tolist()
    if empty:
        raise UserError(
            f"data.weights={list(weights)} draws from sources without a training example (numbers {empty} of "
            "data.source, counted from 0; data/dropped.jsonl says why); set their weights to 0 or take them out"
        )
    return np.asarray(split.source), shares


class _Pool:
    """The examples of one difficulty and source, in a new random order each epoch."""

    def __init__(self, members: np.ndarray, seed: list[int]):
        self.members, self._seed = members, seed
        self._epoch = -1, members  # the epoch that was asked for last, and its order

    def draw(self, cursor: int) -> int:
        """Returns the example at place `cursor`, counted over all epochs."""
        epoch, place = divmod(cursor, len(self.members))
        current = self._epoch  # read once and replaced whole, as iterators in other threads may be elsewhere
        if current[0] != epoch:
            rng = np.random.default_rng([*self._seed, _SHUFFLE_STREAM, epoch])
            current = self._epoch = epoch, rng.permutation(self.members)
        return int(current[1][place])


@dataclasses.dataclass
class Place:
    """How far a plan has been followed.

    Attributes:
      step: optimizer steps planned.
      cursors: examples drawn from each pool; a pool holds the examples of one difficulty and source.
      num_listed: examples taken from the control's list.
      pending: examples drawn and not yet in a row, oldest first.
    """

    step: int
    cursors: list[int]
    num_listed: int
    pending: list[int]


class Plan:
    """Says which examples each step packs into which rows. For the settings see `pipeline.make_train_iterator`.

    Attributes:
      positions: int32 [num_examples], input positions that each example takes.
      counts: float64 [5], examples of each difficulty as the weights of the sources make them appear.
    """

    def __init__(
        self,
        split: PreparedSplit,
        *,
        curriculum: str,
        num_steps: int,
        batch_size: int,
        seq_len: int,
        seed: int,
        weights: Sequence[float] | None = None,
        control: bool = False,
    ):
        if not len(split):
            raise UserError(
                "there are 0 training examples, 1 is needed at least; data/summary.json says what was dropped"
            )
        if control and curriculum == "adaptive":
            raise UserError(
                'data.control=True shuffles what data.curriculum="adaptive" would draw, which is not known beforehand; '
                "choose another curriculum"
            )
        self._curriculum, self._num_steps, self._seed = curriculum, num_steps, seed
        self._batch_size, self._seq_len = batch_size, seq_len
        self.positions = count_positions(split, seq_len)
        self._create_pools(split, weights)
        self._fingerprint = _checksum(split)
        final = self._pool_weights(num_steps, ())  # an unknown curriculum fails here and not in a thread
        means = [self.positions[pool.members].mean() if len(pool.members) else 0.0 for pool in self._pools]
        step_tokens = batch_size * seq_len
        lookahead = min(int(_NUM_LOOKAHEAD * float(final @ means)), _LOOKAHEAD_STEPS * step_tokens)
        self._window_tokens = step_tokens + lookahead
        self._start = Place(0, [0] * len(self._pools), 0, [])
        self._listed = np.zeros(0, np.int32)
        if control:
            self._list_control()

    def _create_pools(self, split: PreparedSplit, weights: Sequence[float] | None) -> None:
        sources, shares = _mix_sources(split, weights)
        levels = np.asarray(split.difficulty)
        assert levels.min() >= 1 and levels.max() <= len(DIFFICULTIES), "a difficulty is outside 1 to 5"
        self._pools = [
            _Pool(np.flatnonzero((levels == level) & (sources == source)).astype(np.int32), [self._seed, level, source])
            for level in DIFFICULTIES
            for source in range(len(shares))
        ]
        sizes = np.array([len(pool.members) for pool in self._pools], np.float64).reshape(
            len(DIFFICULTIES), len(shares)
        )
        # Each example counts as much as its source's weight gives it: a source is drawn as often as its weight says
        # wherever the curriculum follows the counts.
        parts = sizes * shares / np.maximum(sizes.sum(axis=0), 1) * (len(split) / shares.sum())
        self.counts = parts.sum(axis=1)
        self._source_shares = parts / np.where(self.counts > 0, self.counts, 1)[:, None]

    def _pool_weights(self, step: int, observed: Sequence[Sequence[float]]) -> np.ndarray:
        """Returns float64 [num_pools], the probability of each pool among the examples drawn at `step`."""
        levels = difficulty_weights(self._curriculum, step / self._num_steps, self.counts, observed)
        return (levels[:, None] * self._source_shares).ravel()

    def _list_control(self) -> None:
        """Makes the plan a control: what the schedule draws over num_steps, look-ahead included, in random order.

        The list is exactly the schedule's draws. Rows are packed from another order and may be fuller, so the last
        steps may want a few more examples than it has: those come from the schedule, which goes on where it ended.
        """
        schedule, listed = self.start(), []
        for _ in range(self._num_steps):
            drawn = self._draw(schedule, ())
            self._pack(schedule, drawn)
            listed.append(np.array(drawn, np.int32))
        order = np.random.default_rng([self._seed, _CONTROL_STREAM])
        self._listed = order.permutation(np.concatenate(listed))
        self._start = dataclasses.replace(self._start, cursors=schedule.cursors)

    def start(self) -> Place:
        """Returns the place before the first step."""
        return dataclasses.replace(self._start, cursors=list(self._start.cursors), pending=[])

    def next_rows(self, place: Place, observed: Sequence[Sequence[float]] = ()) -> list[list[int]]:
        """Returns the examples of each row of the next step and moves `place` on.

        Args:
          place: changed in place.
          observed: the pass rates [5] in effect, oldest first; only the adaptive curriculum looks at them.
        """
        return self._pack(place, self._draw(place, observed))

    def _pack(self, place: Place, drawn: list[int]) -> list[list[int]]:
        window = place.pending + drawn
        rows, left = pack_rows(self.positions[window].tolist(), num_rows=self._batch_size, seq_len=self._seq_len)
        place.pending = [window[i] for i in left]
        place.step += 1
        return [[window[i] for i in row] for row in rows]

    def _draw(self, place: Place, observed: Sequence[Sequence[float]]) -> list[int]:
        """Draws examples until the window holds what a step needs and the look-ahead."""
        drawn = []
        num_tokens = int(self.positions[place.pending].sum()) if place.pending else 0
        rng = np.random.default_rng([self._seed, _DRAW_STREAM, place.step])
        cumulative = np.cumsum(self._pool_weights(place.step, observed))
        # Divided so that the last pool with a weight ends at 1, above every draw: no empty pool is hit.
        cumulative = (cumulative / cumulative[-1]).tolist()
        while num_tokens < self._window_tokens:
            if place.num_listed < len(self._listed):
                example = int(self._listed[place.num_listed])
                place.num_listed += 1
            else:
                pool = bisect.bisect_right(cumulative, rng.random())
                example = self._pools[pool].draw(place.cursors[pool])
                place.cursors[pool] += 1
            num_tokens += int(self.positions[example])
            drawn.append(example)
        return drawn

    def dump(self, place: Place) -> dict[str, Any]:
        """Returns a place as JSON values, alike in structure at every step as Grain asks (hence `pending` as text)."""
        return {
            "step": place.step,
            "cursors": list(place.cursors),
            "num_listed": place.num_listed,
            "listed": len(self._listed),
            "pending": " ".join(map(str, place.pending)),
            "split": self._fingerprint,
        }

    def load(self, state: dict[str, Any]) -> Place:
        """Returns the place that `dump` made `state` of.

        Raises:
          UserError: the state belongs to another split.
        """
        if state["split"] != self._fingerprint:
            raise UserError(
                f"the saved place in the training data belongs to other data (checksum {state['split']}, "
                f"here {self._fingerprint}); restore that run's data or start again in a new workdir"
            )
        if state["listed"] != len(self._listed):
            raise UserError(
                f"the control's list had {state['listed']:,} draws, here it has {len(self._listed):,}: with "
                "data.control=True train.num_steps cannot be changed; set it back, or start again in a new workdir"
            )
        assert len(state["cursors"]) == len(self._pools), "the state is of another number of sources"
        pending = [int(example) for example in state["pending"].split()]
        return Place(state["step"], list(state["cursors"]), state["num_listed"], pending)


def _checksum(split: PreparedSplit) -> int:
    """Returns a checksum of the split's layout: indices in a state mean something for this split only."""
    checksum = 0
    for column in (split.lengths, split.prompt_lengths, split.difficulty, split.source):
        checksum = zlib.crc32(np.ascontiguousarray(column), checksum)
    return checksum
