"""Geometry families: circle, solid. Generators only; the checks live in checks_counting.py.

Answers of circles are asked as multiples of pi, so that they are plain numbers.
"""

import random
from fractions import Fraction

from tiny_reasoning_jax.data.procedural import steps
from tiny_reasoning_jax.data.procedural.steps import Draft, create_draft


def circle(rng: random.Random, difficulty: int) -> Draft:
    """Circles as multiples of pi: 1 one, 2 two or a ring, 3 a sector, 4 part of a ring, 5 a lawn with ponds."""
    return (_one_circle, _two_circles, _sector, _part_of_ring, _lawn)[difficulty - 1](rng)


def _ask_pi(rng: random.Random, thing: str) -> str:
    frames = ("How many times pi is {}?", "Find {} divided by pi.", "Find k if {} is k times pi.")
    return rng.choice(frames).format(thing)


def _one_circle(rng: random.Random) -> Draft:
    asked, given = rng.choice(("area", "circumference")), rng.choice(("radius", "diameter"))
    radius = rng.randint(2, 30 if asked == "area" else 99)
    size = radius if given == "radius" else 2 * radius
    lines = [f"{size}/2={radius}"] if given == "diameter" and asked == "area" else []
    if asked == "area":
        lines, answer = lines + steps.square(radius), radius * radius
    elif given == "radius":
        lines, answer = [f"2*{radius}={2 * radius}"], 2 * radius
    else:
        size = rng.randint(3, 199)
        lines, answer = [f"pi times the diameter: {size}"], size
    prompt = _ask_pi(rng, f"the {asked} of a circle of {given} {size}")
    return create_draft(f"{asked} {given} {size}", prompt, lines, answer)


def _two_circles(rng: random.Random) -> Draft:
    """The area of some equal circles and one more, or of a ring times a number."""
    big, small, count = rng.randint(3, 30), rng.randint(2, 12), rng.randint(2, 9)
    if rng.random() < 0.5:
        small = rng.randint(2, big - 1)
        thing = f"the area between circles of radius {small} and {big}"
        lines = [*steps.square(big), *steps.square(small), *steps.add(big * big, -small * small)]
        return create_draft(f"ring {small},{big}", _ask_pi(rng, thing), lines, big * big - small * small)
    shown = f"a circle of radius {big} and {count} circles of radius {small}"
    lines = [*steps.square(big), *steps.square(small), *steps.multiply(count, small * small)]
    answer = big * big + count * small * small
    lines += steps.add(big * big, count * small * small)
    thing = f"the area of {shown}"
    return create_draft(f"area {big} and {count}*{small}", _ask_pi(rng, thing), lines, answer)


# Degrees that are small parts of a turn.
_ANGLES = sorted({*range(30, 360, 30), *range(45, 360, 90)})


def _share_of_turn(angle: int) -> tuple[list[str], Fraction]:
    return steps.reduce(angle, 360), Fraction(angle, 360)


def _times_fraction(value: int, share: Fraction) -> tuple[list[str], Fraction]:
    lines = steps.multiply(value, share.numerator) if share.numerator > 1 else []
    return [*lines, *steps.reduce(value * share.numerator, share.denominator)], value * share


def _sector(rng: random.Random) -> Draft:
    asked, radius, angle = rng.choice(("area", "arc")), rng.randint(2, 30), rng.choice(_ANGLES)
    if asked == "arc":
        radius = rng.randint(2, 99)
    lines, share = _share_of_turn(angle)
    whole = radius * radius if asked == "area" else 2 * radius
    lines += steps.square(radius) if asked == "area" else [f"2*{radius}={whole}"]
    more, answer = _times_fraction(whole, share)
    thing = f"the {asked} of a sector of {angle} degrees and radius {radius}"
    return create_draft(f"{asked} {radius},{angle}", _ask_pi(rng, thing), lines + more, answer)


def _part_of_ring(rng: random.Random) -> Draft:
    big, angle = rng.randint(4, 30), rng.choice(_ANGLES)
    small = rng.randint(2, big - 1)
    ring = big * big - small * small
    lines, share = _share_of_turn(angle)
    lines += [*steps.square(big), *steps.square(small), *steps.add(big * big, -small * small)]
    more, answer = _times_fraction(ring, share)
    thing = f"the area of a part of {angle} degrees of the ring between circles of radius {small} and {big}"
    return create_draft(f"part {small},{big},{angle}", _ask_pi(rng, thing), lines + more, answer)


def _lawn(rng: random.Random) -> Draft:
    """A round lawn with two kinds of round ponds; the trees play no part."""
    while True:
        big, trees = rng.randint(16, 30), rng.randint(2, 30)
        ponds = [(rng.randint(2, 9), rng.randint(2, 9)) for _ in range(2)]
        (m, r), (n, s) = ponds
        area = big * big - m * r * r - n * s * s
        if r != s and area > 0:
            break
    lines = steps.square(big)
    for count, radius in ponds:
        lines += [*steps.square(radius), *steps.multiply(count, radius * radius)]
    lines += [*steps.add(m * r * r, n * s * s), *steps.add(big * big, -m * r * r - n * s * s)]
    lawn = f"a round lawn of radius {big} with {trees} trees, {m} round ponds of radius {r} and {n} of radius {s}"
    return create_draft(f"{big},{sorted(ponds)}", _ask_pi(rng, f"the area of the grass of {lawn}"), lines, area)


def solid(rng: random.Random, difficulty: int) -> Draft:
    """Boxes: 1 volume, 2 a side asked, 3 surface without a lid, 4 with a hole, 5 a tank that fills."""
    return (_volume, _box_side, _open_box, _box_hole, _tank)[difficulty - 1](rng)


def _volume(rng: random.Random) -> Draft:
    a, b, c = sides = [rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 12)]
    lines = [*steps.multiply(c, min(a, b)), *steps.multiply(c * min(a, b), max(a, b))]
    rng.shuffle(sides)
    shown = " by ".join(map(str, sides))
    prompt = rng.choice(
        (
            steps.ask(rng, f"the volume of a box of {shown}"),
            f"A box is {shown}. Find the volume.",
        )
    )
    return create_draft(f"volume {sorted(sides)}", prompt, lines, a * b * c)


def _box_side(rng: random.Random) -> Draft:
    a, b, height = rng.randint(2, 9), rng.randint(2, 9), rng.randint(3, 99)
    volume = a * b * height
    lines = [*steps.multiply(a, b), *steps.divide(volume, a * b)]
    prompt = rng.choice(
        (
            f"A box of {a} by {b} has volume {volume}. Find the height.",
            f"What is the height of a box of {a} by {b} with volume {volume}?",
            f"The volume of a box is {volume} and its base {a} by {b}. What is the height?",
        )
    )
    return create_draft(f"height {volume},{sorted((a, b))}", prompt, lines, height)


def _box_hole(rng: random.Random) -> Draft:
    outer, inner = (
        [rng.randint(11, 30), rng.randint(5, 9), rng.randint(5, 9)],
        [rng.randint(2, 9), rng.randint(2, 4), rng.randint(2, 4)],
    )
    (a, b, c), (d, e, f) = outer, inner
    lines = [*steps.multiply(a, b), *steps.multiply(a * b, c), *steps.multiply(d, e), *steps.multiply(d * e, f)]
    lines += steps.add(a * b * c, -d * e * f)
    whole, hole = f"{a} by {b} by {c}", f"{d} by {e} by {f}"
    prompt = rng.choice(
        (
            f"A block of {whole} has a hole of {hole}. Find the volume left.",
            f"What volume has a block of {whole} with a hole of {hole}?",
            f"A hole of {hole} is cut from a block of {whole}. What volume is left?",
        )
    )
    return create_draft(f"hole {sorted(outer)},{sorted(inner)}", prompt, lines, a * b * c - d * e * f)


def _open_box(rng: random.Random) -> Draft:
    """The base and four walls: ab+2h(a+b)."""
    a, b, height = rng.randint(2, 9), rng.randint(11, 199), rng.randint(2, 9)
    around = 2 * (a + b)
    lines = [*steps.multiply(a, b), *steps.add(a, b), f"2*{a + b}={around}", *steps.multiply(around, height)]
    lines += steps.add(a * b, around * height)
    prompt = rng.choice(
        (
            f"A box without a lid is {a} by {b} and {height} high. Find its outer area.",
            f"What is the outer area of a box without a lid, {a} by {b} and {height} high?",
            f"Find the area of the base and the four walls of a box of {a} by {b}, {height} high.",
        )
    )
    return create_draft(f"open {sorted((a, b))},{height}", prompt, lines, a * b + around * height)


def _tank(rng: random.Random) -> Draft:
    """A tank that is filled from a level on by a tap of so much a minute; the wall plays no part."""
    while True:
        a, b, height, rate = rng.randint(2, 9), rng.randint(11, 50), rng.randint(22, 60), rng.randint(3, 12)
        level = height - rng.randint(3, 19)
        space = a * b * (height - level)
        if space % rate == 0 or (rng.random() < 0.03 and Fraction(space, rate).denominator <= 6):
            break
    wall = rng.randint(2, 9)
    lines = [f"{height}-{level}={height - level}", *steps.multiply(a, b), *steps.multiply(a * b, height - level)]
    lines += steps.divide(space, rate) if space % rate == 0 else steps.reduce(space, rate)
    prompt = rng.choice(
        (
            f"A tank is {a} by {b} inside and {height} high, its walls {wall} thick. It is filled up to {level}. A tap "
            f"gives {rate} a minute. After how many minutes is it full?",
            f"Water stands {level} high in a tank of {a} by {b} and {height} high, with walls {wall} thick outside. "
            f"Find the minutes until it is full at {rate} a minute.",
            f"How many minutes does a tap of {rate} a minute take to fill a tank of {a} by {b} inside, {height} high, "
            f"with walls {wall} thick and water {level} high in it?",
        )
    )
    return create_draft(f"tank {sorted((a, b))},{height},{level},{rate}", prompt, lines, Fraction(space, rate))
