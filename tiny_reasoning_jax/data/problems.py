"""The one record type of the program: a graded problem with its worked reasoning."""

import dataclasses

CATEGORIES = ("arithmetic", "algebra", "geometry", "probability", "logic", "code")
DIFFICULTIES = (1, 2, 3, 4, 5)


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """One graded problem.

    Attributes:
      id: unique in its source and stable between runs.
      category: one of CATEGORIES for procedural problems; a source's own word otherwise.
      difficulty: 1 (easiest) to 5.
      prompt: what the user asks.
      reasoning: the worked steps that go between <think> and </think>.
      answer: the final answer. Text that holds a \\boxed{...} is shown as it is, anything else inside \\boxed{}.
      source: the procedural family, or the file that the record came from.
    """

    id: str
    category: str
    difficulty: int
    prompt: str
    reasoning: str
    answer: str
    source: str
