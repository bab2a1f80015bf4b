"""Arithmetic families on whole numbers: remainder, divisors, journey. Generators only; checks in checks_numbers.py."""

import math
import random
from fractions import Fraction

from tiny_reasoning_jax.data.procedural import steps
from tiny_reasoning_jax.data.procedural.steps import Draft, create_draft


def remainder(rng: random.Random, difficulty: int) -> Draft:
    """What a division leaves: 1 of a number, 2 a sum, 3 a product and a sum, 4 a power, 5 a power and a product."""
    expression, canonical, lines, rest, m = (_one, _sum, _product, _power, _power_and_product)[difficulty - 1](rng)
    prompt = rng.choice(
        (
            f"Find the remainder of {expression} divided by {m}.",
            f"What is the remainder if {expression} is divided by {m}?",
            f"Divide {expression} by {m}. What is left?",
        )
    )
    return create_draft(f"{canonical} by {m}", prompt, [*lines, f"left {rest}"], rest)


# The expression, its canonical form, the lines, what is left, the divisor.
_Rest = tuple[str, str, list[str], int, int]


def _reduced(value: int, m: int) -> list[str]:
    """The lines that bring a value below m: none where it is there already."""
    return steps.divide_with_rest(value, m) if value >= m else []


def _one(rng: random.Random) -> _Rest:
    m = rng.randint(5, 9)
    a = rng.randint(2 * m, 199)
    return str(a), str(a), steps.divide_with_rest(a, m), a % m, m


def _sum(rng: random.Random) -> _Rest:
    """Every term is brought below the divisor before they are added."""
    m, a, b = rng.randint(5, 12), rng.randint(21, 199), rng.randint(21, 199)
    both = a % m + b % m
    lines = [*_reduced(a, m), *_reduced(b, m), f"{a % m}+{b % m}={both}", *_reduced(both, m)]
    return f"{a}+{b}", f"{min(a, b)}+{max(a, b)}", lines, both % m, m


def _product(rng: random.Random) -> _Rest:
    m, a, b, c = rng.randint(6, 12), rng.randint(21, 99), rng.randint(21, 99), rng.randint(21, 99)
    lines, rest = _product_rest(a, b, m)
    lines += [*_reduced(c, m), f"{rest}+{c % m}={rest + c % m}", *_reduced(rest + c % m, m)]
    return f"{a}*{b}+{c}", f"{min(a, b)}*{max(a, b)}+{c}", lines, (a * b + c) % m, m


def _product_rest(a: int, b: int, m: int) -> tuple[list[str], int]:
    x, y = a % m, b % m
    return [*_reduced(a, m), *_reduced(b, m), f"{x}*{y}={x * y}", *_reduced(x * y, m)], x * y % m


def _power_rest(a: int, n: int, m: int) -> tuple[list[str], int]:
    """The power grows by one factor at a time and never beyond the divisor."""
    lines, rest = _reduced(a, m), a % m
    for i in range(2, n + 1):
        product = rest * (a % m)
        lines += [f"power {i}: {rest}*{a % m}={product}", *_reduced(product, m)]
        rest = product % m
    return lines, rest


def _power_base(rng: random.Random, m: int) -> int:
    while True:
        a = rng.randint(12, 99)
        if 1 < a % m < m - 1:
            return a


def _power(rng: random.Random) -> _Rest:
    m, n, c = rng.randint(7, 13), rng.randint(3, 5), rng.randint(21, 99)
    a = _power_base(rng, m)
    lines, rest = _power_rest(a, n, m)
    lines += [*_reduced(c, m), f"{rest}+{c % m}={rest + c % m}", *_reduced(rest + c % m, m)]
    return f"{a}^{n}+{c}", f"{a}^{n}+{c}", lines, (a**n + c) % m, m


def _power_and_product(rng: random.Random) -> _Rest:
    m, n, b, c = rng.randint(7, 13), rng.randint(4, 6), rng.randint(21, 99), rng.randint(21, 99)
    a = _power_base(rng, m)
    lines, first = _power_rest(a, n, m)
    more, second = _product_rest(b, c, m)
    lines += [*more, f"{first}+{second}={first + second}", *_reduced(first + second, m)]
    expression = f"{a}^{n}+{b}*{c}"
    return expression, f"{a}^{n}+{min(b, c)}*{max(b, c)}", lines, (a**n + b * c) % m, m


def divisors(rng: random.Random, difficulty: int) -> Draft:
    """Common divisors and multiples: 1 divisor, 2 larger, 3 multiple, 4 of three numbers, 5 bells that ring."""
    if difficulty == 5:
        return _bells(rng)
    if difficulty == 3:
        numbers, thing = list(_with_divisor(rng, 2, 24, 40, 150)[:2]), "least common multiple"
        lines, answer = _multiple(*numbers)
    else:
        thing = "greatest common divisor"
        if difficulty == 4:
            numbers = _three_with_divisor(rng)
        else:
            numbers = list(_with_divisor(rng, *((2, 15, 4, 60) if difficulty == 1 else (3, 99, 100, 999)))[:2])
        lines, answer = steps.euclid(numbers[0], numbers[1])
        for number in numbers[2:]:
            more, answer = steps.euclid(answer, number)
            lines += more
        lines.append(f"divisor {answer}")
    shown = ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
    prompt = rng.choice(
        (
            steps.ask(rng, f"the {thing} of {shown}"),
            f"Numbers {shown}: find the {thing}.",
        )
    )
    return create_draft(f"{thing} {sorted(numbers)}", prompt, lines, answer)


def _with_divisor(rng: random.Random, least: int, most: int, low: int, high: int) -> tuple[int, int, int]:
    """Two numbers, the larger within low..high, with a common divisor of least..most, and that divisor."""
    while True:
        g = rng.randint(least, most)
        a, b = rng.randint(1, high // g), rng.randint(1, high // g)
        if a != b and math.gcd(a, b) == 1 and g * max(a, b) >= low:
            return g * a, g * b, g


def _three_with_divisor(rng: random.Random) -> list[int]:
    """Three numbers whose common divisor is smaller than that of the first two."""
    while True:
        a, b, g = _with_divisor(rng, 6, 60, 100, 999)
        c = rng.randint(2, 99) * rng.choice([d for d in range(2, g + 1) if g % d == 0])
        if 20 <= c <= 999 and c not in (a, b) and math.gcd(g, c) > 1:
            return [a, b, c]


def _multiple(a: int, b: int) -> tuple[list[str], int]:
    """Lines to the least common multiple of two numbers, as the first over the divisor times the second."""
    lines, g = steps.euclid(a, b)
    small, big = min(a, b), max(a, b)
    return [*lines, *steps.divide(small, g), *steps.multiply(big, small // g)], a * b // g


def _bells(rng: random.Random) -> Draft:
    """Three bells ring together at a minute and then every a, b and c minutes; the height plays no part."""
    while True:
        numbers = rng.sample(range(4, 41), 3)
        if math.lcm(*numbers[:2]) < math.lcm(*numbers) <= 360:
            break
    a, b, c = numbers
    start, height = rng.randint(2, 99), rng.randint(10, 60)
    lines, first = _multiple(a, b)
    more, common = _multiple(first, c)
    lines += [*more, *steps.add(start, common)]
    every = f"every {a}, {b} and {c} minutes"
    prompt = rng.choice(
        (
            f"Three bells ring {every}. They ring together at minute {start}. The tower is {height} m high. "
            f"At which minute do they next ring together?",
            f"A tower of {height} m has three bells that ring {every}. All ring at minute {start}. "
            f"Find the minute when all ring again.",
            f"At minute {start} three bells ring together, then {every}. They hang {height} m high. "
            f"What is the next minute with all three?",
        )
    )
    return create_draft(f"bells {sorted(numbers)} from {start}", prompt, lines, start + common)


def journey(rng: random.Random, difficulty: int) -> Draft:
    """Ways and speeds: 1 one part, 2 two parts, 3 from clock times, 4 mean speed, 5 two trains that meet."""
    return (_one_part, _two_parts, _by_the_clock, _mean_speed, _trains)[difficulty - 1](rng)


def _one_part(rng: random.Random) -> Draft:
    speed, hours = rng.randint(11, 99), rng.randint(2, 9)
    prompt = rng.choice(
        (
            f"A car goes {speed} km an hour. How far does it go in {hours} hours?",
            f"How far is a drive of {hours} hours at {speed} km an hour?",
            f"Find the distance of {hours} hours at {speed} km an hour.",
        )
    )
    return create_draft(f"{speed}*{hours}", prompt, steps.multiply(speed, hours), speed * hours)


_Part = tuple[int, int]


def _parts(rng: random.Random) -> tuple[list[_Part], str, list[str], int]:
    """Two (speed, hours) parts of a way: they, the words, lines to the whole way, the way."""
    (u, s), (v, t) = parts = [(rng.randint(11, 99), rng.randint(2, 9)) for _ in range(2)]
    lines = [*steps.multiply(u, s), *steps.multiply(v, t), *steps.add(u * s, v * t)]
    return parts, f"{s} hours at {u} km an hour and then {t} hours at {v} km an hour", lines, u * s + v * t


def _two_parts(rng: random.Random) -> Draft:
    parts, words, lines, way = _parts(rng)
    prompt = rng.choice(
        (f"A car goes {words}. How far is that?", f"Find the distance of {words}.", f"How far does Ann go in {words}?")
    )
    return create_draft(f"way {sorted(parts)}", prompt, lines, way)


def _mean_speed(rng: random.Random) -> Draft:
    parts, words, lines, way = _parts(rng)
    hours = sum(time for _, time in parts)
    prompt = rng.choice(
        (
            f"A car goes {words}. Find its mean speed in km an hour.",
            f"What is the mean speed in km an hour of {words}?",
            f"Ann drives {words}. What is her mean speed in km an hour?",
        )
    )
    lines += [*steps.add(parts[0][1], parts[1][1]), *steps.reduce(way, hours)]
    return create_draft(f"mean {sorted(parts)}", prompt, lines, Fraction(way, hours))


def _by_the_clock(rng: random.Random) -> Draft:
    """So much a minute between two times of a day: minutes to the full hour, whole hours, minutes after."""
    hour, minute, hours, late = rng.randint(6, 20), rng.randint(1, 59), rng.randint(1, 2), rng.randint(1, 59)
    speed, end = rng.randint(3, 9), hour + 1 + hours
    whole, start_text, end_text = 60 * hours, f"{hour}:{minute:02}", f"{end}:{late:02}"
    lines = [f"{start_text} to {hour + 1}:00 is {60 - minute}", f"{hour + 1}:00 to {end}:00 is {whole}"]
    lines += [*steps.add(60 - minute, whole), *steps.add(60 - minute + whole, late)]
    minutes = 60 - minute + whole + late
    lines += steps.multiply(minutes, speed)
    prompt = rng.choice(
        (
            f"An ant goes {speed} cm a minute from {start_text} to {end_text}. How far in cm?",
            f"From {start_text} to {end_text} an ant goes {speed} cm a minute. Find the distance in cm.",
            f"How many cm does an ant go from {start_text} to {end_text} at {speed} cm a minute?",
        )
    )
    return create_draft(f"{start_text} to {end_text} at {speed}", prompt, lines, minutes * speed)


def _trains(rng: random.Random) -> Draft:
    """Two trains towards each other, one earlier; how far the first has come; the wagons play no part."""
    u, v, early, hours = rng.randint(21, 80), rng.randint(21, 80), rng.randint(1, 4), rng.randint(2, 9)
    apart = u * early + (u + v) * hours
    lines = [*steps.multiply(u, early), *steps.add(apart, -u * early), *steps.add(u, v)]
    lines += [*steps.divide(apart - u * early, u + v), *steps.add(early, hours), *steps.multiply(u, early + hours)]
    wagons, ahead = rng.randint(4, 20), "1 hour" if early == 1 else f"{early} hours"
    prompt = rng.choice(
        (
            f"Two trains {apart} km apart go towards each other, one at {u} km an hour, one at {v} km an hour. The "
            f"first has {wagons} wagons and starts {ahead} earlier. How far has it come when they meet?",
            f"A train of {wagons} wagons goes {u} km an hour. From {apart} km away a second comes towards it at {v} km "
            f"an hour, but starts {ahead} later. How far has the first come when they meet?",
            f"Towns are {apart} km apart. A train with {wagons} wagons leaves the first at {u} km an hour, and {ahead} "
            f"later one leaves the second at {v} km an hour. How far from the first town do they meet?",
        )
    )
    return create_draft(f"{u},{v},{early},{hours}", prompt, lines, u * (early + hours))
