"""Five difficulties from what is there: a level, a measured pass rate, or the length of the worked reasoning.

Every rule is a pure function that also says itself in words, for the summary. Nothing is guessed: a problem that has
neither level nor reasoning is in the middle, and the summary says so.
"""

import json
from pathlib import Path

import numpy as np

from tiny_reasoning_jax.data.problems import DIFFICULTIES
from tiny_reasoning_jax.errors import UserError

MIDDLE = 3  # of a problem that nothing is known of
PASS_RATE_RULE = "measured pass rate: above 80 % is 1, above 60 % is 2, above 40 % is 3, above 20 % is 4, else 5"


def from_pass_rate(correct: int, samples: int) -> int:
    """Returns the difficulty, 1 to 5, of a problem that a model solved in `correct` of `samples` attempts."""
    assert 0 <= correct <= samples and samples > 0, (correct, samples)
    return 1 + sum(correct * 5 <= samples * band for band in (4, 3, 2, 1))


def load_grades(path: Path) -> dict[str, int]:
    """Reads grades.jsonl, as the grade stage writes it: the difficulty of every problem by id.

    Raises:
      UserError: the file is missing or damaged, with the line; or it holds nothing.
    """
    if not path.is_file():
        raise UserError(
            f"data.grades={str(path)!r} is no file; give the grades.jsonl that --config.stages=data,grade left in its "
            'workdir, or --config.data.difficulty=source with data.grades="none"'
        )
    levels: dict[str, int] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                grade = json.loads(line)
                levels[grade["id"]] = from_pass_rate(grade["correct"], grade["samples"])
            except (ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
                raise UserError(
                    f"data.grades={str(path)!r}, line {number}: {line[:80].decode(errors='replace')!r} is no grade "
                    '{"id", "correct", "samples"}; delete that line, or run the grade stage again'
                ) from error
    if not levels:
        raise UserError(f"data.grades={str(path)!r} holds no grade; run the grade stage again")
    return levels


def length_bounds(lengths: np.ndarray) -> list[int]:
    """Returns the four lengths, in tokens, that cut `lengths` [n] into fifths; a length equal to one is below it."""
    return np.quantile(lengths, (0.2, 0.4, 0.6, 0.8), method="inverted_cdf").astype(int).tolist()


def from_length(lengths: np.ndarray, bounds: list[int]) -> np.ndarray:
    """Returns int8 [n], the difficulty of reasonings of these lengths, in tokens."""
    return (np.searchsorted(bounds, lengths, side="left") + DIFFICULTIES[0]).astype(np.int8)


def describe_bounds(bounds: list[int]) -> str:
    """Says the rule of `from_length` in words."""
    marks = ", ".join(f"up to {bound:,} is {level}" for level, bound in zip(DIFFICULTIES, bounds, strict=False))
    return f"tokens of reasoning and answer, in fifths of the training problems: {marks}, more is 5"
