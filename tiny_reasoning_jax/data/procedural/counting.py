"""Probability families: counting, conditional. Generators only; the checks live in checks_counting.py."""

import math
import random
from fractions import Fraction

from tiny_reasoning_jax.data.procedural import steps
from tiny_reasoning_jax.data.procedural.steps import Draft, create_draft


def counting(rng: random.Random, difficulty: int) -> Draft:
    """How many: 1 outfits, 2 codes, 3 numbers divided by one of two, 4 teams, 5 numbers of a range."""
    return (_outfits, _codes, _from_one, _team, _from_low)[difficulty - 1](rng)


def _outfits(rng: random.Random) -> Draft:
    a, b, c = counts = [rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 12)]
    lines = [*steps.multiply(c, min(a, b)), *steps.multiply(c * min(a, b), max(a, b))]
    rng.shuffle(counts)
    clothes = rng.choice(("{} hats, {} coats and {} bags", "{} shirts, {} coats and {} hats")).format(*counts)
    prompt = rng.choice(
        (
            f"Ann has {clothes}. How many outfits are there?",
            f"How many outfits do {clothes} make?",
            f"Find the number of outfits from {clothes}.",
        )
    )
    return create_draft(f"one of {sorted(counts)}", prompt, lines, a * b * c)


def _fill(ways: int, count: int, places: int, again: bool) -> tuple[list[str], int]:
    """Lines for the ways times those to fill some places out of `count` signs, which may come again or not."""
    lines = []
    for i in range(places):
        choices = count if again else count - i
        lines += steps.multiply(ways, choices) if ways > 1 else []
        ways *= choices
    return lines, ways


def _codes(rng: random.Random) -> Draft:
    """A code of letters and then digits, each kind with or without repeats."""
    words, lines, ways, forms = [], [], 1, []
    for kind, places in zip(("letters", "digits"), rng.choice(((2, 2), (2, 1), (1, 2), (3, 1))), strict=True):
        count, again = rng.randint(3, 10), rng.random() < 0.5 and places > 1
        more, ways = _fill(ways, count, places, again)
        lines += more
        signs = kind[:-1] if places == 1 else kind if again else f"different {kind}"
        words.append(f"{places} {signs} out of {count}")
        forms.append((count, places, again))
    code = f"{words[0]} and then {words[1]}"
    prompt = rng.choice(
        (
            f"A code has {code}. How many codes are there?",
            f"How many codes of {code} are there?",
            f"Find the number of codes of {code}.",
        )
    )
    return create_draft(f"code {sorted(forms)}", prompt, lines, ways)


def _choose(n: int, k: int) -> list[str]:
    """Lines for n choose k, k of 2 or 3: ordered choices over the orders of the chosen."""
    lines, ordered = _fill(1, n, k, again=False)
    return [*lines, *steps.divide(ordered, math.factorial(k))]


def _team(rng: random.Random) -> Draft:
    """Some of the boys and some of the girls, and one of the teachers."""
    boys, girls, teachers = (rng.randint(4, 10), 2), (rng.randint(4, 6), rng.choice((2, 3))), rng.randint(2, 9)
    if rng.random() < 0.5:
        boys, girls = girls, boys
    ways = [math.comb(*boys), math.comb(*girls)]
    lines = [*_choose(*boys), *_choose(*girls), *steps.multiply(*ways), *steps.multiply(math.prod(ways), teachers)]
    chosen = f"{boys[1]} of {boys[0]} boys, {girls[1]} of {girls[0]} girls and 1 of {teachers} teachers"
    prompt = rng.choice(
        (
            f"In how many ways can we choose {chosen}?",
            f"A team has {chosen}. How many teams are there?",
            f"Find the number of teams of {chosen}.",
        )
    )
    return create_draft(f"team {sorted((boys, girls))},{teachers}", prompt, lines, math.prod(ways) * teachers)


def _multiples_in(low: int, high: int, m: int) -> tuple[list[str], int]:
    """Lines for how many multiples of m lie in low..high."""
    below, up_to = (low - 1) // m, high // m
    lines = [f"{high}={up_to}*{m}+{high % m}"]
    if low > 1:
        lines += [f"{low - 1}={below}*{m}+{(low - 1) % m}", f"{up_to}-{below}={up_to - below}"]
    return lines, up_to - below


def _either(low: int, high: int, m: int, n: int) -> tuple[list[str], int]:
    """Lines for how many of low..high are multiples of m or n: those of both were counted twice."""
    both = math.lcm(m, n)
    first, a = _multiples_in(low, high, m)
    second, b = _multiples_in(low, high, n)
    third, c = _multiples_in(low, high, both)
    lines = [*first, *second, f"both are multiples of {both}", *third]
    return [*lines, *steps.add(a, b), *steps.add(a + b, -c)], a + b - c


def _two_divisors(rng: random.Random) -> tuple[int, int]:
    while True:
        m, n = rng.randint(2, 15), rng.randint(2, 15)
        if m % n and n % m:
            return m, n


def _from_one(rng: random.Random) -> Draft:
    m, n = _two_divisors(rng)
    low, high = 1, rng.randint(50, 999)
    lines, answer = _either(low, high, m, n)
    prompt = rng.choice(
        (
            f"How many numbers from 1 to {high} are divisible by {m} or {n}?",
            f"Find how many numbers from 1 to {high} can be divided by {m} or by {n}.",
            f"Count the numbers from 1 to {high} that are multiples of {m} or {n}.",
        )
    )
    return create_draft(f"1..{high} by {sorted((m, n))}", prompt, lines, answer)


def _from_low(rng: random.Random) -> Draft:
    m, n = _two_divisors(rng)
    low, high = rng.randint(21, 199), rng.randint(250, 699)
    lines, answer = _either(low, high, m, n)
    prompt = rng.choice(
        (
            f"How many numbers from {low} to {high} are divisible by {m} or {n}?",
            f"Find how many numbers from {low} to {high} can be divided by {m} or by {n}.",
            f"Count the numbers from {low} to {high} that are multiples of {m} or {n}.",
        )
    )
    return create_draft(f"{low}..{high} by {sorted((m, n))}", prompt, lines, answer)


def conditional(rng: random.Random, difficulty: int) -> Draft:
    """Conditional chances: 1 in a group, 2 the group asked, 3 a table to fill, 4 two bags, 5 three machines."""
    if difficulty <= 2:
        return _table(rng, difficulty)
    return (_gaps, _bags, _machines)[difficulty - 3](rng)


_GROUPS = ("boys", "girls")
_ONE = {"boys": "boy", "girls": "girl"}
_CHANCE_FRAMES = ("What is the chance of {0} if {1} is picked?", "If {1} is picked, find the chance of {0}.",
                  "We pick {1}. Chance of {0}?")  # fmt: skip


def _table(rng: random.Random, difficulty: int) -> Draft:
    high = 10 if difficulty == 1 else 21
    counts = {group: (rng.randint(2, high), rng.randint(2, high)) for group in _GROUPS}
    said = ", ".join(f"{sing} {group} sing, {rest} do not" for group, (sing, rest) in counts.items())
    one, two = rng.sample(_GROUPS, 2)
    sings = difficulty == 1 or rng.random() < 0.5
    column = [counts[group][0 if sings else 1] for group in (one, two)]
    if difficulty == 1:
        good, total = counts[one][0], sum(counts[one])
        asked = ("a singer", f"a {_ONE[one]}")
        lines = steps.add(*counts[one])
    else:
        good, total = column[0], sum(column)
        asked = (f"a {_ONE[one]}", "a singer" if sings else "a non-singer")
        lines = steps.add(*column)
    prompt = f"{said}. {rng.choice(_CHANCE_FRAMES).format(*asked)}"
    canonical = f"{asked[0] == 'a singer'} {sings} {counts[one]},{counts[two]}"
    return create_draft(canonical, prompt, lines + steps.reduce(good, total), Fraction(good, total))


def _gaps(rng: random.Random) -> Draft:
    """Only totals and one cell of the table are given; the row that is asked for is what is left."""
    girls, boys = rng.randint(5, 40), rng.randint(5, 40)
    girls_sing, boys_sing = rng.randint(2, girls - 1), rng.randint(1, boys - 1)
    everyone, singers = girls + boys, girls_sing + boys_sing
    lines = [*steps.add(everyone, -girls), *steps.add(singers, -girls_sing), *steps.reduce(boys_sing, boys)]
    said = rng.choice(
        (
            f"Of {everyone} pupils {girls} are girls. {singers} pupils sing, {girls_sing} of them girls.",
            f"{everyone} pupils: {girls} girls, {singers} singers. {girls_sing} of the singers are girls.",
            f"A class of {everyone} has {girls} girls. {girls_sing} girls sing, and {singers} pupils in all.",
        )
    )
    prompt = f"{said} {rng.choice(_CHANCE_FRAMES).format('a singer', 'a boy')}"
    return create_draft(f"{girls},{boys},{girls_sing},{boys_sing}", prompt, lines, Fraction(boys_sing, boys))


def _bags(rng: random.Random) -> Draft:
    """Which of two bags a red ball came from: the chances of red on one denominator."""
    (a, b), (c, d) = ((rng.randint(2, 10), rng.randint(2, 10)) for _ in range(2))
    first, second = a + b, c + d
    good, other = a * second, c * first
    lines = [f"{a}+{b}={first}", f"{c}+{d}={second}", *steps.multiply(a, second), *steps.multiply(c, first)]
    lines += [*steps.add(good, other), *steps.reduce(good, good + other)]
    asked = rng.choice("AB")
    bags = sorted(((asked, a, b), ("BA"["AB".index(asked)], c, d)))
    said = " and ".join(f"bag {name} {red} red and {blue} blue balls" for name, red, blue in bags)
    prompt = rng.choice(
        (
            f"There are in {said}. A ball from a random bag is red. Chance that it was bag {asked}?",
            f"We have in {said}. We take a random bag and from it a red ball. Find the chance of bag {asked}.",
            f"If there are in {said} and a ball from a random bag is red, what is the chance of bag {asked}?",
        )
    )
    return create_draft(f"{a},{b} not {c},{d}", prompt, lines, Fraction(good, good + other))


def _machines(rng: random.Random) -> Draft:
    """Which of three machines a bad part came from; the price plays no part."""
    made = [100 * rng.randint(1, 9) for _ in range(3)]
    rates = [rng.randint(1, 12) for _ in range(3)]
    bad = [number // 100 * rate for number, rate in zip(made, rates, strict=True)]
    asked = rng.randrange(3)
    lines = []
    for name, number, rate, count in zip("ABC", made, rates, bad, strict=True):
        lines.append(f"{name}: {number}/100={number // 100}, {number // 100}*{rate}={count}")
    lines += [*steps.add(bad[0], bad[1]), *steps.add(bad[0] + bad[1], bad[2]), *steps.reduce(bad[asked], sum(bad))]
    said = [f"{name} makes {number} parts, {rate}% bad" for name, number, rate in zip("ABC", made, rates, strict=True)]
    price = rng.randint(2, 30)
    prompt = rng.choice(
        (
            f"{'; '.join(said)}. A part costs {price}. One is bad. Chance that {'ABC'[asked]} made it?",
            f"Parts cost {price}. {'; '.join(said)}. Find the chance that a bad part is of {'ABC'[asked]}.",
            f"{'; '.join(said)}. A bad part of price {price} is found. What is the chance of {'ABC'[asked]}?",
        )
    )
    pairs = list(zip(made, rates, strict=True))
    canonical = f"{pairs.pop(asked)} of {sorted(pairs)}"
    return create_draft(canonical, prompt, lines, Fraction(bad[asked], sum(bad)))
