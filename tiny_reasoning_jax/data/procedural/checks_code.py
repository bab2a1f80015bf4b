"""Independent answers for code: programs are run, every single change of one line is tried, every form fitted.

Nothing here is shared with the generators. `solve_*` read the words of our own prompts and raise ValueError where
one cannot be read or has no single answer; `accepts_function` judges whatever a model wrote and never raises.
"""

import ast
import itertools
import re
from collections.abc import Callable, Iterator

from tiny_reasoning_jax.data.procedural.checks_interpreter import Program, parse, run


def solve_program(prompt: str) -> str:
    """What the program below the prompt's first line prints."""
    return "\n".join(run(prompt.split("\n", 1)[1]).printed)


# --- find the bug ---------------------------------------------------------------------------------

_RULES = (
    ("a + or - is wrong", "+-"),
    ("one of + - * is wrong", "+-*"),
    ("one number is wrong by 1", ""),
)
_SIGNS = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult}


def solve_bug(prompt: str) -> str:
    """The one line in which some change that the prompt's rule allows makes the program do as it should."""
    question, *lines = prompt.split("\n")
    signs = next((signs for words, signs in _RULES if words in question.lower()), None)
    if signs is None:
        raise ValueError(f"cannot read this prompt: {prompt!r}")
    tests = [line for line in lines if line.startswith("assert ")]
    tests += [f"assert {name}=={value}" for name, value in re.findall(r"\b([a-z]) should be (-?\d+)", question)]
    numbered = [line.split(" ", 1) for line in lines if not line.startswith("assert ")]
    if not tests or [number for number, _ in numbered] != [str(n + 1) for n in range(len(numbered))]:
        raise ValueError(f"cannot read this prompt: {prompt!r}")
    program, checks = parse("\n".join(code for _, code in numbered)), parse("\n".join(tests))
    if _passes(program, checks):
        raise ValueError(f"nothing is wrong: {prompt!r}")
    found = {line for line in _changes(program, signs) if _passes(program, checks)}
    if len(found) != 1:
        raise ValueError(f"lines {sorted(found)} may be wrong: {prompt!r}")
    return str(found.pop())


def _passes(program: list[ast.stmt], checks: list[ast.stmt]) -> bool:
    try:
        Program().run(program + checks)
    except ValueError:
        return False
    return True


def _changes(program: list[ast.stmt], signs: str) -> Iterator[int]:
    """Changes the program in every way, one at a time: yields the line changed, then takes it back."""
    for node in (node for statement in program for node in ast.walk(statement)):
        if signs and isinstance(node, ast.BinOp | ast.AugAssign):
            own = node.op
            for kind in (_SIGNS[sign] for sign in signs if not isinstance(own, _SIGNS[sign])):
                node.op = kind()
                yield node.lineno
            node.op = own
        if not signs and isinstance(node, ast.Constant) and isinstance(node.value, int):
            own = node.value
            for node.value in (own - 1, own + 1):
                yield node.lineno
            node.value = own


# --- write a function -----------------------------------------------------------------------------

_Function = Callable[..., object]
_FORMS = ("a*x+b*y+c", "a*x+b", "a*x if x>k else x+b", "[a*v+b for v in x if v%m==r]")


def solve_function(prompt: str) -> str:
    """The expression of the form that the prompt asks for and that passes all its asserts."""
    return _fit(prompt)[0]


def accepts_function(prompt: str, answer: str) -> bool:
    """Whether a model's text is a right function: an expression, a body with return, a lambda or a def.

    It must do as the asserts say, and on other arguments the same as the one function of the stated form.
    """
    text = re.sub(r"^```\w*\n|\n?```$", "", answer.strip())
    _, function, tests = _fit(prompt)
    cases = [arguments for arguments, _ in tests]
    if isinstance(cases[0][0], list):
        cases += [(list(range(low, low + size)),) for low, size in ((0, 9), (13, 12), (40, 1), (7, 0))]
    elif len(cases[0]) == 2:
        cases += [(0, 0), (3, -8), (-7, 12), (21, 5)]
    else:
        cases += [(x,) for x in range(-3, 25)]
    try:
        program = _load_function(text, len(cases[0]))
        return all(_same(program.call("f", _copy(case)), function(*case)) for case in cases)
    except ValueError:
        return False


def _copy(arguments: tuple) -> list:
    return [list(argument) if isinstance(argument, list) else argument for argument in arguments]


def _same(a: object, b: object) -> bool:
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and a == b


def _load_function(text: str, num_parameters: int) -> Program:
    """The text as a program that defines f. Raises ValueError."""
    body = parse(text)
    whole = any(
        (isinstance(node, ast.FunctionDef) and node.name == "f")
        or (isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "f" for t in node.targets))
        for node in body
    )
    if not whole:
        names = "x,y" if num_parameters == 2 else "x"
        (head,) = parse(f"def f({names}):\n    return 0")
        if len(body) == 1 and isinstance(body[0], ast.Expr):
            value = body[0].value
            body = [ast.Assign([ast.Name("f")], value)] if isinstance(value, ast.Lambda) else [ast.Return(value)]
        if not isinstance(body[0] if body else None, ast.Assign) or len(body) > 1:
            head.body = body
            body = [head]
    program = Program()
    program.run(body)
    return program


def _fit(prompt: str) -> tuple[str, _Function, list[tuple[tuple, object]]]:
    """The expression, its function and the asserts as (arguments, value). Raises ValueError unless it is unique."""
    question, *lines = prompt.split("\n")
    form = next((form for form in _FORMS if form in question), None)
    tests = [_read_assert(line) for line in lines]
    if form is None or not tests:
        raise ValueError(f"cannot read this prompt: {prompt!r}")
    try_all = {"a*x+b*y+c": _fit_plane, "a*x+b": _fit_line, "a*x if x>k else x+b": _fit_two_branches}
    candidates = try_all.get(form, _fit_comprehension)(tests)
    fitting = [
        (text, function)
        for text, function in candidates
        if all(_same(function(*arguments), value) for arguments, value in tests)
    ]
    if len(fitting) != 1:
        raise ValueError(f"{len(fitting)} functions fit: {prompt!r}")
    return *fitting[0], tests


def _read_assert(line: str) -> tuple[tuple, object]:
    found = re.fullmatch(r"assert f\((.*)\)==(.*)", line)
    if found is None:
        raise ValueError(f"cannot read this assert: {line!r}")
    return ast.literal_eval(f"({found[1]},)"), ast.literal_eval(found[2])


def _fit_line(tests: list) -> Iterator[tuple[str, _Function]]:
    ((x,), value), *_ = tests
    for a in range(-99, 100):
        b = value - a * x
        yield f"{a}*x{b:+d}", lambda x, a=a, b=b: a * x + b


def _fit_plane(tests: list) -> Iterator[tuple[str, _Function]]:
    ((x, y), value), *_ = tests
    for a, b in itertools.product(range(-20, 21), repeat=2):
        c = value - a * x - b * y
        yield f"{a}*x{b:+d}*y{c:+d}", lambda x, y, a=a, b=b, c=c: a * x + b * y + c


def _fit_two_branches(tests: list) -> Iterator[tuple[str, _Function]]:
    """a is some value/x, b some value-x, and k lies where the asserts can see it."""
    pairs = [(x, value) for (x,), value in tests]
    factors = sorted({value // x for x, value in pairs if x and value % x == 0})
    for k, a, b in itertools.product(range(31), factors, sorted({value - x for x, value in pairs})):
        yield f"{a}*x if x>{k} else x{b:+d}", lambda x, a=a, b=b, k=k: a * x if x > k else x + b


def _fit_comprehension(tests: list) -> Iterator[tuple[str, _Function]]:
    """Two asserts show one entry each; all a, m and r are tried on the first."""
    ((x,), (value,)), *_ = tests
    for a, m in itertools.product(range(-20, 21), range(2, 7)):
        b = value - a * x[0]
        text = f"[{a}*v{b:+d} for v in x if v%{m}=={x[0] % m}]"
        yield text, lambda x, a=a, b=b, m=m, r=x[0] % m: [a * v + b for v in x if v % m == r]
