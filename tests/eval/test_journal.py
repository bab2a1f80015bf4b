"""Run: pytest tests/eval/test_journal.py. Completions that outlive the process that asked for them."""

import json
import logging

import pytest

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval.journal import Journal, Written, make_key

SETTINGS = {"model": "ab", "seed": 1, "temperature": 0.7}
ONE, TWO = Written("line\u2028one\r\n\u00e9", 3, -1.25, False), Written("", 0, -0.5, True)


def write(path, settings=SETTINGS, **written):
    with Journal(path, settings) as journal:
        for key, one in written.items():
            journal.add(key, one)


def test_what_was_added_is_there_again(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, a=ONE)
    write(path, b=TWO)
    with Journal(path, SETTINGS) as journal:
        assert (journal.get("a"), journal.get("b"), journal.get("c")) == (ONE, TWO, None)
    assert len(path.read_text().split("\n")) == 4, "the settings, two completions and the end"


def test_a_completion_is_on_disk_before_the_next_is_asked_for(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, SETTINGS)
    journal.add("a", ONE)
    assert json.loads(path.read_text().splitlines()[-1])["key"] == "a"
    journal._file.close()


@pytest.mark.parametrize("cut", [1, 9, 40])
def test_a_torn_last_line_is_dropped(tmp_path, cut):
    path, whole = tmp_path / "journal.jsonl", tmp_path / "whole.jsonl"
    write(path, a=ONE, b=TWO)
    write(whole, a=ONE, b=TWO)
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path, SETTINGS) as journal:
        assert journal.get("a") == ONE and journal.get("b") is None
    write(path, b=TWO)
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("content", [b"", b'{"settin'])
def test_a_file_that_was_hardly_begun_is_begun_again(tmp_path, content):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(content)
    write(path, a=ONE)
    with Journal(path, SETTINGS) as journal:
        assert journal.get("a") == ONE


@pytest.mark.parametrize("name", SETTINGS)
def test_completions_under_other_settings_are_set_aside_and_said_so(tmp_path, caplog, name):
    path = tmp_path / "journal.jsonl"
    write(path, a=ONE)
    before = path.read_bytes()
    with caplog.at_level(logging.INFO), Journal(path, {**SETTINGS, name: 2}) as journal:
        assert journal.get("a") is None
    assert f"{name} was {SETTINGS[name]!r}, is now 2" in caplog.text and "journal.other.jsonl" in caplog.text
    assert (tmp_path / "journal.other.jsonl").read_bytes() == before


def test_a_file_that_was_changed_by_hand_is_refused(tmp_path):
    path = tmp_path / "journal.jsonl"
    write(path, a=ONE, b=TWO)
    lines = path.read_text().splitlines(keepends=True)
    for changed in (lines[0] + "hello\n" + lines[2], lines[1] + lines[2], lines[0] + '{"key": "a"}\n'):
        path.write_text(changed)
        with pytest.raises(UserError, match="was changed since it was written"):
            Journal(path, SETTINGS)


def test_the_key_tells_prompts_stops_and_samples_apart():
    keys = {
        make_key(*one)
        for one in [([1, 2], (), 0), ([1, 2], (), 1), ([1, 2], ("Q:",), 0), ([12], (), 0), ([2, 1], (), 0)]
    }
    assert len(keys) == 5 and make_key((1, 2), (), 0) in keys
