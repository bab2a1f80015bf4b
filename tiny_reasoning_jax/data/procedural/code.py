"""Code families: assign, loop, lists: what a short program prints. The checks live in checks_code.py."""

import random

from tiny_reasoning_jax.data.procedural.steps import Draft, create_draft


def _code_draft(
    rng: random.Random, program: list[str], lines: list[str], printed: int, unused: str | None = None
) -> Draft:
    """A draft whose problem is the program's text, less the line that plays no part in it."""
    question = rng.choice(("What does this print?", "Find the output.", "What is printed?"))
    canonical = "\n".join(line for line in program if line != unused)
    return create_draft(canonical, "\n".join([question, *program]), lines, printed)


_OPERATIONS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b,
    "//": lambda a, b: a // b, "%": lambda a, b: a % b,
}  # fmt: skip


def _expression(
    rng: random.Random, known: dict[str, int], operators: str, limit: int, left: str | None = None
) -> tuple[str, str, int]:
    """A one-operator expression on the known names: (as written, with values put in, value in 1..limit)."""
    names = list(known)
    while True:
        name = left or rng.choice(names)
        operator = rng.choice(operators.split())
        right = rng.choice(names) if len(names) > 1 and rng.random() < 0.5 else str(rng.randint(2, 9))
        a, b = known[name], known[right] if right in known else int(right)
        if right == name or (operator in "//%" and b < 2):
            continue
        value = _OPERATIONS[operator](a, b)
        if 1 <= value <= limit:
            return f"{name}{operator}{right}", f"{a}{operator}{b}={value}", value


def assign(rng: random.Random, difficulty: int) -> Draft:
    """Assignments: 1 two, 2 more and overwritten, 3 a condition, 4 swaps, // and %, 5 nested calls."""
    if difficulty == 5:
        return _function_calls(rng)
    known = {"a": rng.randint(2, 60 if difficulty == 1 else 9)}
    program, lines = [f"a={known['a']}"], []
    if difficulty > 1:
        known["b"] = rng.randint(2, 19)
        program.append(f"b={known['b']}")
    operators, limit = ("+ - *", 99 if difficulty == 1 else 60) if difficulty <= 3 else ("+ - * // %", 200)
    targets = {1: "b", 2: "ca", 3: "c", 4: "cab"}[difficulty]
    for target in targets:
        text, shown, value = _expression(rng, known, operators, limit)
        known[target] = value
        program.append(f"{target}={text}")
        lines.append(f"{target}={shown}")
    if difficulty == 3:
        _condition(rng, known, program, lines)
    if difficulty == 4:
        first, second = rng.sample(sorted(known), 2)
        known[first], known[second] = known[second], known[first]
        program.append(f"{first},{second}={second},{first}")
        lines.append(f"{first}={known[first]} {second}={known[second]}")
        _condition(rng, known, program, lines)
    last = "b" if difficulty == 1 else None
    text, shown, value = _expression(rng, known, "+ - *", 999 if difficulty > 1 else 199, last)
    return _code_draft(rng, [*program, f"print({text})"], [*lines, shown], value)


def _condition(rng: random.Random, known: dict[str, int], program: list[str], lines: list[str]) -> None:
    """Adds an if with two branches; only the taken one is traced."""
    left, right = rng.sample(sorted(known), 2)
    target = rng.choice(sorted(known))
    branches = [_expression(rng, known, "+ -", 999) for _ in range(2)]
    while branches[0][2] == branches[1][2]:
        branches[1] = _expression(rng, known, "+ -", 999)
    holds = known[left] > known[right]
    program += [
        f"if {left}>{right}:",
        f"    {target}={branches[0][0]}",
        "else:",
        f"    {target}={branches[1][0]}",
    ]
    lines.append(f"{known[left]}>{known[right]} {'true' if holds else 'false'}")
    _, shown, value = branches[0] if holds else branches[1]
    known[target] = value
    lines.append(f"{target}={shown}")


def _function_calls(rng: random.Random) -> Draft:
    """A function with two branches, applied to its own result; a name that is never used stands beside it."""
    modulus, k = rng.randint(2, 5), rng.randint(2, 4)
    plus, minus, calls = rng.randint(1, 30), rng.randint(1, 9), rng.randint(2, 3)
    start, unused, extra = rng.randint(10, 60), rng.randint(2, 99), rng.randint(2, 40)
    program = ["def f(x):", f"    if x%{modulus}==0:", f"        return x//{modulus}+{plus}"]
    program += [f"    return {k}*x-{minus}", f"a={start}", f"b={unused}", f"c={extra}"]
    lines, x = [], start
    for _ in range(calls):
        lines.append(f"{x}%{modulus}={x % modulus}")
        if x % modulus == 0:
            lines.append(f"f({x})={x}//{modulus}+{plus}={x // modulus}+{plus}={x // modulus + plus}")
            x = x // modulus + plus
        else:
            lines.append(f"f({x})={k}*{x}-{minus}={k * x}-{minus}={k * x - minus}")
            x = k * x - minus
    program.append(f"print({'f(' * calls}a{')' * calls}+c)")
    return _code_draft(rng, program, [*lines, f"{x}+{extra}={x + extra}"], x + extra, program[5])


def loop(rng: random.Random, difficulty: int) -> Draft:
    """Loops: 1 one statement, 2 two statements, 3 a condition inside, 4 while with a count, 5 nested."""
    return (_plain_loop, _two_statements, _loop_with_condition, _while_loop, _nested_loop)[difficulty - 1](rng)


def _plain_loop(rng: random.Random) -> Draft:
    start, step = rng.randint(0, 99), rng.choice(("i", *map(str, range(1, 16))))
    low = rng.randint(0, 7)
    count, s, lines = 2 if low or start > 19 else 3, start, []
    for i in range(low, low + count):
        value = i if step == "i" else int(step)
        lines.append(f"i={i} s={s}+{value}={s + value}")
        s += value
    program = [f"s={start}", f"for i in range({low},{low + count}):", f"    s+={step}", "print(s)"]
    return _code_draft(rng, program, lines, s)


def _two_statements(rng: random.Random) -> Draft:
    start, low, count = rng.randint(1, 30), rng.randint(1, 9), rng.randint(2, 4)
    k = rng.randint(2, 9)
    minus = rng.randint(1, min(19, k * low))
    s, lines = start, []
    for i in range(low, low + count):
        lines += [
            f"i={i} {k}*{i}={k * i}",
            f"s={s}+{k * i}={s + k * i}",
            f"s={s + k * i}-{minus}={s + k * i - minus}",
        ]
        s += k * i - minus
    program = [
        f"s={start}",
        f"for i in range({low},{low + count}):",
        f"    s+={k}*i",
        f"    s-={minus}",
        "print(s)",
    ]
    return _code_draft(rng, program, lines, s)


def _loop_with_condition(rng: random.Random) -> Draft:
    start, low, count = rng.randint(0, 30), rng.randint(0, 9), rng.randint(3, 5)
    modulus, rest = rng.randint(2, 3), rng.randint(0, 1)
    k, other = rng.randint(2, 9), rng.randint(1, 9)
    s, lines = start, []
    for i in range(low, low + count):
        lines.append(f"i={i} {i}%{modulus}={i % modulus}")
        if i % modulus == rest:
            lines += [f"{k}*{i}={k * i}", f"s={s}+{k * i}={s + k * i}"]
            s += k * i
        else:
            lines.append(f"s={s}+{other}={s + other}")
            s += other
    program = [f"s={start}", f"for i in range({low},{low + count}):", f"    if i%{modulus}=={rest}:"]
    program += [f"        s+={k}*i", "    else:", f"        s+={other}", "print(s)"]
    return _code_draft(rng, program, lines, s)


def _while_loop(rng: random.Random) -> Draft:
    """Counts the rounds until n is small; prints the count, n, or their sum."""
    n, bound, step, divisor = rng.randint(40, 400), rng.randint(5, 20), rng.randint(3, 19), rng.randint(2, 3)
    program = [
        f"n={n}",
        "c=0",
        f"while n>{bound}:",
        f"    if n%{divisor}==0:",
        f"        n//={divisor}",
        "    else:",
    ]
    program += [f"        n-={step}", "    c+=1"]
    lines, count = [], 0
    while n > bound:
        if count == 8:
            return _while_loop(rng)
        count += 1
        even = n % divisor == 0
        after = n // divisor if even else n - step
        shown = f"{n}//{divisor}" if even else f"{n}-{step}"
        lines.append(f"{n}%{divisor}={n % divisor} n={shown}={after} c={count}")
        n = after
    asked, value = rng.choice((("c", count), ("n", n), ("n+c", n + count)))
    lines.append(f"{n}+{count}={value}" if asked == "n+c" else f"{asked}={value}")
    return _code_draft(rng, [*program, f"print({asked})"], lines, value)


def _nested_loop(rng: random.Random) -> Draft:
    rows, columns, start = *rng.choice(((2, 2), (2, 3), (3, 2))), rng.randint(0, 199)
    modulus, k, other = rng.randint(2, 3), rng.randint(2, 9), rng.randint(1, 19)
    s, lines = start, []
    for i in range(rows):
        for j in range(columns):
            holds = (i + j) % modulus == 0
            part = k * i + j if holds else other
            lines.append(f"i={i} j={j} {(i + j)}%{modulus}={(i + j) % modulus} s={s}+{part}={s + part}")
            s += part
    program = [f"s={start}", f"for i in range({rows}):", f"    for j in range({columns}):"]
    program += [
        f"        if (i+j)%{modulus}==0:",
        f"            s+={k}*i+j",
        "        else:",
        f"            s+={other}",
    ]
    return _code_draft(rng, [*program, "print(s)"], lines, s)


def lists(rng: random.Random, difficulty: int) -> Draft:
    """Lists: 1 two entries, 2 append and a function, 3 a slice, 4 sorting and ends, 5 a comprehension."""
    return (_two_entries, _append, _slice, _sorting, _comprehension)[difficulty - 1](rng)


def _list_text(values: list[int]) -> str:
    return "[" + ",".join(map(str, values)) + "]"


def _sum_lines(values: list[int]) -> list[str]:
    lines, total = [], values[0]
    for value in values[1:]:
        lines.append(f"{total}+{value}={total + value}")
        total += value
    return lines


def _two_entries(rng: random.Random) -> Draft:
    x = [rng.randint(1, 12) for _ in range(rng.randint(3, 4))]
    i, j = rng.sample(range(len(x)), 2)
    operator = rng.choice("+*-" if x[i] >= x[j] else "+*")
    value = _OPERATIONS[operator](x[i], x[j])
    lines = [f"x[{i}]={x[i]}", f"x[{j}]={x[j]}", f"{x[i]}{operator}{x[j]}={value}"]
    return _code_draft(rng, [f"x={_list_text(x)}", f"print(x[{i}]{operator}x[{j}])"], lines, value)


def _append(rng: random.Random) -> Draft:
    x, new = [rng.randint(1, 20) for _ in range(rng.randint(3, 4))], rng.randint(1, 20)
    after = [*x, new]
    name = rng.choice(("sum", "max", "min", "len"))
    value = {"sum": sum, "max": max, "min": min, "len": len}[name](after)
    program = [f"x={_list_text(x)}", f"x.append({new})"]
    lines = [f"x={_list_text(after)}", *(_sum_lines(after) if name == "sum" else [f"{name} {value}"])]
    if name == "len":
        k = rng.randint(2, 9)
        return _code_draft(rng, [*program, f"print(len(x)*{k})"], [*lines, f"{value}*{k}={value * k}"], value * k)
    return _code_draft(rng, [*program, f"print({name}(x))"], lines, value)


def _slice(rng: random.Random) -> Draft:
    x = [rng.randint(1, 40) for _ in range(rng.randint(6, 8))]
    low = rng.randint(1, 2)
    high = low + rng.randint(3, 4)
    name, k = rng.choice(("sum", "max", "min")), rng.randint(2, 9)
    part = x[low:high]
    value = {"sum": sum, "max": max, "min": min}[name](part)
    lines = [f"y={_list_text(part)}", *(_sum_lines(part) if name == "sum" else [f"{name} {value}"])]
    program = [f"x={_list_text(x)}", f"y=x[{low}:{high}]", f"print({name}(y)+{k})"]
    return _code_draft(rng, program, [*lines, f"{value}+{k}={value + k}"], value + k)


def _sorting(rng: random.Random) -> Draft:
    x = rng.sample(range(10, 99), rng.randint(6, 8))
    n, i = rng.randint(1, 2), rng.randint(1, 3)
    program = [f"x={_list_text(x)}", "x.sort()", *["x.pop()"] * n, f"print(x[-1]-x[{i - 1}]+len(x))"]
    ordered = sorted(x)
    left = ordered[:-n]
    gap = left[-1] - left[i - 1]
    lines = [f"x={_list_text(ordered)}", f"x={_list_text(left)}", f"{left[-1]}-{left[i - 1]}={gap}"]
    lines += [f"len {len(left)}", f"{gap}+{len(left)}={gap + len(left)}"]
    return _code_draft(rng, program, lines, gap + len(left))


def _comprehension(rng: random.Random) -> Draft:
    """Keeps some entries, changes them and adds them up; another list stands beside it unused."""
    while True:
        x = [rng.randint(2, 60) for _ in range(rng.randint(6, 7))]
        modulus, k, plus = rng.randint(2, 4), rng.randint(2, 6), rng.randint(1, 15)
        kept = [v for v in x if v % modulus == 1]
        if 2 <= len(kept) <= 4:
            break
    y = [k * v + plus for v in kept]
    unused = [rng.randint(1, 9) for _ in range(3)]
    program = [
        f"x={_list_text(x)}",
        f"z={_list_text(unused)}",
        f"y=[{k}*v+{plus} for v in x if v%{modulus}==1]",
    ]
    program.append("print(sum(y)+len(y))")
    lines = [f"{v}%{modulus}={v % modulus}" for v in x]
    lines += [f"{k}*{v}+{plus}={k * v}+{plus}={w}" for v, w in zip(kept, y, strict=True)]
    lines += [*_sum_lines(y), f"{sum(y)}+{len(y)}={sum(y) + len(y)}"]
    return _code_draft(rng, program, lines, sum(y) + len(y), program[1])
