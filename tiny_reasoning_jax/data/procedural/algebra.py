"""Algebra families: linear, evaluate, sequence, system. Generators only; checks are in checks_math.py."""

import random
from fractions import Fraction

from tiny_reasoning_jax.data.procedural import steps
from tiny_reasoning_jax.data.procedural.steps import Draft, ask_where, create_draft, terms_text


def _sign(rng: random.Random) -> int:
    return rng.choice((-1, 1))


def _nonzero(rng: random.Random, low: int, high: int) -> int:
    return rng.choice([n for n in range(low, high + 1) if n])


def linear(rng: random.Random, difficulty: int) -> Draft:
    """One unknown: 1 digits, 2 x on both sides, 3 larger, 4 a bracket, 5 two brackets, fractional roots."""
    level = (_small, _both_sides, _large, _bracket, _two_brackets)[difficulty - 1]
    equation, canonical, lines, root = level(rng)
    frames = ("Solve {}.", "Find x: {}", "If {}, what is x?", "What is x if {}?")
    prompt = rng.choice(frames).format(equation)
    return create_draft(canonical, prompt, lines, root)


def _two_terms(rng: random.Random, a: int, b: int, letter: str = "x") -> str:
    """ax+b, or the terms turned round where the second is positive."""
    terms = [(a, letter), (b, "")]
    return terms_text(terms[::-1] if b > 0 and rng.random() < 0.3 else terms)


def _small(rng: random.Random) -> tuple[str, str, list[str], int]:
    a, x = rng.randint(2, 9), rng.randint(1, 9)
    b = _sign(rng) * rng.randint(1, 9)
    if a * x + b < 1:
        b = -b
    c = a * x + b
    lines = [f"{a}x={c}{-b:+d}={c - b}", f"x={c - b}/{a}={x}"]
    return f"{_two_terms(rng, a, b)}={c}", f"{a}x{b:+d}={c}", lines, x


def _large(rng: random.Random) -> tuple[str, str, list[str], int]:
    a, x, b = rng.randint(2, 9), rng.randint(11, 80), _sign(rng) * rng.randint(10, 99)
    c = a * x + b
    lines = [*steps.add(c, -b), f"{a}x={c - b}", *steps.divide(c - b, a), f"x={x}"]
    return f"{_two_terms(rng, a, b)}={c}", f"{a}x{b:+d}={c}", lines, x


def _both_sides(rng: random.Random) -> tuple[str, str, list[str], int]:
    c, x, b = rng.randint(2, 9), _nonzero(rng, -9, 12), _sign(rng) * rng.randint(1, 40)
    a = c + rng.randint(2, 9)
    d = (a - c) * x + b
    if d == 0:
        b, d = b + a, a
    lines = [f"{a}x-{c}x={a - c}x", *steps.add(d, -b), f"{a - c}x={d - b}", f"x={d - b}/{a - c}={x}"]
    sides = [_two_terms(rng, a, b), _two_terms(rng, c, d)]
    return "=".join(sides if rng.random() < 0.5 else sides[::-1]), f"{a}x{b:+d}={c}x{d:+d}", lines, x


def _bracket(rng: random.Random) -> tuple[str, str, list[str], int]:
    """a(x+b)+c=d, the bracket multiplied out."""
    a, x = rng.randint(3, 9), _nonzero(rng, -19, 30)
    b, c = _nonzero(rng, -19, 19), _sign(rng) * rng.randint(10, 99)
    inner, d = a * b + c, a * (x + b) + c
    if inner == 0:
        c, inner, d = c + 1, 1, d + 1
    lines = [*steps.multiply(a, b), *steps.add(a * b, c), f"{a}x{inner:+d}={d}", *steps.add(d, -inner)]
    lines += [f"{a}x={a * x}", *steps.divide(a * x, a), f"x={x}"]
    equation = f"{a}({_two_terms(rng, 1, b)}){c:+d}={d}"
    return equation, f"{a}(x{b:+d}){c:+d}={d}", lines, x


def _two_brackets(rng: random.Random) -> tuple[str, str, list[str], Fraction]:
    """a(x+b)-c(x+d)=e with a > c; half of the roots are fractions."""
    c = rng.randint(2, 6)
    m = rng.randint(2, 9 - c)
    a, b, d = c + m, _nonzero(rng, -19, 19), _nonzero(rng, -19, 19)
    root = Fraction(_nonzero(rng, -60, 60), m) if rng.random() < 0.5 else Fraction(_nonzero(rng, -30, 30))
    right, inner = int(m * root), a * b - c * d
    e = right + inner
    lines = [*steps.multiply(a, b), *steps.multiply(c, d), *steps.add(a * b, -c * d)]
    lines += [f"{a}x-{c}x={m}x", f"{m}x{inner:+d}={e}", *steps.add(e, -inner), f"{m}x={right}"]
    if root.denominator == 1:
        lines += steps.divide(right, m)
    else:
        lines += steps.reduce(right, m)
    equation = f"{a}({_two_terms(rng, 1, b)})-{c}({_two_terms(rng, 1, d)})={e}"
    return equation, f"{a}(x{b:+d})-{c}(x{d:+d})={e}", [*lines, f"x={root}"], root


def evaluate(rng: random.Random, difficulty: int) -> Draft:
    """The value of an expression: from ax+b to squares, negative values and a letter that plays no part."""
    terms, values = _expression(rng, difficulty)
    lines, total = [], 0
    for i, (coefficient, letters) in enumerate(terms):
        steps_of_term, value = _term_value(coefficient, letters, values)
        lines += steps_of_term
        lines += steps.add(total, value) if i else []
        total += value
    assigned = list(values.items())
    if difficulty > 1:
        rng.shuffle(assigned)
    prompt = ask_where(rng, dict(assigned), terms_text(terms))
    used = {letter for _, letters in terms for letter in letters}
    known = ",".join(f"{letter}={values[letter]}" for letter in sorted(values) if letter in used)
    return create_draft(f"{terms_text(sorted(terms))} at {known}", prompt, lines, total)


def _expression(rng: random.Random, difficulty: int) -> tuple[list[tuple[int, str]], dict[str, int]]:
    """(terms, values): a letter written twice is a square."""
    a, b, c = rng.randint(2, 9), _sign(rng) * rng.randint(2, 9), _sign(rng) * rng.randint(2, 9)
    x, y = rng.randint(2, 9), rng.randint(2, 9)
    if difficulty == 1:
        return [(a, "x"), (b if a * x + b > 0 else -b, "")], {"x": x}
    if difficulty == 2:
        return [(a, "x"), (b, "y"), (_sign(rng) * rng.randint(1, 20), "")], {"x": x, "y": y}
    if difficulty == 3:
        return [(a, "xx"), (b, "x"), (_sign(rng) * rng.randint(2, 60), "")], {"x": x}
    if difficulty == 4:
        return [(a, "xy"), (b, "yy"), (c, "x")], {"x": _sign(rng) * x, "y": y}
    values = {"x": _sign(rng) * rng.randint(11, 19), "y": -rng.randint(2, 5), "z": rng.randint(10, 99)}
    return [(a, "xy"), (b, "yy"), (c, "x")], values


def _term_value(coefficient: int, letters: str, values: dict[str, int]) -> tuple[list[str], int]:
    lines, value = [], None
    for letter in letters:
        if value is not None:
            lines += steps.multiply(value, values[letter])
        value = values[letter] if value is None else value * values[letter]
    if value is None:
        return [], coefficient
    return lines + steps.multiply(coefficient, value), coefficient * value


def sequence(rng: random.Random, difficulty: int) -> Draft:
    """Sequences: 1 next term, 2 a later term, 3 growing steps, 4 sum of the first terms, 5 of some terms."""
    if difficulty == 3:
        return _growing_steps(rng)
    first, step = rng.randint(1, 40), rng.randint(1, 9)
    if difficulty == 1 and first > 3 * step and rng.random() < 0.5:
        step = -step
    if difficulty >= 4:
        first, step = rng.randint(3, 99), rng.randint(2, 9)
    if difficulty == 2:
        first, step = rng.randint(1, 99), rng.randint(2, 9)
    shown = ",".join(str(first + i * step) for i in range(3))
    second = first + step
    lines = [f"{second}-{first}={step}"]
    if difficulty == 1:
        third = first + 2 * step
        lines.append(f"{third}{step:+d}={third + step}")
        thing, canonical, answer = "the next term", f"{shown},next", third + step
    elif difficulty == 2:
        n = rng.randint(6, 40)
        more, answer = _nth_term(first, step, n)
        lines, thing, canonical = lines + more, f"term {n}", f"{shown},{n}"
    elif difficulty == 4:
        n = rng.randint(5, 12)
        more, last = _nth_term(first, step, n)
        lines += more + _arithmetic_sum(first, last, n)
        thing, canonical = f"the sum of the first {n} terms", f"{shown},sum {n}"
        answer = (first + last) * n // 2
    else:
        m, n = rng.randint(3, 9), rng.randint(4, 9)
        start_lines, start = _nth_term(first, step, m)
        end_lines, end = _nth_term(first, step, m + n - 1)
        lines += [*start_lines, *end_lines, f"{m + n - 1}-{m - 1}={n}", *_arithmetic_sum(start, end, n)]
        thing, canonical = f"the sum of terms {m} to {m + n - 1}", f"{shown},sum {m},{n}"
        answer = (start + end) * n // 2
    return create_draft(canonical, _ask_sequence(rng, thing, shown), lines, answer)


def _ask_sequence(rng: random.Random, thing: str, shown: str) -> str:
    frames = ("Find {0} of {1},...", "What is {0} of {1},...?", "{1},... Find {0}.")
    return rng.choice(frames).format(thing, shown)


def _nth_term(first: int, step: int, n: int) -> tuple[list[str], int]:
    value = first + (n - 1) * step
    return [f"{n}-1={n - 1}", *steps.multiply(n - 1, step), *steps.add(first, (n - 1) * step)], value


def _arithmetic_sum(first: int, last: int, count: int) -> list[str]:
    """count * (first + last) / 2, halved before the product where that goes."""
    both = first + last
    lines = steps.add(first, last)
    if both % 2 == 0:
        return [*lines, f"{both}/2={both // 2}", *steps.multiply(both // 2, count)]
    return [*lines, f"{count}/2={count // 2}", *steps.multiply(both, count // 2)]


def _growing_steps(rng: random.Random) -> Draft:
    first, step, growth = rng.randint(1, 99), rng.randint(1, 20), rng.randint(1, 12)
    values = [first]
    for i in range(4):
        values.append(values[-1] + step + i * growth)
    gaps = [b - a for a, b in zip(values, values[1:], strict=False)]
    lines = [f"{values[i + 1]}-{values[i]}={gaps[i]}" for i in range(3)]
    lines += [f"{gaps[1]}-{gaps[0]}={growth}", f"{gaps[2]}+{growth}={gaps[3]}"]
    lines += steps.add(values[3], gaps[3])
    shown = ",".join(map(str, values[:4]))
    prompt = _ask_sequence(rng, "the next term", f"the quadratic sequence {shown}")
    return create_draft(f"{shown},next", prompt[0].upper() + prompt[1:], lines, values[4])


# Equations, lines to x, lines from there to y, (x, y).
_System = tuple[list[str], list[str], list[str], tuple[int, int]]


def system(rng: random.Random, difficulty: int) -> Draft:
    """Two unknowns: 1 sum and difference, 2 the same y, 3 a multiple and a rest, 4 elimination, 5 any sign."""
    level = (_sum_and_difference, _same_y, _multiple, _positive, _any_sign)[difficulty - 1]
    equations, to_x, to_y, (x, y) = level(rng)
    asked = "x" if difficulty == 1 else rng.choice(("x", "y"))
    lines, answer = (to_x, x) if asked == "x" else (to_x + to_y, y)
    if difficulty == 5:
        asked = rng.choice(("x+y", "x-y", "xy"))
        answer = {"x+y": x + y, "x-y": x - y, "xy": x * y}[asked]
        last = steps.multiply(x, y) if asked == "xy" else steps.add(x, y if asked == "x+y" else -y)
        lines = [*to_x, *to_y, *last[:-1], f"{asked}={last[-1]}"]
    rng.shuffle(equations)
    both = ", ".join(equations)
    frames = ("Solve {0}. Find {1}.", "If {0}, what is {1}?", "Find {1} if {0}.")
    prompt = rng.choice(frames).format(both, asked)
    return create_draft(f"{sorted(equations)} {asked}", prompt, lines, answer)


def _sum_and_difference(rng: random.Random) -> _System:
    y, gap = rng.randint(1, 40), rng.randint(1, 9)
    x = y + gap
    lines = [f"2x={x + y}+{gap}={2 * x}", f"x={2 * x}/2={x}"]
    return [f"x+y={x + y}", f"x-y={gap}"], lines, [], (x, y)


def _multiple(rng: random.Random) -> _System:
    k, x, c = rng.randint(2, 9), rng.randint(11, 60), _sign(rng) * rng.randint(2, 99)
    c = c if k * x + c > 1 else -c
    y, most = k * x + c, (k + 1) * x
    to_x = [f"x+{k}x={k + 1}x", *steps.add(most + c, -c), *steps.divide(most, k + 1), f"x={x}"]
    to_y = [*steps.multiply(k, x), *steps.add(k * x, c), f"y={y}"]
    return [f"y={k}x{c:+d}", f"x+y={most + c}"], to_x, to_y, (x, y)


def _same_y(rng: random.Random) -> _System:
    (b, a), x, y = sorted(rng.sample(range(2, 12), 2)), rng.randint(2, 20), rng.randint(2, 60)
    big, small, m = a * x + y, b * x + y, a - b
    to_x = [*steps.add(big, -small), f"{a}x-{b}x={m}x", f"{m}x={m * x}", f"x={m * x}/{m}={x}"]
    to_y = [*steps.multiply(b, x), *steps.add(small, -b * x), f"y={y}"]
    return [f"{a}x+y={big}", f"{b}x+y={small}"], to_x, to_y, (x, y)


def _positive(rng: random.Random) -> _System:
    return _eliminate(rng, 5, rng.randint(2, 12), rng.randint(2, 12))


def _any_sign(rng: random.Random) -> _System:
    return _eliminate(rng, 6, _nonzero(rng, -10, 10), _nonzero(rng, -10, 10))


def _eliminate(rng: random.Random, largest: int, x: int, y: int) -> _System:
    """ax+by=s, cx+dy=t: scale both to the same y term, subtract, then put x into the first."""
    while True:
        a, b, c, d = (rng.randint(2, largest) for _ in range(4))
        if a * d > b * c:
            break
    s, t, m = a * x + b * y, c * x + d * y, a * d - b * c
    to_x = [*steps.multiply(s, d), f"{a * d}x+{b * d}y={s * d}"]
    to_x += [*steps.multiply(t, b), f"{b * c}x+{b * d}y={t * b}"]
    to_x += [*steps.add(s * d, -t * b), f"{m}x={m * x}", *steps.divide(m * x, m), f"x={x}"]
    to_y = [*steps.multiply(a, x), *steps.add(s, -a * x), f"{b}y={b * y}", *steps.divide(b * y, b), f"y={y}"]
    return [f"{a}x+{b}y={s}", f"{c}x+{d}y={t}"], to_x, to_y, (x, y)
