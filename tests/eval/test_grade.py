"""Run: pytest tests/eval/test_grade.py. Pass rates of a model over a prepared split, and the files that keep them."""

import dataclasses
import json
import math
from collections import Counter

import numpy as np
import pytest
from ml_collections.config_dict import FrozenConfigDict

from tiny_reasoning_jax import answers
from tiny_reasoning_jax.data import chat, procedural
from tiny_reasoning_jax.data.difficulty import load_grades
from tiny_reasoning_jax.data.prepared import PreparedSplit, SplitWriter
from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.data.sources import hash_prompt
from tiny_reasoning_jax.data.tokenizer import train_tokenizer
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval import evaluate, grade
from tiny_reasoning_jax.eval.journal import Written
from tiny_reasoning_jax.eval.judge import Judgement, judge
from tiny_reasoning_jax.eval.tasks.task import Task
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.sampling.decode import decode, prefill
from tiny_reasoning_jax.sampling.generate import Completion

EVAL = FrozenConfigDict({
    "batch_size": 8, "max_new_tokens": 6, "temperature": 0.0, "top_p": 1.0, "top_k": 0, "num_samples": 1,
    "protocol": "chat", "thinking": True, "unsafe_code": False, "instruction": "",
})  # fmt: skip
MODEL, DATA = {"name": "toy", "step": 3}, {"format": 1}
PROBLEMS = [
    Problem(f"p-{i}", "algebra", 1 + i % 5, f"What is {i} plus 1?", "One more.", str(i + 1), "toy") for i in range(30)
]


def never():
    return False


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer([], 300, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def model(tokenizer):
    model_def = ModelDef(ModelSpec(len(tokenizer), 16, 16, 1, 2, 1, 8, 1e4, max_position_embeddings=128), "float32")
    params = {name: 4 * value for name, value in model_def.create_params(0).items()}  # unlike logits
    return model_def, params


def _write(tokenizer, problems, folder):
    with SplitWriter(folder) as writer:
        for problem, (prompt, completion) in zip(problems, chat.encode_batch(tokenizer, problems), strict=True):
            writer.add(
                problem.id, prompt, completion, difficulty=problem.difficulty, source=0,
                category=len(problem.category), prompt_hash=hash_prompt(problem.prompt) % 2**64,
            )  # fmt: skip
    return PreparedSplit.load(folder)


@pytest.fixture(scope="module")
def split(tokenizer, tmp_path_factory):
    return _write(tokenizer, PROBLEMS, tmp_path_factory.mktemp("split"))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(grade, "CHUNK", 4)


def _grade(asked_model, tokenizer, split, workdir, *, config=EVAL, **changes):
    asked = {"num_problems": 11, "num_samples": 3, "temperature": 1.0, "seed": 5, "model": MODEL, "data": DATA}
    return grade.grade(*asked_model, tokenizer, split, config, workdir=workdir, **{**asked, **changes})


def _lines(workdir):
    return [json.loads(line) for line in (workdir / "grades.jsonl").read_text().splitlines()]


@pytest.fixture
def letters(monkeypatch):
    """Judges by the text's letters, so that a random model is right at times and draws make a difference."""

    def judge(problem, text):
        verdict = (answers.Verdict.CORRECT, answers.Verdict.WRONG, answers.Verdict.UNPARSED)[sum(map(ord, text)) % 3]
        return Judgement(text, "boxed", verdict)

    monkeypatch.setattr(grade, "judge", judge)


def _scripted(monkeypatch, tokenizer, write):
    """Lets `generate` continue every prompt with write(prompt's text), in full."""

    def generate(model_def, params, requests, **settings):
        for index, request in reversed(list(enumerate(requests))):  # as rows are finished, the last first
            text = write(tokenizer.decode(request.prompt))
            yield index, Completion(tokenizer(text)["input_ids"], [0.0], "eos")

    monkeypatch.setattr(evaluate, "generate", generate)


def test_a_model_that_is_always_right_has_pass_rate_1_and_one_that_never_is_0(
    tmp_path, monkeypatch, model, tokenizer, split
):
    box = lambda text, more: f"<think>\nx\n</think>\n\n\\boxed{{{int(text.split('is ')[1].split(' ')[0]) + more}}}"
    for folder, more, rate in (("right", 1, 1.0), ("wrong", 2, 0.0)):
        _scripted(monkeypatch, tokenizer, lambda text, more=more: box(text, more))
        (tmp_path / folder).mkdir()
        facts = _grade(model, tokenizer, split, tmp_path / folder, num_problems=30)
        assert facts["pass_rate"] == rate and facts["problems"] == 30 and facts["samples"] == 90
        assert rate in facts["ci95"] and 0.05 < facts["ci95"][1] - facts["ci95"][0] < 0.2
        band = {1.0: 1, 0.0: 5}[rate]
        assert load_grades(tmp_path / folder / "grades.jsonl") == {problem.id: band for problem in PROBLEMS}
        assert all(cell["measured"][str(band)] == 6 for cell in facts["by_difficulty"].values())
        assert facts["unparsed"] == facts["truncated"] == 0


def test_counts_are_those_of_the_evaluation_of_the_same_answers(tmp_path, monkeypatch, model, tokenizer, split):
    """The evaluation is asked with greedy answers, of which every sample is a copy."""

    def write(text):
        number = int(text.split("is ")[1].split(" ")[0])
        return ("\\boxed{1}", f"<think>\n</think>\\boxed{{{number + 1}.0}}", "<think>\nhmm")[number % 3]

    _scripted(monkeypatch, tokenizer, write)
    _grade(model, tokenizer, split, tmp_path, num_problems=30, temperature=0.0)
    task = Task("toy", "test")
    questions = evaluate.pose(task, PROBLEMS, tokenizer, EVAL, model[0])
    samples = evaluate.evaluate(*model, questions, tokenizer, EVAL, task=task, seed=0)
    verdicts = {sample["id"]: sample["verdict"] for sample in samples}
    assert Counter(verdicts.values()) == {"correct": 11, "wrong": 9, "unparsed": 10}
    for line in _lines(tmp_path):
        verdict = verdicts[line["id"]]
        assert (line["correct"], line["unparsed"]) == (3 * (verdict == "correct"), 3 * (verdict == "unparsed"))


def test_an_answer_in_a_thought_that_the_template_opened_is_none(tmp_path, monkeypatch, model):
    tokenizer = train_tokenizer([], 300, tmp_path / "tokenizer")
    opening = "{{- '<|im_start|>assistant\\n"
    assert tokenizer.chat_template.count(opening) == 1
    tokenizer.chat_template = tokenizer.chat_template.replace(opening, opening + "<think>\\n").replace(
        "{{- '<think>\\n\\n</think>", "{{- '\\n</think>"
    )
    assert chat.render_prompt(tokenizer, "?").endswith("assistant\n<think>\n")
    split = _write(tokenizer, PROBLEMS, tmp_path / "split")
    for end, solved in (("", False), ("</think>\n\n\\boxed{7}", True)):
        _scripted(monkeypatch, tokenizer, lambda text, end=end: "So \\boxed{7}." + end)
        probe = grade.make_probe(model[0], tokenizer, split, EVAL, 30, 0)
        rates = probe(model[1], never)
        assert sum(rates) > 0 if solved else rates == [0.0] * 5
        (tmp_path / str(solved)).mkdir()
        facts = _grade((model[0], model[1]), tokenizer, split, tmp_path / str(solved), num_problems=30)
        assert (facts["correct"], facts["unparsed"]) == ((3, 0) if solved else (0, 90))


def test_the_prompt_is_the_one_that_training_shows(tmp_path, monkeypatch, model, tokenizer, split):
    asked = []

    def ask(model_def, params, requests, *args, **settings):
        asked.extend(tuple(request.prompt) for request in requests)
        return enumerate([Written("", 0, 0.0, True)] * len(requests))

    monkeypatch.setattr(grade, "ask", ask)
    facts = _grade(model, tokenizer, split, tmp_path, num_problems=30, num_samples=1)
    assert sorted(asked) == sorted(map(tuple, chat.encode_prompts(tokenizer, [problem.prompt for problem in PROBLEMS])))
    assert facts["unparsed"] == facts["truncated"] == 30


def test_stopped_and_started_again_is_the_same_as_never_stopped(
    tmp_path, monkeypatch, small_chunks, letters, model, tokenizer, split
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir(), parts.mkdir()
    facts = _grade(model, tokenizer, split, whole)
    assert 0 < facts["correct"] < facts["samples"], "the test needs answers that differ"
    chunk, calls = grade._grade_chunk, []

    def killed(*args, **settings):
        calls.append(len(args[4]))
        if len(calls) % 2 == 0:
            raise KeyboardInterrupt
        return chunk(*args, **settings)

    monkeypatch.setattr(grade, "_grade_chunk", killed)
    for torn in ('{"id": "p-', '{"id": "p-1", "correct": 1}\n{"id'):
        with pytest.raises(KeyboardInterrupt):
            _grade(model, tokenizer, split, parts)
        if torn.startswith('{"id": "p-1"'):  # of the next chunk one line and a half were on disk
            torn = (whole / "grades.jsonl").read_text().splitlines(keepends=True)[len(_lines(parts))] + "{"
        with (parts / "grades.jsonl").open("a") as file:
            file.write(torn)
        assert not json.loads((parts / "grades.json").read_text())["complete"]
    assert _grade(model, tokenizer, split, parts) == facts
    assert calls == [4, 4, 4, 3, 2]
    for name in ("grades.jsonl", "grades.json"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    assert _grade(model, tokenizer, split, parts) == facts and len(calls) == 5  # nothing is asked again
    whole_lines = (parts / "grades.jsonl").read_bytes()
    (parts / "grades.jsonl").write_bytes(whole_lines[:-9])  # within the very last line
    (parts / "grades.json").write_text(json.dumps({"settings": facts["settings"], "complete": False}))
    calls.clear()
    assert _grade(model, tokenizer, split, parts) == facts and calls == [1]
    assert (parts / "grades.jsonl").read_bytes() == whole_lines


def test_a_sample_depends_on_nothing_else_that_is_asked(tmp_path, small_chunks, letters, model, tokenizer, split):
    """Other batch sizes, more problems and more samples leave the counts of what both have asked as they are."""
    folders = [tmp_path / str(i) for i in range(4)]
    for folder in folders:
        folder.mkdir()
    config = FrozenConfigDict({**EVAL.to_dict(), "batch_size": 3})
    _grade(model, tokenizer, split, folders[0])
    _grade(model, tokenizer, split, folders[1], config=config)
    assert _lines(folders[1]) == _lines(folders[0])
    _grade(model, tokenizer, split, folders[2], num_problems=30)
    assert _lines(folders[2])[:11] == _lines(folders[0])
    _grade(model, tokenizer, split, folders[3], num_samples=4)
    pairs = zip(_lines(folders[0]), _lines(folders[3]), strict=True)
    assert all(few["correct"] <= more["correct"] <= few["correct"] + 1 for few, more in pairs)
    assert len({line["correct"] for line in _lines(folders[0])}) > 1, "the samples of a problem must differ"


def test_grades_of_another_model_or_with_other_settings_are_refused(tmp_path, model, tokenizer, split):
    _grade(model, tokenizer, split, tmp_path, num_problems=3, num_samples=1)
    before = (tmp_path / "grades.jsonl").read_bytes()
    with pytest.raises(UserError, match="model.step was 3, is now 4.*delete"):
        _grade(model, tokenizer, split, tmp_path, num_problems=3, num_samples=1, model={"name": "toy", "step": 4})
    with pytest.raises(UserError, match="num_samples was 1, is now 2; seed was 5, is now 6"):
        _grade(model, tokenizer, split, tmp_path, num_problems=3, num_samples=2, seed=6)
    coarse = dataclasses.replace(model[0], dtype="bfloat16")
    warped = dataclasses.replace(model[0], spec=dataclasses.replace(model[0].spec, rope_theta=1e6))
    for other, told in ((warped, "spec.rope_theta was 10000.0, is now 1000000.0"), (coarse, "compute_dtype was")):
        with pytest.raises(UserError, match=told):
            _grade((other, model[1]), tokenizer, split, tmp_path, num_problems=3, num_samples=1)
    assert (tmp_path / "grades.jsonl").read_bytes() == before
    (tmp_path / "grades.json").unlink()
    with pytest.raises(UserError, match="no grades.json"):
        _grade(model, tokenizer, split, tmp_path, num_problems=3, num_samples=1)


def test_a_file_that_was_changed_is_refused(tmp_path, small_chunks, model, tokenizer, split):
    _grade(model, tokenizer, split, tmp_path)
    facts = json.loads((tmp_path / "grades.json").read_text())
    (tmp_path / "grades.json").write_text(json.dumps({"settings": facts["settings"], "complete": False}))
    lines = (tmp_path / "grades.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "grades.jsonl").write_text("".join(lines[1:] + lines[:1]))
    with pytest.raises(UserError, match="was changed"):
        _grade(model, tokenizer, split, tmp_path)


def test_programs_and_prompts_without_room_are_skipped_and_counted(tmp_path, model, tokenizer):
    problems = [
        PROBLEMS[0],
        dataclasses.replace(PROBLEMS[1], answer="```python\ndef f(x):\n    return x\n```"),
        dataclasses.replace(PROBLEMS[2], prompt="What is 2 plus 1? " + "?" * 200),
    ]
    split = _write(tokenizer, problems, tmp_path / "split")
    facts = _grade(model, tokenizer, split, tmp_path, num_samples=1)
    assert facts["skipped"] == {"answer is a program": 1, "prompt leaves no room for an answer": 1}
    assert [line["id"] for line in _lines(tmp_path)] == ["p-0"]
    (tmp_path / "none").mkdir()
    split = _write(tokenizer, problems[1:2], tmp_path / "programs")
    with pytest.raises(UserError, match="none of 1 examples.*1 answer is a program"):
        _grade(model, tokenizer, split, tmp_path / "none")


def test_examples_are_chosen_as_the_evaluation_chooses_problems(split):
    """Evenly over the groups, the smaller selection first; the order within a group is that of another hash."""
    chosen = grade.select_examples(split, 12)
    assert sorted(Counter(split.difficulty[chosen].tolist()).values()) == [2, 2, 2, 3, 3]
    assert np.array_equal(grade.select_examples(split, 30)[:12], chosen)
    assert sorted(grade.select_examples(split, 99).tolist()) == list(range(30))


def test_procedural_examples_are_judged_by_their_family(tokenizer, model, tmp_path):
    """The problem read back from tokens has the prompt, the answer and the family of the one that was written."""
    problems = [p for p in procedural.generate("train", 400, 0) if len(p.prompt) < 100]
    split = _write(tokenizer, problems, tmp_path)
    model_def = dataclasses.replace(model[0], spec=dataclasses.replace(model[0].spec, max_position_embeddings=4096))
    questions, _ = grade.read_questions(model_def, tokenizer, split, range(len(problems)), 6)
    known = {problem.id: problem for problem in problems}
    assert len(questions) > 0.9 * len(problems)
    for problem, _ in questions:
        original = known[problem.id]
        assert (problem.source, problem.prompt, problem.difficulty) == (
            original.source, original.prompt.strip(), original.difficulty)  # fmt: skip
        assert judge(problem, chat.show_answer(original.answer)).verdict is answers.Verdict.CORRECT


def test_the_hash_of_parameters_sees_every_value_and_name(model):
    params = model[1]
    name = next(iter(params))
    changed = {**params, name: params[name].at[0].add(1e-2)}
    renamed = {("x" if key == name else key): value for key, value in params.items()}
    hashes = {grade.hash_params(tree) for tree in (params, changed, renamed)}
    assert len(hashes) == 3 and grade.hash_params(dict(reversed(params.items()))) == grade.hash_params(params)


def test_the_probe_gives_the_pass_rate_of_each_difficulty_and_compiles_once(monkeypatch, model, tokenizer, tmp_path):
    problems = [problem for problem in PROBLEMS if problem.difficulty != 4]
    split = _write(tokenizer, problems, tmp_path)
    probe = grade.make_probe(model[0], tokenizer, split, EVAL, 16, 0)
    rates = probe(model[1], never)
    assert rates[:3] == [0.0, 0.0, 0.0] and math.isnan(rates[3]) and rates[4] == 0.0
    num_compiled = prefill._cache_size(), decode._cache_size()
    probe({name: value + 1 for name, value in model[1].items()}, never)
    assert (prefill._cache_size(), decode._cache_size()) == num_compiled
    number = lambda text: int(text.split("is ")[1].split(" ")[0])
    _scripted(monkeypatch, tokenizer, lambda text: f"\\boxed{{{number(text) + 1 + (number(text) % 5 == 2)}}}")
    rates = probe(model[1], never)
    assert rates[:3] == [1.0, 1.0, 0.0] and math.isnan(rates[3]) and rates[4] == 1.0


@pytest.mark.parametrize("last", [True, False])
def test_a_probe_that_is_given_up_has_no_rates(model, tokenizer, tmp_path, last):
    """Neither when what it is told comes between two answers, nor when it comes while the last are written."""
    split = _write(tokenizer, PROBLEMS, tmp_path)
    probe, asked = grade.make_probe(model[0], tokenizer, split, EVAL, 16, 0), []
    assert probe(model[1], lambda: asked.append(1)) is not None
    told = []
    assert probe(model[1], lambda: told.append(1) or len(told) == (len(asked) if last else 3)) is None
    assert len(told) <= len(asked) + 1
