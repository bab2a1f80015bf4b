"""Decides whether two final answers are the same.

What it refuses: to round (0.333 is not 1/3), to convert units and bases, and to take what is not worked out for a
number that was asked for (37 * 43 is not 1591, 2 + 3 is not 5; powers as 2^10 are accepted).

The work is bounded and nothing raises. What its own grammar cannot read, and only that, is asked of math-verify, in
another process (see slow.py).
"""

from fractions import Fraction

from tiny_reasoning_jax.answers import slow, structure, values
from tiny_reasoning_jax.answers.expression import read
from tiny_reasoning_jax.answers.latex import clean
from tiny_reasoning_jax.answers.quantities import read_quantity, read_unit, same_quantity, same_units
from tiny_reasoning_jax.answers.words import same_choice, spell

MAX_ANSWER_CHARS = 1000  # longer answers are compared character by character, without reading them
_MAX_DEPTH = 6  # tuples in tuples that are compared part by part
_MAX_PAIRS = 1024  # of parts in any order

Answer = bool | None  # None: cannot be told here


def equal(found: str, answer: str) -> bool:
    """Returns whether a final answer is the reference answer in another form.

    Reflexive. Symmetric but for one rule: where the reference is a plain number, so must the answer be, or a power;
    where the reference is an expression, a number may stand for it. Not transitive where units are left out: 5 is
    5 cm and 5 m.
    """
    found, answer = found.strip(), answer.strip()
    if not found or not answer:
        return False
    if found == answer:
        return True
    if max(len(found), len(answer)) > MAX_ANSWER_CHARS:
        return False
    same = _same(clean(found), clean(answer), 0)
    return slow.same(found, answer) if same is None else same


def _same(found: str, gold: str, depth: int) -> Answer:
    found, gold = structure.unwrap(_exact_part(found)), structure.unwrap(_exact_part(gold))
    if not found or not gold:
        return False
    found_quantity, gold_quantity = read_quantity(found), read_quantity(gold)
    if found_quantity and gold_quantity:
        return same_quantity(found_quantity, gold_quantity)
    found_text, gold_text = spell(found), spell(gold)
    if found_text == gold_text:
        return found_text != "" or found == gold
    if depth > _MAX_DEPTH:
        return False
    if same_choice(found, gold):
        return True
    intervals = _same_intervals(found, gold, depth)
    if intervals is not None:
        return intervals
    found_list, gold_list = structure.split_list(found), structure.split_list(gold)
    if len(found_list) > 1 or len(gold_list) > 1:
        return _same_lists(found, found_list, gold, gold_list, depth)
    return _same_one(found, gold, depth)


def _exact_part(text: str) -> str:
    """ "\\sqrt{2} ≈ 1.41" answers \\sqrt{2}; "x ≈ 1.41" and "≈ 1.41" answer 1.41."""
    exact, approximately, rounded = text.partition("≈")
    if not approximately:
        return text
    return rounded.strip() if not exact.strip() or structure.split_name(f"{exact}= 0")[0] else exact.strip()


def _same_one(found: str, gold: str, depth: int) -> Answer:
    """Compares two answers of which neither is a list without brackets."""
    (found_name, found_value), (gold_name, gold_value) = structure.split_name(found), structure.split_name(gold)
    if found_name and found_name == gold_name:
        return _same(found_value, gold_value, depth + 1)
    found_relation, gold_relation = structure.split_relation(found), structure.split_relation(gold)
    if found_relation and gold_relation:
        return _same_relations(found_relation, gold_relation, depth)
    if found_name and gold_name:
        return False
    if found_relation or gold_relation or found_name or gold_name:
        found_value, gold_value = _worked_out(found), _worked_out(gold)
        known = found_value is not None and gold_value is not None
        return _same(found_value, gold_value, depth + 1) if known else False
    found_matrix, gold_matrix = structure.read_matrix(found), structure.read_matrix(gold)
    if found_matrix or gold_matrix:
        return _same_matrices(found, found_matrix, gold, gold_matrix, depth)
    found_brackets, found_parts = structure.split_brackets(found)
    gold_brackets, gold_parts = structure.split_brackets(gold)
    if found_brackets or gold_brackets:
        gold_parts = gold_parts if gold_brackets else structure.split_number(gold)
        found_parts = found_parts if found_brackets else structure.split_number(found)
        if min(len(found_parts), len(gold_parts)) == 1 and found_brackets != gold_brackets:
            return False  # [5] is not 5
        return _same_parts(found_brackets, found_parts, gold_brackets, gold_parts, depth)
    return _same_leaf(found, gold)


def _worked_out(text: str) -> str | None:
    """The value that an equation gives to what was asked for: 5 for "x = 5", "x + y = 5" and "2 + 3 = 5".

    None for an equation that is not solved, as "2x = 10".
    """
    _, value = structure.split_name(text)
    relation = structure.split_relation(value)
    if relation is None:
        return value
    sides, signs = relation
    if set(signs) != {"="}:
        return None
    return sides[-1] if all(values.same_value(sides[0], side) for side in sides[1:]) else None


# --- lists, sets, tuples --------------------------------------------------------------------------


def _same_lists(found: str, found_list: list[str], gold: str, gold_list: list[str], depth: int) -> Answer:
    """Compares lists of which at least one is without brackets: "1, 2" is (1, 2), {2, 1} and "2 or 1"."""
    found_brackets, gold_brackets = "", ""
    if len(found_list) == 1:
        found_brackets, found_list = _open(found_list[0])
    if len(gold_list) == 1:
        gold_brackets, gold_list = _open(gold_list[0])
    return _same_parts(found_brackets, found_list, gold_brackets, gold_list, depth)


def _open(text: str) -> tuple[str, list[str]]:
    brackets, parts = structure.split_brackets(structure.split_name(text)[1])
    return (brackets, parts) if brackets else ("", structure.split_number(text))


def _same_parts(
    found_brackets: str, found_parts: list[str], gold_brackets: str, gold_parts: list[str], depth: int
) -> Answer:
    brackets = {found_brackets, gold_brackets} - {""}
    if len(brackets) > 1 or found_brackets != gold_brackets and brackets & {"(]", "[)"}:
        return False  # (0,1] is neither [0,1] nor "0, 1"
    is_set = "{}" in brackets
    if not is_set and len(found_parts) != len(gold_parts):
        return False
    in_order = not is_set and (brackets or not all(map(_is_value, (*found_parts, *gold_parts))))
    if in_order or len(found_parts) * len(gold_parts) > _MAX_PAIRS:
        if len(found_parts) != len(gold_parts):
            return False
        return _all(_same(a, b, depth + 1) for a, b in zip(found_parts, gold_parts, strict=True))
    if is_set:
        there = _all(_any(_same(a, b, depth + 1) for b in gold_parts) for a in found_parts)
        return there and _all(_any(_same(a, b, depth + 1) for a in found_parts) for b in gold_parts)
    return _matched(found_parts, gold_parts, depth)


def _is_value(part: str) -> bool:
    """Whether the place of a part in a list says nothing: numbers, expressions and named ones, but not words."""
    value = structure.split_name(part)[1]
    return read_quantity(value) is not None or read(value) is not None and not value.isalpha()


def _matched(found_parts: list[str], gold_parts: list[str], depth: int) -> Answer:
    """Whether the parts are the same in some order, each counted as often as it occurs."""
    left, unknown = list(gold_parts), False
    for part in found_parts:
        answers = [_same(part, other, depth + 1) for other in left]
        unknown |= None in answers
        if True not in answers:
            return None if unknown else False
        del left[answers.index(True)]
    return True


def _all(answers) -> Answer:
    """True if all are, False if one is not, None if that depends on what cannot be told."""
    unknown = False
    for answer in answers:
        if answer is False:
            return False
        unknown |= answer is None
    return None if unknown else True


def _any(answers) -> Answer:
    unknown = False
    for answer in answers:
        if answer:
            return True
        unknown |= answer is None
    return None if unknown else False


# --- intervals, matrices, relations ---------------------------------------------------------------


def _same_intervals(found: str, gold: str, depth: int) -> Answer:
    """Compares unions of intervals and inequalities; None where one of the two is none, or both can be points."""
    (found_name, found), (gold_name, gold) = structure.split_name(found), structure.split_name(gold)
    found_read, gold_read = structure.read_intervals(found), structure.read_intervals(gold)
    if found_read is None or gold_read is None:
        return None
    (found_pieces, found_variable, found_sure), (gold_pieces, gold_variable, gold_sure) = found_read, gold_read
    found_variable, gold_variable = found_variable or found_name, gold_variable or gold_name
    if not found_sure and not gold_sure:
        return None
    if len(found_pieces) != len(gold_pieces):
        return False
    if found_variable and gold_variable and found_variable != gold_variable:
        return False
    left = list(gold_pieces)
    for piece in found_pieces:
        same = next((other for other in left if _same_interval(piece, other, depth)), None)
        if same is None:
            return False
        left.remove(same)
    return True


def _same_interval(found: structure.Interval, gold: structure.Interval, depth: int) -> bool:
    if found.brackets != gold.brackets:
        return False
    return all(_same(a.lstrip("+ "), b.lstrip("+ "), depth + 1) for a, b in zip(found[1:], gold[1:], strict=True))


def _same_matrices(found: str, found_matrix, gold: str, gold_matrix, depth: int) -> Answer:
    """Compares matrices cell by cell. A vector may be written as a tuple."""
    if found_matrix and gold_matrix:
        if found_matrix[0] != gold_matrix[0] or list(map(len, found_matrix[1])) != list(map(len, gold_matrix[1])):
            return False
        cells = zip(sum(found_matrix[1], []), sum(gold_matrix[1], []), strict=True)
        return _all(_same(a, b, depth + 1) for a, b in cells)
    kind, rows = found_matrix or gold_matrix
    brackets, parts = structure.split_brackets(gold if found_matrix else found)
    entries = sum(rows, [])
    if kind or brackets != "()" or len(entries) < 2 or min(len(rows), max(map(len, rows))) > 1:
        return False
    pair = (entries, parts) if found_matrix else (parts, entries)
    return len(entries) == len(parts) and _all(_same(a, b, depth + 1) for a, b in zip(*pair, strict=True))


def _same_relations(found: tuple[list[str], str], gold: tuple[list[str], str], depth: int) -> Answer:
    """Compares two equations or chains of inequalities: side by side, from either end, and equations as a whole."""
    for sides, signs in (found, structure.flip(*found)):
        if signs == gold[1]:
            if _all(_same(a, b, depth + 1) for a, b in zip(sides, gold[0], strict=True)):
                return True
    if found[1] == gold[1] == "=":
        return values.same_equation(tuple(found[0]), tuple(gold[0])) or False
    return False


# --- one thing ------------------------------------------------------------------------------------


def _same_leaf(found: str, gold: str) -> Answer:
    gold_quantity = read_quantity(gold)
    if found.isalpha() and gold.isalpha():
        return False  # words, not products of letters
    is_number = gold_quantity and not values.variables(gold)  # 3 s^2 may be seconds and may be algebra
    if not is_number and read(found) and read(gold) and values.same_value(found, gold):
        return True
    (found, found_unit), (gold, gold_unit) = _split_unit(found), _split_unit(gold)
    if not same_units(found_unit, gold_unit):
        return False
    if gold_quantity and gold_unit == "degree" and "\\pi" in found:
        return values.same_value(found, f"{gold} degree")
    if gold_quantity:
        return _is_number_form(read(found)) and values.exact_value(found) == gold_quantity[0]
    return values.same_value(found, gold) if read(found) and read(gold) else None


def _split_unit(text: str) -> tuple[str, str]:
    """Splits "5\\sqrt{2} cm" into ("5\\sqrt{2}", "centimeter"). What varies has no unit: "3x m" is a product."""
    start = text.find(" ")
    while start >= 0:
        if text[start + 1 : start + 2].isalpha():
            unit = read_unit(text[start:])
            if unit and read(text[:start]) and not values.variables(text[:start]):
                return text[:start], unit
        start = text.find(" ", start + 1)
    return text, ""


def _is_number_form(tree: tuple | None) -> bool:
    """Whether nothing is left to be worked out in a number: 1/2, 2^10, 3 * 10^8, but not 2 + 3 or 4 * 5."""
    match tree:
        case ("number", _):
            return True
        case ("negative", inner):
            return _is_number_form(inner)
        case ("over", top, bottom, True):
            return _is_number_form(top) and _is_number_form(bottom)
        case ("power", base, exponent):
            return base[0] == "number" and _is_number_form(exponent)
        case ("product", (factor, ("power", ("number", base), exponent))):
            return base == Fraction(10) and _is_number_form(factor) and _is_number_form(exponent)
    return False
