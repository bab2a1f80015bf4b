"""HumanEval, 164 Python functions to complete. No levels.

A base model continues the bare head of the function, without examples, up to the next statement at the margin (Chen et
al. 2021, arXiv 2107.03374). As chat it is asked for the whole function; as some write only that, it is run below the
head, whose imports and helpers it may use.
"""

from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.eval.tasks.task import Task


def find_head(problem: Problem) -> str:
    """The function's head as the data set has it, docstring included: what data/formats.py puts into a fence."""
    return problem.prompt.partition("```python\n")[2].removesuffix("```")


TASK = Task(
    "humaneval",
    "openai/openai_humaneval::test",
    few_shot=find_head,
    stops=("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(", "\n```"),
    preamble=find_head,
)
