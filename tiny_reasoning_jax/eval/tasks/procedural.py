"""Problems that the program makes itself, of the split that training never sees: evenly over families and difficulties.

A base model is shown one worked problem of each difficulty, from the training split.
"""

import functools

from tiny_reasoning_jax.data import chat
from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.data.procedural.families import problems_of
from tiny_reasoning_jax.eval.tasks.task import Task

SHOTS = (("sums", 1), ("linear", 2), ("liars", 3), ("dice", 4), ("loop", 5))  # family, difficulty


@functools.cache
def _show() -> str:
    shots = [next(problems_of("train", family, difficulty, seed=0)) for family, difficulty in SHOTS]
    return "".join(
        f"Problem:\n{shot.prompt.strip()}\n\nSolution:\n{shot.reasoning.strip()}\n{chat.show_answer(shot.answer)}\n\n\n"
        for shot in shots
    )


def few_shot(problem: Problem) -> str:
    """The examples and the problem."""
    return f"{_show()}Problem:\n{problem.prompt}\n\nSolution:\n"


TASK = Task("procedural", "procedural", few_shot=few_shot, stops=("\nProblem:",))
