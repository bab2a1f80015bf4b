"""Logic families: liars, order, boolean. Generators only; the checks live in checks_logic.py."""

import itertools
import random
from collections.abc import Callable

from tiny_reasoning_jax.data.procedural.steps import Draft, ask_where, create_draft

NAMES = ("Ann", "Bob", "Dan", "Eve", "Kim", "Sam", "Tom", "Zoe")


def _renamed(text: str) -> str:
    """The text with the people numbered as they appear: other names make no new problem."""
    for number, (_, name) in enumerate(sorted((text.find(name), name) for name in NAMES if name in text)):
        text = text.replace(name, str(number))
    return text


def liars(rng: random.Random, difficulty: int) -> Draft:
    """Who lies: 1 to 3 a known person starts the chain, 4 and 5 nobody is known and both cases are tried."""
    if difficulty >= 4:
        return _two_cases(rng, difficulty)
    people = rng.sample(NAMES, {1: 3, 2: 4, 3: 6}[difficulty])
    if rng.random() < 0.5:
        honest = {people[0]: rng.random() < 0.5}
        facts = [f"{people[0]} {'tells the truth' if honest[people[0]] else 'lies'}."]
        lines = [_verdict(people[0], honest[people[0]])]
    else:
        more, less = _two_numbers(rng, 1 if difficulty == 1 else 2)
        honest = {people[0]: more > less}
        facts = [f"{people[0]} says {more}>{less}."]
        lines = [f"{more}>{less} {_show(more > less)}, so {_verdict(people[0], more > less)}"]
    for i, speaker in enumerate(people[1:], start=1):
        about, claim = people[rng.randrange(max(0, i - 2), i)], rng.random() < 0.5
        honest[speaker] = claim == honest[about]
        facts.append(_claim(speaker, about, claim) + ".")
        lines.append(f"{_claim(speaker, about, claim)}, so {_verdict(speaker, honest[speaker])}")
    rng.shuffle(facts)
    asked = rng.choice(people[1:]) if difficulty == 1 else people[-1]
    return _liars_draft(rng, people, facts, lines, asked, honest[asked])


def _two_numbers(rng: random.Random, digits: int) -> tuple[int, int]:
    a, b = rng.sample(range(10 ** (digits - 1), 10**digits), 2)
    return a, b


def _verdict(name: str, honest: bool) -> str:
    return f"{name} is honest" if honest else f"{name} lies"


def _claim(speaker: str, about: str, claim: bool) -> str:
    return f"{speaker} says {about} {'tells the truth' if claim else 'lies'}"


def _liars_draft(
    rng: random.Random, people: list[str], facts: list[str], lines: list[str], asked: str, honest: bool
) -> Draft:
    """A draft about people in the order of their chain: the same chain told in another order is the same problem."""
    answer, said = "yes" if honest else "no", " ".join(facts)
    question = rng.choice(("Does {} tell the truth?", "Is {} honest?", "Can we trust {}?")).format(asked)
    lines = [*lines, f"{_verdict(asked, honest)}: {answer}"]
    canonical = "\n".join([*sorted(_numbered(fact, people) for fact in facts), _numbered(asked, people)])
    return create_draft(canonical, f"{said} {question}", lines, answer)


def _numbered(text: str, people: list[str]) -> str:
    for number, name in enumerate(people):
        text = text.replace(name, str(number))
    return text


def _two_cases(rng: random.Random, difficulty: int) -> Draft:
    """What the first person says about several others decides which of the two cases of the chain holds."""
    people = rng.sample(NAMES, {4: 4, 5: 6}[difficulty])
    while True:
        links = [(i, rng.randrange(max(0, i - 2), i), rng.random() < 0.5) for i in range(1, len(people))]
        cases: dict[bool, list[bool]] = {}
        for first in (True, False):
            cases[first] = [first]
            for _, about, claim in links:
                cases[first].append(claim == cases[first][about])
        template, test = _compound(rng, difficulty, len(people))
        fits = {first: test(cases[first]) == first for first in cases}
        if fits[True] != fits[False]:
            break
    said = template.format(*people)
    facts = [f"{people[0]} says {said}."]
    facts += [_claim(people[i], people[about], claim) + "." for i, about, claim in links]
    rng.shuffle(facts)
    facts.insert(0, "Each person always lies or always tells the truth.")
    lines = []
    for first, honest in cases.items():
        lines.append("If " + ", ".join(_verdict(name, h) for name, h in zip(people, honest, strict=True)))
        lines.append(f"{said}: {str(test(honest)).lower()}, {'fits' if fits[first] else 'does not fit'}")
    honest, wanted = cases[fits[True]], rng.random() < 0.5
    asked = rng.choice([i for i, h in enumerate(honest) if h == wanted] or range(len(people)))
    return _liars_draft(rng, people, facts, lines, people[asked], honest[asked])


def _compound(rng: random.Random, difficulty: int, count: int) -> tuple[str, Callable[[list[bool]], bool]]:
    """A statement on several people as a template over their indices, and its test on who is honest."""
    if difficulty == 5 and rng.random() < 0.7:
        number = rng.randint(1, count - 1)
        if rng.random() < 0.5:
            return f"exactly {number} of us lie", lambda honest: honest.count(False) == number
        return f"at least {number} of us lie", lambda honest: honest.count(False) >= number
    a, b = rng.sample(range(1, count), 2)
    kind = rng.randrange(4)
    if kind == 3:
        more, less = _two_numbers(rng, 2)
        return f"{{{a}}} lies or {more}>{less}", lambda honest: not honest[a] or more > less
    if kind == 0:
        return f"{{{a}}} and {{{b}}} both lie", lambda honest: not honest[a] and not honest[b]
    if kind == 1:
        return f"{{{a}}} and {{{b}}} both tell the truth", lambda honest: honest[a] and honest[b]
    return f"{{{a}}} or {{{b}}} lies", lambda honest: not (honest[a] and honest[b])


RELATIONS = (("taller", "shorter", "tallest", "shortest"), ("older", "younger", "oldest", "youngest"),
             ("faster", "slower", "fastest", "slowest"))  # fmt: skip
_UNITS = {"taller": ("cm tall", range(80, 200)), "older": ("years old", range(2, 100))}


_PLACES = {2: "second", 3: "third", 4: "fourth", 5: "fifth", 6: "sixth"}


def order(rng: random.Random, difficulty: int) -> Draft:
    """Rank people: 1 three or four, 2 five, 3 five in any order, 4 six and a place, 5 seven, idle facts.

    Without names a ranking is a ranking; so here the words and the order of the facts are part of the problem.
    """
    relation = rng.choice(RELATIONS)
    count = rng.choice((3, 4, 4)) if difficulty == 1 else {2: 5, 3: 5, 4: 6, 5: 7}[difficulty]
    people = rng.sample(NAMES, count)
    pairs = _grown_pairs(rng, count) if difficulty <= 2 else rng.sample(range(count - 1), count - 1)
    facts = [_compare(rng, relation, people[i], people[i + 1]) for i in pairs]
    if difficulty <= 2:
        spans = [pairs[: n + 1] for n in range(len(pairs))]
        lines = [">".join(people[min(span) : max(span) + 2]) for span in spans]
    else:
        lines = [f"{people[i]}>{people[i + 1]}" for i in pairs] + [">".join(people)]
    if relation[0] in _UNITS and rng.random() < 0.8:
        n = rng.randrange(len(pairs))
        facts[n], shown = _measure(rng, relation[0], people[pairs[n]], people[pairs[n] + 1])
        lines[n] = f"{shown}: {lines[n]}"
    if difficulty == 5:
        i, j = sorted(rng.sample(range(count), 2))
        facts.insert(rng.randrange(count), _compare(rng, relation, people[i], people[j]))
        other = rng.choice([words for words in RELATIONS if words != relation])
        facts.insert(rng.randrange(count), _compare(rng, other, *rng.sample(people, 2)))
    place = 1 if difficulty <= 2 else rng.randint(2, 3 if difficulty == 3 else count - 1)
    top = rng.random() < 0.5
    answer = people[place - 1 if top else -place]
    asked = relation[2] if top else relation[3]
    asked = asked if place == 1 else f"{_PLACES[place]} {asked}"
    question = rng.choice(("Who is {}?", "Find who is {}.", "Which one is {}?")).format(asked)
    said = " ".join(facts)
    return create_draft(_renamed(f"{said} {asked}"), f"{said} {question}", [*lines, f"{asked}: {answer}"], answer)


def _measure(rng: random.Random, more: str, first: str, second: str) -> tuple[str, str]:
    """A fact that gives the measures of two people, in any order, and how they compare."""
    unit, sizes = _UNITS[more]
    small, large = sorted(rng.sample(sizes, 2))
    said = [(first, large), (second, small)]
    rng.shuffle(said)
    (a, size_a), (b, size_b) = said
    return f"{a} is {size_a} and {b} {size_b} {unit}.", f"{large}>{small}"


def _grown_pairs(rng: random.Random, count: int) -> list[int]:
    """The pairs (i, i+1) of a chain, named by i, in an order that keeps the known part in one piece."""
    low = high = rng.randrange(count - 1)
    pairs = [low]
    while len(pairs) < count - 1:
        if high < count - 2 and (low == 0 or rng.random() < 0.5):
            high += 1
            pairs.append(high)
        else:
            low -= 1
            pairs.append(low)
    return pairs


def _compare(rng: random.Random, relation: tuple[str, ...], more: str, less: str) -> str:
    if rng.random() < 0.5:
        return f"{more} is {relation[0]} than {less}."
    return f"{less} is {relation[1]} than {more}."


# A formula is a letter, a truth value, ("not", formula) or (operator, formula, formula).
Formula = str | bool | tuple


def boolean(rng: random.Random, difficulty: int) -> Draft:
    """Truth values: 1 two operators, 2 three, 3 a letter twice, 4 if-then, 5 count rows of a truth table."""
    if difficulty == 5:
        return _truth_table(rng)
    letters = "pqr" if difficulty == 1 else "pqrs"
    wanted = rng.random() < 0.5
    while True:
        formula = _create_formula(rng, letters, max(0, difficulty - 2), with_if=difficulty == 4)
        values = {letter: rng.random() < 0.5 for letter in letters}
        lines, state = [], _substitute(formula, values)
        while not isinstance(state, bool):
            lines.append(_show(state))
            state = _one_pass(state)
        if state == wanted:
            break
    given = {letter: _show(value) for letter, value in values.items()}
    if difficulty <= 3:
        letter, (more, less) = rng.choice(letters), sorted(_two_numbers(rng, min(2, difficulty)), reverse=True)
        given[letter] = f"{more}>{less}" if values[letter] else f"{less}>{more}"
        lines.insert(0, f"{given[letter]} {_show(values[letter])}")
    prompt = ask_where(rng, given, _show(formula))
    return create_draft(_canonical_formula(formula, given), prompt, [*lines, _show(wanted)], _show(wanted))


def _create_formula(rng: random.Random, letters: str, extra: int, with_if: bool) -> Formula:
    """A random formula over all the letters and `extra` repeats; a letter never stands beside itself."""
    leaves = list(letters)
    for _ in range(extra):
        leaves.append(rng.choice(letters))
    rng.shuffle(leaves)
    while any(a == b for a, b in itertools.pairwise(leaves)):
        rng.shuffle(leaves)
    parts: list[Formula] = [("not", leaf) if rng.random() < 0.4 else leaf for leaf in leaves]
    operators = ("and", "or", "if") if with_if else ("and", "or")
    while len(parts) > 1:
        i = rng.randrange(len(parts) - 1)
        joined = (rng.choice(operators), parts[i], parts[i + 1])
        parts[i : i + 2] = [("not", joined) if len(parts) > 2 and rng.random() < 0.25 else joined]
    return parts[0]


def _substitute(formula: Formula, values: dict[str, Formula]) -> Formula:
    if isinstance(formula, tuple):
        return (formula[0], *(_substitute(part, values) for part in formula[1:]))
    return values[formula]


def _show(formula: Formula, inner: bool = False) -> str:
    if isinstance(formula, bool):
        return "true" if formula else "false"
    if isinstance(formula, str):
        return formula
    if formula[0] == "not":
        return f"not {_show(formula[1], inner=True)}"
    left, right = _show(formula[1], inner=True), _show(formula[2], inner=True)
    text = f"if {left} then {right}" if formula[0] == "if" else f"{left} {formula[0]} {right}"
    return f"({text})" if inner else text


def _apply(operator: str, values: list[bool]) -> bool:
    if operator == "not":
        return not values[0]
    if operator == "and":
        return values[0] and values[1]
    return values[1] or (values[0] if operator == "or" else not values[0])


def _one_pass(formula: Formula) -> Formula:
    """Every operator whose parts are all known is worked out, the others wait."""
    if not isinstance(formula, tuple):
        return formula
    if all(isinstance(part, bool) for part in formula[1:]):
        return _apply(formula[0], list(formula[1:]))
    return (formula[0], *(_one_pass(part) for part in formula[1:]))


def _canonical_formula(formula: Formula, values: dict[str, str]) -> str:
    """The formula with the parts of and/or in one order and the letters numbered, then their values."""

    def in_order(part: Formula) -> Formula:
        if not isinstance(part, tuple):
            return part
        parts = [in_order(child) for child in part[1:]]
        if part[0] in ("and", "or"):
            parts.sort(key=lambda child: _show(_substitute(child, values)))
        return (part[0], *parts)

    def letters(part: Formula) -> list[str]:
        return [part] if isinstance(part, str) else [name for child in part[1:] for name in letters(child)]

    ordered = in_order(formula)
    names = list(dict.fromkeys(letters(ordered)))
    shown = _show(_substitute(ordered, {name: str(i) for i, name in enumerate(names)}))
    return f"{shown} {','.join(values[name] for name in names)}"


def _truth_table(rng: random.Random) -> Draft:
    """For how many of the eight cases a formula holds, which are neither none nor all."""
    letters, count = "pqr", 0
    while count in (0, 8):
        formula = _create_formula(rng, letters, 1, with_if=True)
        lines, count = _rows(formula, letters)
    shown = _show(formula)
    frames = (
        "For how many of the 8 cases of p, q, r is this true: {}?",
        "Count the cases of p, q, r for which this is true: {}.",
        "How many of the 8 cases of p, q, r make {} true?",
    )
    canonical = _canonical_formula(formula, dict.fromkeys(letters, "x"))
    return create_draft(canonical, rng.choice(frames).format(shown), [*lines, f"count {count}"], count)


def _rows(formula: Formula, letters: str) -> tuple[list[str], int]:
    """The rows of the truth table, each with the last operator at work, and how many of them hold."""
    lines, count = [], 0
    for row in itertools.product((True, False), repeat=len(letters)):
        state = _substitute(formula, dict(zip(letters, row, strict=True)))
        value = _value(state)
        count += value
        last = _show((state[0], *(_value(part) for part in state[1:])))
        lines.append(f"{' '.join(_show(v) for v in row)}: {last} is {_show(value)}")
    return lines, count


def _value(formula: Formula) -> bool:
    if isinstance(formula, bool):
        return formula
    return _apply(formula[0], [_value(part) for part in formula[1:]])
