"""pytest tests/convert/test_card.py: the card holds what was measured, as the hub reads it, and no more."""

import re

import huggingface_hub
import pytest
import yaml

from convert.card import Card, make_card
from tiny_reasoning_jax.errors import UserError

SETTINGS = {
    "eval": {
        "protocol": "chat", "thinking": True, "instruction": "",
        "temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_new_tokens": 2048,
        "tasks": "gsm8k=/home/someone/gsm8k",
    },
    "seed": 3,
}  # fmt: skip


def make_cell(accuracy, ci95, n=200, k=1, **more):
    return {
        "n": n, "num_samples": k, "correct": round(accuracy * n * k), "accuracy": accuracy, "ci95": ci95,
        "pass_at": {"1": accuracy}, "pass_at_ci95": {"1": ci95}, "maj_at_k": None, "maj_at_k_ci95": None,
        "truncated": 5, "unparsed": 11, "unclosed": 2, "weak": 1, "mean_tokens": 1234.4, "tokens_per_correct": 2000.0,
        "grader": "2", **more,
    }  # fmt: skip


AFTER, BEFORE = make_cell(0.655, [0.586, 0.7174]), make_cell(0.01, [0.001, 0.0357], mean_tokens=7.6)
SEVERAL = make_cell(
    0.5, [0.41, 0.59], n=50, k=4,
    pass_at={"1": 0.5, "2": 0.625, "4": 0.75}, pass_at_ci95={"1": [0.41, 0.59], "2": [0.5, 0.7], "4": [0.6, 0.85]},
    maj_at_k=0.58, maj_at_k_ci95=[0.44, 0.7],
)  # fmt: skip
COMPARED = {"n": 200, "difference": 0.645, "ci95": [0.58, 0.71], "p_value": 1e-30}


def make_results(after, before=None, comparison=None):
    results = {"after": {"model": "/home/someone/weights at step 5", "settings": SETTINGS, "tasks": after}}
    results |= {"before": {"model": "base", "settings": SETTINGS, "tasks": before}} if before else {}
    return results | ({"comparison": comparison} if comparison else {})


def read(text: str) -> huggingface_hub.ModelCardData:
    return huggingface_hub.ModelCard(text).data


def test_results_are_in_the_text_and_in_the_model_index():
    results = make_results({"procedural": AFTER}, {"procedural": BEFORE}, {"procedural": COMPARED})
    text = make_card(Card("Qwen/Qwen3-1.7B-Base", 500, results, {"seed": 0}, "mine"), "hf", None)
    assert "# mine\n" in text
    accuracy = "accuracy (200 problems, 1 sample of each) | 1.0 % (0.1 to 3.6) | 65.5 % (58.6 to 71.7) |"
    assert f"| procedural | {accuracy}\n" in text
    assert "| procedural | no answer | 5.5 % | 5.5 % |\n| procedural | cut off | 2.5 % | 2.5 % |" in text
    assert "| procedural | tokens of a completion, mean | 8 | 1,234 |" in text
    assert (
        "procedural, after - before: +64.5 points (+58.0 to +71.0; paired, 200 problems), exact McNemar test p < 0.001"
        in text
    )
    assert (
        "Protocol: chat, thinking on; temperature 0.6, top_p 0.95, top_k 20, seed 3; at most 2,048 new tokens" in text
    )
    assert "grader, version 2." in text
    assert "500 optimizer steps" in text and "training_config.json" in text
    data = read(text)
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("procedural", "accuracy", 65.5)
    assert data.base_model == "Qwen/Qwen3-1.7B-Base" and data.license == "apache-2.0"
    assert data.library_name == "transformers" and data.pipeline_tag == "text-generation"


def test_several_tasks_and_samples_give_a_metric_each():
    tasks = {"math": SEVERAL, "humaneval": SEVERAL | {"maj_at_k": None, "maj_at_k_ci95": None}, "gsm8k": AFTER}
    comparison = {"math": COMPARED | {"p_value": 0.0312, "difference": -0.02, "ci95": [-0.05, 0.01]}}
    text = make_card(Card("random", 5, make_results(tasks, {"math": BEFORE}, comparison), None, "mine"), "hf", None)
    data = read(text)
    assert data.model_name == "mine"
    found = {(result.dataset_name, result.metric_type): result.metric_value for result in data.eval_results}
    several = {"accuracy": 50.0, "pass@2": 62.5, "pass@4": 75.0}
    assert found == {
        ("gsm8k", "accuracy"): 65.5,
        **{("math", name): value for name, value in (several | {"maj@4": 58.0}).items()},
        **{("humaneval", name): value for name, value in several.items()},
    }
    assert all(result.task_type == "text-generation" and not result.verified for result in data.eval_results)
    assert "| math | accuracy (50 problems, 4 samples of each) | 1.0 % (0.1 to 3.6) | 50.0 % (41.0 to 59.0) |" in text
    assert "| math | pass@4 | not measured | 75.0 % (60.0 to 85.0) |" in text
    assert "| math | maj@4 | not measured | 58.0 % (44.0 to 70.0) |" in text
    assert "| humaneval | tokens of a completion, mean | not measured | 1,234 |" in text
    assert "math, after - before: -2.0 points (-5.0 to +1.0; paired, 200 problems), exact sign-flip test" in text
    assert "p = 0.031." in text


def test_the_front_matter_is_what_the_hub_writes_itself():
    text = make_card(Card("random", 5, make_results({"math": SEVERAL}), None, "mine"), "hf", None)
    front = yaml.safe_load(text.split("---\n")[1])
    again = yaml.safe_load(read(text).to_yaml())
    without = lambda results: [{**r, "metrics": [{**m, "verified": False} for m in r["metrics"]]} for r in results]
    assert again["model-index"][0]["name"] == front["model-index"][0]["name"] == "mine"
    assert without(again["model-index"][0]["results"]) == without(front["model-index"][0]["results"])


def test_a_greedy_evaluation_says_so():
    results = make_results({"math": AFTER})
    results["after"]["settings"] = {**SETTINGS, "eval": SETTINGS["eval"] | {"temperature": 0.0, "thinking": False}}
    text = make_card(Card("random", 5, results), "mine", None)
    assert "Protocol: chat, thinking off; greedy; at most" in text and "top_p" not in text


def test_without_a_measurement_there_is_no_figure():
    text = make_card(Card("Qwen/Qwen3-1.7B-Base"), "mine", None)
    assert "not evaluated" in text and "%" not in text and read(text).eval_results is None
    text = make_card(Card("random", 5, make_results({"procedural": AFTER})), "mine", None)
    assert "1 sample of each) | not measured | 65.5 %" in text and "after - before" not in text
    other = {"model": make_results({"procedural": AFTER})["after"]}  # of a model that is not the exported one
    assert "not evaluated" in make_card(Card("random", 5, other), "mine", None)


def test_results_of_an_earlier_version_are_refused():
    old = make_results({"procedural": {"n": 200, "correct": 131, "accuracy": 0.655, "ci95": [0.586, 0.7174]}})
    with pytest.raises(UserError, match=r"procedural \(after training\).* no num_samples; evaluate again"):
        make_card(Card("random", 5, old), "mine", None)


@pytest.mark.parametrize("base_model", ["random", "/home/someone/weights", "someone/else"])
def test_a_licence_is_not_made_up(base_model, tmp_path):
    assert read(make_card(Card(base_model), "mine", None)).license is None
    license_file = tmp_path / "LICENSE"
    license_file.write_text("\n      Apache License\n      Version 2.0, January 2004\n")
    assert read(make_card(Card(base_model), "mine", license_file)).license == "apache-2.0"
    license_file.write_text("All rights reserved")
    assert read(make_card(Card(base_model), "mine", license_file)).license == "other"


def test_paths_of_the_user_stay_private():
    text = make_card(Card("/home/someone/weights", 3, make_results({"gsm8k": AFTER})), "mine", None)
    assert not re.search("someone", text) and read(text).base_model is None
