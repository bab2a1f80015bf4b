"""Logic family syllogism: what follows from facts with all, no and some. Generator only; checked by brute force.

Decided here by chains of "all": what every member of a kind is. The facts never make a kind empty, and the
answer is kept only if it is the same whether or not a kind without a named member may be empty.
"""

import random

from tiny_reasoning_jax.data.procedural.steps import Draft, create_draft

_KINDS = ("zigs", "wugs", "daxes", "feps", "lims", "moks", "pons", "tavs")
_Fact = tuple[str, int, int]  # "All", "No", "Some" or "Some not", and two kinds
_WORDS = {"All": "All {} are {}.", "No": "No {} are {}.", "Some": "Some {} are {}.", "Some not": "Some {} are not {}."}
_OPTIONS = "all, none, some, not all or unknown"
# Difficulty -> (facts that lead to the answer, idle facts).
_SIZES = {1: ((2,), (1, 2)), 2: ((3,), (1, 2)), 3: ((4,), (2,)), 4: ((4, 5), (3,)), 5: ((5, 6), (4,))}


def syllogism(rng: random.Random, difficulty: int) -> Draft:
    """What follows about kinds 0 and 1: 1 two facts, 2 three, 3 four and an idle one, 4 and 5 more of both."""
    wanted = rng.choice(("all", "none", "some", "not all", "unknown"))
    length, idle = map(rng.choice, _SIZES[difficulty])
    facts = None
    while facts is None:
        facts = _draw_facts(rng, wanted, length, idle)
    rng.shuffle(facts)
    names = rng.sample(_KINDS, len(_KINDS))
    said = []
    for word, x, y in facts:
        x, y = (y, x) if word in ("No", "Some") and rng.random() < 0.5 else (x, y)
        said.append(_WORDS[word].format(names[x], names[y]))
    a, c = names[0], names[1]
    question = rng.choice(
        (f"How many {a} are {c}: {_OPTIONS}?", f"Are {a} {c}: {_OPTIONS}?", f"Say {_OPTIONS}: {a} are {c}.")
    )
    lines = _reason(facts, names)
    assert lines[-1].endswith(wanted), (facts, wanted, lines)
    return create_draft(_canonical(facts), f"{' '.join(said)} {question}", lines, wanted)


def _draw_facts(rng: random.Random, wanted: str, length: int, idle: int) -> list[_Fact] | None:
    """Facts from which the wanted answer follows, with idle ones; None if chance spoils it."""
    free = iter(range(2, len(_KINDS)))
    facts = _unknown(rng, length, free) if wanted == "unknown" else _lead(rng, wanted, length, free)
    used = {kind for _, x, y in facts for kind in (x, y)}
    for _ in range(idle):
        word, x, y = rng.choice(("All", "All", "No", "Some", "Some not")), rng.choice(sorted(used)), next(free, None)
        if y is None:
            x, y = rng.sample(sorted(used), 2)
        used |= {x, y}
        facts.append((word, *((x, y) if rng.random() < 0.5 else (y, x))))
    if len({(word, *sorted((x, y))) for word, x, y in facts}) < len(facts) or not {0, 1} <= used:
        return None
    return facts if _decide(facts, len(_KINDS)) == wanted else None


def _chain(bottom: int, top: int, length: int, free) -> list[_Fact]:
    """`length` facts "all" that lead from bottom to top, which are the same kind if it is 0."""
    kinds = [bottom, *(next(free) for _ in range(length - 1)), top]
    return [("All", x, y) for x, y in zip(kinds, kinds[1:], strict=False)] if length else []


def _split(rng: random.Random, total: int, parts: int) -> list[int]:
    sizes = [0] * parts
    for _ in range(total):
        sizes[rng.randrange(parts)] += 1
    return sizes


def _lead(rng: random.Random, wanted: str, length: int, free) -> list[_Fact]:
    if wanted == "all":
        return _chain(0, 1, length, free)
    if wanted in ("none", "some"):
        up, down = _split(rng, length - 1, 2)
        x, y = next(free) if up else 0, next(free) if down else 1
        if wanted == "none":
            return [*_chain(0, x, up, free), *_chain(1, y, down, free), ("No", x, y)]
        return [*_chain(x, 0, up, free), *_chain(y, 1, down, free), ("Some", x, y)]
    if rng.random() < 0.5:
        up, down = _split(rng, length - 1, 2)
        x, y = next(free) if up else 0, next(free) if down else 1
        return [*_chain(x, 0, up, free), *_chain(1, y, down, free), ("Some not", x, y)]
    up, side, down = _split(rng, length - 2, 3)
    x, r, y = next(free) if up else 0, next(free), next(free) if down else 1
    z = next(free) if side else r
    return [*_chain(x, 0, up, free), *_chain(r, z, side, free), *_chain(1, y, down, free),
            ("Some", x, r), ("No", z, y)]  # fmt: skip


def _unknown(rng: random.Random, length: int, free) -> list[_Fact]:
    """Facts that lead somewhere, then one of them turned round or weakened."""
    facts = _lead(rng, rng.choice(("all", "none", "some", "not all")), length, free)
    i = rng.randrange(len(facts))
    word, x, y = facts[i]
    facts[i] = {"All": ("All", y, x), "No": ("Some not", x, y), "Some": ("Some not", x, y)}.get(word, ("Some", x, y))
    if word == "All" and rng.random() < 0.3:
        facts[i] = ("Some", x, y)
    return facts


def _closures(facts: list[_Fact], count: int) -> list[list[int]]:
    """For every kind all kinds that its members belong to, itself first, then by the number of steps."""
    closures = []
    for kind in range(count):
        closure = [kind]
        for member in closure:
            closure += [y for word, x, y in facts if word == "All" and x == member and y not in closure]
        closures.append(closure)
    return closures


def _decide(facts: list[_Fact], count: int) -> str | None:
    """What follows about kinds 0 and 1; None if the facts clash or it hangs on whether a kind may be empty."""
    up = _closures(facts, count)
    no = [(x, y) for word, x, y in facts if word == "No"]

    def excluded(members: set[int]) -> set[int]:
        return {b for x, y in no for a, b in ((x, y), (y, x)) if a in members}

    outside = [excluded(set(closure)) for closure in up]
    if any(outside[kind] & set(up[kind]) for kind in range(count)):
        return None
    things = [(set(closure), out) for closure, out in zip(up, outside, strict=True)]
    shown = []
    for word, x, y in facts:
        if word == "Some":
            members = set(up[x]) | set(up[y])
            shown.append((members, excluded(members)))
        elif word == "Some not":
            shown.append((set(up[x]), excluded(set(up[x])) | {y}))
    if any(members & out for members, out in shown):
        return None
    if 1 in up[0]:
        return "all"
    if outside[0] & set(up[1]):
        return "none"
    found = [_shows(shown, up), _shows(shown + things, up)]
    if found[0] != found[1] or len(found[0]) > 1:
        return None
    return found[0][0] if found[0] else "unknown"


def _shows(things: list[tuple[set[int], set[int]]], up: list[list[int]]) -> list[str]:
    """Whether one of the things is of kind 0 and 1, or of kind 0 and not 1."""
    ours = [(members, out) for members, out in things if 0 in members]
    found = ["some"] if any(1 in members for members, _ in ours) else []
    return found + (["not all"] if any(out & set(up[1]) for _, out in ours) else [])


def _reason(facts: list[_Fact], names: list[str]) -> list[str]:
    """What all of kind 0 are, what all of kind 1 are, then the first fact that settles it."""
    up = _closures(facts, len(_KINDS))
    lines = [
        f"all {names[k]}: {' '.join(names[x] for x in up[k][1:end])}"
        for k in (0, 1)
        for end in range(2, len(up[k]) + 1)
    ]
    last = f"{names[0]} {names[1]}: "
    if 1 in up[0]:
        return [*lines, last + "all"]
    for word, x, y in facts:
        if word == "No" and any(a in up[0] and b in up[1] for a, b in ((x, y), (y, x))):
            return [*lines, f"no {names[x]} {names[y]}", last + "none"]
    for word, x, y in facts:
        if word not in ("Some", "Some not"):
            continue
        members = up[x] + [kind for kind in up[y] if word == "Some" and kind not in up[x]]
        if 0 not in members:
            continue
        line = f"some: {' '.join(names[kind] for kind in members)}"
        if 1 in members:
            return [*lines, line, last + "some"]
        if word == "Some not" and y in up[1]:
            return [*lines, f"{line}, not {names[y]}", last + "not all"]
        for other, p, q in facts:
            for a, b in ((p, q), (q, p)):
                if other == "No" and a in members and b in up[1]:
                    return [*lines, f"{line}, not {names[b]}", last + "not all"]
        lines.append(line)
    return [*lines, last + "unknown"]


def _canonical(facts: list[_Fact]) -> str:
    """The facts with every kind named by how it is connected: other names and another order give the same."""
    colours = {kind: min(kind, 2) for _, x, y in facts for kind in (x, y)}
    for _ in range(4):
        seen: dict[int, list] = {kind: [] for kind in colours}
        for word, x, y in facts:
            same = word in ("No", "Some")
            seen[x].append((word, 0, colours[y]))
            seen[y].append((word, 0 if same else 1, colours[x]))
        views = {kind: (colours[kind], sorted(seen[kind])) for kind in colours}
        ranks = sorted(views.values())
        colours = {kind: ranks.index(view) for kind, view in views.items()}
    named = []
    for word, x, y in facts:
        x, y = colours[x], colours[y]
        named.append((word, *(sorted((x, y)) if word in ("No", "Some") else (x, y))))
    return str(sorted(named))
