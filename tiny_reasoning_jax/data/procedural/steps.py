"""How the generators write: drafts, question frames, and school arithmetic one small step a line.

Every line of a computation is a look-up of one or two digits or a copy of what stands above it, so that a
tiny model can follow it and a large one loses nothing. The checks (`checks_*.py`) never import this file.
"""

import math
import random
from fractions import Fraction
from typing import NamedTuple


class Draft(NamedTuple):
    """A generated problem before it gets its id.

    Attributes:
      canonical: names the problem whatever its wording, the order of commuting terms or the people's names;
        decides the split, so two drafts that are the same problem must agree in it.
      prompt: the question.
      reasoning: the worked steps, one a line; the last line states the answer.
      answer: the final answer.
    """

    canonical: str
    prompt: str
    reasoning: str
    answer: str


def create_draft(canonical: str, prompt: str, lines: list[str], answer: object) -> Draft:
    """Joins the steps into a Draft. An answer (int, Fraction or text) is written by `str`."""
    return Draft(canonical, prompt, "\n".join(lines), str(answer))


def ask(rng: random.Random, thing: str) -> str:
    """One of the common question frames around `thing`."""
    return rng.choice(("Find {}.", "What is {}?", "Compute {}.")).format(thing)


def ask_where(rng: random.Random, values: dict[str, object], expression: str) -> str:
    """Asks for the value of an expression at the given letters."""
    where = ", ".join(f"{letter}={value}" for letter, value in values.items())
    return rng.choice(
        (
            f"Let {where}. Find {expression}.",
            f"If {where}, what is {expression}?",
            f"Find {expression} if {where}.",
        )
    )


def factor(value: object) -> str:
    """A number as it stands after an operator sign: negative ones in brackets."""
    text = str(value)
    return f"({text})" if text.startswith("-") else text


def terms_text(terms: list[tuple[int, str]]) -> str:
    """A sum of nonzero (coefficient, letters) as text: [(3, "xx"), (-1, "y")] is "3x^2-y"."""
    text = ""
    for coefficient, letters in terms:
        if len(letters) == 2 and letters[0] == letters[1]:
            letters = letters[0] + "^2"
        size = "" if letters and abs(coefficient) == 1 else str(abs(coefficient))
        text += ("-" if coefficient < 0 else "+") + size + letters
    return text.removeprefix("+")


def _digits(number: int) -> list[int]:
    return [int(digit) for digit in reversed(str(number))]


def _column_sum(a: int, b: int) -> list[str]:
    """Column addition of two naturals from the ones upwards; a carry stands as "+1"."""
    top, bottom = _digits(a), _digits(b)
    lines, carry = [], 0
    for i in range(max(len(top), len(bottom))):
        x = top[i] if i < len(top) else 0
        y = bottom[i] if i < len(bottom) else 0
        total = x + y + carry
        lines.append(f"{x}+{y}+1={total}" if carry else f"{x}+{y}={total}")
        carry = total // 10
    return lines


def _column_difference(a: int, b: int) -> list[str]:
    """Column subtraction of naturals, a >= b; a digit that borrows shows its ten, a lent one is "-1"."""
    top, bottom = _digits(a), _digits(b)
    lines, borrow = [], 0
    for i, x in enumerate(top):
        y = bottom[i] if i < len(bottom) else 0
        lent, borrow = borrow, int(x - y - borrow < 0)
        x += 10 * borrow
        lines.append(f"{x}-{y}-1={x - y - 1}" if lent else f"{x}-{y}={x - y}")
    return lines


def add(a: int, b: int) -> list[str]:
    """Lines that work out a + b (a negative b reads as a subtraction); the last one is "a+b=sum"."""
    lines = []
    if min(abs(a), abs(b)) >= 10:
        if (a < 0) == (b < 0):
            lines = _column_sum(abs(a), abs(b))
        else:
            lines = _column_difference(max(abs(a), abs(b)), min(abs(a), abs(b)))
    return lines + [f"{a}{b:+d}={a + b}"]


def multiply(a: int, b: int) -> list[str]:
    """Lines that work out a * b (any signs) by digits and partial products; the last one is "a*b=product"."""
    long, short = max(abs(a), abs(b)), min(abs(a), abs(b))
    if long < 10 or short <= 1 or short == 10 or (long == 10 and short < 10):
        lines = []
    elif short < 10:
        lines = _times_digit(long, short)
    else:
        lines = _partial_products(long, short)
    last = f"{a}*{factor(b)}={a * b}"
    return lines if lines[-1:] == [last] else lines + [last]


def square(n: int) -> list[str]:
    """multiply(n, n), with the squares up to 30 known by heart."""
    return [f"{n}*{n}={n * n}"] if 0 <= n <= 30 else multiply(n, n)


def choose_ordered(n: int) -> list[str]:
    """Lines for the n*(n-1) ordered pairs out of n, as n*n-n; the last one ends with their number."""
    return [*square(n), *add(n * n, -n)]


def _times_digit(number: int, digit: int) -> list[str]:
    """Digit products from the ones upwards, each with the carry of the one before added in its own line."""
    while number % 10 == 0:
        number //= 10
    lines, carry = [], 0
    for d in _digits(number):
        product = d * digit
        lines.append(f"{d}*{digit}={product}")
        if carry:
            lines.append(f"{product}+{carry}={product + carry}")
        carry = (product + carry) // 10
    return lines


def _partial_products(long: int, short: int) -> list[str]:
    """The product for every digit of the shorter factor, then their sum."""
    lines, total = [], 0
    for place, digit in enumerate(_digits(short)):
        if digit == 0:
            continue
        if digit > 1:
            lines += _times_digit(long, digit)
        partial = long * digit * 10**place
        lines.append(f"{long}*{digit * 10**place}={partial}")
        if total:
            lines += add(partial, total)
        total += partial
    return lines


def divide(a: int, b: int) -> list[str]:
    """Lines of a long division without rest (b > 0); the last one is "a/b=quotient"."""
    assert a % b == 0, f"{a}/{b} leaves a rest"
    size, lines, rest = abs(a), [], 0
    if size > 12 * b and b > 1:
        for digit in str(size):
            rest = rest * 10 + int(digit)
            if rest >= b or lines:
                lines.append(f"{rest}={rest // b}*{b}+{rest % b}")
            rest %= b
    return lines + [f"{a}/{b}={a // b}"]


def divide_with_rest(a: int, b: int) -> list[str]:
    """Lines of a division that may leave a rest (b > 0); the last one is "a=quotient*b+rest"."""
    lines, rest = [], 0
    if a > 12 * b:
        for digit in str(a):
            rest = rest * 10 + int(digit)
            if rest >= b or lines:
                lines.append(f"{rest}={rest // b}*{b}+{rest % b}")
            rest %= b
    return lines + [f"{a}={a // b}*{b}+{a % b}"]


def euclid(a: int, b: int) -> tuple[list[str], int]:
    """Euclid's steps, from the larger number down to the rest 0, and the greatest common divisor."""
    lines, big, small = [], max(a, b), min(a, b)
    while small > 0:
        lines.append(f"{big}={big // small}*{small}+{big % small}")
        big, small = small, big % small
    return lines, big


def reduce(p: int, q: int) -> list[str]:
    """Lines that bring p/q (q > 0) to lowest terms; the last one ends with the reduced fraction.

    Beyond 30 Euclid's steps are shown, below that the common divisor is a look-up.
    """
    common = math.gcd(p, q)
    lines, big, small = [], max(abs(p), q), min(abs(p), q)
    while big > 30 and small > 0:
        lines.append(f"{big}={big // small}*{small}+{big % small}")
        big, small = small, big % small
    lines.append(f"gcd {common}")
    return lines + [f"{p}/{q}" if common == 1 and q > 1 else f"{p}/{q}={Fraction(p, q)}"]
