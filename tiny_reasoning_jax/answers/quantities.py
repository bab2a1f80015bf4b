"""Numbers as people write them, with their units: "-$1,234.50", "3 1/2 inches", "50 %", "90 degree"."""

import re
from fractions import Fraction
from functools import lru_cache

MAX_NUMBER_CHARS = 200  # longer ones stay text

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d*)?|\d{1,3}(?: \d{3})+(?![ ,]?\d)(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<signs>[-+]?\s?[$£€]?\s?[-+]?)\s?"
    rf"(?:(?P<whole>\d+)\s(?P<top>\d+)/(?P<bottom>\d+)|(?P<num>{_PLAIN})(?:\s?/\s?(?P<den>-?{_PLAIN}))?)"
    rf"(?P<unit>(?![\d.,/]).*)?",
    re.ASCII,
)
_FRACTION = re.compile(r"\\frac\s?(?:\{([^{}]*)\}|(\d))\s?(?:\{([^{}]*)\}|(\d))", re.ASCII)
_SIGNED = re.compile(rf"\s*-?\s?{_PLAIN}\s*", re.ASCII)
_SEPARATORS = re.compile(r"[ ,]")
_CURRENCY = {"$": "dollar", "£": "pound", "€": "euro"}
# Short units that are accepted as words, and the spellings that mean the same.
_UNITS = {
    "m": "meter", "cm": "centimeter", "mm": "millimeter", "km": "kilometer", "in": "inch", "inche": "inch",
    "ft": "foot", "feet": "foot", "yd": "yard", "mi": "mile", "g": "gram", "gm": "gram", "kg": "kilogram",
    "mg": "milligram", "lb": "pound", "oz": "ounce", "l": "liter", "ml": "milliliter", "s": "second",
    "sec": "second", "min": "minute", "h": "hour", "hr": "hour", "sq": "square", "deg": "degree",
    "usd": "dollar", "metre": "meter", "centimetre": "centimeter", "kilometre": "kilometer",
    "millimetre": "millimeter", "litre": "liter", "of": "of", "per": "per", "cent": "cent", "cubic": "cubic",
    "day": "day", "week": "week", "month": "month", "year": "year", "unit": "unit",
}  # fmt: skip
_UNIT_NAMES = frozenset(_UNITS) | frozenset(_UNITS.values())
_SHORTHANDS = {"mph": "miles per hour", "kph": "km per hour", "kmh": "km per hour"}
# Words after a number that change its value: with one of them the text is not number + unit.
_NOT_UNITS = frozenset(
    "hundred thousand million billion trillion dozen half halves third quarter score pair squared cubed factorial "
    "times plus minus mod divided and not sqrt sin cos tan log exp remainder pi theta alpha beta phi choose".split()
)
_UNIT_WORD = re.compile(r"([a-z]{1,20})\.?(?:\^\{?([23])\}?)?")

Quantity = tuple[Fraction, str]


@lru_cache(maxsize=4096)
def read_quantity(text: str) -> Quantity | None:
    """Reads clean text as (value, unit), "" for no unit; None where it is anything else than a number with its unit."""
    if "\\frac" in text:
        text = " ".join(_FRACTION.sub(_write_fraction, text).split())
    match = _NUMBER.fullmatch(text) if len(text) <= MAX_NUMBER_CHARS else None
    if match is None:
        return None
    unit = read_unit(match["unit"] or "")
    if unit is None:
        return None
    currency = next((name for sign, name in _CURRENCY.items() if sign in match["signs"]), "")
    if currency and not unit.startswith(currency):
        unit = f"{currency} {unit}".strip()
    num, den = match["num"], match["den"]
    value = Fraction(int(match["whole"])) if num is None else _to_fraction(num)
    top, bottom = (match["top"], match["bottom"]) if num is None else ("0", "1")
    divisor = _to_fraction(den) if den else Fraction(1)
    if int(bottom) == 0 or divisor == 0:
        return None
    sign = -1 if match["signs"].count("-") == 1 else 1
    return sign * (value / divisor + Fraction(int(top), int(bottom))), unit


def _to_fraction(plain: str) -> Fraction:
    return Fraction(_SEPARATORS.sub("", plain).removesuffix("."))


def _write_fraction(match: re.Match) -> str:
    top, bottom = match[1] or match[2] or "", match[3] or match[4] or ""
    if _SIGNED.fullmatch(top) and _SIGNED.fullmatch(bottom):
        negative = ("-" in top) != ("-" in bottom)
        return f" {'-' * negative}{top.strip(' -')}/{bottom.strip(' -')}"
    return match.group()


def read_unit(raw: str) -> str | None:
    """Returns the unit in one spelling, "" for none, or None if what follows the number is not a unit.

    Args:
      raw: all that follows the number. A letter alone is only a unit after a space: 5m may be algebra.
    """
    text = raw.strip().lower()
    if text in ("", "%", "percent", "$"):
        return {"percent": "%", "$": "dollar"}.get(text, text)
    words = text.replace("/", " per ").replace("-", " ").split()
    if not 1 <= len(words) <= 6 or words[0] == "of" or text[0] in "/-" and raw[0] == " ":
        return None
    words = " ".join(_SHORTHANDS.get(word, word) for word in words).split()
    parts = []
    for word in words:
        match = _UNIT_WORD.fullmatch(word)
        if match is None or match[1] in _NOT_UNITS:
            return None
        name = match[1]
        singular = name[:-1] if len(name) > 2 and name.endswith("s") and not name.endswith("ss") else name
        # "5xyz" and "5m" may be algebra: glued to the number, only known units of two letters and more count.
        glued = not parts and raw[0] != " "
        if singular not in _UNIT_NAMES and (glued or len(name) < 3) or glued and len(name) == 1:
            return None
        parts += [*{"2": ["square"], "3": ["cubic"]}.get(match[2], []), _UNITS.get(singular, singular)]
    return " ".join(parts)


def same_units(found: str, gold: str) -> bool:
    """Whether two units do not contradict each other: a missing one is allowed, a different one is not.

    Things that are counted may be described at length: "children tickets" are "tickets". Measures may not: a square
    meter is not a meter.
    """
    if not found or not gold or found == gold:
        return True
    one, other = set(found.split()), set(gold.split())
    measured = (one | other) & _UNIT_NAMES or "%" in one | other
    return not measured and (one <= other or other <= one)


def same_quantity(found: Quantity, gold: Quantity) -> bool:
    """Equal values whose units do not contradict each other; nothing is converted."""
    (found_value, found_unit), (gold_value, gold_unit) = found, gold
    if not same_units(found_unit, gold_unit):
        return False
    if found_value == gold_value:
        return True
    # 50 % is 0.5, and "what percent" is often answered by a bare 50 (equal above): both readings count.
    scale = {("%", ""): Fraction(1, 100), ("", "%"): Fraction(100)}.get((found_unit, gold_unit))
    return scale is not None and found_value * scale == gold_value
