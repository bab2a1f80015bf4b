"""pytest tests/data/test_pipeline.py"""

import collections
import dataclasses
import itertools
import json
import math
import time

import grain
import jax
import numpy as np
import pytest

from tiny_reasoning_jax.data.curriculum import difficulty_weights
from tiny_reasoning_jax.data.pipeline import OBSERVE_LAG, TrainDataset, make_train_iterator, validation_batches
from tiny_reasoning_jax.data.prepared import PreparedSplit, SplitWriter
from tiny_reasoning_jax.errors import UserError

SETTINGS = {
    "curriculum": "linear",
    "num_steps": 40,
    "batch_size": 8,
    "accum_steps": 2,
    "seq_len": 256,
    "seed": 7,
}


def write_split(folder, examples, *, prompt_lengths, difficulty, source=None):
    """Prepares examples, lists of tokens; their ids are their numbers."""
    source = np.zeros(len(examples), int) if source is None else source
    with SplitWriter(folder) as writer:
        for i, tokens in enumerate(examples):
            prompt, completion = tokens[: prompt_lengths[i]], tokens[prompt_lengths[i] :]
            settings = {"difficulty": int(difficulty[i]), "source": int(source[i]), "category": 0, "prompt_hash": i}
            writer.add(str(i), prompt, completion, **settings)
    return PreparedSplit.load(folder)


def make_split(folder, num_examples, *, mean, sigma=0.5, longest=4096, seed=0, num_sources=1):
    """Log-normal lengths, as real problems have; unequal shares of difficulty, and of the sources in each."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(np.log(mean) - sigma**2 / 2, sigma, num_examples)).astype(int).clip(8, longest)
    difficulty = rng.choice(np.arange(1, 6), num_examples, p=[0.3, 0.25, 0.2, 0.15, 0.1])
    return write_split(
        folder,
        [rng.integers(1, 151_936, length).tolist() for length in lengths],
        prompt_lengths=rng.integers(1, lengths - 1),
        difficulty=difficulty,
        source=(rng.random(num_examples) < difficulty / 6).astype(int) * (num_sources - 1),
    )


def make_iterator(split, *, prefetch_steps=0, **changes):
    return make_train_iterator(split, **{**SETTINGS, "prefetch_steps": prefetch_steps, **changes})


def take(iterator, num_steps):
    return list(itertools.islice(iterator, num_steps))


def assert_same_steps(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert a.ids == b.ids
        assert (a.num_tokens, a.num_trained_tokens) == (b.num_tokens, b.num_trained_tokens)
        np.testing.assert_array_equal(a.difficulty_tokens, b.difficulty_tokens)
        for x, y in zip(a.arrays, b.arrays, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def flat_ids(step):
    return [int(i) for micro_batch in step.ids for i in micro_batch]


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return make_split(tmp_path_factory.mktemp("split"), 600, mean=50, longest=200)


@pytest.fixture(scope="module")
def two_sources(tmp_path_factory):
    """The second source is hard where the first is easy, and smaller."""
    return make_split(tmp_path_factory.mktemp("two"), 600, mean=50, longest=200, num_sources=2)


@pytest.mark.parametrize(("mean", "sigma"), [(200, 0.5), (900, 0.8)])
def test_rows_of_4096_are_99_percent_full(tmp_path, mean, sigma):
    split = make_split(tmp_path, 3000, mean=mean, sigma=sigma)
    steps = take(make_iterator(split, batch_size=16, seq_len=4096), 22)
    efficiency = np.mean([step.num_tokens / (16 * 4096) for step in steps[1:]])
    assert efficiency >= 0.99, efficiency


def test_short_rows_are_99_percent_full_too(tmp_path):
    # Two or three examples in a row of 256: without the look-ahead only 94 % would be used.
    steps = take(make_iterator(make_split(tmp_path, 3000, mean=100, sigma=0.4, longest=256)), 100)
    assert np.mean([step.num_tokens / (8 * 256) for step in steps[1:]]) >= 0.99


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


def test_each_epoch_of_each_difficulty_visits_each_example_once(split):
    iterator = make_iterator(split)
    seen = collections.Counter()
    for _ in range(60):
        seen.update(flat_ids(next(iterator)))
        state = iterator.get_state()["place"]
        drawn = seen + collections.Counter(int(i) for i in state["pending"].split())
        for level, cursor in enumerate(state["cursors"], start=1):
            members = np.flatnonzero(split.difficulty == level)
            visits = np.array([drawn[i] for i in members])
            # Whole epochs of every example, and the begun epoch's examples once more: none lost, none twice.
            assert visits.sum() == cursor
            assert visits.min() == cursor // len(members)
            assert visits.max() - visits.min() <= 1
    assert min(seen.values()) >= 2, "the test did not go through an epoch"


def test_epochs_differ_in_order(tmp_path):
    # Each example fills a row, so that rows show the order of the draws.
    split = write_split(tmp_path, [[1] * 257] * 20, prompt_lengths=[9] * 20, difficulty=[3] * 20)
    drawn = [i for step in take(make_iterator(split), 5) for i in flat_ids(step)]
    assert sorted(drawn[:20]) == sorted(drawn[20:]) == list(range(20))
    assert drawn[:20] != drawn[20:]


def test_no_example_waits_longer_than_its_turn(split):
    iterator, born = make_iterator(split), {}
    longest = 0
    for step in range(60):
        packed = collections.Counter(flat_ids(next(iterator)))
        pending = iterator.get_state()["place"]["pending"].split()
        for example in [e for e in born if e not in set(map(int, pending)) or packed[e]]:
            longest = max(longest, step - born.pop(example))
        for example in map(int, pending):
            born.setdefault(example, step)
    # Four of the eight rows take the oldest; about 64 wait.
    assert 1 <= longest <= 18


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
    dataset = TrainDataset(two_sources, **{**SETTINGS, "num_steps": 12, "prefetch_steps": prefetch_steps, **changes})
    pass_rates = {2: [1.0] * 5, 4: [0.9, math.nan, 1.0, 1.0, math.nan], 7: [0.0] * 5}
    grain.experimental.assert_equal_output_after_checkpoint(
        FirstSteps(dataset, changes.get("num_steps", 12), pass_rates)
    )


def test_prefetching_changes_nothing(split):
    expected = take(make_iterator(split), 20)
    for prefetch_steps in (1, 4):
        iterator = make_iterator(split, prefetch_steps=prefetch_steps)
        assert_same_steps(take(iterator, 20), expected)
        iterator.close()


def test_another_seed_is_another_order(split):
    assert flat_ids(next(make_iterator(split))) != flat_ids(next(make_iterator(split, seed=8)))


@pytest.mark.parametrize("curriculum", ["linear", "none"])
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0, 2.0])
def test_the_realised_mixture_follows_the_weights(split, curriculum, progress):
    settings = {**SETTINGS, "curriculum": curriculum, "num_steps": 10_000}
    iterator = make_iterator(split, **settings)
    start = int(progress * 10_000)
    state = iterator.get_state()
    iterator.set_state({**state, "place": {**state["place"], "step": start}})
    counts = np.zeros(5)
    for step in take(iterator, 60):
        counts += np.bincount(split.difficulty[flat_ids(step)], minlength=6)[1:]
    expected = difficulty_weights(curriculum, progress, np.bincount(split.difficulty, minlength=6)[1:])
    five_sigma = 5 * np.sqrt(expected * (1 - expected) / counts.sum())
    assert (np.abs(counts / counts.sum() - expected) < five_sigma).all(), (counts / counts.sum(), expected)


def test_levels_without_examples_are_never_drawn(tmp_path):
    tokens = [[1] * 50] * 200
    difficulty = np.where(np.arange(200) % 2, 2, 4)
    iterator = make_iterator(write_split(tmp_path, tokens, prompt_lengths=[9] * 200, difficulty=difficulty))
    take(iterator, 20)
    assert [cursor > 0 for cursor in iterator.get_state()["place"]["cursors"]] == [False, True, False, True, False]


@pytest.mark.parametrize("weights", [None, [1.0, 1.0], [1.0, 4.0]])
def test_sources_are_drawn_as_their_weights_say(two_sources, weights):
    split = two_sources
    iterator = make_iterator(split, curriculum="none", weights=weights)
    drawn = [i for step in take(iterator, 80) for i in flat_ids(step)]
    share = (split.source[drawn] == 1).mean()
    expected = weights[1] / sum(weights) if weights else (split.source == 1).mean()
    assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / len(drawn)), (share, expected)
    # Within a source every example is as likely as any other, so its difficulties keep their shares.
    for source in (0, 1):
        levels = split.difficulty[[i for i in drawn if split.source[i] == source]]
        shares = np.bincount(levels, minlength=6) / len(levels)
        of_source = split.difficulty[split.source == source]
        expected = np.bincount(of_source, minlength=6) / len(of_source)
        assert (np.abs(shares - expected) < 5 * np.sqrt(expected * (1 - expected) / len(levels)) + 1e-9).all()


def test_the_curriculum_sees_the_mixture_and_not_the_files(two_sources):
    split, weights = two_sources, [1.0, 4.0]
    counts = np.zeros(5)
    for step in take(make_iterator(split, weights=weights, num_steps=10_000), 60):
        counts += np.bincount(split.difficulty[flat_ids(step)], minlength=6)[1:]
    shares = [
        np.bincount(split.difficulty[split.source == s], minlength=6)[1:] / (split.source == s).sum() for s in (0, 1)
    ]
    expected = difficulty_weights("linear", 0.0, weights[0] * shares[0] + weights[1] * shares[1])
    assert (np.abs(counts / counts.sum() - expected) < 5 * np.sqrt(expected * (1 - expected) / counts.sum())).all()


def test_a_source_of_weight_0_is_never_drawn(two_sources):
    drawn = [i for step in take(make_iterator(two_sources, weights=[0.0, 2.0]), 20) for i in flat_ids(step)]
    assert (two_sources.source[drawn] == 1).all()


def draws(iterator, num_steps):
    """Counts what has been drawn in these steps: packed, or still waiting."""
    drawn = collections.Counter(i for step in take(iterator, num_steps) for i in flat_ids(step))
    return drawn + collections.Counter(int(i) for i in iterator.get_state()["place"]["pending"].split())


def test_the_control_draws_the_very_examples_of_the_schedule(two_sources):
    changes = {"curriculum": "staged", "num_steps": 30, "weights": [1.0, 2.0]}
    schedule = draws(make_iterator(two_sources, **changes), 30)
    iterator = make_iterator(two_sources, **changes, control=True)
    control = draws(iterator, 30)
    num_listed = iterator.get_state()["place"]["num_listed"]
    if num_listed == schedule.total():  # the rows wanted a few more
        assert not schedule - control and (control - schedule).total() < 10
    else:
        assert not control - schedule and (schedule - control).total() < 10
    # The list runs out: all of it has been drawn, and the final mixture goes on.
    more = draws(iterator, 10)
    assert iterator.get_state()["place"]["num_listed"] == schedule.total()
    assert more.total() > 0


def test_the_control_is_in_another_order_without_a_trend(split):
    def mean_levels(control):
        steps = take(make_iterator(split, curriculum="staged", control=control), 40)
        return np.array([split.difficulty[flat_ids(step)].mean() for step in steps])

    schedule, control = mean_levels(False), mean_levels(True)
    assert schedule[-10:].mean() - schedule[:10].mean() > 1
    assert abs(control[-10:].mean() - control[:10].mean()) < 0.25
    assert abs(control.mean() - schedule.mean()) < 0.1


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


def test_one_example_is_enough(tmp_path):
    split = make_split(tmp_path, 1, mean=50, longest=200)
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
