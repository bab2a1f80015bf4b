"""Arithmetic families: sums, products, fractions, percent. Generators only; checks are in checks_math.py."""

import itertools
import math
import random
from fractions import Fraction

from tiny_reasoning_jax.data.procedural import steps
from tiny_reasoning_jax.data.procedural.steps import Draft, ask, create_draft


def sums(rng: random.Random, difficulty: int) -> Draft:
    """Chains of + and -: 1 and 2 with digits, 3 of two-digit numbers, 4 and 5 longer and larger."""
    while True:
        terms = _sum_terms(rng, difficulty)
        partial = [sum(terms[: i + 1]) for i in range(len(terms))]
        if difficulty == 5 or min(partial) >= 0:
            break
    lines: list[str] = []
    for total, term in zip(partial, terms[1:], strict=False):
        lines += _ones(total, term) if difficulty <= 2 else []
        lines += steps.add(total, term)
    expression = str(terms[0]) + "".join(f"{term:+d}" for term in terms[1:])
    return create_draft(",".join(map(str, sorted(terms))), ask(rng, expression), lines, partial[-1])


def _sum_terms(rng: random.Random, difficulty: int) -> list[int]:
    if difficulty == 1:
        terms = [rng.randint(2, 59), rng.choice((-1, 1)) * rng.randint(2, 9)]
        return terms[::-1] if terms[1] > 0 and rng.random() < 0.5 else terms
    count, low, high = {2: (3, 2, 9), 3: (3, 10, 99), 4: (3, 100, 499), 5: (4, 100, 999)}[difficulty]
    first = rng.randint(10, 199) if difficulty == 2 else rng.randint(low, high)
    return [first] + [rng.choice((-1, 1)) * rng.randint(low, high) for _ in range(count - 1)]


def _ones(total: int, term: int) -> list[str]:
    """The step in the ones place that a sum of a longer number and a digit starts with."""
    x, y = abs(total) % 10, abs(term) % 10
    if max(abs(total), abs(term)) < 10:
        return []
    if term > 0:
        return [f"{x}+{y}={x + y}"]
    x += 10 * (x < y)
    return [f"{x}-{y}={x - y}"]


def products(rng: random.Random, difficulty: int) -> Draft:
    """Products of naturals, digit by digit: from 2-digit times 1-digit to 3-digit times 2-digit."""
    if difficulty == 1:
        a, b = rng.choice((rng.randint(2, 9), rng.randint(11, 39), rng.randint(11, 39))), rng.randint(2, 9)
    else:
        low, high, low_b, high_b = {
            2: (41, 99, 3, 9), 3: (101, 999, 3, 9), 4: (11, 99, 11, 99), 5: (101, 1250, 11, 99),
        }[difficulty]  # fmt: skip
        a, b = rng.randint(low, high), rng.randint(low_b, high_b)
    left, right = (a, b) if rng.random() < 0.5 else (b, a)
    prompt = ask(rng, f"{left}*{right}")
    return create_draft(f"{min(a, b)}*{max(a, b)}", prompt, steps.multiply(left, right), a * b)


def fractions(rng: random.Random, difficulty: int) -> Draft:
    """Sums of fractions: 1 like denominators, 2 one a multiple of the other, 3 any, 4 three, 5 a product."""
    if difficulty == 5:
        return _fraction_with_product(rng)
    while True:
        parts = _fraction_parts(rng, difficulty)
        value = sum(Fraction(p, q) for p, q in parts)
        if value > 0 and (difficulty == 1 or len({q for _, q in parts}) > 1):
            break
    expression = "".join(f"{p:+d}/{q}" for p, q in parts).removeprefix("+")
    canonical = ",".join(f"{p}/{q}" for p, q in sorted(parts))
    return create_draft(canonical, ask(rng, expression), _fraction_sum(parts), value)


_TWO_DENOMINATORS = [(q, r) for q in range(3, 21) for r in range(3, 21) if q % r and r % q and math.lcm(q, r) <= 90]
_THREE_DENOMINATORS = [d for d in itertools.product(range(2, 16), repeat=3) if len(set(d)) > 1 and math.lcm(*d) <= 48]
# Larger denominators have more numerators: with these weights every sum is as likely as any other.
_NUMERATORS = list(itertools.accumulate(math.prod(q - 1 for q in d) for d in _THREE_DENOMINATORS))


def _fraction_parts(rng: random.Random, difficulty: int) -> list[tuple[int, int]]:
    """(numerator, denominator) of every term; the first is positive, every numerator within 1..q-1."""
    if difficulty == 1:
        q = rng.randint(3, 12)
        denominators = [q, q]
    elif difficulty == 2:
        q = rng.randint(2, 12)
        denominators = rng.sample((q, q * rng.randint(2, 4)), 2)
    elif difficulty == 3:
        denominators = rng.choice(_TWO_DENOMINATORS)
    else:
        (denominators,) = rng.choices(_THREE_DENOMINATORS, cum_weights=_NUMERATORS)
    signs = [1] + [rng.choice((-1, 1)) for _ in denominators[1:]]
    return [(sign * rng.randint(1, q - 1), q) for sign, q in zip(signs, denominators, strict=True)]


def _fraction_sum(parts: list[tuple[int, int]]) -> list[str]:
    common = math.lcm(*(q for _, q in parts))
    lines = []
    if any(q != common for _, q in parts):
        lines.append(f"lcm {common}")
    for p, q in parts:
        if q != common:
            lines += [f"{common}/{q}={common // q}"]
            lines += [*steps.multiply(abs(p), common // q), f"{abs(p)}/{q}={abs(p) * (common // q)}/{common}"]
    tops = [p * (common // q) for p, q in parts]
    total = tops[0]
    for top in tops[1:]:
        lines += steps.add(total, top)
        total += top
    return lines + steps.reduce(total, common)


def _fraction_with_product(rng: random.Random) -> Draft:
    """p/q*r/s+t/u: the product is brought to lowest terms before the sum."""
    while True:
        q, s, u = rng.randint(3, 12), rng.randint(2, 12), rng.randint(3, 12)
        p, r, t = rng.randint(1, q - 1), rng.randint(2, 12), rng.randint(1, u - 1)
        product = Fraction(p * r, q * s)
        if r != s and product.denominator != u and math.lcm(product.denominator, u) <= 72:
            break
    lines = [*steps.multiply(p, r), *steps.multiply(q, s), *steps.reduce(p * r, q * s)]
    lines += _fraction_sum([(product.numerator, product.denominator), (t, u)])
    canonical = f"{sorted(((p, q), (r, s)))}+{t}/{u}"
    return create_draft(canonical, ask(rng, f"{p}/{q}*{r}/{s}+{t}/{u}"), lines, product + Fraction(t, u))


_PRICE_FRAMES = (
    "A price of {0} {1}. Find what we pay with {2} for the post.",
    "A price is {0}. It {1}. The post costs {2}. What do we pay?",
    "What do we pay with post at {2} if a price of {0} {1}?",
)


def _with_post(rng: random.Random, canonical: str, price: int, changes: str, lines: list[str], price_now: int) -> Draft:
    """Asks for the new price with the postage, which is added last."""
    post = rng.randint(2, 99)
    prompt = rng.choice(_PRICE_FRAMES).format(price, changes, post)
    return create_draft(f"{canonical},{post}", prompt, [*lines, *steps.add(price_now, post)], price_now + post)


def percent(rng: random.Random, difficulty: int) -> Draft:
    """Percentages: 1 tens, 2 fives, 3 a price that changes, and post, 4 twice, 5 several items."""
    if difficulty <= 2:
        return _percent_of(rng, difficulty)
    if difficulty == 3:
        price, change = 10 * rng.randint(2, 60), rng.choice((-1, 1)) * 10 * rng.randint(1, 9)
        words = f"{_change_word(change)} by {abs(change)}%"
        lines, price_now = _change_price(price, change)
        return _with_post(rng, f"{price},{change}", price, words, lines, price_now)
    return _percent_twice(rng, difficulty)


def _percent_of(rng: random.Random, difficulty: int) -> Draft:
    if difficulty == 1:
        rate, base = 10 * rng.randint(2, 9), 10 * rng.randint(2, 40)
        lines = [f"10% of {base}={base // 10}", *steps.multiply(base // 10, rate // 10)]
    else:
        rate, base = 5 * (2 * rng.randint(1, 9) + 1), 20 * rng.randint(2, 49)
        lines = steps.divide(base, 20)
        lines = [*lines[:-1], f"5% of {base}={base}/20={base // 20}", f"{rate}/5={rate // 5}"]
        lines += steps.multiply(base // 20, rate // 5)
    prompt = ask(rng, f"{rate}% of {base}")
    return create_draft(f"{rate}% of {base}", prompt, lines, rate * base // 100)


def _change_word(change: int) -> str:
    return "rises" if change > 0 else "falls"


def _change_price(price: int, change: int) -> tuple[list[str], int]:
    """Lines for a price (a multiple of 10) that changes by a multiple of 10 %, and the new price.

    A fall takes what is left of the price, a rise adds to it.
    """
    tenth, tenths = price // 10, abs(change) // 10
    if change < 0:
        lines = [f"100-{-change}={100 + change}", f"10% of {price}={tenth}"]
        return [*lines, *steps.multiply(tenth, 10 - tenths)], tenth * (10 - tenths)
    lines = [f"10% of {price}={tenth}", *steps.multiply(tenth, tenths)]
    return [*lines, *steps.add(price, tenth * tenths)], price + tenth * tenths


def _percent_twice(rng: random.Random, difficulty: int) -> Draft:
    """Two changes of a price in a row; 5 asks for several items and has a number that plays no part."""
    price = 100 * rng.randint(2, 12 if difficulty == 4 else 9)
    first, second = (rng.choice((-1, 1)) * 10 * rng.randint(1, 5) for _ in range(2))
    lines, price_now = _change_price(price, first)
    more, price_now = _change_price(price_now, second)
    changes = f"{_change_word(first)} by {abs(first)}% and then {_change_word(second)} by {abs(second)}%"
    if difficulty == 4:
        return _with_post(rng, f"{price},{first},{second}", price, changes, lines + more, price_now)
    count, stock = rng.randint(3, 9), rng.randint(20, 90)
    lines += [*more, *steps.multiply(price_now, count)]
    prompt = rng.choice(
        (
            f"A shop has {stock} lamps at {price} each. The price {changes}. What do {count} lamps cost now?",
            f"A lamp costs {price}. Its price {changes}. There are {stock} lamps. Find the cost of {count}.",
            f"The price of a lamp is {price}. It {changes}. Of {stock} Ann buys {count}. What is the cost?",
        )
    )
    canonical = f"{price},{first},{second},{count}"
    return create_draft(canonical, prompt, lines, price_now * count)
