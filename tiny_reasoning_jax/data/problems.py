"""The one record type of the program: a graded problem with its worked reasoning; and a record that is none."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import orjson

CATEGORIES = ("arithmetic", "algebra", "geometry", "probability", "logic", "code")
DIFFICULTIES = (1, 2, 3, 4, 5)


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One graded problem.

    Attributes:
      id: unique in its source and stable between runs; without white space.
      category: one of CATEGORIES for procedural problems; a source's own word otherwise.
      difficulty: 1 (easiest) to 5; 0 where the source has no level, until the data stage grades it.
      prompt: what the user asks.
      reasoning: the worked steps that go between <think> and </think>; "" where the source has none: such a problem
        can be asked, but not be learned from.
      answer: the final answer. Text that holds a \\boxed{...} or a fenced code block is shown as it is, anything else
        inside \\boxed{}.
      source: the procedural family, or the file or hub id that the record came from.
      tests: of a code problem, the Python statements that a right program passes; "" elsewhere.
    """

    id: str
    category: str
    difficulty: int
    prompt: str
    reasoning: str
    answer: str
    source: str
    tests: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Dropped:
    """A record that is not used, and why.

    Attributes:
      id: as in Problem.
      reason: one of a handful of phrases, counted in the summary.
      of: id of the record that it repeats or gives away; "" if the reason names no other.
      detail: what in particular, for a person who looks it up; "" if the reason says all.
    """

    id: str
    reason: str
    of: str = ""
    detail: str = ""


def dump_problem(problem: Problem) -> bytes:
    """Returns the line that `stream_problems` reads."""
    return orjson.dumps(problem, option=orjson.OPT_APPEND_NEWLINE)


def parse_problem(line: bytes) -> Problem:
    """Reads a line that `dump_problem` wrote."""
    return Problem(**orjson.loads(line))


def stream_problems(path: Path) -> Iterator[Problem]:
    """Reads a file of our own making: one `Problem` a line, all fields by name."""
    with path.open("rb") as lines:
        yield from map(parse_problem, lines)
