"""Independent answers for logic and code, from the words of the prompt alone: every case tried, programs run.

Nothing here is shared with the generators. Every function takes a prompt and returns the answer; ValueError
if it cannot be read, has no single answer or asks for a program beyond the few constructs that are allowed.
"""

import ast
import itertools
import re
from collections.abc import Callable

_MAX_ROUNDS = 500  # loop rounds a program may take in all before it is refused


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
    counted = re.fullmatch(r"(exactly|at least) (\d+) of us lie", said)
    if counted:
        number = int(counted[2])
        return lying == number if counted[1] == "exactly" else lying >= number
    of = [honest[name] for name in honest if re.search(rf"\b{name}\b", said)]
    if " or " in said:
        return not all(of)
    return all(of) if "truth" in said else not any(of)


_MORE = {"taller": 0, "shorter": 0, "older": 1, "younger": 1, "faster": 2, "slower": 2}
_MOST = {"tallest": 0, "shortest": 0, "oldest": 1, "youngest": 1, "fastest": 2, "slowest": 2}
_PLACES = ("second", "third", "fourth", "fifth", "sixth")
_LESS = ("shorter", "younger", "slower", "shortest", "youngest", "slowest")


def solve_order(prompt: str) -> str:
    """Tries every order of the people; the place asked for must be the same person's in all that fit."""
    facts = re.findall(r"(\w+) is (\w+) than (\w+)\.", prompt)
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


_ALLOWED = (
    ast.Module, ast.Assign, ast.AugAssign, ast.Expr, ast.If, ast.For, ast.While, ast.FunctionDef, ast.Return,
    ast.arguments, ast.arg, ast.Name, ast.Load, ast.Store, ast.Constant, ast.Tuple, ast.List, ast.ListComp,
    ast.comprehension, ast.Subscript, ast.Slice, ast.Attribute, ast.Call, ast.BinOp, ast.UnaryOp, ast.Compare,
    ast.Add, ast.Sub, ast.Mult, ast.FloorDiv, ast.Mod, ast.USub, ast.Gt, ast.Lt, ast.Eq,
)  # fmt: skip


class _CountRounds(ast.NodeTransformer):
    """Puts a call that counts at the head of every loop body and function."""

    def _counted(self, node: ast.AST) -> ast.AST:
        self.generic_visit(node)
        node.body.insert(0, ast.parse("_count()").body[0])
        return node

    visit_For = visit_While = visit_FunctionDef = _counted


def solve_program(prompt: str) -> str:
    """Runs the printed program, after checking that it holds nothing but the constructs in _ALLOWED."""
    tree = ast.parse(prompt.split("\n", 1)[1])
    for node in ast.walk(tree):
        method = isinstance(node, ast.Attribute) and node.attr not in ("append", "pop", "sort")
        hidden = isinstance(node, ast.Name) and node.id.startswith("_")
        if not isinstance(node, _ALLOWED) or method or hidden:
            raise ValueError(f"{type(node).__name__} is not allowed in a program to check: {prompt!r}")
    printed: list[str] = []
    rounds = itertools.count(1)

    def count() -> None:
        if next(rounds) > _MAX_ROUNDS:
            raise ValueError(f"more than {_MAX_ROUNDS} rounds: {prompt!r}")

    allowed = {"print": lambda value: printed.append(str(value)), "range": range, "_count": count}
    allowed |= {function.__name__: function for function in (len, sum, max, min, sorted)}
    program = ast.fix_missing_locations(_CountRounds().visit(tree))
    exec(compile(program, "<prompt>", "exec"), {"__builtins__": {}, **allowed})
    return "\n".join(printed)
