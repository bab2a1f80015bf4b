"""Code family bug: one sign or number of a program is wrong; in which line? Generator only.

Every change that the prompt's rule allows is tried, and only problems that one line alone can explain are kept.
"""

import random
from collections.abc import Callable, Iterator, Sequence

from tiny_reasoning_jax.data.procedural.steps import Draft, create_draft

_OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}
_PASS = "the asserts should pass"


def bug(rng: random.Random, difficulty: int) -> Draft:
    """Which line is wrong: 1 two signs, 2 four signs, 3 a number, 4 a sign around a loop, 5 a function's number."""
    return (_two_signs, _four_signs, _number, _loop, _function)[difficulty - 1](rng)


def _bug_draft(
    rng: random.Random, rule: str, goal: str, program: list[str], asserts: list[str], lines: list[str], line: int
) -> Draft:
    """Joins the parts; `rule` says what can be wrong, `goal` what the program should do."""
    frames = (
        f"{rule.capitalize()}: {goal}. Which line?",
        f"Find the line: {rule}, {goal}.",
        f"In which line? {rule.capitalize()}, {goal}.",
    )
    numbered = [f"{number} {code}" for number, code in enumerate(program, start=1)]
    canonical = "\n".join([goal, *program, *sorted(asserts)])
    prompt = "\n".join([rng.choice(frames), *numbered, *asserts])
    return create_draft(canonical, prompt, [*lines, f"line {line}"], line)


# A program's parts that can be wrong, in order, and the run of such parts: the values it goes through.
_Run = Callable[[list], list[int]]


def _other_signs(sign: str, signs: str) -> Iterator[str]:
    return (other for other in signs if other != sign)


def _variants(parts: list, signs: str) -> Iterator[tuple[int, object, list]]:
    """Every program with one part changed: (which part, what it becomes, all parts)."""
    for i, own in enumerate(parts):
        for other in _other_signs(own, signs) if signs else (own - 1, own + 1):
            yield i, other, [*parts[:i], other, *parts[i + 1 :]]


def _break(rng: random.Random, right: list, signs: str, lines: list[int], line: int, run: _Run) -> list | None:
    """Changes a part of that line: the parts then, or None if another line may be wrong as well, or too large."""
    if max(map(abs, run(right))) >= 200:
        return None
    i = lines.index(line)
    other = rng.choice(list(_other_signs(right[i], signs))) if signs else right[i] + rng.choice((-1, 1))
    wrong, target = [*right[:i], other, *right[i + 1 :]], run(right)[-1]
    if run(wrong)[-1] == target:
        return None
    found = {lines[i] for i, _, parts in _variants(wrong, signs) if run(parts)[-1] == target}
    return wrong if found == {line} else None


def _tries(wrong: list, signs: str, lines: list[int], run: _Run, target: int) -> list[str]:
    """One change after the other with the values from the changed one on, up to the first that fits."""
    shown, before = [], run(wrong)
    for i, other, parts in _variants(wrong, signs):
        values = run(parts)
        start = next((n for n, (a, b) in enumerate(zip(before, values, strict=True)) if a != b), len(values) - 1)
        fits = values[-1] == target
        shown.append(f"{lines[i]} {other}: {' '.join(map(str, values[start:]))} {'yes' if fits else 'no'}")
        if fits:
            break
    return shown


def _two_signs(rng: random.Random) -> Draft:
    while True:
        start, numbers = rng.randint(10, 99), rng.sample(range(1, 10), 2)
        right, line = [rng.choice("+-"), rng.choice("+-")], rng.randint(2, 3)
        wrong = [*right]
        wrong[line - 2] = "-" if right[line - 2] == "+" else "+"
        target = _along(start, numbers, right)[-1]
        if right[0] != right[1] or wrong[0] != wrong[1]:
            break
    program = [f"a={start}", *(f"a{sign}={number}" for sign, number in zip(wrong, numbers, strict=True))]
    lines = []
    for i, _, signs in _variants(wrong, "+-"):
        value = _along(start, numbers, signs)[-1]
        lines.append(f"{i + 2}: {start}{signs[0]}{numbers[0]}{signs[1]}{numbers[1]}={value}")
        if value == target:
            break
    return _bug_draft(rng, "a + or - is wrong", f"a should be {target}", program, [], lines, line)


def _along(start: int, numbers: Sequence[int], signs: Sequence[str]) -> list[int]:
    values = [start]
    for sign, number in zip(signs, numbers, strict=True):
        values.append(_OPERATIONS[sign](values[-1], number))
    return values


def _four_signs(rng: random.Random) -> Draft:
    lines, wrong = [2, 3, 4, 5], None
    line = rng.choice(lines)
    while wrong is None:
        start, numbers = rng.randint(2, 12), [rng.randint(2, 9) for _ in range(4)]
        right = [rng.choice("++--*") for _ in range(4)]

        def run(signs: list[str], start: int = start, numbers: list[int] = numbers) -> list[int]:
            return _along(start, numbers, signs)

        wrong = _break(rng, right, "+-*", lines, line, run)
    target = run(right)[-1]
    program = [f"a={start}", *(f"a{sign}={number}" for sign, number in zip(wrong, numbers, strict=True))]
    values = run(wrong)
    worked = [f"{values[i]}{wrong[i]}{numbers[i]}={values[i + 1]}" for i in range(4)]
    tries = _tries(wrong, "+-*", lines, run, target)
    return _bug_draft(rng, "one of + - * is wrong", f"a should be {target}", program, [], worked + tries, line)


def _number(rng: random.Random) -> Draft:
    """Two names; the fourth line holds no number and cannot be wrong."""
    lines, wrong = [1, 2, 3, 5], None
    line = rng.choice(lines)
    while wrong is None:
        right = [rng.randint(2, 12), *(rng.randint(2, 9) for _ in range(3))]
        p, q, r, s = (rng.choice(signs) for signs in ("+-*", "+-", "+-", "+*"))

        def run(numbers: list[int], signs: tuple[str, ...] = (p, q, r, s)) -> list[int]:
            values = [numbers[0]]
            values.append(_OPERATIONS[signs[0]](values[0], numbers[1]))
            values.append(_OPERATIONS[signs[1]](values[1], numbers[2]))
            values.append(_OPERATIONS[signs[2]](values[1], values[2]))
            return [*values, _OPERATIONS[signs[3]](values[3], numbers[3])]

        wrong = _break(rng, right, "", lines, line, run)
    target = run(right)[-1]
    values = run(wrong)
    program = [f"a={wrong[0]}", f"b=a{p}{wrong[1]}", f"a=b{q}{wrong[2]}", f"b{r}=a", f"b{s}={wrong[3]}"]
    worked = [
        f"{values[0]}{p}{wrong[1]}={values[1]}",
        f"{values[1]}{q}{wrong[2]}={values[2]}",
        f"{values[1]}{r}{values[2]}={values[3]}".replace("--", "+").replace("+-", "-"),
        f"{values[3]}{s}{wrong[3]}={values[4]}",
    ]
    tries = _tries(wrong, "", lines, run, target)
    return _bug_draft(rng, "one number is wrong by 1", f"b should be {target}", program, [], worked + tries, line)


def _loop(rng: random.Random) -> Draft:
    """Signs before, in and after a loop of two rounds."""
    lines, wrong = [2, 4, 5, 6], None
    line = rng.choice(lines)
    while wrong is None:
        start, low, right = rng.randint(2, 12), rng.randint(1, 4), [rng.choice("++--*") for _ in lines]
        first, m, last = (rng.randint(2, 6) for _ in range(3))
        numbers = (first, low, m, low + 1, m, last)

        def run(signs: list[str], start: int = start, numbers: tuple[int, ...] = numbers) -> list[int]:
            a, b, c, d = signs
            return _along(start, numbers, (a, b, c, b, c, d))

        wrong = _break(rng, right, "+-*", lines, line, run)
    target, (a, b, c, d) = run(right)[-1], wrong
    program = [f"s={start}", f"s{a}={first}", f"for i in range({low},{low + 2}):"]
    program += [f"    s{b}=i", f"    s{c}={m}", f"s{d}={last}"]
    values = run(wrong)
    worked = [f"{values[n]}{sign}{numbers[n]}={values[n + 1]}" for n, sign in enumerate((a, b, c, b, c, d))]
    tries = _tries(wrong, "+-*", lines, run, target)
    return _bug_draft(rng, "one of + - * is wrong", f"s should be {target}", program, [], worked + tries, line)


def _call(x: int, parts: list[int]) -> int:
    plus, bound, k, other = parts
    x += plus
    return x * k if x > bound else x + other


def _function(rng: random.Random) -> Draft:
    """Three asserts: one for each branch and one where the condition changes."""
    lines, found, line = [2, 3, 4, 5], None, rng.choice((2, 3, 4, 5))
    while found is None:
        right = [rng.randint(2, 9), rng.randint(6, 20), rng.randint(2, 6), rng.randint(2, 15)]
        edge = right[1] - right[0]
        if edge < 2:
            continue
        xs = sorted({rng.randint(1, edge), edge + rng.randint(0, 1), edge + rng.randint(2, 6)})
        wrong = [*right]
        wrong[lines.index(line)] += rng.choice((-1, 1))
        wanted = {x: _call(x, right) for x in xs}
        fitting = {lines[n] for n, _, parts in _variants(wrong, "") if _passes(parts, wanted)}
        if not _passes(wrong, wanted) and fitting == {line}:
            found = line
    plus, bound, k, other = wrong
    program = ["def f(x):", f"    x+={plus}", f"    if x>{bound}:", f"        return x*{k}"]
    program.append(f"    return x+{other}")
    asserts = [f"assert f({x})=={value}" for x, value in wanted.items()]
    worked = []
    for x, value in wanted.items():
        y, got = x + plus, _call(x, wrong)
        step = f"{y}*{k}={got}" if y > bound else f"{y}+{other}={got}"
        worked.append(f"{x}+{plus}={y} {step}" + ("" if got == value else f" not {value}"))
    tries = _function_tries(wrong, lines, wanted)
    return _bug_draft(rng, "one number is wrong by 1", _PASS, program, asserts, worked + tries, found)


def _passes(parts: list[int], wanted: dict[int, int]) -> bool:
    return all(_call(x, parts) == value for x, value in wanted.items())


def _function_tries(wrong: list[int], lines: list[int], wanted: dict[int, int]) -> list[str]:
    """Each change with the asserts that fail first; it is given up at the first one that fails still."""
    first = sorted(wanted, key=lambda x: _call(x, wrong) == wanted[x])
    shown = []
    same = [i for i, _, parts in _variants(wrong, "") if _call(first[0], parts) == _call(first[0], wrong)]
    for i, other, parts in _variants(wrong, ""):
        if same.count(i) == 2:
            shown += [f"{lines[i]}: f({first[0]}) stays"] if shown[-1:] != [f"{lines[i]}: f({first[0]}) stays"] else []
            continue
        code = ("x+={}", "x>{}", "x*{}", "x+{}")[i].format(other)
        results = []
        for x in first:
            results.append(f"f({x})={_call(x, parts)}")
            if _call(x, parts) != wanted[x]:
                break
        fits = _passes(parts, wanted)
        shown.append(f"{lines[i]} {code}: {' '.join(results)} {'yes' if fits else 'no'}")
        if fits:
            break
    return shown
