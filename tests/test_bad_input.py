"""pytest tests/test_bad_input.py: what a user can get wrong in a run, and what they are told."""

import json

import pytest

from small_run import make_config
from tiny_reasoning_jax import stages
from tiny_reasoning_jax.errors import UserError


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def gsm8k(count):
    return [
        {"question": f"What is {i} plus {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i}"} for i in range(count)
    ]


def test_no_weights_to_be_had(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        stages.run(make_config(tmp_path / "w", model__source=str(tmp_path / "no_such_folder")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="config.json"):
        stages.run(make_config(tmp_path / "w", model__source=str(tmp_path / "empty")))
    assert not (tmp_path / "w").exists()


def test_a_tokenizer_without_the_special_tokens(tmp_path):
    from tokenizers import Tokenizer, models

    folder = tmp_path / "tokenizer"
    folder.mkdir()
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    with pytest.raises(UserError, match=r"<\|im_end\|>"):
        stages.run(make_config(tmp_path / "w", tokenizer__source=str(folder), stages="data"))
    assert not (tmp_path / "w" / "data").exists()


def test_a_dataset_with_zero_usable_records(tmp_path):
    path = write_lines(tmp_path / "train.jsonl", [{"question": "Why?", "answer": "Because.\nReally."}] * 3)
    with pytest.raises(UserError, match="no final answer"):
        stages.run(make_config(tmp_path / "w", data__source=path, stages="data"))
    assert not (tmp_path / "w" / "data").exists()


def test_rows_longer_than_seq_len_are_counted_and_never_cut(tmp_path):
    long = {"question": "Say something long.", "answer": "word " * 500 + "1\n#### 1"}
    path = write_lines(tmp_path / "train.jsonl", [*gsm8k(60), long])
    stages.run(make_config(tmp_path / "w", data__source=path, stages="data"))
    summary = json.loads((tmp_path / "w" / "data" / "summary.json").read_text())
    assert sum(s["dropped"].get("over seq_len", 0) for s in summary["splits"].values()) == 1
    assert "1 over seq_len" in (tmp_path / "w" / "data" / "preview.html").read_text()


def test_a_folder_that_is_not_a_run(tmp_path):
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(UserError, match="not a run's folder"):
        stages.run(make_config(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("stage", ["train", "eval", "export"])
def test_a_stage_without_what_it_needs_names_the_stage_to_run(tmp_path, stage):
    with pytest.raises(UserError, match=r"run the (data|train) stage first"):
        stages.run(make_config(tmp_path / "w", stages=stage))


def test_a_missing_data_file(tmp_path):
    with pytest.raises(UserError, match="nothing.jsonl"):
        stages.run(make_config(tmp_path / "w", data__source=str(tmp_path / "nothing.jsonl"), stages="data"))


def test_a_test_set_without_a_usable_record(tmp_path):
    path = write_lines(tmp_path / "train.jsonl", gsm8k(60))
    test = write_lines(tmp_path / "other.jsonl", [{"question": "Why?", "answer": "Because.\nReally."}])
    with pytest.raises(UserError, match="no usable test record"):
        stages.run(make_config(tmp_path / "w", data__source=path, data__test_source=test, stages="data"))
    assert not (tmp_path / "w" / "data").exists()
