"""MBPP, short Python tasks with tests: 500 problems, ids 11 to 510, as its authors split it. No levels.

A base model is shown three solved tasks between [BEGIN] and [DONE], the authors' layout (Austin et al. 2021, arXiv
2108.07732); the examples are our own.
"""

from tiny_reasoning_jax.data.formats import parse_record
from tiny_reasoning_jax.data.problems import Dropped, Problem
from tiny_reasoning_jax.eval.tasks.task import Task

TEST_IDS = range(11, 511)  # the file of all 974 holds few-shot examples, validation and training problems as well
# What stands between task and tests is what data/formats.py puts there.
SHOTS = (
    (
        "Write a function to count the words of a sentence that are longer than k letters.\n\nYour code should pass "
        'these tests:\n\nassert count_longer("we saw three ships", 3) == 2\nassert count_longer("a bb ccc", 3) == 0\n'
        'assert count_longer("", 1) == 0',
        "def count_longer(sentence, k):\n    return sum(len(word) > k for word in sentence.split())",
    ),
    (
        "Write a function to move every zero of a list to its end and keep the order of the others.\n\nYour code "
        "should pass these tests:\n\nassert zeros_last([0, 4, 0, 1]) == [4, 1, 0, 0]\nassert zeros_last([7, 8]) == "
        "[7, 8]\nassert zeros_last([0]) == [0]",
        "def zeros_last(items):\n    others = [item for item in items if item != 0]\n"
        "    return others + [0] * (len(items) - len(others))",
    ),
    (
        "Write a function to find the day on which a rising water level first passes a mark, counted from 1, or -1 if "
        "it never does.\n\nYour code should pass these tests:\n\nassert first_above([2, 3, 7, 9], 5) == 3\nassert "
        "first_above([1, 1], 4) == -1\nassert first_above([6], 5) == 1",
        "def first_above(levels, mark):\n    for day, level in enumerate(levels, start=1):\n"
        "        if level > mark:\n            return day\n    return -1",
    ),
)


def _ask(prompt: str) -> str:
    return f"You are an expert Python programmer, and here is your task: {prompt}\n[BEGIN]\n"


_SHOWN = "".join(f"{_ask(prompt)}{code}\n[DONE]\n\n" for prompt, code in SHOTS)


def parse(record: object, record_id: str, source: str, format: str) -> Problem | Dropped | None:
    """A record of the test split; None for one of the others."""
    task_id = record.get("task_id") if isinstance(record, dict) else None
    if isinstance(task_id, int) and task_id not in TEST_IDS:
        return None
    return parse_record(record, record_id, source, format)


def few_shot(problem: Problem) -> str:
    """The three examples and the task with its tests."""
    return _SHOWN + _ask(problem.prompt)


TASK = Task("mbpp", "google-research-datasets/mbpp:full:test", parse, few_shot, ("[DONE]",))
