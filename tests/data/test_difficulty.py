"""pytest tests/data/test_difficulty.py: five difficulties by rules that can be read."""

import json

import numpy as np
import pytest

from tiny_reasoning_jax.data import difficulty
from tiny_reasoning_jax.errors import UserError


def test_pass_rates_fall_into_five_equal_bands():
    assert [difficulty.from_pass_rate(c, 10) for c in range(11)] == [5, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert [difficulty.from_pass_rate(c, 4) for c in range(5)] == [5, 4, 3, 2, 1]
    assert (difficulty.from_pass_rate(0, 1), difficulty.from_pass_rate(1, 1)) == (5, 1)


def test_lengths_are_cut_into_fifths_that_the_words_name():
    lengths = np.random.default_rng(0).permutation(1000)
    bounds = difficulty.length_bounds(lengths)
    levels = difficulty.from_length(lengths, bounds)
    assert np.bincount(levels, minlength=6).tolist() == [0, 200, 200, 200, 200, 200]
    assert all(lengths[levels == d].max() < lengths[levels == d + 1].min() for d in range(1, 5))
    assert f"up to {lengths[levels == 2].max()} is 2" in difficulty.describe_bounds(bounds)
    assert difficulty.from_length(np.array([-1, 10**9]), bounds).tolist() == [1, 5]
    assert set(difficulty.from_length(np.full(9, 7), difficulty.length_bounds(np.full(9, 7)))) == {1}


def test_grades_are_read_by_id_and_a_damaged_line_is_named(tmp_path):
    path = tmp_path / "grades.jsonl"
    rows = [{"id": "a:1", "correct": 4, "samples": 4, "unparsed": 0}, {"id": "a:2", "correct": 0, "samples": 4}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert difficulty.load_grades(path) == {"a:1": 1, "a:2": 5}
    path.write_text(path.read_text() + '{"id": "a:3", "corr')
    with pytest.raises(UserError, match="line 3"):
        difficulty.load_grades(path)
    path.write_text('{"id": "a:3", "correct": 5, "samples": 4}\n')
    with pytest.raises(UserError, match="line 1"):
        difficulty.load_grades(path)
    path.write_text("")
    with pytest.raises(UserError, match="no grade"):
        difficulty.load_grades(path)
    with pytest.raises(UserError, match="is no file.*grades.jsonl"):
        difficulty.load_grades(tmp_path / "nothing")
