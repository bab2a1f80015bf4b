"""Logic family sets: who is in two or three overlapping groups, by inclusion and exclusion. Generator only."""

import itertools
import random

from tiny_reasoning_jax.data.procedural.steps import Draft, create_draft

_VERBS = ("sing", "dance", "swim", "draw", "cook", "ski", "read", "paint")
_Said = tuple[str, tuple[int, ...]]  # a key of _WORDS and the groups it names
_WORDS = {
    "one": "{}",
    "and": "{} and {}",
    "or": "{} or {}",
    "nor": "do not {} or {}",
    "xor": "{} or {} but not both",
    "minus": "{} but do not {}",
    "total": "in all",
    "three": "do all three",
    "any": "{}, {} or {}",
    "none": "do not {}, {} or {}",
    "exactly one": "do exactly one",
    "exactly two": "do exactly two",
}


def sets(rng: random.Random, difficulty: int) -> Draft:
    """Two groups: 1 either, 2 neither or both, 3 one alone among idle facts; three groups: 4 any, 5 none, one, two."""
    facts, asked, lines, answer = (_two if difficulty <= 3 else _three)(rng, difficulty)
    rng.shuffle(facts)
    verbs = rng.sample(_VERBS, 3)
    said = ", ".join(f"{number} {_say(rng, fact, verbs)}" for number, fact in facts)
    frame = rng.choice(("How many {}?", "Find how many {}.", "Count those who {}."))
    prompt = f"Of some children {said}. {frame.format(_say(rng, asked, verbs))}"
    return create_draft(_canonical(facts, asked), prompt, lines, answer)


def _say(rng: random.Random, said: _Said, verbs: list[str]) -> str:
    kind, groups = said
    if kind != "minus":
        groups = rng.sample(groups, len(groups))
    return _WORDS[kind].format(*(verbs[group] for group in groups))


def _canonical(facts: list[tuple[int, _Said]], asked: _Said) -> str:
    """The first in order of the six ways to number the groups."""

    def numbered(said: _Said, order: tuple[int, ...]) -> _Said:
        groups = [order[group] for group in said[1]]
        return said[0], tuple(groups if said[0] == "minus" else sorted(groups))

    orders = itertools.permutations(range(3))
    return str(min((sorted((n, numbered(s, order)) for n, s in facts), numbered(asked, order)) for order in orders))


_Parts = tuple[list[tuple[int, _Said]], _Said, list[str], int]  # facts, what is asked, lines of reasoning, answer


def _two(rng: random.Random, difficulty: int) -> _Parts:
    both, only, neither = rng.randint(2, 30), [rng.randint(2, 40), rng.randint(2, 40)], rng.randint(1, 40)
    a, b = only[0] + both, only[1] + both
    union, pair = sum(only) + both, (0, 1)
    total = union + neither
    facts = [(a, ("one", (0,))), (b, ("one", (1,)))]
    if difficulty == 1 or (difficulty == 2 and rng.random() < 0.5):
        facts.append((both, ("and", pair)))
        lines = [f"{a}+{b}={a + b}", f"{a + b}-{both}={union}"]
        if difficulty == 1:
            return facts, ("or", pair), lines, union
        return [*facts, (total, ("total", ()))], ("nor", pair), [*lines, f"{total}-{union}={neither}"], neither
    facts += [(total, ("total", ())), (neither, ("nor", pair))]
    lines = [f"{total}-{neither}={union}", f"{a}+{b}={a + b}", f"{a + b}-{union}={both}"]
    if difficulty == 2:
        return facts, ("and", pair), lines, both
    facts.append((rng.randint(1, total), ("one", (2,))))
    if rng.random() < 0.5:
        return facts, ("minus", pair), [*lines, f"{a}-{both}={only[0]}"], only[0]
    lines += [f"{a}-{both}={only[0]}", f"{b}-{both}={only[1]}", f"{only[0]}+{only[1]}={sum(only)}"]
    return facts, ("xor", pair), lines, sum(only)


def _three(rng: random.Random, difficulty: int) -> _Parts:
    """The seven parts are drawn; the facts are the sizes of the groups, of their overlaps and, at 5, of all."""
    part = {bits: rng.randint(1, 12) for bits in itertools.product((0, 1), repeat=3) if any(bits)}
    one = [sum(n for bits, n in part.items() if bits[i]) for i in range(3)]
    pairs = list(itertools.combinations(range(3), 2))
    two = [sum(n for bits, n in part.items() if bits[i] and bits[j]) for i, j in pairs]
    three, union, outside = part[1, 1, 1], sum(part.values()), rng.randint(1, 40)
    facts: list[tuple[int, _Said]] = [(n, ("one", (i,))) for i, n in enumerate(one)]
    facts += [(n, ("and", pair)) for n, pair in zip(two, pairs, strict=True)]
    facts.append((three, ("three", ())))
    lines = [*_sum(one), *_sum(two), f"{sum(one)}-{sum(two)}={sum(one) - sum(two)}"]
    lines.append(f"{sum(one) - sum(two)}+{three}={union}")
    if difficulty == 4:
        return facts, ("any", (0, 1, 2)), lines, union
    total = union + outside
    facts.append((total, ("total", ())))
    exactly_two = sum(n for bits, n in part.items() if sum(bits) == 2)
    lines_two = [f"3*{three}={3 * three}", f"{sum(two)}-{3 * three}={exactly_two}"]
    asked = rng.choice(("none", "exactly one", "exactly two"))
    if asked == "none":
        return facts, ("none", (0, 1, 2)), [*lines, f"{total}-{union}={outside}"], outside
    if asked == "exactly two":
        return facts, (asked, ()), [*_sum(two), *lines_two], exactly_two
    exactly_one, rest = union - exactly_two - three, union - three
    lines += [*lines_two, f"{union}-{three}={rest}", f"{rest}-{exactly_two}={exactly_one}"]
    return facts, (asked, ()), lines, exactly_one


def _sum(numbers: list[int]) -> list[str]:
    a, b, c = numbers
    return [f"{a}+{b}={a + b}", f"{a + b}+{c}={a + b + c}"]
