"""MATH, competition problems (5,000, or MATH-500): a category is a subject, a difficulty its level, 1 to 5.

A base model is shown four worked problems, as many as in Minerva's protocol (Lewkowycz et al. 2022, arXiv 2206.14858);
the examples are our own, and box their answers as the data set's solutions do.
"""

import dataclasses

from tiny_reasoning_jax.data.formats import parse_record
from tiny_reasoning_jax.data.problems import Dropped, Problem
from tiny_reasoning_jax.eval.tasks.task import Task

SHOTS = (
    (
        r"Find all real $t$ with $|3t-2| = 2t+5$.",
        r"If $3t-2\ge 0$, the equation reads $3t-2=2t+5$, so $t=7$, and indeed $3\cdot 7-2\ge 0$. Otherwise it reads "
        r"$2-3t=2t+5$, so $5t=-3$ and $t=-\frac{3}{5}$, where $3t-2<0$ holds. The solutions are "
        r"$\boxed{-\frac{3}{5},7}$.",
    ),
    (
        r"A right circular cone has base radius $5$ and slant height $13$. What is its volume, in terms of $\pi$?",
        r"Height, radius and slant height form a right triangle, so the height is $\sqrt{13^2-5^2}=12$. The volume is "
        r"$\frac{1}{3}\pi\cdot 5^2\cdot 12=\boxed{100\pi}$.",
    ),
    (
        r"In how many ways can four different books be shared out to Ann and Bob so that each gets at least one?",
        r"Each of the four books goes to one of two people, in $2^4=16$ ways. In two of them one person gets all of "
        r"the books, so $16-2=\boxed{14}$ ways remain.",
    ),
    (
        r"What is the remainder when $7^{50}$ is divided by $100$?",
        r"We have $7^2=49$ and $7^4=49^2=2401\equiv 1\pmod{100}$. As $50=4\cdot 12+2$, it follows that "
        r"$7^{50}\equiv 7^2=49\pmod{100}$, so the remainder is $\boxed{49}$.",
    ),
)
_SHOWN = "".join(f"Problem:\n{problem}\n\nSolution:\n{solution}\n\n\n" for problem, solution in SHOTS)


def parse(record: object, record_id: str, source: str, format: str) -> Problem | Dropped:
    """A record as everywhere, under its own subject: training data puts several subjects into one category."""
    problem = parse_record(record, record_id, source, format)
    if isinstance(problem, Dropped):
        return problem
    subject = next((record[field] for field in ("type", "subject") if isinstance(record.get(field), str)), "other")
    return dataclasses.replace(problem, category=subject.strip().lower())


def few_shot(problem: Problem) -> str:
    """The four examples and the problem."""
    return f"{_SHOWN}Problem:\n{problem.prompt}\n\nSolution:\n"


TASK = Task("math", "HuggingFaceH4/MATH-500::test", parse, few_shot, ("\nProblem:",))
