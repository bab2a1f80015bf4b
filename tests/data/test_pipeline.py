"""pytest tests/data/test_pipeline.py"""

import dataclasses
import json
import math
import time

import grain
import jax
import numpy as np
import pytest
from splits import SETTINGS, flat_ids, make_iterator, make_split, take, write_split

from tiny_reasoning_jax.data.pipeline import OBSERVE_LAG, TrainDataset, validation_batches
from tiny_reasoning_jax.data.prepared import PreparedSplit
from tiny_reasoning_jax.errors import UserError


def assert_same_steps(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.ids == b.ids
        assert (a.num_tokens, a.num_trained_tokens) == (b.num_tokens, b.num_trained_tokens)
        np.testing.assert_array_equal(a.difficulty_tokens, b.difficulty_tokens)
        for x, y in zip(a.arrays, b.arrays, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return make_split(tmp_path_factory.mktemp("split"), 600, mean=50, longest=200)


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory):
    """The second source is hard where the first is easy, and smaller."""
    return make_split(tmp_path_factory.mktemp("two"), 600, mean=50, longest=200, num_sources=2)


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
                [(name, whole)] = split.read([example])
                assert name == str(example)
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
        return read_step(*args)

    read_step = TrainDataset.read_step
    monkeypatch.setattr(TrainDataset, "read_step", counted)
    iterator = make_iterator(split, prefetch_steps=4)
    next(iterator)
    deadline = time.monotonic() + 20
    while num_made < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert num_made == 6, "the last handed out, four in the queue, one in hand: OBSERVE_LAG counts on no more"
    state = iterator.get_state()
    assert state["place"]["step"] == 1
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


class FirstSteps(grain.IterDataset):
    """The first steps as plain trees: Grain's check wants an end, and compares trees."""

    def __init__(self, dataset, num_steps, pass_rates):
        super().__init__()
        self.dataset, self.num_steps, self.pass_rates = dataset, num_steps, pass_rates

    def __iter__(self):
        return FirstStepsIterator(self)


class FirstStepsIterator(grain.DatasetIterator):
    def __init__(self, steps):
        super().__init__()
        self.steps, self.iterator = steps, iter(steps.dataset)

    def __next__(self):
        if self.get_state()["place"]["step"] >= self.steps.num_steps:
            self.iterator.close()
            raise StopIteration
        batch = next(self.iterator)
        step = self.get_state()["place"]["step"]
        if step in self.steps.pass_rates:
            self.iterator.observe(step, self.steps.pass_rates[step])
        return {**dataclasses.asdict(batch), "arrays": batch.arrays._asdict()}

    def get_state(self):
        return self.iterator.get_state()

    def set_state(self, state):
        self.iterator.set_state(state)


@pytest.mark.parametrize("prefetch_steps", [0, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {"curriculum": "linear"},
        {"curriculum": "anneal", "control": True},
        {"curriculum": "staged", "weights": [1.0, 3.0], "process_index": 1, "process_count": 2},
        {"curriculum": "adaptive", "num_steps": 24},
    ],
)
def test_grain_s_own_check_of_checkpoints(two_sources, changes, prefetch_steps):
    settings = {**SETTINGS, "batch_size": 4, "num_steps": 12, "prefetch_steps": prefetch_steps, **changes}
    dataset = TrainDataset(two_sources, **settings)
    pass_rates = {2: [1.0] * 5, 4: [0.9, math.nan, 1.0, 1.0, math.nan], 7: [0.0] * 5}
    grain.experimental.assert_equal_output_after_checkpoint(FirstSteps(dataset, settings["num_steps"], pass_rates))


def test_prefetching_changes_nothing(split):
    expected = take(make_iterator(split), 20)
    for prefetch_steps in (1, 4):
        iterator = make_iterator(split, prefetch_steps=prefetch_steps)
        assert_same_steps(take(iterator, 20), expected)
        iterator.close()


@pytest.mark.parametrize("process_count", [2, 4])
@pytest.mark.parametrize("changes", [{}, {"curriculum": "anneal", "control": True}, {"accum_steps": 1}])
def test_hosts_side_by_side_are_the_one_host(split, process_count, changes):
    expected = take(make_iterator(split, **changes), 8)
    hosts = [
        take(make_iterator(split, **changes, process_index=i, process_count=process_count), 8)
        for i in range(process_count)
    ]
    for whole, *parts in zip(expected, *hosts, strict=True):
        for name, array in whole.arrays._asdict().items():
            if name == "loss_denom":
                for part in parts:
                    np.testing.assert_array_equal(part.arrays.loss_denom, array)
            else:
                side_by_side = np.concatenate([getattr(part.arrays, name) for part in parts], axis=1)
                np.testing.assert_array_equal(side_by_side, array)
        for micro_batch, ids in enumerate(whole.ids):
            assert sum((part.ids[micro_batch] for part in parts), []) == ids
        for part in parts:
            assert (part.num_tokens, part.num_trained_tokens) == (whole.num_tokens, whole.num_trained_tokens)
            np.testing.assert_array_equal(part.difficulty_tokens, whole.difficulty_tokens)


def test_a_host_reads_only_its_own_examples(split, monkeypatch):
    read = []
    unpatched = PreparedSplit.read
    monkeypatch.setattr(
        PreparedSplit, "read", lambda self, examples: read.extend(examples) or unpatched(self, examples)
    )
    step = next(make_iterator(split, process_index=1, process_count=2))
    assert read == flat_ids(step)


def test_difficulty_tokens_are_the_realised_mixture(split):
    for step in take(make_iterator(split), 5):
        expected = np.zeros(5, np.int64)
        for example in flat_ids(step):
            expected[split.difficulty[example] - 1] += split.lengths[example] - 1
        assert step.difficulty_tokens.dtype == np.int64
        np.testing.assert_array_equal(step.difficulty_tokens, expected)
        assert step.difficulty_tokens.sum() == step.num_tokens


def observed_steps(iterator, num_steps, pass_rates):
    """Takes steps and tells the iterator what was observed after some of them."""
    steps = []
    for step in range(1, num_steps + 1):
        steps.append(next(iterator))
        if step in pass_rates:
            iterator.observe(step, pass_rates[step])
    iterator.close()
    return steps


def test_an_observation_changes_the_draws_from_a_fixed_step_on(split):
    easy, hard = ({3: [rate] * 5} for rate in (1.0, 0.0))
    settings = {"curriculum": "adaptive", "num_steps": 60}
    first, second = (observed_steps(make_iterator(split, **settings), 40, rates) for rates in (easy, hard))
    equal = [a.ids == b.ids for a, b in zip(first, second, strict=True)]
    assert equal[: 2 + OBSERVE_LAG] == [True] * (2 + OBSERVE_LAG) and not any(equal[3 + OBSERVE_LAG :])
    mean = [np.mean([split.difficulty[flat_ids(step)].mean() for step in steps[24:]]) for steps in (first, second)]
    assert mean[0] > mean[1] + 0.3, "passing everything makes the draws harder"


@pytest.mark.parametrize("prefetch_steps", [1, OBSERVE_LAG - 2])
def test_what_is_prefetched_does_not_change_what_an_observation_does(split, prefetch_steps):
    pass_rates = {step: [1.0 if step % 3 else 0.0] * 4 + [math.nan] for step in range(2, 40, 2)}
    settings = {"curriculum": "adaptive", "num_steps": 60}
    expected = observed_steps(make_iterator(split, **settings), 50, pass_rates)
    assert_same_steps(
        observed_steps(make_iterator(split, **settings, prefetch_steps=prefetch_steps), 50, pass_rates), expected
    )


def test_every_observation_is_kept_as_it_was(split):
    iterator = make_iterator(split, curriculum="adaptive", num_steps=60, prefetch_steps=2)
    observed_steps(iterator, 5, {2: [1 / 3] * 5, 4: [1.0, math.nan, 0.0, 0.1, 1.0]})
    expected = [[2, [1 / 3] * 5], [4, [1.0, None, 0.0, 0.1, 1.0]]]
    assert json.loads(iterator.get_state()["observed"]) == expected
    fresh = make_iterator(split, curriculum="adaptive", num_steps=60)
    fresh.set_state(iterator.get_state())
    assert json.loads(fresh.get_state()["observed"]) == expected


def test_only_the_adaptive_curriculum_keeps_observations(split):
    iterator = make_iterator(split)
    next(iterator)
    iterator.observe(1, [0.5] * 5)
    assert iterator.get_state()["observed"] == "[]"
    with pytest.raises(AssertionError, match="observed step 2 after step 1"):
        iterator.observe(2, [0.5] * 5)


def test_the_state_stays_small_and_says_which_step_comes_next(split):
    iterator = make_iterator(split, prefetch_steps=4)
    for step in range(1, 100):
        next(iterator)
        assert iterator.get_state()["place"]["step"] == step
        assert len(json.dumps(iterator.get_state())) < 1000
    iterator.close()


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
        ({"curriculum": "steep"}, r"'steep'.*none, linear"),
        ({"curriculum": "adaptive", "prefetch_steps": 15}, r"data.prefetch_steps=15 is above 14.*=14 or less"),
        ({"curriculum": "adaptive", "control": True}, r"data.control=True.*another curriculum"),
        ({"process_count": 3}, r"train.batch_size=8 .*accum_steps=2 .*each of 3 hosts; try train.batch_size=6 or 12"),
        ({"weights": [-1.0]}, r"data.weights=\[-1.0\] must be 0 or more"),
        ({"weights": [0.0]}, r"one of them above 0"),
        ({"weights": [1.0, 2.0]}, r"data.weights=\[1.0, 2.0\] .*without a training example \(numbers \[1\].*to 0"),
        ({"seq_len": 64}, r"longest needs (\d+) positions and train.seq_len=64.* \1 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_a_remedy(split, changes, message):
    with pytest.raises(UserError, match=message):
        make_iterator(split, **changes)


def test_an_empty_split_is_refused(tmp_path):
    empty = write_split(tmp_path, [], prompt_lengths=[], difficulty=[])
    with pytest.raises(UserError, match="0 training examples"):
        make_iterator(empty)
    assert list(validation_batches(empty, batch_size=4, seq_len=256)) == []


def test_a_state_of_other_data_is_refused(split, tmp_path):
    state = make_iterator(make_split(tmp_path, 600, mean=50, longest=200, seed=1)).get_state()
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
    whole = [tokens[:-1].tolist() for _, tokens in split.read(range(len(split)))]
    assert sorted(shown) == sorted(whole)
    again = validation_batches(split, batch_size=3, seq_len=256)
    for a, b in zip(batches, again, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    with pytest.raises(UserError, match="train.seq_len=64"):
        next(validation_batches(split, batch_size=3, seq_len=64))
