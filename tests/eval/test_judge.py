"""Run: pytest tests/eval/test_judge.py. Which answer or program a completion holds, and who judges it."""

import dataclasses

import pytest

from tiny_reasoning_jax.answers import Verdict
from tiny_reasoning_jax.data import gym, procedural
from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval import judge as judging
from tiny_reasoning_jax.eval.judge import Judgement, find_program, judge, judge_programs, refuse_unjudgeable


def make_problem(answer="7", source="test", **changes):
    return Problem("id-1", "algebra", 1, "What is it?", "", answer, source, **changes)


def test_the_answer_is_found_and_compared_and_it_is_told_how():
    problem = make_problem(answer="1/2")
    right = Judgement("0.5", "boxed", Verdict.CORRECT)
    assert judge(problem, "<think>\nx\n</think>\n\n\\boxed{0.5}") == right
    assert judge(problem, "<think>\n\\boxed{0.5}\n</think>\n\n\\boxed{2}") == Judgement("2", "boxed", Verdict.WRONG)
    assert judge(problem, "<think>\n\\boxed{0.5}") == Judgement(None, None, Verdict.UNPARSED)
    assert judge(problem, "It may well be 0.5").how == "last number"


def test_a_family_with_several_right_answers_judges_them_itself():
    problem = next(p for p in procedural.generate("test", 1000, 0) if p.source == "write" and p.difficulty == 1)
    slope, _, rest = problem.answer.partition("*x")
    right, wrong = (problem.answer, f"{rest}+x*{slope}"), (f"{problem.answer}+1", "no idea", "exit()")
    for answer in right + wrong:
        verdict = Verdict.CORRECT if answer in right else Verdict.WRONG
        assert judge(problem, f"\\boxed{{{answer}}}") == Judgement(answer, "task", verdict)
    assert judge(problem, problem.answer) == Judgement(None, None, Verdict.UNPARSED)


def test_a_problem_of_reasoning_gym_is_judged_by_its_task_on_the_extracted_answer(monkeypatch):
    asked = []

    def score(problem, text):
        asked.append((problem.id, text))
        return text == "2 x 3"

    monkeypatch.setattr(gym, "score", score)
    problem = make_problem("3 x 2", "gym:prime_factorization")
    for text, verdict in (("2 x 3", Verdict.CORRECT), ("3 x 2", Verdict.WRONG)):
        assert judge(problem, f"\\boxed{{{text}}}") == Judgement(text, "task", verdict)
    assert judge(problem, "hmm") == Judgement(None, None, Verdict.UNPARSED)
    assert asked == [(problem.id, "2 x 3"), (problem.id, "3 x 2")]

    def changed(problem, text):
        raise UserError(f"{problem.id} comes out differently")

    monkeypatch.setattr(gym, "score", changed)
    with pytest.raises(UserError, match="comes out differently"):
        refuse_unjudgeable([problem], "gym", unsafe=False)


BLOCK = "```python\ndef f():\n    return 1\n```"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        (BLOCK, "def f():\n    return 1\n"),
        (
            f"<think>\n```python\ndef f():\n    return 2\n```\n</think>\n\nHere:\n\n{BLOCK}\nDone.",
            "def f():\n    return 1\n",
        ),
        (f"<think>\n{BLOCK}", None),
        (f"{BLOCK}\nThen call it:\n```python\nprint(f())\n```", "def f():\n    return 1\n"),
        (f"{BLOCK}\nBetter:\n```py\nclass f: pass\n```", "class f: pass\n"),
        ("```\nf = lambda: 1\n```\nor\n```\nf = int\n```", "f = int\n"),
        ("  ```python\n  def f():\n      return 1\n  ```", "  def f():\n      return 1\n"),
        (f"{BLOCK}\nTests:\n```\ndef test_f():\n    assert f() == 1\n```", "def f():\n    return 1\n"),
        (
            f"Try:\n{BLOCK}\nA helper:\n```\ndef g():\n    return 2\n```\nUse it:\n```\ndef f():\n    return g()\n```\n"
            "So:\n```\nprint(f())\n```\nOr\n```\ndef check(candidate):\n    pass\n```",
            "def g():\n    return 2\ndef f():\n    return g()\n",
        ),
        ("```python\ndef f():\n    return", "def f():\n    return"),  # cut off
        ("def f():\n    return 1", None),
        ("Use `f`, or ```x```.", None),
        ("", None),
    ],
)
def test_the_program_is_the_last_block_that_defines_what_is_tested_with_its_helpers(text, program):
    assert find_program(text, "def check(candidate):\n    assert candidate() == 1\n\ncheck(f)\n") == program


PROGRAMS = [make_problem(tests="assert f() == 1\n"), make_problem(tests="assert f(2) == 4\nassert f(3) == 9\n")]


def test_programs_are_run_against_their_own_tests():
    right, wrong = ["def f(x=1):\n    return x * x\n"] * 2, ["def f(x=2):\n    return x\n"] * 2
    plain = lambda problem: ""
    found = judge_programs(right, PROGRAMS, False, plain)
    assert found == [Judgement(program, "program", Verdict.CORRECT) for program in right]
    found = judge_programs([wrong[0], None], PROGRAMS, False, plain)
    assert [one.verdict for one in found] == [Verdict.WRONG, Verdict.UNPARSED]
    assert found[0].detail and found[1] == Judgement(None, None, Verdict.UNPARSED)
    [found] = judge_programs(
        ["def f():\n    return one()\n"], PROGRAMS[:1], False, lambda _: "def one():\n    return 1\n"
    )
    assert found.verdict is Verdict.CORRECT and "one()" in found.extracted
    future = "from __future__ import annotations\n\ndef f() -> Unknown:\n    return one\n"
    [found] = judge_programs([future], PROGRAMS[:1], False, lambda _: "one = 1\n")
    assert found.verdict is Verdict.CORRECT, found.detail


def test_without_a_sandbox_programs_are_refused_unless_the_user_accepts_it_by_name(monkeypatch):
    def missing():
        raise UserError("this kernel has no Landlock; set eval.unsafe_code=True")

    monkeypatch.setattr(judging, "require_sandbox", missing)
    with pytest.raises(UserError, match="1 of 2 problems of toy ask for a program .*id-1.* no Landlock.*unsafe_code"):
        refuse_unjudgeable([make_problem(), PROGRAMS[0]], "toy", unsafe=False)
    refuse_unjudgeable(PROGRAMS, "toy", unsafe=True)
    refuse_unjudgeable([make_problem()], "toy", unsafe=False)
    taken = []

    class Recorded(judging.Sandbox):
        def __init__(self, **settings):
            taken.append(settings)
            super().__init__(**settings)

    monkeypatch.setattr(judging, "Sandbox", Recorded)
    [found] = judge_programs(["f = lambda: 1"], PROGRAMS[:1], True, lambda _: "")
    assert found.verdict is Verdict.CORRECT and taken == [{"unsafe": True}]


def test_a_problem_with_tests_is_never_compared_as_text():
    with pytest.raises(AssertionError):
        judge(dataclasses.replace(PROGRAMS[0], answer="7"), "\\boxed{7}")
