"""What becomes of a completion: its final answer or program, and whether that is right.

Who judges follows from the problem: its tests are run (sandbox), reasoning-gym and families with several right answers
have verifiers of their own, everything else is compared by the one grader (answers). Refused: to run what a model
wrote outside the sandbox, unless the user has accepted that by name.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tiny_reasoning_jax import answers
from tiny_reasoning_jax.answers import Verdict
from tiny_reasoning_jax.data import gym
from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.data.procedural import families
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval.sandbox import Sandbox, require_sandbox

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_DEFINES = re.compile(r"^(?:async def|def|class) +(\w+)|^(\w+) *=(?!=)", re.MULTILINE)
_FUTURE = re.compile(r"^from __future__ import .*\n?", re.MULTILINE)


class Judgement(NamedTuple):
    """What a completion comes to.

    Attributes:
      extracted: its final answer, or its program; None if there is none.
      how: where that was found: `answers.Found.how`, "program", or "task" (judged by a verifier of the task's own).
      verdict: what becomes of it.
      detail: why a program failed; "" otherwise.
    """

    extracted: str | None
    how: str | None
    verdict: Verdict
    detail: str = ""


def judge(problem: Problem, text: str) -> Judgement:
    """Judges a completion by its final answer; not for problems with tests.

    Raises:
      UserError: the verifier of reasoning-gym cannot be asked.
    """
    assert not problem.tests, problem.id
    if problem.source.startswith("gym:") or problem.source in families.ACCEPTS:
        extracted = answers.extract(text)
        if extracted is None:
            return Judgement(None, None, Verdict.UNPARSED)
        if problem.source in families.ACCEPTS:
            right = families.check(dataclasses.replace(problem, answer=extracted))
        else:
            right = gym.score(problem, extracted)
        return Judgement(extracted, "task", Verdict.CORRECT if right else Verdict.WRONG)
    found = answers.find(text)
    if found is None:
        return Judgement(None, None, Verdict.UNPARSED)
    return Judgement(found.text, found.how, answers.grade(text, problem.answer))


def judge_programs(
    programs: Sequence[str | None], problems: Sequence[Problem], unsafe: bool, preamble: Callable[[Problem], str]
) -> list[Judgement]:
    """Runs the tests of problems on the program that was found in each completion, None where there is none.

    Args:
      programs: one for each problem.
      problems: with tests.
      unsafe: run them without the kernel's protection.
      preamble: the Python that stands before a problem's program.
    """
    jobs = [
        (_put_before(preamble(problem), program), problem.tests)
        for problem, program in zip(problems, programs, strict=True)
        if program is not None
    ]
    with Sandbox(unsafe=unsafe) as sandbox:
        outcomes = iter(sandbox.judge_all(jobs))
    judgements = []
    for program in programs:
        if program is None:
            judgements.append(Judgement(None, None, Verdict.UNPARSED))
            continue
        passed, detail = next(outcomes)
        judgements.append(Judgement(program, "program", Verdict.CORRECT if passed else Verdict.WRONG, detail))
    return judgements


def _put_before(preamble: str, program: str) -> str:
    """Imports from __future__ must come first of all."""
    return "".join(_FUTURE.findall(program)) + preamble + _FUTURE.sub("", program) if preamble else program


def find_program(text: str, tests: str) -> str | None:
    """Returns the program in a chat completion: the last fenced block that defines what the tests use, else the last.

    Before it stand the helpers of earlier blocks, but not earlier attempts; examples and tests of the model's own are
    left out. Only what follows the last </think> counts, nothing while a <think> is open. A block that was begun and
    not ended counts as far as it goes: what was cut off will fail its tests.
    """
    if is_unclosed(text):
        return None
    blocks = _FENCE.findall(text.rpartition("</think>")[2])
    asked = set(re.findall(r"\w+", tests)) - _find_defined(tests)
    answering = [index for index, block in enumerate(blocks) if asked & _find_defined(block)]
    if not answering:
        return blocks[-1] if blocks else None
    helpers = (block for block in blocks[: answering[-1]] if _find_defined(block) and not asked & _find_defined(block))
    return "".join(helpers) + blocks[answering[-1]]


def _find_defined(program: str) -> set[str]:
    """The names that functions, classes and assignments at the margin define."""
    return {name for names in _DEFINES.findall(program) for name in names if name}


def is_unclosed(text: str) -> bool:
    """Whether a <think> is still open at the end."""
    return "<think>" in text.rpartition("</think>")[2]


def refuse_unjudgeable(problems: Sequence[Problem], task: str, unsafe: bool) -> None:
    """Raises UserError, before hours of generation, where an answer to these problems could not be judged here."""
    programs = [problem.id for problem in problems if problem.tests]
    if programs and not unsafe:
        try:
            require_sandbox()
        except UserError as error:
            raise UserError(
                f"{len(programs):,} of {len(problems):,} problems of {task} ask for a program (the first is "
                f"{programs[0]}), and judging it means running what a model wrote: {error}"
            ) from error
    for problem in problems:
        if problem.source.startswith("gym:"):
            gym.score(problem, problem.answer)
