"""Does a worked reasoning arrive at the answer that stands behind it?

A record whose reasoning ends elsewhere teaches that reasoning does not matter. The test is one of occurrence, made to
be wrong about hardly any good record: every number of the final answer occurs in the reasoning, written in whatever
way; of an answer without numbers, every word does. Or the reasoning itself states that answer, by the grader's rules.
It cannot see a number that occurs but is not the result; what it drops, it drops with reason.
"""

import re
from fractions import Fraction

from tiny_reasoning_jax import answers

_NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+")
_SPLIT_NUMBER = re.compile(r"(?<=\d)(?:\{,\}|\\,|\\!|,\\!)(?=\d{3})")  # 1{,}600 and 1,\!600 in LaTeX
_SPACED_NUMBER = re.compile(r"(?<=\d)[ \u00a0\u202f](?=\d{3}(?!\d))")  # 100 000
_DIVISION = re.compile(r"(\d{1,20})\s?/\s?(\d{1,20})|\\[dt]?frac\{(\d{1,20})\}\{(\d{1,20})\}")
_PERCENT = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)\s?\\?%")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]+")
_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
_NAMED = {name: str(number) for number, name in enumerate(_NAMES)} | {"half": "2", "once": "1", "twice": "2"}
_JUDGEMENTS = frozenset({"yes", "no", "true", "false"})  # a reasoning arrives at them in other words


def arrives(reasoning: str, answer: str) -> bool:
    """Returns whether a final answer occurs in the reasoning; True for code, of which a reasoning shows no copy.

    Args:
      reasoning: the worked steps; not empty.
      answer: the final answer, or text that holds it in a \\boxed{...} or is fenced code.
    """
    if "```" in answer or _occurs(answer, reasoning):
        return True
    final = answers.extract(answer) if "\\boxed{" in answer else answer
    if not final or _occurs(final, reasoning):
        return bool(final)
    wanted = _numbers(final)
    if not wanted:
        text = reasoning.lower()
        words = set(_WORD.findall(_COMMAND.sub(" ", final.lower())))
        if words <= _JUDGEMENTS or all(word in text for word in words):
            return True
    elif wanted <= _numbers(reasoning) or wanted <= _all_numbers(reasoning):
        return True
    return answers.grade(reasoning, answer) is answers.Verdict.CORRECT


def _occurs(answer: str, reasoning: str) -> bool:
    """A quick yes for most records: the answer as it is written, not as part of a longer number."""
    at = reasoning.rfind(answer)
    if at < 0:
        return False
    before, after = reasoning[max(at - 1, 0) : at], reasoning[at + len(answer) :][:2]
    return not (before.isdigit() or before in (".", ",")) and not after.lstrip(".,")[:1].isdigit()


def _numbers(text: str) -> set[str]:
    return {_canonical(number) for number in _NUMBER.findall(_SPLIT_NUMBER.sub("", text))}


def _canonical(number: str) -> str:
    """Writes 1,600.50 as 1600.5, 007 as 7 and .5 as 0.5."""
    whole, _, part = number.replace(",", "").partition(".")
    part = part.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{part}" if part else "")


def _all_numbers(reasoning: str) -> set[str]:
    """The numbers of a text, and what they are in words, as cents or percentages, and as fractions."""
    found = _numbers(reasoning) | _numbers(_SPACED_NUMBER.sub("", reasoning))
    found |= {_NAMED[word] for word in _NAMED.keys() & set(_WORD.findall(reasoning.lower()))}
    for number in [number for number in found if "." in number and len(number) < 20]:
        value = Fraction(number)
        found |= {_write(value * 100), str(value.numerator), str(value.denominator)}  # $0.25 is 25 cents and 1/4
    for top, bottom, frac_top, frac_bottom in set(_DIVISION.findall(reasoning)):
        if int(bottom or frac_bottom):
            found.add(_write(Fraction(int(top or frac_top), int(bottom or frac_bottom))))
    found |= {_write(Fraction(number) / 100) for number in set(_PERCENT.findall(reasoning))}
    return found


def _write(value: Fraction) -> str:
    return _canonical(f"{float(value):.12f}")
