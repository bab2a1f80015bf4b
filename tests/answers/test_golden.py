"""Run: pytest tests/answers/test_golden.py. The grader against golden.jsonl, judged by hand.

A line holds "found" (what is in the box) or "completion" (all that the model wrote), "gold", "verdict", and in "note"
why the case is there. Whoever changes the grader and a verdict with it changes VERSION too.
"""

import json
import re
from pathlib import Path

import pytest

from tiny_reasoning_jax.answers import Verdict, equal, find, grade

LINES = (Path(__file__).parent / "golden.jsonl").read_text(encoding="utf-8").splitlines()
CASES = [json.loads(line) for line in LINES]


def complete(case: dict) -> str:
    return case["completion"] if "completion" in case else f"<think>\nsteps\n</think>\n\n\\boxed{{{case['found']}}}"


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
def test_verdict_is_the_one_that_a_person_gave(case):
    assert grade(complete(case), case["gold"]) is Verdict(case["verdict"])


def test_the_table_is_large_and_says_why():
    assert len(CASES) >= 250
    assert len({(complete(case), case["gold"]) for case in CASES}) == len(CASES)
    assert {case["verdict"] for case in CASES} == set(Verdict)
    assert all(len(case["note"]) > 4 for case in CASES)


def test_boxed_cases_compare_alike_from_both_sides():
    """Apart from answers that are not worked out, which only a reference may be."""
    pairs = [(case["found"], case["gold"]) for case in CASES if "found" in case]
    one_way = [pair for pair in pairs if equal(*pair) != equal(*pair[::-1])]
    assert len(one_way) > 5
    for pair in one_way:
        assert sum(bool(re.fullmatch(r"-?\d+(/\d+)?", text)) for text in pair) == 1, pair


def test_weak_answers_are_told_apart():
    for case in CASES:
        found = find(complete(case))
        weak = case["note"].startswith("nothing says which")
        assert (found is not None and found.how == "last number") == weak, case
