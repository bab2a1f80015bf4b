"""Compares two final answers: numbers as exact rationals, all else as normalised text."""

import re
from fractions import Fraction

MAX_ANSWER_CHARS = 1000  # longer answers are compared character by character, without reading them
MAX_NUMBER_CHARS = 200  # longer digit strings stay text
MAX_DEPTH = 4  # tuples in tuples that are compared part by part

_NAME_EQUALS = re.compile(r"\\?([A-Za-z]\w{0,15})\s*=\s*(?!=)(.+)", re.DOTALL)


def equal(found: str, answer: str) -> bool:
    """Returns whether a final answer is the reference answer in another form."""
    return _equal(found.strip(), answer.strip())


def _equal(found: str, gold: str, depth: int = 0) -> bool:
    if not gold or not found:
        return False
    if found == gold:
        return True
    if max(len(found), len(gold)) > MAX_ANSWER_CHARS or depth > MAX_DEPTH:
        return False
    found, gold = _clean(found), _clean(gold)
    found_name, found = _split_name(found)
    gold_name, gold = _split_name(gold)
    if found_name and gold_name and found_name.lower() != gold_name.lower():
        return False
    found, gold = _unwrap(found), _unwrap(gold)
    found_number, gold_number = _parse_number(found), _parse_number(gold)
    if found_number and gold_number:
        return _same_number(found_number, gold_number)
    found_brackets, found_parts = _split_tuple(found)
    gold_brackets, gold_parts = _split_tuple(gold)
    # "100,200" is a number unless the reference is in brackets; "(100,200)" is always two numbers.
    is_tuple = len(gold_parts) > 1 and not gold_number and (not found_number or gold_brackets)
    if is_tuple and len(found_parts) == len(gold_parts):
        if found_brackets and gold_brackets and found_brackets != gold_brackets:
            return False  # an interval (0,1] is not [0,1]
        return all(_equal(a, b, depth + 1) for a, b in zip(found_parts, gold_parts, strict=True))
    found_text, gold_text = _plain_text(found), _plain_text(gold)
    return bool(gold_text) and found_text == gold_text


def _split_name(text: str) -> tuple[str, str]:
    """Splits "x = 5" into ("x", "5"); anything else into ("", text)."""
    match = _NAME_EQUALS.fullmatch(text)
    return (match[1], match[2]) if match else ("", text)


def _unwrap(text: str) -> str:
    """Removes parentheses and braces around one thing: "(B)" is "B". Square brackets stay: [5] is a list."""
    for _ in range(MAX_DEPTH):
        brackets, parts = _split_tuple(text)
        if brackets not in ("()", "{}") or len(parts) > 1 or not parts[0]:
            break
        text = parts[0]
    return text


def _split_tuple(text: str) -> tuple[str, list[str]]:
    """Splits "(1, (2, 3))" into ("()", ["1", "(2, 3)"]) and "1, 2" into ("", ["1", "2"])."""
    brackets = ""
    if len(text) > 1 and text[0] in "([{" and text[-1] in ")]}" and _closes_last(text):
        brackets, text = text[0] + text[-1], text[1:-1]
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append(text[start:index].strip())
            start = index + 1
    return brackets, [*parts, text[start:].strip()]


def _closes_last(text: str) -> bool:
    """True if the bracket that opens the text is closed by its last character."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return index == len(text) - 1
    return False


# --- numbers --------------------------------------------------------------------------------------

_PLAIN = r"(?:\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(
    rf"(?P<signs>[-+]?\s?[$£€]?\s?[-+]?)\s?"
    rf"(?:(?P<whole>\d+)\s(?P<top>\d+)/(?P<bottom>\d+)|(?P<num>{_PLAIN})(?:\s?/\s?(?P<den>-?{_PLAIN}))?)"
    rf"(?P<unit>(?![\d.,/]).*)?",
    re.ASCII,
)
_CURRENCY = {"$": "dollar", "£": "pound", "€": "euro"}
# Short units that are accepted as words, and the spellings that mean the same.
_UNITS = {
    "m": "meter", "cm": "centimeter", "mm": "millimeter", "km": "kilometer", "in": "inch", "inche": "inch",
    "ft": "foot", "feet": "foot", "yd": "yard", "mi": "mile", "g": "gram", "kg": "kilogram",
    "mg": "milligram", "lb": "pound", "oz": "ounce", "l": "liter", "ml": "milliliter", "s": "second",
    "sec": "second", "min": "minute", "h": "hour", "hr": "hour", "sq": "square", "deg": "degree",
    "usd": "dollar", "metre": "meter", "centimetre": "centimeter", "kilometre": "kilometer",
    "millimetre": "millimeter", "litre": "liter", "of": "of", "per": "per",
}  # fmt: skip
_UNIT_NAMES = frozenset(_UNITS) | frozenset(_UNITS.values())
# Words after a number that change its value: with one of them the text is not number + unit.
_NOT_UNITS = frozenset(
    "hundred thousand million billion trillion dozen half halves third quarter score pair squared cubed "
    "factorial times plus minus mod divided and not sqrt sin cos tan log exp remainder".split()
)


def _parse_number(text: str) -> tuple[Fraction, str] | None:
    """Reads "-$1,234.50", "3 1/2 inches", "3/4", "50 %" as (value, unit), "" for no unit."""
    match = _NUMBER.fullmatch(text) if len(text) <= MAX_NUMBER_CHARS else None
    if match is None:
        return None
    unit = _parse_unit(match["unit"] or "")
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
    return Fraction(plain.replace(",", "").removesuffix("."))


def _parse_unit(raw: str) -> str | None:
    """Returns the canonical unit, "" for none, or None if what follows the number is not a unit."""
    text = raw.strip().lower()
    if text in ("", "%", "percent", "$"):
        return {"percent": "%", "$": "dollar"}.get(text, text)
    words = text.replace("/", " per ").replace("-", " ").split()
    if not 1 <= len(words) <= 6 or words[0] == "of" or text[0] in "/-" and raw[0] == " ":
        return None
    parts = []
    for word in words:
        match = re.fullmatch(r"([a-z]{1,20})\.?(?:\^\{?([23])\}?)?", word)
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


def _same_number(found: tuple[Fraction, str], gold: tuple[Fraction, str]) -> bool:
    """Equal values whose units do not contradict: a missing unit is allowed, a different one is not."""
    (found_value, found_unit), (gold_value, gold_unit) = found, gold
    if found_unit and gold_unit and found_unit != gold_unit:
        return False
    if found_value == gold_value:
        return True
    # 50 % is 0.5, and "what percent" is often answered by a bare 50 (equal above): both readings count.
    scale = {("%", ""): Fraction(1, 100), ("", "%"): Fraction(100)}.get((found_unit, gold_unit))
    return scale is not None and found_value * scale == gold_value


# --- normalising ----------------------------------------------------------------------------------

_SYMBOLS = {
    "−": "-", "–": "-", "\u00a0": " ", "×": "*", "π": "\\pi ", "°": " degree", "“": '"', "”": '"', "’": "'",
    "^{\\circ}": " degree", "^\\circ": " degree", "\\degree": " degree", "{,}": ",", "\\left": "",
    "\\right": "", "\\displaystyle": "", "\\!": "", "\\,": "", "\\;": " ", "\\:": " ", "\\ ": " ",
    "\\quad": " ", "~": " ", "\\(": " ", "\\)": " ", "\\[": " ", "\\]": " ", "\\$": "$", "\\%": "%",
    "\\{": "{", "\\}": "}", "\\_": "_", "\\cdot": "*", "\\times": "*", "\\dfrac": "\\frac",
    "\\tfrac": "\\frac", "\\cfrac": "\\frac",
}  # fmt: skip
# A command of letters ends where its letters end: \left is not the start of \leftarrow.
_COMMAND_END = {s: "(?![A-Za-z])" if s.isascii() and s[-1].isalpha() else "" for s in _SYMBOLS}
_SYMBOL = re.compile("|".join(re.escape(symbol) + end for symbol, end in _COMMAND_END.items()))
_MATH_DOLLARS = re.compile(r"(?<!\\)\$([^$\\]*(?:\\.[^$\\]*)*)(?<!\\)\$")
_TEXT_MACRO = re.compile(r"\\(?:text\w{0,2}|math(?:rm|bf|it|tt)|mbox|operatorname|boxed|fbox)\s?\{([^{}]*)\}")
_FRAC = re.compile(r"\\frac\s?(?:\{([^{}]*)\}|(\d))\s?(?:\{([^{}]*)\}|(\d))", re.ASCII)
_SIGNED = re.compile(rf"\s*-?\s?{_PLAIN}\s*", re.ASCII)
_AROUND_OPERATOR = re.compile(r"\s?([-+*/^=<>,:;(){}\[\]\\])\s?")


def _clean(text: str) -> str:
    """Removes LaTeX spacing, math delimiters and text macros, and writes \\frac{1}{2} as 1/2."""
    text = _MATH_DOLLARS.sub(r" \1 ", " ".join(text.split()))
    text = _SYMBOL.sub(lambda match: _SYMBOLS[match.group()], text)
    for _ in range(MAX_DEPTH):
        text, num_replaced = _TEXT_MACRO.subn(r" \1 ", text)
        if not num_replaced:
            break
    text = " ".join(_FRAC.sub(_write_fraction, text).split()).replace(" ^", "^")
    return text.strip("*` ").rstrip(".,;: ").strip("*` ")


def _write_fraction(match: re.Match) -> str:
    top, bottom = match[1] or match[2] or "", match[3] or match[4] or ""
    if _SIGNED.fullmatch(top) and _SIGNED.fullmatch(bottom):
        negative = ("-" in top) != ("-" in bottom)
        return f" {'-' * negative}{top.strip(' -')}/{bottom.strip(' -')}"
    return f"\\frac{{{top}}}{{{bottom}}}"


def _plain_text(text: str) -> str:
    """Lower case, one kind of quotes, no space around operators, no punctuation around the whole."""
    text = _AROUND_OPERATOR.sub(r"\1", text.lower()).replace('"', "'")
    for _ in range(MAX_DEPTH):
        before = text
        text = text.strip("'`*? ").rstrip(".,;:")
        if text.endswith("!") and text[-2:-1].isalpha():  # 5! is a factorial, Yes! is not
            text = text[:-1]
        if text == before:
            break
    return text
