"""Code family write: a function of a stated form from the asserts that it must pass. Generator only.

The answer is one expression; other right programs are accepted by checks_code.py, which runs them.
"""

import random

from tiny_reasoning_jax.data.procedural.steps import Draft, create_draft, factor


def write(rng: random.Random, difficulty: int) -> Draft:
    """Fit a form: 1 a line from f(0), 2 from any points, 3 of x and y, 4 two branches, 5 a list comprehension."""
    form, tests, lines, answer = (_line_from_zero, _line, _plane, _two_branches, _comprehension)[difficulty - 1](rng)
    call = "f(x,y)" if difficulty == 3 else "f(x)"
    frames = (
        f"Write {call} as {form}.",
        f"Find the code {form} of {call}.",
        f"Give {call} in the form {form}.",
    )
    asserts = [f"assert f({arguments})=={value}" for arguments, value in tests]
    prompt = "\n".join([rng.choice(frames), *asserts])
    return create_draft(f"{form}\n" + "\n".join(sorted(asserts)), prompt, [*lines, answer], answer)


_Parts = tuple[str, list[tuple[str, object]], list[str], str]  # form, asserts, lines of reasoning, answer


def _minus(a: int, b: int) -> str:
    return f"{a}-{factor(b)}={a - b}"


def _nonzero(rng: random.Random, low: int, high: int) -> int:
    return rng.choice((rng.randint(low, -1), rng.randint(1, high)))


def _line_from_zero(rng: random.Random) -> _Parts:
    a, b, x = rng.randint(2, 30), _nonzero(rng, -60, 60), rng.choice((-1, 1))
    tests = [("0", b), (str(x), a * x + b)]
    lines = [f"b={b}", f"a={_minus(a + b, b)}" if x > 0 else f"a={_minus(b, b - a)}"]
    return "a*x+b", tests, lines, f"{a}*x{b:+d}"


def _line(rng: random.Random) -> _Parts:
    a, b = rng.randint(2, 15), _nonzero(rng, -30, 60)
    j = rng.randint(1, 6)
    k = j + rng.randint(2, 6)
    m = k + rng.randint(1, 6)
    tests = [(str(x), a * x + b) for x in (j, k, m)]
    low, high = tests[0][1], tests[1][1]
    lines = [
        f"f({k})-f({j})={_minus(high, low)}",
        f"{k}-{j}={k - j}",
        f"a={high - low}/{k - j}={a}",
        f"b={low}-{a}*{j}={low}-{a * j}={b}",
        f"{a}*{m}{b:+d}={a * m}{b:+d}={tests[2][1]}",
    ]
    return "a*x+b", tests, lines, f"{a}*x{b:+d}"


def _plane(rng: random.Random) -> _Parts:
    a, b, c = rng.randint(2, 12), rng.choice((-1, 1)) * rng.randint(2, 9), _nonzero(rng, -20, 40)
    j, k, m, n = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 9)
    tests = [(f"{x},{y}", a * x + b * y + c) for x, y in ((0, 0), (j, 0), (0, k), (m, n))]
    lines = [
        f"c={c}",
        f"a*{j}={_minus(tests[1][1], c)}",
        f"a={a * j}/{j}={a}",
        f"b*{k}={_minus(tests[2][1], c)}",
        f"b={b * k}/{k}={b}",
        f"{a}*{m}{b:+d}*{n}{c:+d}={a * m}{b * n:+d}{c:+d}={tests[3][1]}",
    ]
    return "a*x+b*y+c", tests, lines, f"{a}*x{b:+d}*y{c:+d}"


def _two_branches(rng: random.Random) -> _Parts:
    """Asserts stand on both sides of k and at k and k+1, where the branches differ: so k is pinned."""
    while True:
        a, b, k = rng.randint(2, 9), _nonzero(rng, -9, 30), rng.randint(4, 15)
        if a * k != k + b and a * (k + 1) != k + 1 + b:
            break
    low, high = rng.randint(1, k - 1), k + rng.randint(2, 9)
    values = {x: a * x if x > k else x + b for x in (low, k, k + 1, high)}
    lines = [f"x={x}: {_minus(value, x)}" for x, value in values.items() if x <= k]
    lines += [f"b={b}", *(f"x={x}: {values[x]}/{x}={a}" for x in values if x > k)]
    lines += [f"a={a}", f"{k} is x+b, {k + 1} is a*x: k={k}"]
    return "a*x if x>k else x+b", list(_text(values).items()), lines, f"{a}*x if x>{k} else x{b:+d}"


def _text(values: dict[int, int]) -> dict[str, int]:
    return {str(x): value for x, value in values.items()}


def _comprehension(rng: random.Random) -> _Parts:
    """Two asserts of one kept entry each give a and b, a run of numbers with two kept ones gives m and r."""
    a, b, m = rng.randint(2, 9), _nonzero(rng, -5, 20), rng.randint(2, 4)
    first = rng.randint(3, 12)
    second, r = first + m * rng.randint(1, 3), first % m
    low = rng.randint(2, 12)
    run = [*range(low, low + 2 * m)]
    kept = [v for v in run if v % m == r]
    values = {(v,): [a * v + b] for v in (first, second)} | {tuple(run): [a * v + b for v in kept]}
    tests = [(_list(entries), _list(results)) for entries, results in values.items()]
    (u,), (w,) = values[first,], values[second,]
    lines = [
        f"{_minus(w, u)}",
        f"{second}-{first}={second - first}",
        f"a={w - u}/{second - first}={a}",
        f"b={u}-{a}*{first}={u}-{a * first}={b}",
        *(f"({a * v + b}-{factor(b)})/{a}={a * v}/{a}={v}" for v in kept),
        f"m={kept[1]}-{kept[0]}={m}",
        f"r={first}%{m}={r}",
    ]
    answer = f"[{a}*v{b:+d} for v in x if v%{m}=={r}]"
    return "[a*v+b for v in x if v%m==r]", tests, lines, answer


def _list(values: tuple[int, ...] | list[int]) -> str:
    return "[" + ",".join(map(str, values)) + "]"
