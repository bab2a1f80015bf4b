"""Logic family seats: who sits where, from clues that leave one way only. Generator only; checked by brute force.

The clues are drawn in the order of the reasoning: every line lists the ways to seat the people met so far that
fit all clues used so far. So the last line shows that one way is left.
"""

import random
from collections.abc import Callable
from typing import NamedTuple

from tiny_reasoning_jax.data.procedural.logic import NAMES
from tiny_reasoning_jax.data.procedural.steps import Draft, create_draft


class _Level(NamedTuple):
    seats: tuple[int, ...]  # how many seats, one of these
    people: int
    ways: int  # most ways that may be open at a time
    known: bool  # whether a person's seat is given outright
    kinds: str  # clues about a new person


_LEVELS = {
    1: _Level((5, 6, 7, 8, 9), 3, 1, True, "gap gap beside"),
    2: _Level((5, 6, 7), 4, 2, True, "gap beside after"),
    3: _Level((5, 6), 5, 3, True, "gap beside after apart"),
    4: _Level((6, 7), 5, 4, False, "gap beside after"),
    5: _Level((6, 7), 6, 4, False, "gap beside after apart"),
}

# Kind -> (words, whether they hold for the seats of the two people, or of one and a number).
_CLUES: dict[str, tuple[str, Callable[[int, int, int], bool]]] = {
    "beside": ("{} is beside {}", lambda a, b, _: abs(a - b) == 1),
    "apart": ("{} is not beside {}", lambda a, b, _: abs(a - b) != 1),
    "after": ("{} is right of {}", lambda a, b, _: a > b),
    "gap": ("{} is {} right of {}", lambda a, b, k: a - b == k),
    "at": ("{} has seat {}", lambda a, _, k: a == k),
    "not": ("{} does not have seat {}", lambda a, _, k: a != k),
}


class _Clue(NamedTuple):
    kind: str
    a: int  # a person's true seat, which names the person
    b: int  # another's; 0 for none
    k: int  # number of seats, or a seat; 0 for none


def seats(rng: random.Random, difficulty: int) -> Draft:
    """Seats in a row: 1 every clue settles one, 2 to 5 more people, more ways open, 4 and 5 no seat given."""
    level = _LEVELS[difficulty]
    while True:
        num_seats = rng.choice(level.seats)
        people = rng.sample(range(1, num_seats + 1), level.people)
        names = dict(zip(people, rng.sample(NAMES, level.people), strict=True))
        story = _draw_clues(rng, level, num_seats, people)
        if story is not None:
            break
    clues, lines, single = [clue for clue, _ in story], [], True
    for _, (met, ways) in story:
        single = single and len(ways) == 1
        lines.append(_line(met, ways, names, single))
    given = {clue.a for clue in clues if clue.kind == "at"}
    asked = rng.choice([person for person in people if person not in given])
    facts = [_say(rng, clue, names) for clue in clues]
    if difficulty > 1:
        rng.shuffle(facts)
    question = rng.choice(("Where is {}?", "Which seat has {}?", "Find the seat of {}.")).format(names[asked])
    prompt = f"Seats 1 to {num_seats} from left to right, one each. {' '.join(facts)} {question}"
    canonical = f"{num_seats} {sorted(map(tuple, clues))} {asked}"
    last = f"{names[asked]}: {asked}"
    return create_draft(canonical, prompt, lines if lines[-1] == last else [*lines, last], asked)


_Ways = list[dict[int, int]]  # each: person (true seat) -> seat
_Story = list[tuple[_Clue, tuple[list[int], _Ways]]]


def _draw_clues(rng: random.Random, level: _Level, num_seats: int, people: list[int]) -> _Story | None:
    """Clues in the order of their use, each with the people met by then and the ways left; None if none are found."""
    story, met, ways = [], people[:1], [{people[0]: seat} for seat in range(1, num_seats + 1)]
    if level.known:
        clue = _Clue("at", people[0], 0, people[0])
        ways = [{people[0]: people[0]}]
        story.append((clue, (met, ways)))
    while len(met) < level.people or len(ways) > 1:
        for _ in range(8):
            new = len(met) < level.people
            a = people[len(met)] if new else rng.choice(met)
            clue = _draw_clue(rng, level.kinds if new else "after apart not not", a, met)
            left = _restrict(ways, clue, num_seats, a if new else None) if clue else []
            if (len(left) <= level.ways if new else len(left) < len(ways)) and left:
                break
        else:
            return None
        met, ways = ([*met, a] if new else met), left
        story.append((clue, (met, ways)))
    return story


def _draw_clue(rng: random.Random, kinds: str, a: int, met: list[int]) -> _Clue | None:
    """A true clue about person a and one met before, or a alone."""
    kind = rng.choice(kinds.split())
    if kind == "not":
        k = rng.randint(1, 6)
        return _Clue("not", a, 0, k) if k != a else None
    b = rng.choice(met)
    if a == b or (abs(a - b) == 1) != (kind == "beside") and kind in ("beside", "apart"):
        return None
    if kind in ("after", "gap"):
        low, high = sorted((a, b))
        return _Clue(kind, high, low, high - low if kind == "gap" else 0)
    return _Clue(kind, min(a, b), max(a, b), 0)


def _restrict(ways: _Ways, clue: _Clue, num_seats: int, new: int | None) -> _Ways:
    """The ways that fit the clue, each tried with every free seat for the new person."""
    fits, a, b, k = _CLUES[clue.kind][1], clue.a, clue.b, clue.k
    if new is None:
        return [way for way in ways if fits(way[a], way.get(b, 0), k)]
    left = []
    for way in ways:
        for seat in range(1, num_seats + 1):
            if fits(seat if new == a else way[a], seat if new == b else way[b], k) and seat not in way.values():
                left.append(way | {new: seat})
    return left


def _say(rng: random.Random, clue: _Clue, names: dict[int, str]) -> str:
    a, b = names[clue.a], names.get(clue.b, "")
    if clue.kind in ("at", "not"):
        return _CLUES[clue.kind][0].format(a, clue.k) + "."
    mirrored = rng.random() < 0.5
    if clue.kind in ("after", "gap") and mirrored:
        return (f"{b} is {clue.k} left of {a}" if clue.k else f"{b} is left of {a}") + "."
    if clue.kind == "gap":
        return _CLUES["gap"][0].format(a, clue.k, b) + "."
    return _CLUES[clue.kind][0].format(*((b, a) if mirrored and clue.kind != "after" else (a, b))) + "."


def _line(met: list[int], ways: _Ways, names: dict[int, str], single: bool) -> str:
    """Every way to seat the people met, a digit for each; as long as there is one way, the last person's seat."""
    if single:
        return f"{names[met[-1]]}: {ways[0][met[-1]]}"
    shown = " ".join("".join(str(way[person]) for person in met) for way in ways)
    return f"{' '.join(names[person] for person in met)}: {shown}"
