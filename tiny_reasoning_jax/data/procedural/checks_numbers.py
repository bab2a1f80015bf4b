"""Independent answers for the families of number_theory.py and equations.py, from the words of the prompt alone.

Nothing here is shared with the generators: divisors, multiples, roots and integers are found by trying them,
shares by dealing them out, journeys by walking them minute by minute.
"""

import re
from fractions import Fraction

from tiny_reasoning_jax.data.procedural.checks_math import evaluate, find, integers

_NUMBER = r"(\d+)"


def _numbers(pattern: str, prompt: str) -> list[int]:
    """The integers at the "#" of a pattern."""
    return [int(text) for text in find(pattern.replace("#", _NUMBER), prompt)]


def solve_remainder(prompt: str) -> str:
    """What is left of an exactly evaluated expression."""
    expression, m = find(r"(?:remainder of|remainder if|Divide) ([\d+*^]+) (?:is )?(?:divided )?by (\d+)", prompt)
    return str(evaluate(expression) % int(m))


def solve_divisors(prompt: str) -> str:
    """The greatest divisor from above, the least multiple from below, bells by waiting."""
    numbers = integers(find(r"(\d+(?:, \d+)* and \d+)", prompt)[0])
    if "bells" in prompt:
        minute, (start,) = 1, _numbers("minute #", prompt)
        while any(minute % every for every in numbers):
            minute += 1
        return str(start + minute)
    if "multiple" in prompt:
        return str(next(n for n in range(1, 10**6) if not any(n % number for number in numbers)))
    return str(next(n for n in range(min(numbers), 0, -1) if not any(number % n for number in numbers)))


def solve_journey(prompt: str) -> str:
    """Ways hour by hour, clock times minute by minute, trains where their places are the same."""
    if "ant" in prompt:
        start, end = find(r"from (\d+:\d+) to (\d+:\d+)", prompt.lower())
        (speed,) = _numbers("# cm a minute", prompt)
        clock, minutes = start, 0
        while clock != end:
            hour, minute = map(int, clock.split(":"))
            clock = f"{hour}:{minute + 1:02}" if minute < 59 else f"{hour + 1}:00"
            minutes += 1
        return str(speed * minutes)
    if "apart" in prompt or "away" in prompt:
        return str(_meeting(prompt))
    parts = re.findall(r"(\d+) hours at (\d+) km", prompt)
    parts = parts or [find(r"(\d+) km an hour. How far does it go in (\d+) hours", prompt)]
    hours = [int(speed) for time, speed in parts for _ in range(int(time))]
    return str(Fraction(sum(hours), len(hours)) if "mean" in prompt else sum(hours))


def _meeting(prompt: str) -> Fraction:
    """Where two trains meet: the first's place is u*t, the second's apart-v*(t-early); t is their crossing."""
    (apart,) = _numbers("# km (?:apart|away)", prompt)
    (early,) = _numbers(r"# hours? (?:earlier|later)", prompt)
    u, v = map(int, re.findall(r"(\d+) km an hour", prompt))
    gap = [apart - u * t + v * early - v * t for t in (0, 1)]
    return u * Fraction(gap[0], gap[0] - gap[1])


def solve_quadratic(prompt: str) -> str:
    """All roots p/q of the quadratic through three sampled values, by trying p and q."""
    left, right = find(r"([-+\dx^]+)=([-+\dx^]+)", prompt)
    at0, at1, at2 = (evaluate(left, x=x) - evaluate(right, x=x) for x in (0, 1, 2))
    a = (at2 - 2 * at1 + at0) / 2
    a, b, c = int(a), int(at1 - at0 - a), int(at0)
    roots = {Fraction(p, q) for q in range(1, 6) for p in range(-70, 71) if a * p * p + b * p * q + c * q * q == 0}
    if "positive" in prompt or "x>0" in prompt:
        roots = {root for root in roots if root > 0}
    return str(max(roots) if "smaller" not in prompt else min(roots))


_SIGNS = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip


def solve_inequality(prompt: str) -> str:
    """The integers from -150 to 150 that fit."""
    chain = find(r"([-+|\dx]+[<>]=?[-+\dx]+(?:[<>]=?[-+\dx]+)?)", prompt.replace("|<", "| <").replace(" <", "<"))[0]
    sides, signs = re.split(r"[<>]=?", chain), re.findall(r"[<>]=?", chain)
    lines = []  # the values of every side at 0 and 1 say the whole line
    for side in sides:
        at0, at1 = (evaluate(side.strip("|"), x=x) for x in (0, 1))
        lines.append((int(at0), int(at1 - at0), side.startswith("|")))
    bound = re.search(r"and x>(-?\d+)", prompt)
    fits = []
    for x in range(-150, 151):
        values = [abs(c + m * x) if absolute else c + m * x for c, m, absolute in lines]
        holds = all(_SIGNS[sign](a, b) for sign, a, b in zip(signs, values, values[1:], strict=False))
        if holds and (bound is None or x > int(bound[1])):
            fits.append(x)
    if "number" in prompt:
        return str(len(fits))
    return str(max(fits) if "largest" in prompt else min(fits))


def solve_ratio(prompt: str) -> str:
    """Equal ratios by trying, shares by dealing out round after round, work by counting."""
    if "=" in prompt:
        a, b, c = _numbers("#:#=#:x", prompt)
        return str(next(x for x in range(1, 1000) if a * x == b * c))
    if "workers" in prompt:
        return str(_work_days(prompt))
    parts = integers(find(r"(\d+(?::\d+)+)", prompt)[0].replace(":", " "))
    if len(parts) == 2:
        (total,) = _numbers(r"(?:Share|share|if) #", prompt)
        return str(max(_deal(parts, total)) if "larger" in prompt else min(_deal(parts, total)))
    people = find(r"([A-Z][a-z]{2}), ([A-Z][a-z]{2}) and ([A-Z][a-z]{2})", prompt)
    (asked,) = find(r"(?:does|share of) ([A-Z][a-z]{2})", prompt)
    if "more than" in prompt:
        more, gap, less = find(r"([A-Z][a-z]{2}) gets (\d+) more than ([A-Z][a-z]{2})", prompt)
        rounds = 1
        while rounds * (parts[people.index(more)] - parts[people.index(less)]) < int(gap):
            rounds += 1
        return str(rounds * parts[people.index(asked)])
    (total,) = _numbers(r"(?:share|split) #", prompt)
    return str(_deal(parts, total)[people.index(asked)])


def _deal(parts: list[int], total: int) -> list[int]:
    shares = [0] * len(parts)
    while sum(shares) < total:
        shares = [share + part for share, part in zip(shares, parts, strict=True)]
    return shares


def _work_days(prompt: str) -> Fraction:
    """Day by day, with what part of the wall is built on each."""
    (workers,) = _numbers("# workers", prompt)
    (days,) = _numbers("(?:in|workers|need) # days", prompt)
    (before,) = _numbers("[Aa]fter # days", prompt)
    number, verb = find(r"(\d+) (join|leave)", prompt)
    built = Fraction(0)
    for _ in range(before):
        built += Fraction(1, days)
    now = workers + (int(number) if verb == "join" else -int(number))
    return before + (1 - built) / Fraction(now, workers * days)
