"""Takes clean answers apart: lists, brackets, names, relations, intervals, matrices. Their parts stay text."""

import re
from typing import NamedTuple

_OPENING, _CLOSING = "([{", ")]}"
_ENDS = ("\\infty", "+\\infty", "-\\infty")
_MAX_NESTED_UNIONS = 8
_RELATIONS = "=<>≤≥≠"
_FLIPPED = dict(zip("=<>≤≥≠", "=><≥≤≠", strict=True))
_AND_OR = re.compile(r"\s(?:and|or)\s|^(?:and|or)\s|;")
_AND = re.compile(r"\sand\s")
_ONE_THOUSANDS = re.compile(r"[^,]*(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d)[^,]*", re.ASCII)
_NAME = re.compile(
    r"(?P<name>(?:[A-Za-z|]|\\(?!frac|sqrt|begin|int|sum|lim|pi\b))[A-Za-z0-9_ '{}|\\]{0,40}"
    r"(?:\([A-Za-z0-9, \\]{1,20}\))?"
    r"|\([A-Za-z](?:,\s?[A-Za-z]){1,5}\)|[A-Za-z](?:\s?\+\s?[A-Za-z]){1,5})\s?(?P<sign>[=∈])\s?(?P<value>[^=].*)",
    re.DOTALL,
)
_MATRIX = re.compile(r"\\begin\s?\{(?P<kind>[pbvBV]?matrix|array)\}(?P<body>.*)\\end\s?\{(?P=kind)\}", re.DOTALL)
_COLUMNS = re.compile(r"\{[lcr| ]*\}")
_VARIABLE = re.compile(r"[A-Za-z]|\\(?:theta|alpha|beta|lambda|mu|phi|omega)\s?")


class Interval(NamedTuple):
    """All numbers between two ends; brackets are "()", "(]", "[)" or "[]". Or, with "{}", the number `low` alone."""

    brackets: str
    low: str
    high: str


def split_top(text: str, separators: str) -> list[str]:
    """Splits at any of the characters, where no bracket is open."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        if char in _OPENING:
            depth += 1
        elif char in _CLOSING:
            depth -= 1
        elif depth == 0 and char in separators:
            parts.append(text[start:index].strip())
            start = index + 1
    return [*parts, text[start:].strip()]


def split_list(text: str) -> list[str]:
    """Splits "1, 2 and 3", "x = 1 or x = 2" and "1 ± 2"; returns [text] where nothing is listed.

    "1,000" is one number, "1, 000" and "1,00" are two.
    """
    if "," in text and not _ONE_THOUSANDS.fullmatch(text):
        parts = split_top(text, ",;")
    else:
        parts = [text]
    if " " in text or ";" in text:
        parts = [piece.strip() for part in parts for piece in _split_words(part)]
    parts = [sign for part in parts if part for sign in _both_signs(part)]
    return parts or [text]


def _split_words(text: str) -> list[str]:
    """Splits at "and" and "or" outside of brackets."""
    pieces, start = [], 0
    for match in _AND_OR.finditer(text):
        before = text[: match.start()]
        if sum(before.count(char) for char in _OPENING) == sum(before.count(char) for char in _CLOSING):
            pieces.append(text[start : match.start()])
            start = match.end()
    return [*pieces, text[start:]]


def _both_signs(text: str) -> list[str]:
    """ "1 ± 2" stands for two answers; of several ± nobody says whether they go together."""
    if text.count("±") != 1 or text.startswith(tuple(_OPENING)):
        return [text]
    return [text.replace("±", "+").replace("∓", "-"), text.replace("±", "-").replace("∓", "+")]


def split_number(text: str) -> list[str]:
    """Splits 100,200 after all, which alone is a number but may be two; 1,000 may not."""
    parts = split_top(text, ",")
    return [text] if any(part.startswith("00") for part in parts) else parts


def split_brackets(text: str) -> tuple[str, list[str]]:
    """Splits "(1, (2, 3))" into ("()", ["1", "(2, 3)"]), and what no brackets enclose into ("", [text])."""
    if len(text) > 1 and text[0] in _OPENING and text[-1] in _CLOSING and _closes_last(text):
        inner = text[1:-1].strip()
        parts = split_top(inner, ",;")
        if text[0] == "{":
            parts = [sign for part in parts for sign in _both_signs(part)]
        return text[0] + text[-1], parts
    return "", [text]


def _closes_last(text: str) -> bool:
    """Whether the bracket that opens the text is closed by its last character."""
    depth = 0
    for index, char in enumerate(text):
        depth += (char in _OPENING) - (char in _CLOSING)
        if depth == 0:
            return index == len(text) - 1
    return False


def unwrap(text: str) -> str:
    """Removes parentheses and braces around one thing: "(B)" is "B". Square brackets stay: [5] is a list."""
    while True:
        brackets, parts = split_brackets(text)
        if brackets not in ("()", "{}") or len(parts) > 1 or not parts[0]:
            return text
        text = parts[0]


def split_name(text: str) -> tuple[str, str]:
    """Splits "x = 5" into ("x", "5"), "f(x) = 2x" into ("f(x)", "2x"), "x ∈ [0,1]" too; all else into ("", text)."""
    match = _NAME.fullmatch(text)
    return (match["name"].replace(" ", "").lower(), match["value"].strip()) if match else ("", text)


def split_relation(text: str) -> tuple[list[str], str] | None:
    """Splits "a < b = c" into (["a", "b", "c"], "<="), None where there is no relation outside of brackets."""
    sides = split_top(text, _RELATIONS)
    if len(sides) < 2 or not all(sides):
        return None
    depth, signs = 0, ""
    for char in text:
        depth += (char in _OPENING) - (char in _CLOSING)
        signs += char if depth == 0 and char in _RELATIONS else ""
    return sides, signs


def flip(sides: list[str], signs: str) -> tuple[list[str], str]:
    """Reads a chain of relations from right to left: a < b is b > a."""
    return sides[::-1], "".join(_FLIPPED[sign] for sign in reversed(signs))


def read_intervals(text: str) -> tuple[list[Interval], str, bool] | None:
    """Reads a union of intervals and points or inequalities of one variable.

    Returns:
      (the pieces, the variable of the inequalities or "", whether it can be nothing else: "(1,2)" can be a point too),
      or None where the text is no such thing.
    """
    text = re.sub(r"(?<=[)\]}])\s?(?:U|u)\s?(?=[(\[{])", "∪", text)
    pieces, variables, sure = [], set(), False
    for part in _split_union(text) if "∪" in text else _split_words(text):
        read = _read_interval(part.strip()) or _read_inequality(part.strip())
        if read is None:
            return None
        intervals, variable, is_sure = read
        pieces += intervals
        variables.add(variable)
        sure |= is_sure
    if len(variables) > 1:
        return None
    variable = variables.pop()
    if variable and _AND.search(text):
        pieces = _intersect(pieces)
    return (pieces, variable, sure or "∪" in text) if pieces else None


def _intersect(pieces: list[Interval]) -> list[Interval]:
    """What "x > 0 and x < 5" have in common; nothing where they are not bounded from one side each."""
    low = [piece for piece in pieces if piece.high == "\\infty"]
    high = [piece for piece in pieces if piece.low == "-\\infty"]
    if len(pieces) != 2 or len(low) != 1 or len(high) != 1:
        return []
    return [Interval(low[0].brackets[0] + high[0].brackets[1], low[0].low, high[0].high)]


def _split_union(text: str, depth: int = 0) -> list[str]:
    """Splits "(a ∪ b) ∪ c" into a, b and c."""
    parts = []
    for part in split_top(text, "∪"):
        nested = depth < _MAX_NESTED_UNIONS and "∪" in part and part.startswith("(") and _closes_last(part)
        parts += _split_union(part[1:-1], depth + 1) if nested else [part]
    return parts


def _read_interval(text: str) -> tuple[list[Interval], str, bool] | None:
    brackets, parts = split_brackets(text)
    if brackets == "{}":
        return [Interval("{}", part, part) for part in parts], "", False
    if not brackets or len(parts) != 2 or "{" in brackets or "}" in brackets:
        return None
    sure = brackets in ("(]", "[)") or any(part.replace(" ", "") in _ENDS for part in parts)
    return [Interval(brackets, *parts)], "", sure


def _read_inequality(text: str) -> tuple[list[Interval], str, bool] | None:
    """ "x > 5", "-1 ≤ x < 2", "x ≠ 0"."""
    relation = split_relation(text)
    if relation is None:
        return None
    sides, signs = relation
    if signs[0] in ">≥" or len(sides) == 2 and signs == "≠" and not _VARIABLE.fullmatch(sides[0]):
        sides, signs = flip(sides, signs)
    if len(sides) == 3 and _VARIABLE.fullmatch(sides[1]) and all(sign in "<≤" for sign in signs):
        low, variable, high = sides
        return [Interval(_bracket(signs[0], "([") + _bracket(signs[1], ")]"), low, high)], variable.strip(), True
    if len(sides) != 2 or sum(bool(_VARIABLE.fullmatch(side)) for side in sides) != 1:
        return None
    if _VARIABLE.fullmatch(sides[0]):
        variable, end = sides[0].strip(), sides[1]
        if signs == "≠":
            return [Interval("()", "-\\infty", end), Interval("()", end, "\\infty")], variable, True
        interval = Interval("(" + _bracket(signs, ")]"), "-\\infty", end)
    else:
        variable, interval = sides[1].strip(), Interval(_bracket(signs, "([") + ")", sides[0], "\\infty")
    return ([interval], variable, True) if signs in "<≤" else None


def _bracket(sign: str, open_and_closed: str) -> str:
    return open_and_closed[sign == "≤"]


def read_matrix(text: str) -> tuple[str, list[list[str]]] | None:
    """Reads a matrix as ("" or "|" for a determinant, its rows), None where the text is none."""
    around = text[0] + text[-1] if "\\begin" in text else ""
    match = _MATRIX.fullmatch(text[1:-1].strip() if around in ("[]", "()", "||") else text)
    if match is None:
        return None
    body = _COLUMNS.sub("", match["body"], count=1) if match["kind"] == "array" else match["body"]
    rows = [row for row in re.split(r"\\\\", body) if row.strip()]
    return "|" if match["kind"] in ("vmatrix", "Vmatrix") or around == "||" else "", [
        [cell.strip() for cell in row.split("&")] for row in rows
    ]
