"""pytest tests/eval/test_lm_eval.py: lm-evaluation-harness, given the folder that a run exported and its test problems,
writes the same completions and comes to the same accuracy. Its prompts, decoding and rule share nothing with ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from small_run import make_config
from tiny_reasoning_jax import answers, stages

pytest.importorskip("lm_eval", reason='pip install -e ".[lm_eval]"')

TASKS = Path(__file__).parents[2] / "benchmarks" / "lm_eval"
COMPLETIONS = (
    "<think>\n6*7=42\n</think>\n\n\\boxed{42}",
    "<think>\nIs it \\boxed{41}?\n\nNo.\n</think>\n\nIt is \\boxed{40}, no,\n\\boxed{ 42 }.",
    "<think>\nIt is \\boxed{42}.",  # cut off: not its answer
    "<think>\n</think>\n\n\\boxed{41} <think>\n\\boxed{42}",  # thinks again
    "<think>\n</think>\n\n\\boxed{41}\n<think>\n</think>\n\n\\boxed{\\frac{1}{2}}",
    "without any thought: \\boxed{42}",
    "<think>\n</think>\n\nnothing",
)
MAX_NEW_TOKENS = 120  # some completions are cut off within their <think>
# After these steps it knows the form of an answer, guesses true and false, and cannot add.
LEARNS = {
    "data__source": "procedural:boolean+sums", "data__num_problems": 1500, "data__num_test": 40,
    "model__random__hidden_size": 64, "model__random__intermediate_size": 192, "model__random__head_dim": 32,
    "train__num_steps": 150, "train__warmup_steps": 10, "train__batch_size": 8, "train__accum_steps": 1,
    "train__seq_len": 256, "train__validate_every_steps": 150, "checkpoint__every_steps": 150,
    "eval__num_problems": 40, "eval__batch_size": 16, "eval__max_new_tokens": MAX_NEW_TOKENS,
}  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """The run's accuracy and samples by id, and those of the harness, which runs as its own command beside runs/."""
    here = tmp_path_factory.mktemp("lm_eval")
    workdir = here / "runs" / "reason-tiny"  # where the task looks
    stages.run(make_config(workdir, **LEARNS))
    (results,) = json.loads((workdir / "eval" / "results.json").read_text())["after"]["tasks"].values()
    samples = [sample for sample in _read(workdir / "eval" / "samples.jsonl") if sample["model"] == "after"]
    return (results["accuracy"], {sample["id"]: sample for sample in samples}), _run_harness(here)


def _run_harness(here: Path):
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", "--model", "hf",
         "--model_args", "pretrained=runs/reason-tiny/hf,dtype=float32", "--device", "cpu", "--batch_size", "1",
         "--include_path", TASKS, "--tasks", "reason_test", "--apply_chat_template",
         "--gen_kwargs", f"max_gen_toks={MAX_NEW_TOKENS}", "--log_samples", "--output_path", "out"],
        cwd=here, capture_output=True, text=True,
        # One thread: for a model this small two wait for each other four times as long as one computes.
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(here / "cache"), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    (results,), (samples,) = ((here / "out").rglob(f"{name}_*") for name in ("results", "samples"))
    accuracy = json.loads(results.read_text())["results"]["reason_test"]["exact_match,boxed"]
    return accuracy, {sample["doc"]["id"]: sample for sample in _read(samples)}


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_completion_is_the_same_text(evaluated):
    (_, ours), (_, theirs) = evaluated
    assert ours.keys() == theirs.keys() and len(ours) == LEARNS["data__num_test"]
    # Both compute in float32 from the same bfloat16 weights; only two tokens whose logits tie could part them.
    assert {name: sample["completion"] for name, sample in ours.items()} == {
        name: sample["resps"][0][0] for name, sample in theirs.items()
    }


def test_verdicts_and_accuracy_agree(evaluated):
    (our_accuracy, ours), (their_accuracy, theirs) = evaluated
    verdicts = [sample["verdict"] for sample in ours.values()]
    assert min(map(verdicts.count, ("correct", "wrong", "unparsed"))) >= 3, f"the model shows too little: {verdicts}"
    for name, sample in ours.items():
        assert (sample["verdict"] == "correct") == (theirs[name]["exact_match"] == 1), (sample, theirs[name])
        assert (sample["verdict"] == "unparsed") == (theirs[name]["filtered_resps"] == ["[invalid]"]), sample
    assert our_accuracy == their_accuracy == verdicts.count("correct") / len(verdicts)


def test_the_rule_finds_what_our_grader_finds():
    from lm_eval.filters.extraction import RegexFilter

    (rule,) = yaml.safe_load((TASKS / "reason_test.yaml").read_text())["filter_list"]
    found = [[text] for text in COMPLETIONS]
    for step in rule["filter"][:-1]:  # the last one takes the first of several samples
        assert step.pop("function") == "regex"
        found = RegexFilter(**step).apply(found, [])
    assert [text for (text,) in found] == [answers.extract(text) or "[invalid]" for text in COMPLETIONS]
