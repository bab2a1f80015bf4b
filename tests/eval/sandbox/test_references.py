"""Run: pytest tests/eval/sandbox/test_references.py. Reference solutions pass, wrong ones do not."""

from pathlib import Path

import pytest
from mutants import SOURCES, draw_mutants, judge_plainly, read_references, return_nothing_anywhere

from tiny_reasoning_jax.eval.sandbox import Outcome, Sandbox


@pytest.fixture(scope="module")
def references():
    if not Path(SOURCES[0]).exists():
        pytest.skip("no shared data beside this checkout")
    return read_references()


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(seconds=60) as sandbox:  # what is asked is whether they are right, not how fast the machine is
        yield sandbox


def test_every_reference_solution_passes(references, sandbox):
    assert len(references) == 164 + 974
    outcomes = sandbox.judge_all(references)
    assert [job for job, outcome in zip(references, outcomes, strict=True) if outcome != Outcome(True, "")] == []


def test_a_program_that_returns_nothing_passes_nowhere(references, sandbox):
    jobs = [(return_nothing_anywhere(program), tests) for program, tests in references[::5]]
    assert [job for job, outcome in zip(jobs, sandbox.judge_all(jobs), strict=True) if outcome.passed] == []


def test_wrong_programs_fail_and_plain_python_agrees(references):
    """What passes here though it was made wrong is no worse: its tests are too weak, or the change changes nothing."""
    mutants = [(program, tests) for _, program, tests in draw_mutants(references[::12], 1)]
    with Sandbox(seconds=1) as sandbox:
        passed = [outcome.passed for outcome in sandbox.judge_all(mutants)]
    assert passed == judge_plainly(mutants)
    assert sum(passed) < 0.15 * len(mutants)
