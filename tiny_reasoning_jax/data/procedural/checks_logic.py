"""Independent answers for logic, from the words of the prompt alone: every case is tried.

Nothing here is shared with the generators. Every function takes a prompt and returns the answer; ValueError
if it cannot be read or has no single answer.
"""

import itertools
import re
from collections.abc import Callable
from fractions import Fraction

_ALWAYS = "Each person always lies or always tells the truth. "


def solve_liars(prompt: str) -> str:
    """Tries every way to be honest and keeps those in which each statement is as true as its speaker."""
    *facts, question = re.split(r"(?<=[.]) ", prompt.removeprefix(_ALWAYS))
    names = sorted(set(re.findall(r"\b[A-Z][a-z]+\b", " ".join(facts))))
    people = [name for name in names if name not in ("Does", "Is", "Can")]
    (asked,) = (name for name in people if re.search(rf"\b{name}\b", question))
    answers = set()
    for case in itertools.product((True, False), repeat=len(people)):
        honest = dict(zip(people, case, strict=True))
        if all(_fact_holds(fact.rstrip("."), honest) for fact in facts):
            answers.add(honest[asked])
    if len(answers) != 1:
        raise ValueError(f"no single answer: {prompt!r}")
    return "yes" if answers.pop() else "no"


def _fact_holds(fact: str, honest: dict[str, bool]) -> bool:
    speaker, _, said = fact.partition(" says ")
    return _claim_holds(said, honest) == honest[speaker] if said else _claim_holds(fact, honest)


def _claim_holds(said: str, honest: dict[str, bool]) -> bool:
    lying = sum(not h for h in honest.values())
    numbers = re.search(r"(\d+)>(\d+)$", said)
    true_numbers = numbers is not None and int(numbers[1]) > int(numbers[2])
    if numbers and numbers[0] == said:
        return true_numbers
    counted = re.fullmatch(r"(exactly|at least) (\d+) of us lie", said)
    if counted:
        number = int(counted[2])
        return lying == number if counted[1] == "exactly" else lying >= number
    of = [honest[name] for name in honest if re.search(rf"\b{name}\b", said)]
    if " or " in said:
        return not all(of) or true_numbers
    return all(of) if "truth" in said else not any(of)


_MORE = {"taller": 0, "shorter": 0, "older": 1, "younger": 1, "faster": 2, "slower": 2}
_MOST = {"tallest": 0, "shortest": 0, "oldest": 1, "youngest": 1, "fastest": 2, "slowest": 2}
_PLACES = ("second", "third", "fourth", "fifth", "sixth")
_LESS = ("shorter", "younger", "slower", "shortest", "youngest", "slowest")


def solve_order(prompt: str) -> str:
    """Tries every order of the people; the place asked for must be the same person's in all that fit."""
    facts = re.findall(r"(\w+) is (\w+) than (\w+)\.", prompt)
    for a, size_a, b, size_b, unit in re.findall(r"(\w+) is (\d+) and (\w+) (\d+) (cm tall|years old)\.", prompt):
        more = {"cm tall": "taller", "years old": "older"}[unit]
        facts.append((a, more, b) if int(size_a) > int(size_b) else (b, more, a))
    most, place = re.search("|".join(_MOST), prompt), re.search("|".join(_PLACES), prompt)
    if most is None:
        raise ValueError(f"cannot read this prompt: {prompt!r}")
    people = sorted({name for first, _, second in facts for name in (first, second)})
    wanted = [(b, a) if word in _LESS else (a, b) for a, word, b in facts if _MORE[word] == _MOST[most[0]]]
    rank = _PLACES.index(place[0]) + 1 if place else 0
    answers = set()
    for ranking in itertools.permutations(people):
        at = {name: i for i, name in enumerate(ranking)}
        if all(at[more] < at[less] for more, less in wanted):
            answers.add(ranking[-1 - rank] if most[0] in _LESS else ranking[rank])
    if len(answers) != 1:
        raise ValueError(f"no single answer: {prompt!r}")
    return answers.pop()


def solve_boolean(prompt: str) -> str:
    """A formula's truth value at the given letters, or the number of rows of its truth table that hold."""
    formula = re.search(r"(?:Find|what is|true:|make) (.+?)(?:\?|\.| if [p-s]=| true\?)", prompt)
    if formula is None:
        raise ValueError(f"cannot read this prompt: {prompt!r}")
    holds, rest = _parse_formula(re.findall(r"\w+|[()]", formula[1]))
    if rest:
        raise ValueError(f"cannot read this formula: {formula[1]!r}")
    given = {letter: word == "true" for letter, word in re.findall(r"\b([p-s])=(true|false)", prompt)}
    for letter, more, less in re.findall(r"\b([p-s])=(\d+)>(\d+)", prompt):
        given[letter] = int(more) > int(less)
    if given:
        return "true" if holds(given) else "false"
    rows = itertools.product((True, False), repeat=3)
    return str(sum(holds(dict(zip("pqr", row, strict=True))) for row in rows))


_Test = Callable[[dict[str, bool]], bool]


def _parse_formula(words: list[str]) -> tuple[_Test, list[str]]:
    """Reads a formula with at most one operator outside brackets; returns its test and the words left."""
    if words[0] == "if":
        left, rest = _parse_part(words[1:])
        right, rest = _parse_part(rest[1:])
        return lambda v: right(v) or not left(v), rest
    left, rest = _parse_part(words)
    if not rest or rest[0] not in ("and", "or"):
        return left, rest
    word, (right, rest) = rest[0], _parse_part(rest[1:])
    return (lambda v: left(v) and right(v)) if word == "and" else (lambda v: left(v) or right(v)), rest


def _parse_part(words: list[str]) -> tuple[_Test, list[str]]:
    if words[0] == "not":
        part, rest = _parse_part(words[1:])
        return lambda v: not part(v), rest
    if words[0] == "(":
        part, rest = _parse_formula(words[1:])
        return part, rest[1:]
    return lambda v, letter=words[0]: v[letter], words[1:]


# --- seats in a row -------------------------------------------------------------------------------

_CLUES = (
    (r"(\w+) has seat (\d+)", lambda at, a, k: at[a] == int(k)),
    (r"(\w+) does not have seat (\d+)", lambda at, a, k: at[a] != int(k)),
    (r"(\w+) is beside (\w+)", lambda at, a, b: at[a] - at[b] in (1, -1)),
    (r"(\w+) is not beside (\w+)", lambda at, a, b: at[a] - at[b] not in (1, -1)),
    (r"(\w+) is left of (\w+)", lambda at, a, b: at[a] < at[b]),
    (r"(\w+) is right of (\w+)", lambda at, a, b: at[a] > at[b]),
    (r"(\w+) is (\d+) left of (\w+)", lambda at, a, k, b: at[b] - at[a] == int(k)),
    (r"(\w+) is (\d+) right of (\w+)", lambda at, a, k, b: at[a] - at[b] == int(k)),
)


def solve_seats(prompt: str) -> str:
    """Tries every way to seat the people; exactly one may fit all clues."""
    frame = re.fullmatch(
        r"Seats 1 to (\d+) from left to right, one each\. (.*)\."
        r" (?:Where is|Which seat has|Find the seat of) (\w+)[?.]",
        prompt,
    )
    if frame is None:
        raise ValueError(f"cannot read this prompt: {prompt!r}")
    tests = []
    for clue in frame[2].split(". "):
        found = [(test, match.groups()) for words, test in _CLUES if (match := re.fullmatch(words, clue))]
        if len(found) != 1:
            raise ValueError(f"cannot read this clue: {clue!r}")
        tests += found
    people = sorted({word for _, words in tests for word in words if word.isalpha()})
    ways = [
        dict(zip(people, way, strict=True)) for way in itertools.permutations(range(1, int(frame[1]) + 1), len(people))
    ]
    fitting = [way for way in ways if all(test(way, *words) for test, words in tests)]
    if len(fitting) != 1:
        raise ValueError(f"{len(fitting)} ways fit: {prompt!r}")
    return str(fitting[0][frame[3]])


# --- syllogisms -----------------------------------------------------------------------------------


def solve_syllogism(prompt: str) -> str:
    """Decides by the types of things that there can be: a type says of every kind whether the thing is one.

    The things of a world that fits all facts are of types that no "all" or "no" forbids. "all" and "none" follow
    if no such type speaks against them. "some" and "not all" follow if no world fits the facts without the types
    that show them. The answer must be the same whether or not a kind may be empty.
    """
    facts = re.findall(r"(All|No|Some) (\w+) are (not )?(\w+)\.", prompt)
    asked = re.search(r"(?:How many (\w+) are (\w+):|: (\w+) are (\w+)\.$|^.*\. Are (\w+) (\w+):)", prompt)
    if asked is None or prompt.count(" are ") + prompt.count("Are ") != len(facts) + 1:
        raise ValueError(f"cannot read this prompt: {prompt!r}")
    a, c = (word for word in asked.groups() if word)
    kinds = sorted({kind for _, x, _, y in facts for kind in (x, y)} | {a, c})
    answers = {_what_follows(facts, kinds, a, c, empty) for empty in (True, False)}
    if len(answers) != 1:
        raise ValueError(f"it matters whether a kind may be empty: {prompt!r}")
    return answers.pop()


def _what_follows(facts: list[tuple[str, ...]], kinds: list[str], a: str, c: str, may_be_empty: bool) -> str:
    can_be, must_be = [], []  # the types that there can be; for each "some" the types that would show it
    for bits in itertools.product((False, True), repeat=len(kinds)):
        one = {kind for kind, bit in zip(kinds, bits, strict=True) if bit}
        if not any(x in one and (y in one) == (word == "No") for word, x, _, y in facts if word != "Some"):
            can_be.append(one)
    for word, x, negated, y in facts:
        if word == "Some":
            must_be.append([one for one in can_be if x in one and (y in one) != bool(negated)])
    if not may_be_empty:
        must_be += [[one for one in can_be if kind in one] for kind in kinds]
    if not all(must_be):
        raise ValueError("the facts contradict each other")
    both = [one for one in can_be if a in one and c in one]
    only_a = [one for one in can_be if a in one and c not in one]
    found = [word for word, against in (("all", only_a), ("none", both)) if not against]
    if not found:
        shows = (("some", both), ("not all", only_a))
        found = [word for word, by in shows if any(all(one in by for one in types) for types in must_be)]
    if len(found) > 1:
        raise ValueError(f"both {found} follow")
    return found[0] if found else "unknown"


# --- overlapping groups ---------------------------------------------------------------------------


def solve_sets(prompt: str) -> str:
    """Every fact is an equation in the sizes of the parts; the size asked for must be a combination of the facts."""
    frame = re.fullmatch(r"Of some children (.*)\. (?:How many|Find how many|Count those who) (.*)[?.]", prompt)
    if frame is None:
        raise ValueError(f"cannot read this prompt: {prompt!r}")
    facts = [(int(n), said) for n, said in re.findall(r"(\d+) (.*?)(?=, \d|$)", frame[1])]
    words = set(re.findall(r"[a-z]+", " ".join(said for _, said in facts) + " " + frame[2]))
    verbs = sorted(words - set("in all do not or and but both three exactly one two".split()))
    parts = list(itertools.product((0, 1), repeat=len(verbs)))
    rows = [[Fraction(_counts(said, verbs, part)) for part in parts] + [Fraction(n)] for n, said in facts]
    rest = [Fraction(_counts(frame[2], verbs, part)) for part in parts] + [Fraction(0)]
    pivots: list[tuple[int, list[Fraction]]] = []
    for row in [*rows, rest]:
        for column, pivot in pivots:
            row[:] = [a - row[column] * b for a, b in zip(row, pivot, strict=True)]
        column = next((i for i, a in enumerate(row[:-1]) if a), None)
        if row is not rest and column is not None:
            pivots.append((column, [a / row[column] for a in row]))
        elif row is not rest and row[-1]:
            raise ValueError(f"the facts contradict each other: {prompt!r}")
    if any(rest[:-1]):
        raise ValueError(f"the facts leave the answer open: {prompt!r}")
    return str(-rest[-1])


def _counts(said: str, verbs: list[str], part: tuple[int, ...]) -> bool:
    """Whether the children of this part, a bit for each verb, are counted by the words."""
    does = dict(zip(verbs, part, strict=True))
    named = [does[word] for word in re.findall(r"[a-z]+", said) if word in does]
    if said in ("in all", "do all three", "do exactly two", "do exactly one"):
        number = {"in all": None, "do all three": 3, "do exactly two": 2, "do exactly one": 1}[said]
        return number is None or sum(part) == number
    if said.endswith(" but not both"):
        return sum(named) == 1
    if " but do not " in said:
        return named == [1, 0]
    if said.startswith("do not "):
        return not any(named)
    return any(named) if " or " in said else all(named)
