"""Geometry families: rectangle, angles, points. Generators only; the checks live in checks_math.py."""

import math
import random
from fractions import Fraction

from tiny_reasoning_jax.data.procedural import steps
from tiny_reasoning_jax.data.procedural.steps import Draft, ask, create_draft, factor


def rectangle(rng: random.Random, difficulty: int) -> Draft:
    """Area and perimeter: 1 small, 2 a side asked, 3 two-digit sides, 4 with a hole, 5 a path with a cost."""
    if difficulty == 2:
        return _missing_side(rng)
    if difficulty == 4:
        return _hole(rng)
    if difficulty == 5:
        return _path(rng)
    a, b = (rng.randint(2, 29), rng.randint(2, 9)) if difficulty == 1 else (rng.randint(11, 99), rng.randint(11, 99))
    a, b = (a, b) if rng.random() < 0.5 else (b, a)
    if rng.random() < 0.5:
        asked, answer, lines = "area", a * b, steps.multiply(a, b)
    else:
        asked, answer = "perimeter", 2 * (a + b)
        lines = [*steps.add(a, b), f"2*{a + b}={answer}"]
    prompt = rng.choice(
        (
            ask(rng, f"the {asked} of a rectangle of {a} by {b}"),
            f"A rectangle is {a} by {b}. Find the {asked}.",
        )
    )
    return create_draft(f"{asked} {min(a, b)},{max(a, b)}", prompt, lines, answer)


def _missing_side(rng: random.Random) -> Draft:
    side, other = rng.randint(3, 9), rng.randint(6, 99)
    if rng.random() < 0.5:
        kind, given = "area", side * other
        lines = steps.divide(given, side)
    else:
        kind, given = "perimeter", 2 * (side + other)
        lines = [f"{given}/2={side + other}", *steps.add(side + other, -side)]
    prompt = rng.choice(
        (
            f"A rectangle has {kind} {given} and one side {side}. Find the other side.",
            f"One side of a rectangle is {side} and its {kind} is {given}. What is the other side?",
            f"Find the other side of a rectangle with {kind} {given} and one side {side}.",
        )
    )
    return create_draft(f"side {kind} {given},{side}", prompt, lines, other)


def _hole(rng: random.Random) -> Draft:
    a, b = rng.randint(11, 89), rng.randint(11, 89)
    c, d = rng.randint(2, 9), rng.randint(2, 9)
    lines = [*steps.multiply(a, b), *steps.multiply(c, d), *steps.add(a * b, -c * d)]
    prompt = rng.choice(
        (
            f"A rectangle of {a} by {b} has a hole of {c} by {d}. Find the area left.",
            f"What is the area of a rectangle of {a} by {b} with a hole of {c} by {d}?",
            f"A hole of {c} by {d} is cut from a rectangle of {a} by {b}. Find the area left.",
        )
    )
    canonical = f"hole {min(a, b)},{max(a, b)},{min(c, d)},{max(c, d)}"
    return create_draft(canonical, prompt, lines, a * b - c * d)


def _path(rng: random.Random) -> Draft:
    """A path of width w around an a by b garden has the area 2w(a+b+2w); the tree plays no part."""
    a, b, width = rng.randint(11, 99), rng.randint(11, 99), rng.randint(2, 5)
    cost, height = rng.randint(3, 9), rng.randint(3, 12)
    around = a + b + 2 * width
    area = 2 * width * around
    lines = [*steps.add(a, b), f"2*{width}={2 * width}", *steps.add(a + b, 2 * width)]
    lines += [*steps.multiply(2 * width, around), *steps.multiply(area, cost)]
    prompt = rng.choice(
        (
            f"A garden is {a} by {b} with a tree {height} high. A path {width} wide goes around it. "
            f"One square unit of path costs {cost}. Find the cost of the path.",
            f"A path {width} wide goes around a garden {a} by {b}. A tree in it is {height} high. "
            f"What does the path cost at {cost} a square unit?",
            f"A tree {height} high is in a garden {a} by {b}. A path {width} wide goes around the garden. "
            f"Find the cost of the path at {cost} a square unit.",
        )
    )
    return create_draft(f"path {min(a, b)},{max(a, b)},{width},{cost}", prompt, lines, area * cost)


def angles(rng: random.Random, difficulty: int) -> Draft:
    """Angle sums: 1 a triangle with round angles, 2 with any, 3 four corners, 4 many, 5 terms in x."""
    if difficulty == 4:
        return _polygon(rng)
    if difficulty == 5:
        return _angle_multiples(rng)
    shape, whole, last, count = "triangle", 180, "third", "Two"
    if difficulty == 1:
        low = 5 * rng.randint(2, 30)
        known = [low, 5 * rng.randint(1, 34 - low // 5)]
    elif difficulty == 2:
        low = 5 * rng.randint(2, 24) + rng.randint(1, 4)
        known = [low, rng.randint(11, 168 - low)]
    else:
        shape, whole, last, count = "quadrilateral", 360, "fourth", "Three"
        known = (
            [rng.randint(41, 119) for _ in range(3)]
            if rng.random() < 0.5
            else [rng.randint(31, 140), *(rng.randint(31, 99) for _ in range(2))]
        )
    shown = ", ".join(map(str, known[:-1])) + f" and {known[-1]}"
    lines, total = [], known[0]
    for angle in known[1:]:
        lines += [f"{total}+{angle}={total + angle}"] if difficulty == 1 else steps.add(total, angle)
        total += angle
    lines += [f"{whole}-{total}={whole - total}"] if difficulty == 1 else steps.add(whole, -total)
    prompt = rng.choice(
        (
            f"A {shape} has angles {shown}. Find the {last}.",
            f"{count} angles of a {shape} are {shown}. What is the {last}?",
            f"Find the {last} angle of a {shape} with angles {shown}.",
        )
    )
    return create_draft(f"{shape} {sorted(known)}", prompt, lines, whole - total)


def _angle_multiples(rng: random.Random) -> Draft:
    """Angles x+p, ax+q and bx+r of a triangle; asks for the largest."""
    while True:
        a, b, x = rng.randint(1, 2), rng.randint(2, 5), rng.randint(5, 40)
        p, q = rng.randint(1, 28), rng.randint(1, 28)
        r = 180 - (1 + a + b) * x - p - q
        sizes = (x + p, a * x + q, b * x + r)
        if min(sizes) >= 10 and 0 < abs(r) < 100 and sorted(sizes)[1] != max(sizes):
            break
    terms = [steps.terms_text([(k, "x"), (extra, "")]) for k, extra in ((1, p), (a, q), (b, r))]
    k, constant = 1 + a + b, p + q + r
    sum_of_x = steps.terms_text([(1, "x"), (a, "x"), (b, "x")])
    lines = [f"{sum_of_x}={k}x", *steps.add(p, q), *steps.add(p + q, r), *steps.add(180, -constant)]
    lines += [f"{k}x={k * x}", *steps.divide(k * x, k), f"x={x}", f"x{p:+d}={x + p}"]
    lines += [*steps.multiply(a, x), f"{a * x}{q:+d}={a * x + q}"] if a > 1 else [f"x{q:+d}={x + q}"]
    lines += [*steps.multiply(b, x), f"{b * x}{r:+d}={b * x + r}", f"largest {max(sizes)}"]
    shown = f"{terms[0]}, {terms[1]} and {terms[2]}"
    prompt = rng.choice(
        (
            f"A triangle has angles {shown}. Find the largest.",
            f"The angles of a triangle are {shown}. What is the largest?",
            f"Find the largest angle of a triangle with angles {shown}.",
        )
    )
    return create_draft(f"largest {sorted(terms)}", prompt, lines, max(sizes))


def _polygon(rng: random.Random) -> Draft:
    """All angles but one of a convex polygon with 5 to 7 sides; the length of a side plays no part."""
    count = rng.randint(5, 7)
    whole = 180 * (count - 2)
    while True:
        known = [rng.randint(whole // count - 30, min(whole // count + 40, 170)) for _ in range(count - 1)]
        if 20 <= whole - sum(known) < 180:
            break
    shown = ", ".join(map(str, known[:-1])) + f" and {known[-1]}"
    lines, total = [f"{count}-2={count - 2}", *steps.multiply(180, count - 2)], known[0]
    for angle in known[1:]:
        lines.append(f"{total}+{angle}={total + angle}")
        total += angle
    lines += steps.add(whole, -total)
    side = rng.randint(3, 30)
    prompt = rng.choice(
        (
            f"A shape with {count} sides, one of length {side}, has angles {shown}. Find the last angle.",
            f"One of the {count} sides of a shape is {side}. All angles but one are {shown}. Find the last.",
            f"Find the last angle of a shape with {count} sides, one of length {side}, and angles {shown}.",
        )
    )
    return create_draft(f"polygon {sorted(known)}", prompt, lines, whole - total)


Point = tuple[int, int]


def _point_text(points: list[Point]) -> str:
    shown = [f"({x},{y})" for x, y in points]
    return ", ".join(shown[:-1]) + f" and {shown[-1]}"


# The legs of right triangles whose third side is a natural number.
_LEGS = ((3, 4), (6, 8), (9, 12), (12, 16), (5, 12), (10, 24), (8, 15), (7, 24), (20, 21))


def points(rng: random.Random, difficulty: int) -> Draft:
    """Coordinates: 1 and 2 squared distance, 3 distance, 4 area of a triangle, 5 area of a quadrilateral."""
    if difficulty >= 4:
        return _corner_area(rng, difficulty)
    if difficulty == 3:
        legs = rng.sample(rng.choice(_LEGS), 2)
        dx, dy = (leg * rng.choice((-1, 1)) for leg in legs)
        a, b = rng.randint(-14, 30), rng.randint(-14, 30)
    elif difficulty == 2:
        a, b, dx, dy = rng.randint(-12, -1), rng.randint(-9, 9), rng.randint(-12, 12), rng.randint(-12, 12)
    else:
        a, b = rng.randint(0, 9), rng.randint(0, 9)
        dx, dy = rng.randint(max(-5, -a), min(5, 9 - a)), rng.randint(max(-5, -b), min(5, 9 - b))
    if difficulty <= 2 and (dx, dy) == (0, 0):
        dx = 1 if a < 9 else -1
    pair = [(a, b), (a + dx, b + dy)]
    lines = []
    for first, second in ((a, a + dx), (b, b + dy)):
        high, low = max(first, second), min(first, second)
        lines.append(f"{high}-{factor(low)}={high - low}")
    for size in (abs(dx), abs(dy)):
        lines += steps.square(size)
    square = dx * dx + dy * dy
    lines += steps.add(dx * dx, dy * dy)
    asked, answer = "squared distance", square
    if difficulty == 3:
        asked, answer = "distance", math.isqrt(square)
        lines += [*steps.square(answer), f"distance {answer}"]
    prompt = rng.choice((ask(rng, f"the {asked} between {_point_text(pair)}"), f"Points {_point_text(pair)}: {asked}?"))
    return create_draft(f"{asked} {sorted(pair)}", prompt, lines, answer)


def _corner_area(rng: random.Random, difficulty: int) -> Draft:
    """The shoelace formula; the corners go round a centre, a quarter turn each, so that no sides cross."""
    size = 6 if difficulty == 4 else 9
    quarters = [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    if difficulty == 4:
        quarters.pop(rng.randrange(4))
    while True:
        cx, cy = rng.randint(-3, 5), rng.randint(-3, 5)
        corners = [(cx + sx * rng.randint(1, size), cy + sy * rng.randint(1, size)) for sx, sy in quarters]
        twice = sum(x * v - u * y for (x, y), (u, v) in zip(corners, corners[1:] + corners[:1], strict=True))
        if twice > 0:
            break
    lines, total = [], 0
    for i, ((x, y), (u, v)) in enumerate(zip(corners, corners[1:] + corners[:1], strict=True)):
        part = x * v - u * y
        lines.append(f"{x}*{factor(v)}-{factor(u)}*{factor(y)}={x * v}-{factor(u * y)}={part}")
        lines += [f"{total}{part:+d}={total + part}"] if i else []
        total += part
    area = Fraction(twice, 2)
    shape = "triangle" if difficulty == 4 else "quadrilateral"
    shown = _point_text(corners)
    prompt = rng.choice(
        (ask(rng, f"the area of the {shape} {shown}"), f"A {shape} has corners {shown}. Find the area.")
    )
    first = corners.index(min(corners))
    canonical = f"{shape} {corners[first:] + corners[:first]}"
    lines.append(f"{area}" if twice % 2 else f"{twice}/2={area}")
    return create_draft(canonical, prompt, lines, area)
