"""The one grader of the program: finds the final answer in a completion and compares it with the reference.

"Could not find an answer" (UNPARSED) is kept apart from "found a different one" (WRONG): the first is a matter of form,
the second of reasoning. No input makes it raise, so that it can grade whatever a model writes.
"""

import enum

from tiny_reasoning_jax.answers.compare import MAX_ANSWER_CHARS, equal
from tiny_reasoning_jax.answers.find import Found, extract, find, last_boxed

__all__ = ["MAX_ANSWER_CHARS", "VERSION", "Found", "Verdict", "equal", "extract", "find", "grade"]

VERSION = "2"  # noted with every verdict; another one may judge differently


class Verdict(enum.StrEnum):
    """What became of one completion."""

    CORRECT = "correct"
    WRONG = "wrong"
    UNPARSED = "unparsed"


def grade(completion: str, answer: str) -> Verdict:
    """Compares the final answer of a completion with the reference answer.

    A weak answer (see `find`) counts.

    Args:
      completion: the text generated after the generation prompt, with its <think> block if it has one.
      answer: the reference. If it contains a \\boxed{...}, the content of the last one is the reference.
    """
    found = find(completion)
    if found is None:
        return Verdict.UNPARSED
    boxed = last_boxed(answer)
    return Verdict.CORRECT if equal(found.text, answer if boxed is None else boxed) else Verdict.WRONG
