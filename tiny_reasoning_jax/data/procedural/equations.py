"""Algebra families: quadratic, inequality, ratio. Generators only; the checks live in checks_numbers.py."""

import math
import random
from fractions import Fraction

from tiny_reasoning_jax.data.procedural import steps
from tiny_reasoning_jax.data.procedural.steps import Draft, create_draft, terms_text


def _signed(rng: random.Random, low: int, high: int) -> int:
    return rng.choice((-1, 1)) * rng.randint(low, high)


def quadratic(rng: random.Random, difficulty: int) -> Draft:
    """Roots: 1 a square, 2 with a factor, 3 the formula, 4 terms on both sides, 5 a factor and a fraction."""
    if difficulty <= 2:
        return _pure_square(rng, difficulty)
    while True:
        a, p = (1, _signed(rng, 1, 12)) if difficulty < 5 else (rng.randint(2, 3), _signed(rng, 1, 6))
        q = Fraction(_signed(rng, 1, 12)) if difficulty < 5 else Fraction(_signed(rng, 1, 9), a)
        b, c = int(-a * (p + q)), int(a * p * q)
        d = 0 if difficulty == 3 else _signed(rng, 2, 12)
        e = _signed(rng, 1, (99, 30, 20)[difficulty - 3])
        if p != q and b and b + d and c + e:
            break
    right = terms_text([(d, "x"), (e, "")]) if d else str(e)
    equation = f"{terms_text([(a, 'xx'), (b + d, 'x'), (c + e, '')])}={right}"
    lines = [*(steps.add(b + d, -d) if d else []), *steps.add(c + e, -e)]
    lines.append(f"{terms_text([(a, 'xx'), (b, 'x'), (c, '')])}=0")
    larger = rng.random() < 0.5
    more, root = _formula(a, b, c, larger)
    asked = "larger" if larger else "smaller"
    prompt = rng.choice(
        (
            f"Solve {equation}. Find the {asked} x.",
            f"What is the {asked} root of {equation}?",
            f"Find the {asked} x with {equation}.",
        )
    )
    return create_draft(f"{equation} {asked}", prompt, lines + more, root)


def _formula(a: int, b: int, c: int, larger: bool) -> tuple[list[str], Fraction]:
    """Lines of (-b+-s)/2a, where s is the root of b*b-4ac, for one of the two roots."""
    s = math.isqrt(b * b - 4 * a * c)
    lines = steps.square(abs(b))
    lines += [
        *steps.multiply(4, c),
        *(steps.multiply(4 * c, a) if a > 1 else []),
        *steps.add(b * b, -4 * a * c),
        f"{s}*{s}={s * s}",
    ]
    top = -b + s if larger else -b - s
    lines += steps.add(-b, s if larger else -s)
    lines += [f"2*{a}={2 * a}", *steps.reduce(top, 2 * a)] if a > 1 else [f"{top}/2={top // 2}"]
    return lines, Fraction(top, 2 * a)


def _pure_square(rng: random.Random, difficulty: int) -> Draft:
    """ax^2+c=d for the positive x, whose square is known by heart."""
    if difficulty == 1:
        a, x, c = 1, rng.randint(2, 12), _signed(rng, 1, 30)
    else:
        a, x, c = rng.randint(2, 9), rng.randint(3, 30), _signed(rng, 1, 250)
    d = a * x * x + c
    equation = f"{terms_text([(a, 'xx'), (c, '')])}={d}"
    lines = steps.add(d, -c)
    if a > 1:
        lines += [*steps.divide(d - c, a), f"x^2={x * x}"]
    lines += [f"{x}*{x}={x * x}", f"x={x}"]
    prompt = rng.choice(
        (f"Find the positive x with {equation}.", f"Solve {equation} for x>0.", f"If x>0 and {equation}, what is x?")
    )
    return create_draft(equation, prompt, lines, x)


def inequality(rng: random.Random, difficulty: int) -> Draft:
    """Whole numbers: 1 and 2 the largest or smallest, 3 x on both sides, 4 how many between, 5 with | |."""
    if difficulty == 4:
        return _between(rng)
    if difficulty == 5:
        return _absolute(rng)
    sign = rng.choice(("<", "<=")) if difficulty == 1 else rng.choice(("<", "<=", ">", ">="))
    if difficulty == 1:
        a, b, x, c = rng.randint(2, 9), rng.randint(1, 9), rng.randint(2, 12), 0
    else:
        a, b, x = rng.randint(2, 9), _signed(rng, 10, 99), _signed(rng, 2, 30)
        c = rng.randint(2, 9) if difficulty == 3 else 0
    bound = a * x + rng.randrange(a)  # what ax is compared with
    d = bound + b
    if c and not d:
        b, d = b + 1, 1
    left, right = terms_text([(a + c, "x"), (b, "")]), terms_text([(c, "x"), (d, "")]) if c else str(d)
    lines = [*([f"{a + c}x-{c}x={a}x"] if c else []), *steps.add(d, -b), f"{a}x{sign}{bound}"]
    more, last = _integer_bound(a, sign, bound)
    asked = "largest" if sign[0] == "<" else "smallest"
    return _integers_draft(rng, f"the {asked} integer x", f"{left}{sign}{right}", [*lines, *more, f"x={last}"], last)


def _integers_draft(rng: random.Random, thing: str, condition: str, lines: list[str], answer: int) -> Draft:
    frames = ("Find {0} with {1}.", "What is {0} if {1}?", "Let {1}. Find {0}.")
    return create_draft(f"{thing} {condition}", rng.choice(frames).format(thing, condition), lines, answer)


def _integer_bound(a: int, sign: str, bound: int) -> tuple[list[str], int]:
    """From ax < bound (or another sign) the line of the division and the last integer x that fits."""
    quotient, rest = divmod(bound, a)
    if sign == "<":
        last = quotient if rest else quotient - 1
    elif sign == "<=":
        last = quotient
    elif sign == ">":
        last = quotient + 1
    else:
        last = quotient + 1 if rest else quotient
    return [f"{bound}={quotient}*{a}+{rest}"], last


def _count_between(a: int, low: int, signs: tuple[str, str], high: int) -> tuple[list[str], int, int]:
    """Lines from low < ax < high (signs as given) to the first and the last integer x, and these two."""
    flipped = {"<": ">", "<=": ">="}[signs[0]]
    lines, first = _integer_bound(a, flipped, low)
    more, last = _integer_bound(a, signs[1], high)
    return [*lines, f"first {first}", *more, f"last {last}"], first, last


def _between(rng: random.Random) -> Draft:
    while True:
        a, b, low, width = rng.randint(2, 9), _signed(rng, 1, 40), _signed(rng, 1, 60), rng.randint(15, 120)
        signs = (rng.choice(("<", "<=")), rng.choice(("<", "<=")))
        high = low + width
        more, first, last = _count_between(a, low - b, signs, high - b)
        if last - first >= 1:
            break
    lines = [*steps.add(low, -b), *steps.add(high, -b), f"{low - b}{signs[0]}{a}x{signs[1]}{high - b}"]
    lines += [*more, *steps.add(last, -first), f"{last - first}+1={last - first + 1}"]
    condition = f"{low}{signs[0]}{terms_text([(a, 'x'), (b, '')])}{signs[1]}{high}"
    return _integers_draft(rng, "the number of integers x", condition, lines, last - first + 1)


def _absolute(rng: random.Random) -> Draft:
    """|ax+b| < c and x over a bound, which cuts off some of the integers."""
    while True:
        a, b, c, sign = rng.randint(2, 9), _signed(rng, 1, 40), rng.randint(15, 99), rng.choice(("<", "<="))
        more, first, last = _count_between(a, -c - b, (sign, sign), c - b)
        if last - first >= 3:
            break
    cut = rng.randint(first - 1, last - 2)
    lines = [f"{-c}{sign}{terms_text([(a, 'x'), (b, '')])}{sign}{c}", *steps.add(-c, -b), *steps.add(c, -b)]
    lines += [f"{-c - b}{sign}{a}x{sign}{c - b}", *more, f"x>{cut}, so first {cut + 1}"]
    lines += [*steps.add(last, -cut - 1), f"{last - cut - 1}+1={last - cut}"]
    condition = f"|{terms_text([(a, 'x'), (b, '')])}|{sign}{c} and x>{cut}"
    return _integers_draft(rng, "the number of integers x", condition, lines, last - cut)


NAMES = ("Ann", "Bob", "Dan", "Eve", "Kim", "Sam", "Tom", "Zoe")


def ratio(rng: random.Random, difficulty: int) -> Draft:
    """Ratios: 1 equal ratios, 2 two shares, 3 three, 4 one share from a difference, 5 workers and days (inverse)."""
    return (_equal_ratios, _two_shares, _three_shares, _from_difference, _workers)[difficulty - 1](rng)


def _equal_ratios(rng: random.Random) -> Draft:
    (a, b), k = rng.sample(range(2, 12), 2), rng.randint(2, 9)
    equation = f"{a}:{b}={a * k}:x"
    prompt = rng.choice((f"Find x if {equation}.", f"If {equation}, what is x?", f"Solve {equation}."))
    return create_draft(equation, prompt, [f"{a * k}/{a}={k}", f"{b}*{k}={b * k}"], b * k)


def _shares(total: int, parts: list[int], asked: int) -> tuple[list[str], int]:
    """Lines that share a total by parts, and the share of one of them."""
    lines, count = [], parts[0]
    for part in parts[1:]:
        lines.append(f"{count}+{part}={count + part}")
        count += part
    one = total // count
    return [*lines, *steps.divide(total, count), *steps.multiply(parts[asked], one)], parts[asked] * one


def _two_shares(rng: random.Random) -> Draft:
    a, b = rng.sample(range(1, 10), 2)
    one = rng.randint(3, 60)
    asked = rng.choice(("larger", "smaller"))
    lines, share = _shares(one * (a + b), [a, b], int((b > a) == (asked == "larger")))
    total = one * (a + b)
    prompt = rng.choice(
        (
            f"Share {total} as {a}:{b}. Find the {asked} part.",
            f"What is the {asked} part if {total} is shared as {a}:{b}?",
            f"Ann and Bob share {total} in the ratio {a}:{b}. Find the {asked} part.",
        )
    )
    return create_draft(f"{asked} of {total} by {sorted((a, b))}", prompt, lines, share)


def _three_people(rng: random.Random) -> tuple[list[str], list[int], str]:
    people, parts = rng.sample(NAMES, 3), [rng.randint(2, 13) for _ in range(3)]
    return people, parts, ":".join(map(str, parts))


def _three_shares(rng: random.Random) -> Draft:
    people, parts, shown = _three_people(rng)
    total, asked = sum(parts) * rng.randint(3, 120), rng.randrange(3)
    lines, share = _shares(total, parts, asked)
    who = f"{people[0]}, {people[1]} and {people[2]}"
    prompt = rng.choice(
        (
            f"{who} share {total} in the ratio {shown}. How much does {people[asked]} get?",
            f"Find the share of {people[asked]} if {who} share {total} as {shown}.",
            f"{who} split {total} as {shown}. What is the share of {people[asked]}?",
        )
    )
    rest = sorted(parts[:asked] + parts[asked + 1 :])
    return create_draft(f"{parts[asked]} and {rest} of {total}", prompt, lines, share)


def _from_difference(rng: random.Random) -> Draft:
    """How much two of three people differ in, and from there what the third gets."""
    people, parts, shown = _three_people(rng)
    while len(set(parts)) < 2:
        people, parts, shown = _three_people(rng)
    more, less = rng.choice([(i, j) for i in range(3) for j in range(3) if parts[i] > parts[j]])
    gap, one = parts[more] - parts[less], rng.randint(11, 150)
    lines = [f"{parts[more]}-{parts[less]}={gap}", *steps.divide(gap * one, gap)]
    (third,) = {0, 1, 2} - {more, less}
    lines += steps.multiply(one, parts[third])
    who = f"{people[0]}, {people[1]} and {people[2]}"
    differ = f"{people[more]} gets {gap * one} more than {people[less]}"
    prompt = rng.choice(
        (
            f"{who} share money in the ratio {shown}. {differ}. How much does {people[third]} get?",
            f"{who} share as {shown} and {differ}. Find the share of {people[third]}.",
            f"What is the share of {people[third]} if {who} split money as {shown} and {differ}?",
        )
    )
    canonical = f"{parts[more]}-{parts[less]} is {gap * one} with {parts[third]}"
    return create_draft(canonical, prompt, lines, one * parts[third])


def _workers(rng: random.Random) -> Draft:
    """Workers who come or go after some days; in how many days all is done; the pay plays no part."""
    while True:
        workers, days, change = rng.randint(3, 24), rng.randint(6, 40), _signed(rng, 1, 12)
        before, pay = rng.randint(2, days - 2), rng.randint(20, 90)
        left = workers * (days - before)
        if workers + change >= 2 and Fraction(left, workers + change).denominator <= 4:
            break
    lines = [f"{days}-{before}={days - before}", *steps.multiply(workers, days - before)]
    lines += [f"{workers}{change:+d}={workers + change}", *steps.reduce(left, workers + change)]
    rest = Fraction(left, workers + change)
    if rest.denominator > 1:
        lines += steps.multiply(before, rest.denominator)
        top = before * rest.denominator + rest.numerator
        lines += [*steps.add(before * rest.denominator, rest.numerator), f"{top}/{rest.denominator}"]
    else:
        lines += steps.add(before, int(rest))
    number, verb = abs(change), "join" if change > 0 else "leave"
    verb += "s" if number == 1 else ""
    prompt = rng.choice(
        (
            f"{workers} workers at {pay} a day would build a wall in {days} days. After {before} days {number} "
            f"{verb}. In how many days is it built in all?",
            f"A wall takes {workers} workers {days} days, each for {pay} a day. After {before} days {number} {verb}. "
            f"Find the days that the wall takes in all.",
            f"{workers} workers need {days} days for a wall and get {pay} a day. {number} {verb} after {before} days. "
            f"What is the number of days in all?",
        )
    )
    return create_draft(f"{workers},{days},{change},{before}", prompt, lines, before + rest)
