"""Answers that are words: free text, choices, yes and no, times of day and dates, each in one spelling."""

import re

from tiny_reasoning_jax.answers.latex import squeeze

_MAX_PEELED = 4
_MONTHS = "january february march april may june july august september october november december".split()
_MONTH = rf"(?P<month>{'|'.join(_MONTHS)}|{'|'.join(month[:3] for month in _MONTHS)}|sept)\.?"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_MONTH_FIRST = re.compile(rf"{_MONTH} {_DAY}(?:[, ] ?(?P<year>\d{{4}}))?", re.ASCII)
_DAY_FIRST = re.compile(rf"(?:the )?{_DAY} (?:of )?{_MONTH}(?:[, ] ?(?P<year>\d{{4}}))?", re.ASCII)
_ISO_DATE = re.compile(r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})", re.ASCII)
_TIME = re.compile(r"(\d{1,2})(?::([0-5]\d))?(?::([0-5]\d))? ?(?:([ap])\.? ?m\.?)?", re.ASCII)
_ONE_IN_BRACES = re.compile(r"([_^])\{([\w.]+)\}")
_CHOICE = re.compile(
    r"(?:(?:[Oo]ption|[Cc]hoice) )?\(?([A-Z])\)?(?P<rest>(?:(?<=\))|[.:)])\s?[^-+*/^=()\s].*)?", re.DOTALL
)
_YES_NO = re.compile(r"(yes|no)(?P<rest>\s?[,.;:!-]\s?.+)?", re.DOTALL | re.IGNORECASE)


def spell(text: str) -> str:
    """Returns clean text in lower case, without punctuation around it or spaces that mean nothing; "" if none is left.

    Dates are written as -03-05 or 2020-03-05, times of day as 16:30.
    """
    text = _ONE_IN_BRACES.sub(r"\1\2", squeeze(text.lower()).replace('"', "'"))
    for _ in range(_MAX_PEELED):
        before = text
        text = text.strip("'`*? ").rstrip(".,;:")
        if text.endswith("!") and text[-2:-1].isalpha():  # 5! is a factorial, Yes! is not
            text = text[:-1]
        if text == before:
            break
    return _spell_moment(text) or text


def _spell_moment(text: str) -> str:
    if match := _TIME.fullmatch(text):
        hour, minute, second, half = match.groups()
        if half and 1 <= int(hour) <= 12:
            hour = int(hour) % 12 + 12 * (half == "p")
        elif half or minute is None or int(hour) > 24:
            return ""
        return f"{int(hour):02}:{minute or '00'}" + (f":{second}" if second else "")
    match = _MONTH_FIRST.fullmatch(text) or _DAY_FIRST.fullmatch(text) or _ISO_DATE.fullmatch(text)
    if not match:
        return ""
    year, month, day = match["year"], match["month"], match["day"]
    number = int(month) if month.isdigit() else next(i for i, name in enumerate(_MONTHS, 1) if name[:3] == month[:3])
    return f"{year or ''}-{number:02}-{int(day):02}"


def same_choice(found: str, gold: str) -> bool:
    """Whether one clean text is a letter or yes or no, and the other the same, perhaps explained: "(B) 42", "B: 42"."""
    for pattern in (_CHOICE, _YES_NO):
        one, other = pattern.fullmatch(found), pattern.fullmatch(gold)
        if one and other and not (one["rest"] and other["rest"]) and one[1].lower() == other[1].lower():
            return True
    return False
