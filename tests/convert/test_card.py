"""pytest tests/convert/test_card.py: the card holds what was measured, as the hub reads it, and no more."""

import re

import huggingface_hub
import pytest

from convert.card import Card, make_card

CELL = {"n": 200, "correct": 131, "accuracy": 0.655, "ci95": [0.586, 0.7174]}
BEFORE = {"n": 200, "correct": 2, "accuracy": 0.01, "ci95": [0.001, 0.0357]}


def read(text: str) -> huggingface_hub.ModelCardData:
    return huggingface_hub.ModelCard(text).data


def test_results_are_in_the_text_and_in_the_model_index():
    results = {"before": {"tasks": {"procedural": BEFORE}}, "after": {"tasks": {"procedural": CELL}}}
    text = make_card(Card("Qwen/Qwen3-1.7B-Base", 500, results, {"seed": 0}, "mine"), "hf", None)
    assert "# mine\n" in text
    assert "| procedural | 200 | 1.0 % (0.1 to 3.6) | 65.5 % (58.6 to 71.7) |" in text
    assert "500 optimizer steps" in text and "training_config.json" in text
    data = read(text)
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("procedural", "accuracy", 65.5)
    assert data.base_model == "Qwen/Qwen3-1.7B-Base" and data.license == "apache-2.0"
    assert data.library_name == "transformers" and data.pipeline_tag == "text-generation"


def test_without_a_measurement_there_is_no_figure():
    text = make_card(Card("Qwen/Qwen3-1.7B-Base"), "mine", None)
    assert "not evaluated" in text and "%" not in text and read(text).eval_results is None
    results = {"after": {"tasks": {"procedural": CELL}}}
    text = make_card(Card("random", 5, results), "mine", None)
    assert "| procedural | 200 | not measured | 65.5 %" in text


@pytest.mark.parametrize("base_model", ["random", "/home/someone/weights", "someone/else"])
def test_a_licence_is_not_made_up(base_model, tmp_path):
    assert read(make_card(Card(base_model), "mine", None)).license is None
    license_file = tmp_path / "LICENSE"
    license_file.write_text("\n      Apache License\n      Version 2.0, January 2004\n")
    assert read(make_card(Card(base_model), "mine", license_file)).license == "apache-2.0"
    license_file.write_text("All rights reserved")
    assert read(make_card(Card(base_model), "mine", license_file)).license == "other"


def test_paths_of_the_user_stay_private():
    text = make_card(Card("/home/someone/weights", 3), "mine", None)
    assert not re.search("someone", text) and read(text).base_model is None
