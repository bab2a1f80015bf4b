"""Finds the final answer in a completion.

Only what follows the last </think> counts, and nothing counts while a <think> is open: an answer that the model was
still trying out is not its answer. A text without either tag is taken whole.
"""

import re
from typing import NamedTuple

_END_OF_TURN = re.compile(r"<\|(?:im_end|endoftext)\|>")
_BOX_OR_BRACE = re.compile(r"\\{1,3}f?box(?:ed)?\s{0,4}\{|\\[\\{}]|[{}]")
_ANSWER_IS = re.compile(r"\banswer[*_]{0,2}\s{0,4}(?:is\b|:|=)[*_]{0,2}(?:[\s:]|\\\[|\$\$){0,8}", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?=\s|$)|\n")
_ENDS = r"(?![\w^])|(?=(?:[kcm]?m|k?g|m?l|lbs?|oz|ft|in|mph|[ap]m|st|nd|rd|th|h|hrs?|s|min)\b)"  # 12m, 6th, but not 3x
_NUMBER = re.compile(
    rf"(?<![\w.])(?:-\s?)?[$£€]?(?:\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d+)(?:\.\d+)?(?:(?:/\d+|%)(?!\w)|{_ENDS})"
    r"|-?\\[dt]?frac\s?(?:\{\s?-?\d+\s?\}|\d)\s?(?:\{\s?-?\d+\s?\}|\d)",
    re.ASCII,
)


class Found(NamedTuple):
    """A final answer as the completion wrote it, and by what it was told from the rest."""

    text: str
    how: str  # "boxed", "hashes", "answer is", or "last number", which is weak: nothing says that it is the answer


def find(completion: str) -> Found | None:
    """Returns the final answer of a completion, None where there is none.

    In this order: the last balanced \\boxed{...}, the line after the last `####`, what follows the last "answer is"
    or "answer:" in its sentence, the last number. The last is weak: it is only taken where nothing says more, and not
    where a box is empty or was never closed, and whoever counts it must say so.
    """
    text = _after_thinking(completion)
    found = _find_marked(text)
    if found is not None or "\\boxed" in text:
        return found
    last = _last_number(text)
    return None if last is None else Found(last, "last number")


def extract(completion: str) -> str | None:
    """Returns the answer that the completion marks as final, without guessing: the last number does not count."""
    found = _find_marked(_after_thinking(completion))
    return None if found is None else found.text


def _after_thinking(completion: str) -> str:
    text = _END_OF_TURN.split(completion, maxsplit=1)[0].rpartition("</think>")[2]
    return "" if "<think>" in text else text


def _find_marked(text: str) -> Found | None:
    for how, look in (("boxed", last_boxed), ("hashes", _after_hashes), ("answer is", _after_answer_is)):
        found = look(text)
        if found is not None:
            return Found(found.strip(), how) if found.strip() else None
    return None


def last_boxed(text: str) -> str | None:
    """Returns the content of the balanced \\boxed{...} that closes last: one pass, a stack of open braces."""
    span, open_braces = None, []
    for match in _BOX_OR_BRACE.finditer(text):
        token = match.group()
        if token == "}":
            start = open_braces.pop() if open_braces else None
            if start is not None:
                span = start, match.start()
        elif token == "{":
            open_braces.append(None)
        elif "box" in token:
            open_braces.append(match.end())
    return None if span is None else text[slice(*span)]


def _after_hashes(text: str) -> str | None:
    _, hashes, tail = text.rpartition("####")
    return tail.strip().partition("\n")[0] if hashes else None


def _after_answer_is(text: str) -> str | None:
    end = None
    for match in _ANSWER_IS.finditer(text):
        end = match.end()
    return None if end is None else _SENTENCE_END.split(text[end:], maxsplit=1)[0]


def _last_number(text: str) -> str | None:
    last = None
    for match in _NUMBER.finditer(text):
        last = match
    return None if last is None else last.group()
