"""Run: pytest tests/eval/test_evaluate.py. From problems to graded samples and the files that keep them."""

import dataclasses
import json
from collections import Counter

import pytest
from ml_collections.config_dict import FrozenConfigDict

from tiny_reasoning_jax.answers import Verdict
from tiny_reasoning_jax.data import chat, gym, procedural
from tiny_reasoning_jax.data.problems import CATEGORIES, DIFFICULTIES, Problem
from tiny_reasoning_jax.data.tokenizer import train_tokenizer
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval import evaluate
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.sampling.generate import Completion

EVAL = FrozenConfigDict(
    {"num_problems": 9, "batch_size": 2, "max_new_tokens": 8, "temperature": 0.0, "top_p": 1.0, "top_k": 0}
)


def _problem(number, category="algebra", difficulty=1, answer="7"):
    prompt = f"What is {number}?"
    return Problem(f"id-{number}", category, difficulty, prompt, "Seven.", answer, "test")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer([], 300, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def model(tokenizer):
    # More rows than the tokenizer has entries, as in the official checkpoints.
    spec = ModelSpec(len(tokenizer) + 60, 16, 16, 1, 2, 1, 8, 1e4, max_position_embeddings=64)
    model_def = ModelDef(spec, dtype="float32")
    return model_def, model_def.create_params(0)


def _scripted(monkeypatch, tokenizer, texts):
    """Lets `generate` write these texts; <|im_end|> at the end of one is its EOS. Returns the calls."""
    calls = []

    def generate(model_def, params, prompts, **settings):
        calls.append((prompts, settings))
        ids = [tokenizer(text.removesuffix("<|im_end|>"))["input_ids"] for text in texts]
        ends = ["eos" if text.endswith("<|im_end|>") else "length" for text in texts]
        return [Completion(tokens, [0.0], end) for tokens, end in zip(ids, ends, strict=True)]

    monkeypatch.setattr(evaluate, "generate", generate)
    return calls


def test_a_sample_says_what_was_asked_written_and_found(monkeypatch, tokenizer, model):
    problems = [_problem(1), _problem(2, "logic", 3), _problem(3)]
    right = "<think>\n3 + 4 = 7\n</think>\n\n\\boxed{7}"
    wrong = "<think>\n\\boxed{7}\n</think>\n\n<|im_start|>\\boxed{8}"
    calls = _scripted(monkeypatch, tokenizer, [right + "<|im_end|>", wrong + "<|im_end|>", "<think>\nhmm"])
    samples = evaluate.evaluate(*model, problems, tokenizer, EVAL, task="toy", seed=4)
    assert samples[0] == {
        "id": "id-1", "task": "toy", "category": "algebra", "difficulty": 1, "prompt": "What is 1?",
        "completion": right, "extracted": "7", "answer": "7", "verdict": "correct", "truncated": False,
        "num_tokens": len(tokenizer(right)["input_ids"]),
    }  # fmt: skip
    assert [sample["verdict"] for sample in samples] == ["correct", "wrong", "unparsed"]
    assert [sample["truncated"] for sample in samples] == [False, False, True]
    assert (samples[1]["category"], samples[1]["difficulty"], samples[1]["extracted"]) == ("logic", 3, "8")
    assert samples[2]["extracted"] is None and samples[1]["completion"] == wrong
    [(prompts, settings)] = calls
    assert prompts == chat.encode_prompts(tokenizer, [problem.prompt for problem in problems])
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert settings == {
        "max_new_tokens": 8, "eos_ids": tuple(ends), "batch_size": 2, "temperature": 0.0, "top_p": 1.0,
        "top_k": 0, "seed": 4, "on_batch": None,
    }  # fmt: skip


def test_a_real_model_is_asked_and_graded(tokenizer, model):
    problems, batches = [_problem(number) for number in range(3)], []
    samples = evaluate.evaluate(
        *model, problems, tokenizer, EVAL, task="toy", seed=0, on_batch=lambda done: batches.append(len(done))
    )
    assert [sample["id"] for sample in samples] == ["id-0", "id-1", "id-2"] and batches == [2, 1]
    assert all(sample["verdict"] in ("wrong", "unparsed") for sample in samples)
    assert json.loads(json.dumps(samples)) == samples


def test_a_prompt_that_leaves_no_room_is_refused_with_the_remedy(tokenizer, model):
    room = 64 - len(chat.encode_prompts(tokenizer, ["What is 1?"])[0])
    with pytest.raises(UserError, match=f"id-1 has {64 - room} tokens.* 64 positions.*to {room} or less"):
        settings = FrozenConfigDict({**EVAL.to_dict(), "max_new_tokens": room + 1})
        evaluate.evaluate(*model, [_problem(1)], tokenizer, settings, task="toy", seed=0)
    endless = Problem("long", "logic", 1, "?" * 80, "", "", "test")
    with pytest.raises(UserError, match="problem long has .* positions: remove the problem"):
        evaluate.evaluate(*model, [endless], tokenizer, EVAL, task="toy", seed=0)


def test_the_judge_finds_and_compares_the_answer():
    problem = _problem(1, answer="1/2")
    assert evaluate.judge(problem, "<think>\nx\n</think>\n\n\\boxed{0.5}") == ("0.5", Verdict.CORRECT)
    assert evaluate.judge(problem, "<think>\n\\boxed{0.5}\n</think>\n\n\\boxed{2}") == ("2", Verdict.WRONG)
    assert evaluate.judge(problem, "<think>\n\\boxed{0.5}") == (None, Verdict.UNPARSED)


def test_a_family_with_several_right_answers_judges_them_itself():
    problem = next(p for p in procedural.generate("test", 1000, 0) if p.source == "write" and p.difficulty == 1)
    slope, _, rest = problem.answer.partition("*x")
    right, wrong = (problem.answer, f"{rest}+x*{slope}"), (f"{problem.answer}+1", "no idea", "exit()")
    for answer in right + wrong:
        verdict = Verdict.CORRECT if answer in right else Verdict.WRONG
        assert evaluate.judge(problem, f"\\boxed{{{answer}}}") == (answer, verdict)
    assert evaluate.judge(problem, problem.answer) == (None, Verdict.UNPARSED)


def test_a_problem_of_reasoning_gym_is_judged_by_its_task_on_the_extracted_answer(monkeypatch, tokenizer, model):
    asked = []

    def score(problem, text):
        asked.append((problem.id, text))
        return text == "2 x 3"

    monkeypatch.setattr(gym, "score", score)
    problem = Problem("gym:prime_factorization-1-0-0-ab", "arithmetic", 1, "6?", "", "3 x 2", "gym:prime_factorization")
    for text, verdict in (("2 x 3", Verdict.CORRECT), ("3 x 2", Verdict.WRONG)):
        assert evaluate.judge(problem, f"\\boxed{{{text}}}") == (text, verdict)
    assert evaluate.judge(problem, "hmm") == (None, Verdict.UNPARSED)
    assert asked == [(problem.id, "2 x 3"), (problem.id, "3 x 2")]

    def changed(problem, text):
        raise UserError(f"{problem.id} comes out differently")

    monkeypatch.setattr(gym, "score", changed)
    calls = _scripted(monkeypatch, tokenizer, [])
    with pytest.raises(UserError, match="comes out differently"):
        evaluate.evaluate(*model, [problem], tokenizer, EVAL, task="toy", seed=0)
    assert not calls


def test_problems_that_only_a_run_could_judge_are_refused_before_anything_is_generated(monkeypatch, tokenizer, model):
    problems = [_problem(1), dataclasses.replace(_problem(2), tests="assert f(1) == 2")]
    calls = _scripted(monkeypatch, tokenizer, ["", ""])
    with pytest.raises(UserError, match="1 of 2 test problems.*id-2.*no sandbox.*data.test_source"):
        evaluate.evaluate(*model, problems, tokenizer, EVAL, task="toy", seed=0)
    assert not calls


def test_problems_are_chosen_evenly_and_not_from_the_beginning():
    grid = [(category, difficulty) for category in CATEGORIES[:3] for difficulty in DIFFICULTIES]
    problems = [_problem(f"{c}-{d}-{i}", c, d) for c, d in grid for i in range(20)]
    chosen = evaluate.select_problems(problems, 45)
    counts = Counter((problem.category, problem.difficulty) for problem in chosen)
    assert counts == dict.fromkeys(grid, 3)
    assert evaluate.select_problems(problems[::-1], 45) == chosen
    assert evaluate.select_problems(problems, 50)[:45] == chosen
    first = [problem for problem in problems if int(problem.id.split("-")[-1]) < 3]
    assert set(chosen) != set(first)
    # Where a group runs out the others give more; where all run out there are all.
    few = [_problem(i) for i in range(2)] + [_problem(10 + i, "logic", 5) for i in range(10)]
    assert Counter(p.category for p in evaluate.select_problems(few, 8)) == {"algebra": 2, "logic": 6}
    assert sorted(evaluate.select_problems(few, 99), key=few.index) == few


def _samples(verdicts, first=0, **changes):
    return [
        {"id": f"id-{first + i}", "task": "toy", "category": "algebra", "difficulty": 1, "prompt": "?",
         "completion": "line\u2028two\n\u00e9", "extracted": None, "answer": "7", "verdict": verdict,
         "truncated": False, "num_tokens": 3, **changes}
        for i, verdict in enumerate(verdicts)
    ]  # fmt: skip


def test_results_of_both_models_stand_side_by_side(tmp_path):
    assert evaluate.load_results(tmp_path) == {} and evaluate.load_samples(tmp_path) == []
    before = _samples(["wrong", "wrong", "unparsed", "correct"])
    evaluate.write_results(tmp_path, "before", {"model": "base", "seconds": 1.5}, {"toy": before})
    results = evaluate.load_results(tmp_path)
    assert results.keys() == {"before"}
    assert results["before"]["model"] == "base" and results["before"]["seconds"] == 1.5
    assert results["before"]["tasks"]["toy"]["correct"] == 1
    after = _samples(["correct", "correct", "correct", "wrong"])
    evaluate.write_results(tmp_path, "after", {"model": "trained", "seconds": 2.5}, {"toy": after})
    results = evaluate.load_results(tmp_path)
    assert results["after"]["tasks"]["toy"]["by_difficulty"]["1"]["accuracy"] == 0.75
    assert results["comparison"]["toy"]["n"] == 4 and results["comparison"]["toy"]["difference"] == 0.5
    expected = [{"model": "before", **s} for s in before] + [{"model": "after", **s} for s in after]
    assert evaluate.load_samples(tmp_path) == expected
    assert sorted(path.name for path in (tmp_path / "eval").iterdir()) == ["results.json", "samples.jsonl"]


def test_a_second_evaluation_replaces_the_first_and_pairs_by_problem(tmp_path):
    for verdicts in (["wrong"] * 3, ["correct", "wrong"]):
        evaluate.write_results(tmp_path, "after", {"model": "m", "seconds": 1.0}, {"toy": _samples(verdicts)})
    assert len(evaluate.load_samples(tmp_path)) == 2
    # Problem 1 is the only one that both have answered; its place in the lists differs.
    evaluate.write_results(
        tmp_path, "before", {"model": "m", "seconds": 1.0}, {"toy": _samples(["correct", "wrong"], first=1)}
    )
    comparison = evaluate.load_results(tmp_path)["comparison"]
    assert comparison["toy"]["n"] == 1 and comparison["toy"]["difference"] == -1
    assert [sample["model"] for sample in evaluate.load_samples(tmp_path)] == ["before"] * 2 + ["after"] * 2
    evaluate.write_results(tmp_path, "before", {"model": "m", "seconds": 1.0}, {"toy": _samples(["wrong"], first=9)})
    assert evaluate.load_results(tmp_path)["comparison"] == {}


def test_a_killed_write_leaves_the_old_files(tmp_path, monkeypatch):
    old = _samples(["correct"])
    evaluate.write_results(tmp_path, "before", {"model": "m", "seconds": 1.0}, {"toy": old})

    def dumps(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate.json, "dumps", dumps)
    with pytest.raises(KeyboardInterrupt):
        evaluate.write_results(tmp_path, "before", {"model": "m", "seconds": 1.0}, {"toy": _samples(["wrong"])})
    monkeypatch.undo()
    assert evaluate.load_samples(tmp_path) == [{"model": "before", **old[0]}]
    assert evaluate.load_results(tmp_path)["before"]["tasks"]["toy"]["correct"] == 1
