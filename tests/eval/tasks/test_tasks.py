"""pytest tests/eval/tasks/test_tasks.py: which problems a task has, and how a base model is asked them."""

import gzip
import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from tiny_reasoning_jax import answers
from tiny_reasoning_jax.data import chat, sources
from tiny_reasoning_jax.data.contamination import EvaluationText
from tiny_reasoning_jax.data.formats import parse_record
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval import tasks
from tiny_reasoning_jax.eval.evaluate import _find_stop
from tiny_reasoning_jax.eval.judge import find_program, judge, judge_programs
from tiny_reasoning_jax.eval.tasks import gsm8k, humaneval, math, mbpp, procedural

FILES = {
    "gsm8k": "gsm8k/test.jsonl", "math": "math/test.jsonl", "mbpp": "mbpp/mbpp.jsonl",
    "humaneval": "humaneval/HumanEval.jsonl.gz",
}  # fmt: skip


def load(name: str, source: str = ""):
    [chosen] = tasks.choose(f"{name}={source}" if source else name, "own")
    return tasks.load_problems(chosen, 50, seed=0)


@pytest.fixture(params=FILES)
def real(request, shared_data):
    """A task's name and its real problems."""
    problems, dropped = load(request.param, str(shared_data / FILES[request.param]))
    assert not dropped
    return request.param, problems


def test_the_real_files_have_their_published_numbers_of_problems(real):
    name, problems = real
    assert len(problems) == {"gsm8k": 1319, "math": 5000, "mbpp": 500, "humaneval": 164}[name]
    assert len({problem.id for problem in problems}) == len(problems)
    if name == "math":
        assert Counter(problem.category for problem in problems) == {
            "algebra": 1187, "intermediate algebra": 903, "prealgebra": 871, "number theory": 540, "precalculus": 546,
            "geometry": 479, "counting & probability": 474,
        }  # fmt: skip
        assert Counter(problem.difficulty for problem in problems) == {1: 437, 2: 894, 3: 1131, 4: 1214, 5: 1324}
    else:
        assert len({problem.category for problem in problems}) == 1
        assert all(bool(problem.tests) == (name in tasks.PROGRAMS) for problem in problems)


def test_every_reference_is_judged_right_as_an_answer_and_a_neighbours_as_wrong(real):
    name, problems = real
    answered = [f"<think>\nhm\n</think>\n\n{chat.show_answer(problem.answer)}" for problem in problems]
    if name not in tasks.PROGRAMS:
        judged = [judge(problem, text) for problem, text in zip(problems, answered, strict=True)]
        assert {(one.verdict, one.how) for one in judged} == {(answers.Verdict.CORRECT, "boxed")}
        other = next(problem for problem in problems if problem.answer != problems[0].answer)
        assert judge(other, answered[0]).verdict is answers.Verdict.WRONG
        return
    problems, answered = problems[::4], answered[::4]  # the sandbox's own tests run all of them
    programs = [find_program(text, problem.tests) for text, problem in zip(answered, problems, strict=True)]
    preamble = tasks.TASKS[name].preamble
    assert {(one.verdict, one.detail) for one in judge_programs(programs, problems, False, preamble)} == {
        (answers.Verdict.CORRECT, "")}  # fmt: skip
    turned = judge_programs(programs[1:11], problems[:10], False, preamble)
    assert {one.verdict for one in turned} == {answers.Verdict.WRONG}


def test_a_function_is_right_when_a_base_model_continues_its_head(shared_data):
    """The published solutions are such continuations; cut at the stops they must still be whole."""
    problems, _ = load("humaneval", str(shared_data / FILES["humaneval"]))
    with gzip.open(shared_data / FILES["humaneval"], "rt") as lines:
        written = [json.loads(line)["canonical_solution"] for line in lines]
    cut = [text[: _find_stop(text + "\n```\n", humaneval.TASK.stops)] for text in written]
    judged = judge_programs(cut, problems, False, humaneval.TASK.preamble)
    assert {one.verdict for one in judged} == {answers.Verdict.CORRECT}


def test_no_example_gives_a_test_problem_away(real):
    """By the rule that training data have to obey."""
    name, problems = real
    text = EvaluationText(13)
    for problem in problems:
        text.add(problem.id, problem.prompt)
    module = {"gsm8k": gsm8k, "math": math, "mbpp": mbpp, "humaneval": humaneval}[name]
    shots = getattr(module, "SHOTS", ())
    assert len(shots) == {"gsm8k": 8, "math": 4, "mbpp": 3, "humaneval": 0}[name]
    assert [text.find(shot[0]) for shot in shots] == [None] * len(shots)


def test_every_example_solves_its_own_problem_in_the_form_that_is_graded():
    for question, answer in gsm8k.SHOTS:
        found = answers.find(answer)
        assert found.how == "answer is" and answer.endswith(f"The answer is {found.text}."), question
        assert f"= {found.text} " in answer.replace(".", " ").replace(",", " "), "the last step gives the answer"
    assert [answers.extract(answer) for _, answer in gsm8k.SHOTS] == ["29", "13", "120", "10", "360", "54", "48", "1"]
    boxed = [answers.find(solution) for _, solution in math.SHOTS]
    assert [found.text for found in boxed] == [r"-\frac{3}{5},7", r"100\pi", "14", "49"]
    assert {found.how for found in boxed} == {"boxed"}
    for prompt, code in mbpp.SHOTS:
        program = f"{code}\n\n{prompt.split('tests:')[1]}\n"
        assert program.count("assert") == 3 and not subprocess.run([sys.executable, "-c", program]).returncode


def test_steps_of_the_examples_are_calculated_right():
    for _, answer in gsm8k.SHOTS:
        for left, right in re.findall(r"((?:\d+ [-+*/] )+\d+) = (\d+)", answer):
            assert eval(left) == int(right), (left, right)


def test_a_base_model_is_shown_the_examples_and_then_asked(real):
    name, problems = real
    task, problem = tasks.TASKS[name], problems[7]
    text = task.few_shot(problem)
    shown = {
        "gsm8k": ("Q: ", "\nA: ", 8), "math": ("Problem:\n", "\n\nSolution:\n", 4),
        "mbpp": ("You are an expert Python programmer", "\n[BEGIN]\n", 3), "humaneval": ("def ", '"""', 0),
    }[name]  # fmt: skip
    if name == "humaneval":
        assert "```" not in text and text.endswith('"""\n') and compile(text, "", "exec")
        return
    begin, border, num_shots = shown
    assert text.count(begin) == num_shots + 1 and text.count(border.rstrip()) == num_shots + 1
    assert problem.prompt in text.rpartition(begin)[2] and text.endswith(border.rstrip(" "))
    # What follows an example is where a continuation is cut: nothing of the answer is.
    for stop in task.stops:
        assert text.count(stop) >= num_shots
        for piece in text.split(stop)[:num_shots]:
            assert piece.strip()


def test_the_head_of_a_function_is_the_one_of_the_data_set(shared_data):
    with gzip.open(shared_data / FILES["humaneval"], "rt") as lines:
        records = [json.loads(line) for line in lines]
    for record in records:
        problem = parse_record(record, "x:1", "x")
        assert humaneval.find_head(problem) == record["prompt"].strip("\n") + "\n"


def test_procedural_problems_are_of_the_test_split_and_their_examples_are_not():
    problems, dropped = load("procedural:sums+dice")
    assert len(problems) == 50 and not dropped and {problem.source for problem in problems} == {"sums", "dice"}
    assert Counter(problem.difficulty for problem in problems) == dict.fromkeys(range(1, 6), 10)
    text = procedural.few_shot(problems[0])
    assert text.count("Problem:\n") == 6 and text.count("\\boxed{") == 5
    assert text.endswith(f"Problem:\n{problems[0].prompt}\n\nSolution:\n")
    assert len(load("procedural")[0]) == 50


def test_any_file_of_prompts_and_tests_is_a_task_named_after_it(tmp_path):
    path = tmp_path / "bench.v2.jsonl"
    path.write_text('{"prompt": "Write f.", "tests": ["assert f() == 1"]}\n{"prompt": "Why?"}\n')
    [chosen] = tasks.choose(str(path), "own")
    assert chosen.task.name == "bench" and chosen.task.few_shot is None
    problems, dropped = tasks.load_problems(chosen, 5, seed=0)
    assert [problem.tests for problem in problems] == ["assert f() == 1\n"] and dropped[0].reason == "unknown format"
    (tmp_path / "arc").mkdir()
    (tmp_path / "arc" / "test.jsonl").write_text(path.read_text())
    assert tasks.choose(str(tmp_path / "arc" / "test.jsonl"), "own")[0].task.name == "arc"


def test_the_runs_own_problems_have_the_task_whose_name_they_have():
    assert tasks.choose("test", "gsm8k")[0] == (gsm8k.TASK, "test", True)
    [own] = tasks.choose("test", "mixture")
    assert own.is_own and own.task.name == "mixture" and own.task.few_shot is None


def test_a_folder_named_test_is_not_taken_for_the_runs_own_problems(tmp_path, monkeypatch):
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.jsonl").write_text('{"question": "1?", "answer": "#### 1"}\n')
    monkeypatch.chdir(tmp_path)
    [chosen] = tasks.choose("gsm8k=test", "mixture")
    assert not chosen.is_own and "sha256" in tasks.mark(chosen)
    assert [problem.answer for problem in tasks.load_problems(chosen, 5, seed=0)[0]] == ["1"]


def test_a_folder_with_training_files_is_refused_and_one_of_test_files_is_not(tmp_path):
    layouts = {
        "flat": (["train.jsonl", "test.jsonl"], "train.jsonl"),
        "parquet": (["main/train-00000-of-00001.parquet", "main/test-00000-of-00001.parquet"], "main/train-0"),
        "folders": (["math/training/algebra/1.json", "math/test/algebra/1.json"], "math/training/algebra/1.json"),
        "inner": (["gsm8k_train.jsonl", "gsm8k_eval.jsonl"], "gsm8k_train.jsonl"),
        "clean": (["test/constraints.jsonl", "test/b.jsonl", ".cache/train.jsonl"], None),
        "train": (["a.jsonl", "b.jsonl"], None),
    }
    for folder, (names, first) in layouts.items():
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('{"question": "1?", "answer": "#### 1"}\n')
        for asked in (f"gsm8k={tmp_path / folder}", str(tmp_path / folder)):
            if first is None:
                assert not tasks.choose(asked, "own")[0].is_own
                continue
            with pytest.raises(UserError, match=f"holds training files .{first}.* give the test file, or the folder"):
                tasks.choose(asked, "own")


def test_a_task_without_a_file_is_where_it_is_published():
    chosen = tasks.choose("gsm8k, math,mbpp,humaneval", "own")
    for task, source, _ in chosen:
        hub_id = sources.parse_hub_id(source)
        assert source == task.source and hub_id.split == "test"


def test_a_changed_file_changes_the_mark(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "1?", "answer": "#### 1"}\n')
    mark = lambda: tasks.mark(tasks.choose(f"gsm8k={path}", "own")[0])
    before = mark()
    path.write_text('{"question": "2?", "answer": "#### 2"}\n')
    assert mark() != before and str(tmp_path) not in before
    assert tasks.mark(tasks.choose("test", "own")[0]) == "test"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("gsm9k", "names 'gsm9k', which is no task; choose from test, gsm8k, math, mbpp, humaneval, procedural"),
        ("gsm9k=a.jsonl", "names 'gsm9k', which is no task"),
        ("gsm8k,", "names '', which is no task"),
        ("gsm8k=/nowhere/test.jsonl", "eval.tasks='/nowhere/test.jsonl' does not exist"),
        ("/nowhere/test.jsonl", "eval.tasks='/nowhere/test.jsonl' does not exist"),
        ("gsm8k,gsm8k", "several tasks called gsm8k"),
        ("test,procedural", "several tasks called procedural"),
        ("procedural:summs", "no procedural family is called summs"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(names, message):
    with pytest.raises(UserError, match=message):
        tasks.choose(names, "procedural")


def test_a_file_without_problems_says_why(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_text('{"task_id": 3, "text": "Add.", "code": "c", "test_list": ["assert c"]}\n')
    with pytest.raises(
        UserError, match="holds no problem for mbpp .it is empty, or nothing in it is of the test split.. Give"
    ):
        load("mbpp", str(path))
    path.write_text('{"question": "Why?", "answer": "Because."}\n')
    with pytest.raises(UserError, match="for gsm8k; the first of 1 records: no final answer"):
        load("gsm8k", str(path))
