"""pytest tests/data/test_pipeline.py"""

import collections
import itertools
import json
import time

import grain
import jax
import numpy as np
import pytest

from tiny_reasoning_jax.data import pipeline
from tiny_reasoning_jax.data.curriculum import difficulty_weights
from tiny_reasoning_jax.data.pipeline import StepDataset, make_train_iterator, validation_batches
from tiny_reasoning_jax.data.prepared import PreparedSplit
from tiny_reasoning_jax.errors import UserError

SETTINGS = {
    "curriculum": "linear",
    "num_steps": 40,
    "batch_size": 8,
    "accum_steps": 2,
    "seq_len": 256,
    "seed": 7,
}


def make_split(num_examples, *, mean, sigma=0.5, longest=4096, seed=0):
    """Log-normal lengths, as real problems have; unequal shares of difficulty; ids that name the example."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(np.log(mean) - sigma**2 / 2, sigma, num_examples)).astype(int).clip(8, longest)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return PreparedSplit(
        tokens=rng.integers(1, 151_936, offsets[-1], dtype=np.int32),
        offsets=offsets,
        prompt_lengths=rng.integers(1, lengths - 1).astype(np.int32),
        difficulty=rng.choice(np.arange(1, 6), num_examples, p=[0.3, 0.25, 0.2, 0.15, 0.1]).astype(np.int8),
        ids=[str(i) for i in range(num_examples)],
    )


def make_iterator(split, *, prefetch_steps=0, **changes):
    return make_train_iterator(split, **{**SETTINGS, **changes}, prefetch_steps=prefetch_steps)


def take(iterator, num_steps):
    return list(itertools.islice(iterator, num_steps))


def assert_same_steps(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.ids == b.ids
        assert (a.num_tokens, a.num_trained_tokens) == (b.num_tokens, b.num_trained_tokens)
        for x, y in zip(a.arrays, b.arrays, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def flat_ids(step):
    return [int(i) for micro_batch in step.ids for i in micro_batch]


@pytest.fixture(scope="module")
def split():
    return make_split(600, mean=50, longest=200)


@pytest.mark.parametrize(("mean", "sigma"), [(200, 0.5), (900, 0.8)])
def test_rows_of_4096_are_98_percent_full(mean, sigma):
    steps = take(make_iterator(make_split(3000, mean=mean, sigma=sigma), batch_size=16, seq_len=4096), 22)
    efficiency = np.mean([step.num_tokens / (16 * 4096) for step in steps[1:]])
    assert efficiency >= 0.98, efficiency


def test_short_rows_are_98_percent_full_too():
    # Two or three examples in a row of 256: without the look-ahead only 94 % would be used.
    steps = take(make_iterator(make_split(3000, mean=100, sigma=0.4, longest=256)), 100)
    assert np.mean([step.num_tokens / (8 * 256) for step in steps[1:]]) >= 0.98


def test_micro_batches_hold_the_examples_that_their_ids_name(split):
    for step in take(make_iterator(split), 5):
        assert [x.shape for x in step.arrays] == [(2, 4, 256)] * 5 + [(2,)]
        for i, ids in enumerate(step.ids):
            batch = jax.tree.map(lambda x, i=i: x[i], step.arrays)
            pieces = []
            for row in range(4):
                for segment in range(1, batch.segment_ids[row].max() + 1):
                    where = batch.segment_ids[row] == segment
                    pieces.append((batch.tokens[row, where], batch.targets[row, where], batch.loss_mask[row, where]))
            assert len(pieces) == len(ids)
            for example, (tokens, targets, loss_mask) in zip(map(int, ids), pieces, strict=True):
                whole = split.tokens[split.offsets[example] : split.offsets[example + 1]]
                np.testing.assert_array_equal(tokens, whole[:-1])
                np.testing.assert_array_equal(targets, whole[1:])
                assert loss_mask.sum() == len(whole) - split.prompt_lengths[example]


@pytest.mark.parametrize("accum_steps", [1, 2, 4, 8])
def test_the_divisor_is_the_whole_step_s(split, accum_steps):
    for step in take(make_iterator(split, accum_steps=accum_steps), 4):
        trained = step.arrays.loss_mask.sum(axis=(1, 2))
        assert step.arrays.loss_denom.dtype == np.float32
        assert step.num_trained_tokens == trained.sum()
        assert step.num_tokens == (step.arrays.segment_ids > 0).sum()
        np.testing.assert_array_equal(step.arrays.loss_denom, np.full(accum_steps, trained.sum(), "f4"))


def test_accumulation_changes_only_how_rows_are_grouped(split):
    whole, parts = take(make_iterator(split, accum_steps=1), 6), take(make_iterator(split, accum_steps=4), 6)
    for a, b in zip(whole, parts, strict=True):
        assert flat_ids(a) == flat_ids(b)
        np.testing.assert_array_equal(a.arrays.tokens.reshape(8, 256), b.arrays.tokens.reshape(8, 256))


def test_each_epoch_of_each_difficulty_visits_each_example_once(split):
    iterator = make_iterator(split)
    seen = collections.Counter()
    for _ in range(60):
        seen.update(flat_ids(next(iterator)))
        state = iterator.get_state()
        drawn = seen + collections.Counter(int(i) for i in state["pending"].split())
        for level, cursor in enumerate(state["cursors"], start=1):
            members = np.flatnonzero(split.difficulty == level)
            visits = np.array([drawn[i] for i in members])
            # Whole epochs of every example, and the begun epoch's examples once more: none lost, none twice.
            assert visits.sum() == cursor
            assert visits.min() == cursor // len(members)
            assert visits.max() - visits.min() <= 1
    assert min(seen.values()) >= 2, "the test did not go through an epoch"


def test_epochs_differ_in_order(split):
    dataset = StepDataset(split, **SETTINGS)
    for order, members in zip(dataset.orders, dataset.members, strict=True):
        first, second = ([order[i] for i in range(e * len(members), (e + 1) * len(members))] for e in (0, 1))
        assert sorted(first) == sorted(second) and first != second


def test_no_example_waits_longer_than_its_turn(split):
    iterator, born = make_iterator(split), {}
    longest = 0
    for step in range(60):
        packed = collections.Counter(flat_ids(next(iterator)))
        pending = iterator.get_state()["pending"].split()
        for example in [e for e in born if e not in set(map(int, pending)) or packed[e]]:
            longest = max(longest, step - born.pop(example))
        for example in map(int, pending):
            born.setdefault(example, step)
    # Each of the eight rows takes the oldest; about 64 wait.
    assert 1 <= longest <= 10


@pytest.mark.parametrize("prefetch_steps", [0, 4])
@pytest.mark.parametrize("interrupt_at", [1, 7, 23])
def test_going_on_is_the_same_as_never_having_stopped(split, prefetch_steps, interrupt_at):
    expected = take(make_iterator(split), 40)
    iterator = make_iterator(split, prefetch_steps=prefetch_steps)
    before = take(iterator, interrupt_at)
    state = json.dumps(iterator.get_state())
    iterator.close()
    fresh = make_iterator(split, prefetch_steps=prefetch_steps)
    fresh.set_state(json.loads(state))
    assert fresh.get_state() == json.loads(state)
    assert_same_steps(before + take(fresh, 40 - interrupt_at), expected)
    fresh.close()


def test_the_state_is_that_of_the_last_step_handed_out_whatever_is_prefetched(split, monkeypatch):
    num_made = 0

    def counted(*args):
        nonlocal num_made
        num_made += 1
        return make_step(*args)

    make_step = pipeline._step_batch
    monkeypatch.setattr(pipeline, "_step_batch", counted)
    iterator = make_iterator(split, prefetch_steps=4)
    next(iterator)
    deadline = time.monotonic() + 20
    while num_made < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert num_made >= 5, "the thread did not prefetch"
    state = iterator.get_state()
    assert state["step"] == 1
    fresh = make_iterator(split)
    fresh.set_state(state)
    assert_same_steps(take(fresh, 3), take(iterator, 3))
    iterator.close()


def test_an_iterator_in_use_can_be_set_back(split):
    iterator = make_iterator(split, prefetch_steps=3)
    take(iterator, 5)
    state = iterator.get_state()
    first = take(iterator, 6)
    iterator.set_state(state)
    assert_same_steps(take(iterator, 6), first)
    iterator.close()


def test_grain_s_own_check_of_checkpoints(split):
    class FirstSteps(grain.IterDataset):
        """The first steps as plain trees: Grain's check wants an end, and compares trees."""

        def __iter__(self):
            return Iterator(self._parent.__iter__())

    class Iterator(grain.DatasetIterator):
        def __next__(self):
            if self.get_state()["step"] >= 12:
                raise StopIteration
            step = next(self._parent)
            return {"arrays": step.arrays._asdict(), "ids": step.ids, "num_tokens": step.num_tokens}

        def get_state(self):
            return self._parent.get_state()

        def set_state(self, state):
            self._parent.set_state(state)

    grain.experimental.assert_equal_output_after_checkpoint(FirstSteps(StepDataset(split, **SETTINGS)))


def test_prefetching_changes_nothing(split):
    expected = take(make_iterator(split), 20)
    for prefetch_steps in (1, 4):
        iterator = make_iterator(split, prefetch_steps=prefetch_steps)
        assert_same_steps(take(iterator, 20), expected)
        iterator.close()


def test_another_seed_is_another_order(split):
    assert flat_ids(next(make_iterator(split))) != flat_ids(next(make_iterator(split, seed=8)))


def test_a_split_loaded_from_disk_gives_the_same_steps(split, tmp_path):
    split.save(tmp_path / "train")
    loaded = make_iterator(PreparedSplit.load(tmp_path / "train"))
    assert_same_steps(take(loaded, 5), take(make_iterator(split), 5))


@pytest.mark.parametrize("curriculum", ["linear", "none"])
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0, 2.0])
def test_the_realised_mixture_follows_the_weights(split, curriculum, progress):
    settings = {**SETTINGS, "curriculum": curriculum, "num_steps": 10_000}
    iterator = make_iterator(split, **settings)
    start = int(progress * 10_000)
    iterator.set_state({**iterator.get_state(), "step": start})
    counts = np.zeros(5)
    for step in take(iterator, 60):
        counts += np.bincount(split.difficulty[flat_ids(step)], minlength=6)[1:]
    expected = difficulty_weights(curriculum, progress, np.bincount(split.difficulty, minlength=6)[1:])
    five_sigma = 5 * np.sqrt(expected * (1 - expected) / counts.sum())
    assert (np.abs(counts / counts.sum() - expected) < five_sigma).all(), (counts / counts.sum(), expected)


def test_levels_without_examples_are_never_drawn():
    split = make_split(200, mean=50, longest=200)
    split.difficulty[:] = np.where(np.arange(200) % 2, 2, 4)
    iterator = make_iterator(split)
    take(iterator, 20)
    assert [cursor > 0 for cursor in iterator.get_state()["cursors"]] == [False, True, False, True, False]


def test_the_state_stays_small_and_says_which_step_comes_next(split):
    iterator = make_iterator(split, prefetch_steps=4)
    for step in range(1, 100):
        next(iterator)
        assert iterator.get_state()["step"] == step
        assert len(json.dumps(iterator.get_state())) < 1000
    iterator.close()


def test_one_example_is_enough():
    split = make_split(1, mean=50, longest=200)
    step = next(make_iterator(split))
    assert set(flat_ids(step)) == {0} and step.num_tokens > 0.5 * 8 * 256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch_size": 10, "accum_steps": 4},
            r"train.batch_size=10 .*train.accum_steps=4 .*train.batch_size=8 or 12",
        ),
        ({"batch_size": 2, "accum_steps": 4}, r"try train.batch_size=4"),
        ({"accum_steps": 0}, r"train.accum_steps=0 .*train.accum_steps=1"),
        ({"num_steps": 0}, r"train.num_steps=0"),
        ({"seed": -1}, r"seed=-1"),
        ({"prefetch_steps": -1}, r"data.prefetch_steps=-1"),
        ({"curriculum": "steep"}, r"'steep'.*linear, none"),
        ({"seq_len": 64}, r"longest needs (\d+) positions and train.seq_len=64.* \1 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_a_remedy(split, changes, message):
    with pytest.raises(UserError, match=message):
        make_iterator(split, **changes)


def test_an_empty_split_is_refused(split):
    empty = PreparedSplit(np.zeros(0, "i4"), np.zeros(1, "i8"), np.zeros(0, "i4"), np.zeros(0, "i1"), [])
    with pytest.raises(UserError, match="0 training examples"):
        make_iterator(empty)
    assert list(validation_batches(empty, batch_size=4, seq_len=256)) == []


def test_a_state_of_other_data_is_refused(split):
    state = make_iterator(make_split(600, mean=50, longest=200, seed=1)).get_state()
    with pytest.raises(UserError, match="other data"):
        make_iterator(split).set_state(state)


def test_validation_shows_every_example_once_and_always_the_same(split):
    batches = list(validation_batches(split, batch_size=3, seq_len=256))
    shown = []
    for batch in batches:
        assert [x.shape for x in batch] == [(3, 256)] * 5 + [()]
        assert batch.loss_denom == 1.0 and batch.loss_denom.dtype == np.float32
        for row in range(3):
            for segment in range(1, batch.segment_ids[row].max() + 1):
                where = batch.segment_ids[row] == segment
                shown.append(batch.tokens[row, where].tolist())
    whole = [split.tokens[a : b - 1].tolist() for a, b in itertools.pairwise(split.offsets)]
    assert sorted(shown) == sorted(whole)
    again = validation_batches(split, batch_size=3, seq_len=256)
    for a, b in zip(batches, again, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    with pytest.raises(UserError, match="train.seq_len=64"):
        next(validation_batches(split, batch_size=3, seq_len=64))
