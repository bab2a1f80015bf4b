"""Independent answers for the families of shapes.py and counting.py, from the words of the prompt alone.

Nothing here is shared with the generators: ways, tables and balls are counted out one by one, boxes layer by
layer, and circles measured by the definition of the asked quantity in exact fractions.
"""

import itertools
import math
import re
from fractions import Fraction

from tiny_reasoning_jax.data.procedural.checks_math import find, integers


def solve_circle(prompt: str) -> str:
    """Areas and lengths over pi: a disc of diameter d has d*d/4, its border d."""
    disc = lambda radius: Fraction(2 * int(radius)) ** 2 / 4
    if "lawn" in prompt:
        (big,) = find(r"lawn of radius (\d+)", prompt)
        ponds = re.findall(r"(\d+) (?:round ponds )?of radius (\d+)", prompt)
        return str(disc(big) - sum(disc(radius) for number, radius in ponds for _ in range(int(number))))
    if "between" in prompt:
        small, big = find(r"radius (\d+) and (\d+)", prompt)
        angle = find(r"(\d+) degrees", prompt)[0] if "degrees" in prompt else 360
        return str((disc(big) - disc(small)) * int(angle) / 360)
    if "sector" in prompt:
        angle, radius = find(r"(\d+) degrees and radius (\d+)", prompt)
        return str((disc(radius) if "area" in prompt else 2 * Fraction(radius)) * int(angle) / 360)
    if "circles" in prompt:
        big, number, small = find(r"a circle of radius (\d+) and (\d+) circles of radius (\d+)", prompt)
        return str(disc(big) + sum(disc(small) for _ in range(int(number))))
    given, size = find(r"(radius|diameter) (\d+)", prompt)
    diameter = Fraction(size) * (2 if given == "radius" else 1)
    return str(diameter if "circumference" in prompt else diameter**2 / 4)


def solve_solid(prompt: str) -> str:
    """Boxes by adding up layers, faces and minutes."""
    boxes = [tuple(map(int, sides)) for sides in re.findall(r"(\d+) by (\d+) by (\d+)", prompt)]
    if boxes:
        volumes = [sum(_layer(a, b) for _ in range(c)) for a, b, c in boxes]
        return str(max(volumes) - min(volumes) if len(volumes) > 1 else volumes[0])
    a, b = map(int, find(r"(\d+) by (\d+)", prompt))
    if "a minute" in prompt:
        height, level, rate = (
            int(find(pattern, prompt)[0])
            for pattern in (r"(?:and|inside,) (\d+) high", r"(?:filled up to|stands|water) (\d+)", r"(\d+) a minute")
        )
        return str(Fraction(sum(_layer(a, b) for _ in range(level, height)), rate))
    if "height" in prompt:
        (volume,) = map(int, find(r"volume(?: of a box is)? (\d+)", prompt))
        return str(next(height for height in range(1, 10**4) if height * _layer(a, b) == volume))
    (height,) = map(int, find(r"(\d+) high", prompt))
    return str(_layer(a, b) + sum(_layer(side, height) for side in (a, b, a, b)))


def _layer(a: int, b: int) -> int:
    return sum(b for _ in range(a))


def solve_counting(prompt: str) -> str:
    """Ways by listing choices (small kinds one by one, then their product), numbers by dividing each."""
    if " numbers from " in prompt:
        low, high = map(int, find(r"from (\d+) to (\d+)", prompt))
        m, n = integers(prompt.split(f"to {high}")[1])
        some = sum(1 for number in range(low, high + 1) if number % m == 0 or number % n == 0)
        return str(some)
    if "code" in prompt:
        ways = 1
        for places, different, count in re.findall(r"(\d+) (different )?(?:letter|digit)s? out of (\d+)", prompt):
            choices = itertools.product(range(int(count)), repeat=int(places))
            ways *= sum(1 for choice in choices if not different or len(set(choice)) == len(choice))
        return str(ways)
    groups = re.findall(r"(\d+) of (\d+) (?:boys|girls|teachers)", prompt)
    if not groups:
        groups = [(1, count) for count in re.findall(r"(\d+) (?:hats|coats|bags|shirts)", prompt)]
    return str(math.prod(sum(1 for _ in itertools.combinations(range(int(n)), int(k))) for k, n in groups))


def solve_conditional(prompt: str) -> str:
    """Every pupil, ball or part on a list of its own; then the share of the asked among those that are given."""
    if "bag" in prompt:
        bags = {
            name: (int(red), int(blue)) for name, red, blue in re.findall(r"bag (.) (\d+) red and (\d+) blue", prompt)
        }
        size = math.lcm(*(sum(balls) for balls in bags.values()))  # as many balls in every bag, in its proportions
        reds = {name: [name] * (red * size // (red + blue)) for name, (red, blue) in bags.items()}
        (asked,) = find(r"bag ([AB])[.?]", prompt)
        return str(Fraction(len(reds[asked]), sum(map(len, reds.values()))))
    if "makes" in prompt:
        bad = {name: int(number) * Fraction(int(rate), 100)
               for name, number, rate in re.findall(r"(.) makes (\d+) parts, (\d+)% bad", prompt)}  # fmt: skip
        (asked,) = find(r"(?:Chance that (?=. made)|part is of |chance of )([ABC])", prompt)
        return str(bad[asked] / sum(bad.values()))
    (event, given) = _event_and_condition(prompt)
    pupils = _pupils(prompt)
    fits = [pupil for pupil in pupils if given in pupil]
    return str(Fraction(sum(event in pupil for pupil in fits), len(fits)))


def _event_and_condition(prompt: str) -> tuple[str, str]:
    for pattern, event, given in (
        (r"chance of an? (\S+) if an? (\S+) is picked", 0, 1),
        (r"If an? (\S+) is picked, find the chance of an? (\S+)\.", 1, 0),
        (r"We pick an? (\S+)\. Chance of an? (\S+)\?", 1, 0),
    ):
        found = re.search(pattern, prompt)
        if found:
            return found.groups()[event], found.groups()[given]
    raise ValueError(f"cannot read this prompt: {prompt!r}")


_TOTALS = (
    r"Of (?P<everyone>\d+) pupils (?P<girls>\d+) are girls. (?P<singers>\d+) pupils sing, (?P<both>\d+) of them girls",
    r"(?P<everyone>\d+) pupils: (?P<girls>\d+) girls, (?P<singers>\d+) singers. (?P<both>\d+) of the singers",
    r"class of (?P<everyone>\d+) has (?P<girls>\d+) girls. (?P<both>\d+) girls sing, and (?P<singers>\d+) pupils",
)


def _pupils(prompt: str) -> list[tuple[str, str]]:
    rows = re.findall(r"(\d+) (boy|girl)s sing, (\d+) do not", prompt)
    if rows:
        return [(who, what) for sing, who, rest in rows for what in ["singer"] * int(sing) + ["non-singer"] * int(rest)]
    found = next(filter(None, (re.search(pattern, prompt) for pattern in _TOTALS)))
    everyone, girls, singers, both = (int(found[name]) for name in ("everyone", "girls", "singers", "both"))
    names = ["girl"] * girls + ["boy"] * (everyone - girls)
    sings = ["singer"] * both + ["non-singer"] * (girls - both) + ["singer"] * (singers - both)
    sings += ["non-singer"] * (everyone - len(sings))
    return list(zip(names, sings, strict=True))
