"""Run: pytest tests/eval/test_journal.py. Completions that outlive the process that asked for them."""

import json

import pytest

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval.journal import Journal, Written, make_key

SETTINGS = {"model": "ab", "seed": 1, "temperature": 0.7}
ONE, TWO = Written("line\u2028one\r\n\u00e9", 3, -1.25, False), Written("", 0, -0.5, True)


def write(folder, settings=SETTINGS, **written):
    """Returns the journal's file."""
    folder.mkdir(exist_ok=True)
    with Journal(folder, "toy", settings) as journal:
        for key, one in written.items():
            journal.add(key, one)
    return journal.path


def test_what_was_added_is_there_again(tmp_path):
    write(tmp_path, a=ONE)
    path = write(tmp_path, b=TWO)
    with Journal(tmp_path, "toy", SETTINGS) as journal:
        assert (journal.get("a"), journal.get("b"), journal.get("c")) == (ONE, TWO, None)
    assert len(path.read_text().split("\n")) == 4, "the settings, two completions and the end"


def test_a_completion_is_on_disk_before_the_next_is_asked_for(tmp_path):
    journal = Journal(tmp_path, "toy", SETTINGS)
    journal.add("a", ONE)
    assert json.loads(journal.path.read_text().splitlines()[-1])["key"] == "a"
    journal._file.close()


@pytest.mark.parametrize("cut", [1, 9, 40])
def test_a_torn_last_line_is_dropped(tmp_path, cut):
    path, whole = write(tmp_path, a=ONE, b=TWO), write(tmp_path / "whole", a=ONE, b=TWO)
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(tmp_path, "toy", SETTINGS) as journal:
        assert journal.get("a") == ONE and journal.get("b") is None
    write(tmp_path, b=TWO)
    assert path.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("content", [b"", b'{"settin'])
def test_a_file_that_was_hardly_begun_is_begun_again(tmp_path, content):
    write(tmp_path).write_bytes(content)
    write(tmp_path, a=ONE)
    with Journal(tmp_path, "toy", SETTINGS) as journal:
        assert journal.get("a") == ONE


@pytest.mark.parametrize("name", SETTINGS)
def test_other_settings_have_a_file_of_their_own_and_the_first_are_there_when_they_come_back(tmp_path, name):
    path = write(tmp_path, a=ONE)
    other = {**SETTINGS, name: 2}
    with Journal(tmp_path, "toy", other) as journal:
        assert journal.get("a") is None and journal.path != path
    write(tmp_path, other, a=TWO)
    with Journal(tmp_path, "toy", dict(reversed(SETTINGS.items()))) as journal:
        assert journal.get("a") == ONE and journal.path == path
    with Journal(tmp_path, "other", SETTINGS) as journal:
        assert journal.get("a") is None


def test_a_file_that_was_changed_by_hand_is_refused(tmp_path):
    path = write(tmp_path, a=ONE, b=TWO)
    lines = path.read_text().splitlines(keepends=True)
    other = lines[0].replace("0.7", "0.8")
    for changed in (lines[0] + "hello\n" + lines[2], lines[1] + lines[2], lines[0] + '{"key": "a"}\n', other, "1\n"):
        path.write_text(changed)
        with pytest.raises(UserError, match="was changed since it was written"):
            Journal(tmp_path, "toy", SETTINGS)


def test_the_key_tells_prompts_stops_and_samples_apart():
    keys = {
        make_key(*one)
        for one in [([1, 2], (), 0), ([1, 2], (), 1), ([1, 2], ("Q:",), 0), ([12], (), 0), ([2, 1], (), 0)]
    }
    assert len(keys) == 5 and make_key((1, 2), (), 0) in keys
