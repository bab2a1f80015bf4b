"""pytest tests/data/test_packing.py"""

import itertools

import numpy as np
import pytest
from splits import write_split

from tiny_reasoning_jax.data.packing import fill_rows, pack_rows, read_rows


def make_split(folder, lengths, prompt_lengths):
    """A split whose tokens are all different, so that any mix-up shows; and its examples."""
    tokens = itertools.count(1)
    examples = [list(itertools.islice(tokens, length)) for length in lengths]
    split = write_split(folder, examples, prompt_lengths=prompt_lengths, difficulty=[1] * len(examples))
    return split, examples


def test_arrays_by_hand(tmp_path):
    # Two examples: 11 12 | 13 14 and 15 | 16 17 (prompt | completion), in a row of eight.
    examples = [[11, 12, 13, 14], [15, 16, 17]]
    split = write_split(tmp_path, examples, prompt_lengths=[2, 1], difficulty=[1, 1])
    batch = fill_rows(split, [[0, 1]], num_rows=2, seq_len=8)
    assert batch.tokens.tolist() == [[11, 12, 13, 15, 16, 0, 0, 0], [0] * 8]
    assert batch.targets.tolist() == [[12, 13, 14, 16, 17, 0, 0, 0], [0] * 8]
    assert batch.loss_mask.astype(int).tolist() == [[0, 1, 1, 1, 1, 0, 0, 0], [0] * 8]
    assert batch.segment_ids.tolist() == [[1, 1, 1, 2, 2, 0, 0, 0], [0] * 8]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0, 0, 0], [0] * 8]
    assert [x.dtype for x in batch] == [np.int32, np.int32, bool, np.int32, np.int32, np.float32]


def test_no_rows_are_empty_rows(tmp_path):
    split, _ = make_split(tmp_path, [4], [2])
    batch, ids = read_rows(split, [[], [0]], num_rows=3, seq_len=8)
    assert ids == [[], ["0"]] and batch.segment_ids.sum(axis=1).tolist() == [0, 3, 0]
    assert not fill_rows(split, [], num_rows=2, seq_len=8).segment_ids.any()


def test_rows_give_back_every_example_exactly(tmp_path):
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 60, 300)
    prompt_lengths = rng.integers(0, lengths)
    split, examples_tokens = make_split(tmp_path, lengths, prompt_lengths)
    rows, left = pack_rows((lengths - 1).tolist(), num_rows=100, seq_len=128)
    assert not left
    batch = fill_rows(split, rows, num_rows=100, seq_len=128)
    used = np.zeros(batch.tokens.shape, bool)
    for row, examples in enumerate(rows):
        for segment, example in enumerate(examples, start=1):
            where = batch.segment_ids[row] == segment
            whole = examples_tokens[example]
            np.testing.assert_array_equal(batch.tokens[row, where], whole[:-1])
            np.testing.assert_array_equal(batch.targets[row, where], whole[1:])
            np.testing.assert_array_equal(batch.positions[row, where], np.arange(len(whole) - 1))
            trained = batch.targets[row, where & batch.loss_mask[row]]
            np.testing.assert_array_equal(trained, whole[max(prompt_lengths[example], 1) :])
            assert np.ptp(np.flatnonzero(where)) + 1 == len(whole) - 1, "an example is in one piece"
            used[row] |= where
    for array in batch[:-1]:
        assert not array[~used].any(), "padding is 0 in every array"


def test_the_end_of_turn_is_trained_once_for_each_example(tmp_path):
    examples = [[*range(1, length), 999] for length in (5, 9, 3, 7)]
    split = write_split(tmp_path, examples, prompt_lengths=[2, 4, 1, 6], difficulty=[1] * 4)
    batch = fill_rows(split, [[0, 1, 2], [3]], num_rows=2, seq_len=16)
    assert ((batch.targets == 999) & batch.loss_mask).sum() == 4
    assert not (batch.tokens == 999).any()


def test_a_row_is_filled_as_full_as_any_choice_could():
    rng = np.random.default_rng(1)
    for _ in range(200):
        lengths = rng.integers(3, 40, 9).tolist()
        rows, left = pack_rows(lengths, num_rows=1, seq_len=64)
        subsets = itertools.chain.from_iterable(itertools.combinations(lengths[1:], k) for k in range(9))
        best = max(total for s in subsets if (total := lengths[0] + sum(s)) <= 64)
        assert sum(lengths[i] for i in rows[0]) == best
        assert sorted(rows[0] + left) == list(range(9))


def test_no_short_example_is_spent_on_the_last_quarter_of_a_percent():
    assert pack_rows([3000, 1090, 6, 500], num_rows=1, seq_len=4096) == ([[0, 1]], [2, 3])
    assert pack_rows([3000, 1080, 16, 500], num_rows=1, seq_len=4096) == ([[0, 1, 2]], [3])


def test_rows_start_with_the_longest_and_then_with_the_oldest():
    lengths = np.random.default_rng(2).integers(10, 100, 60).tolist()
    rows, left = pack_rows(lengths, num_rows=8, seq_len=128)
    waiting = list(range(60))
    for k, row in enumerate(rows):
        assert row[0] == (max(waiting, key=lambda i: lengths[i]) if k < 4 else waiting[0])
        assert sum(lengths[i] for i in row) <= 128
        waiting = [i for i in waiting if i not in row]
    assert waiting == left


@pytest.mark.parametrize("num_rows", [1, 2, 5, 8])
def test_no_example_waits_longer_than_its_turn(num_rows):
    # The short ones wait longest: a long one begins half of the rows, and exact fits pass them over.
    rng = np.random.default_rng(3)
    waiting, calls = [], {}
    for call in range(200):
        while len(waiting) < 40:
            waiting.append((len(calls), int(rng.choice([3, 60, 61, 99]))))
            calls[len(calls)] = (call, len(waiting) - 1)
        rows, left = pack_rows([length for _, length in waiting], num_rows=num_rows, seq_len=100)
        for name, _ in (waiting[i] for row in rows for i in row):
            since, before = calls[name]
            assert call - since + 1 <= before // (num_rows - num_rows // 2) + 1
        waiting = [waiting[i] for i in left]


def test_examples_that_run_out_leave_no_row_behind():
    assert pack_rows([5, 5, 5], num_rows=4, seq_len=10) == ([[0, 1], [2]], [])
    assert pack_rows([], num_rows=4, seq_len=10) == ([], [])
    assert pack_rows([10, 10], num_rows=1, seq_len=10) == ([[0]], [1])


@pytest.mark.parametrize("length", [0, 11])
def test_an_empty_or_too_long_example_is_our_defect(length):
    with pytest.raises(AssertionError):
        pack_rows([5, length], num_rows=2, seq_len=10)
