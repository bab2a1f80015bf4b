"""pytest tests/data/test_plan.py: what is drawn, and when."""

import collections

import numpy as np
import pytest
from splits import flat_ids, make_iterator, make_split, take, write_split

from tiny_reasoning_jax.data.curriculum import difficulty_weights
from tiny_reasoning_jax.errors import UserError


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
    longest = most_waiting = 0
    for step in range(60):
        packed = collections.Counter(flat_ids(next(iterator)))
        pending = iterator.get_state()["place"]["pending"].split()
        most_waiting = max(most_waiting, len(pending))
        for example in [e for e in born if e not in set(map(int, pending)) or packed[e]]:
            longest = max(longest, step - born.pop(example))
        for example in map(int, pending):
            born.setdefault(example, step)
        # What four steps take; the last one drawn and what the rows had no place for come on top.
        assert (split.lengths[list(map(int, pending))] - 1).sum() <= (4 + 0.1) * 8 * 256 + 200
    assert 1 <= longest <= most_waiting // 4 + 1, "four of the eight rows take the oldest"


def test_another_seed_is_another_order(split):
    assert flat_ids(next(make_iterator(split))) != flat_ids(next(make_iterator(split, seed=8)))


@pytest.mark.parametrize("curriculum", ["linear", "none"])
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0, 2.0])
def test_the_realised_mixture_follows_the_weights(split, curriculum, progress):
    iterator = make_iterator(split, curriculum=curriculum, num_steps=10_000)
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
    drawn = [i for step in take(iterator, 50) for i in flat_ids(step)]
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


def test_a_control_whose_list_runs_out_goes_on_where_the_schedule_ended(two_sources):
    changes = {"curriculum": "staged", "num_steps": 30, "weights": [1.0, 2.0]}
    iterator = make_iterator(two_sources, **changes, control=True)
    drawn, listed = draws(iterator, 45), draws(make_iterator(two_sources, **changes), 30)
    assert drawn.total() > iterator.get_state()["place"]["num_listed"] == listed.total()
    for level in range(1, 6):
        for source in (0, 1):
            pool = np.flatnonzero((two_sources.difficulty == level) & (two_sources.source == source))
            visits = [drawn[i] for i in pool]
            assert max(visits) - min(visits) <= 1, "an epoch was begun again before it was over"


def test_the_control_is_in_another_order_without_a_trend(split):
    def mean_levels(control):
        steps = take(make_iterator(split, curriculum="staged", control=control), 40)
        return np.array([split.difficulty[flat_ids(step)].mean() for step in steps])

    schedule, control = mean_levels(False), mean_levels(True)
    assert schedule[-10:].mean() - schedule[:10].mean() > 1
    assert abs(control[-10:].mean() - control[:10].mean()) < 0.25
    assert abs(control.mean() - schedule.mean()) < 0.1


def test_one_example_is_enough(tmp_path):
    split = make_split(tmp_path, 1, mean=50, longest=200)
    step = next(make_iterator(split))
    assert set(flat_ids(step)) == {0} and step.num_tokens > 0.5 * 8 * 256


def test_a_control_does_not_go_on_with_another_number_of_steps(two_sources):
    iterator = make_iterator(two_sources, control=True)
    take(iterator, 3)
    longer = make_iterator(two_sources, control=True, num_steps=60)
    with pytest.raises(UserError, match="train.num_steps cannot be changed"):
        longer.set_state(iterator.get_state())
