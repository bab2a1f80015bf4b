"""Code families strings and dicts: what a short program prints. Generators only; the checks run the programs."""

import random

from tiny_reasoning_jax.data.procedural.steps import Draft, create_draft

_LETTERS = "abcdefghijklmnoprstu"


def _print_draft(rng: random.Random, program: list[str], lines: list[str], printed: object) -> Draft:
    question = rng.choice(("What does this print?", "Find the output.", "What is printed?"))
    return create_draft("\n".join(program), "\n".join([question, *program]), lines, printed)


def strings(rng: random.Random, difficulty: int) -> Draft:
    """Texts: 1 one change, 2 two, 3 two and a count, 4 letters by computed places, 5 also a condition."""
    if difficulty >= 4:
        return _places(rng, difficulty)
    s = "".join(rng.choices(_LETTERS, k={1: rng.randint(3, 4), 2: 4, 3: 6}[difficulty]))
    program, lines = [f's="{s}"'], [_spell(s)]
    for _ in range(difficulty - 1 if difficulty < 3 else 2):
        expression, s = _change(rng, s)
        program.append(f"s={expression}")
        lines.append(_spell(s))
    if difficulty < 3:
        expression, s = _change(rng, s)
        return _print_draft(rng, [*program, f"print({expression})"], [*lines, _spell(s), s], s)
    k, letter = rng.randint(2, 9), rng.choice(s)
    function, number = rng.choice(((f"len(s)*{k}", len(s)), (f's.count("{letter}")*{k}', s.count(letter))))
    high = rng.randint(2, 4)
    lines += [_spell(s[:high]), function.split("*")[0] + f" {number}", f"{number}*{k}={number * k}"]
    printed = f"{s[:high]}{number * k}"
    return _print_draft(rng, [*program, f"print(s[:{high}]+str({function}))"], [*lines, printed], printed)


def _spell(s: str) -> str:
    return " ".join(s)


def _change(rng: random.Random, s: str) -> tuple[str, str]:
    """An expression that changes s, which has three letters or more, and its value."""
    kind, letter, k = rng.randrange(7), rng.choice(_LETTERS), rng.randint(1, 2)
    if kind == 0:
        return "s[::-1]", s[::-1]
    if kind == 1:
        return f"s[{k}:]+s[:{k}]", s[k:] + s[:k]
    if kind == 2:
        return f's+"{letter}"', s + letter
    if kind == 3:
        return f'"{letter}"+s', letter + s
    if kind == 4:
        old = rng.choice(s)
        return f's.replace("{old}","{letter}")', s.replace(old, letter)
    if kind == 5:
        i = rng.randrange(len(s))
        return f"s+s[{i}]", s + s[i]
    return f"s[{k - 1}]+s", s[k - 1] + s


def _places(rng: random.Random, difficulty: int) -> Draft:
    """Letters are picked by a computed place and go to the end of t, or in front of it."""
    size = 4 if difficulty == 4 else 5
    s, rounds = "".join(rng.sample(_LETTERS, size)), rng.randint(3, 4) if difficulty == 4 else 5
    k, plus = rng.choice([k for k in range(2, 10) if k % size]), rng.randint(0, 9)
    front = "".join(rng.sample(s, 2 if difficulty == 4 else rng.randint(2, 3))) if difficulty == 5 else ""
    program = [f's="{s}"', 't=""', f"for i in range({rounds}):", f"    c=s[({k}*i+{plus})%{size}]"]
    program += [f'    if c in "{front}":', "        t=c+t", "    else:", "        t+=c"] if front else ["    t=t+c"]
    if not front and rng.random() < 0.5:
        program[-1] = "    t=c+t"
    lines, t = [], ""
    for i in range(rounds):
        place = k * i + plus
        c = s[place % size]
        t = c + t if c in front or program[-1] == "    t=c+t" else t + c
        lines.append(f"i={i} {k}*{i}+{plus}={place} {place}%{size}={place % size} {c} t={_spell(t)}")
    return _print_draft(rng, [*program, "print(t)"], [*lines, t], t)


_OPERATIONS = {"+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b}


def dicts(rng: random.Random, difficulty: int) -> Draft:
    """Dictionaries: 1 look up two, 2 change entries, 3 count letters, 4 add up by a condition, 5 two of them."""
    return (_look_up, _update, _count_letters, _conditional_sum, _two_dicts)[difficulty - 1](rng)


def _dict_text(d: dict[str, int]) -> str:
    return "{" + ",".join(f'"{key}":{value}' for key, value in d.items()) + "}"


def _create_dict(rng: random.Random, size: int, high: int) -> dict[str, int]:
    return {key: rng.randint(1, high) for key in rng.sample("abcde", size)}


def _operate(rng: random.Random, d: dict[str, int], left: str, right: str) -> tuple[str, str, int]:
    """An operation on two entries: (code, with the values put in, value)."""
    operator = rng.choice("+-*" if max(d[left], d[right]) <= 12 else "+-")
    value = _OPERATIONS[operator](d[left], d[right])
    return f'd["{left}"]{operator}d["{right}"]', f"{d[left]}{operator}{d[right]}={value}", value


def _look_up(rng: random.Random) -> Draft:
    d = _create_dict(rng, 2, 40)
    code, shown, value = _operate(rng, d, *rng.sample(sorted(d), 2))
    return _print_draft(rng, [f"d={_dict_text(d)}", f"print({code})"], [shown], value)


def _update(rng: random.Random) -> Draft:
    d = _create_dict(rng, 3, 20)
    program, lines = [f"d={_dict_text(d)}"], []
    for key in rng.sample(sorted(d), 2):
        step = rng.randint(2, 9)
        lines.append(f"{key}={d[key]}+{step}={d[key] + step}")
        d[key] += step
        program.append(f'd["{key}"]+={step}')
    left, right = rng.sample(sorted(d), 2)
    code, shown, value = _operate(rng, d, left, right)
    return _print_draft(rng, [*program, f"print({code})"], [*lines, shown], value)


def _count_letters(rng: random.Random) -> Draft:
    """Counts the letters of a text and weighs two of the counts."""
    letters = rng.sample(_LETTERS, 3)
    text = letters[:2] + rng.choices(letters, k=rng.randint(2, 4))
    rng.shuffle(text)
    left, right = rng.sample(sorted(set(text)), 2)
    k, m = rng.randint(2, 9), rng.randint(1, 20)
    program = ["d={}", f'for c in "{"".join(text)}":', "    d[c]=d.get(c,0)+1"]
    program.append(f'print({k}*d["{left}"]+d["{right}"]+{m})')
    d, lines = {}, []
    for c in text:
        lines.append(f"{c}={d.get(c, 0)}+1={d.get(c, 0) + 1}")
        d[c] = d.get(c, 0) + 1
    product, total = k * d[left], k * d[left] + d[right]
    lines += [f"{k}*{d[left]}={product}", f"{product}+{d[right]}={total}", f"{total}+{m}={total + m}"]
    return _print_draft(rng, program, lines, total + m)


def _conditional_sum(rng: random.Random) -> Draft:
    d = _create_dict(rng, 4, 20)
    bound, start = sorted(d.values())[rng.randint(1, 2)], rng.randint(0, 30)
    k, plus = rng.randint(2, 4), rng.randint(1, 9)
    program = [f"d={_dict_text(d)}", f"s={start}", "for k in d:", f"    if d[k]>{bound}:"]
    program += [f"        s+={k}*d[k]", "    else:", f"        s+={plus}", "print(s)"]
    s, lines = start, []
    for key, value in d.items():
        part = k * value if value > bound else plus
        word, shown = ("true", f" {k}*{value}={part}") if value > bound else ("false", "")
        lines.append(f"{key} {value}>{bound} {word}{shown} s={s}+{part}={s + part}")
        s += part
    return _print_draft(rng, program, lines, s)


def _two_dicts(rng: random.Random) -> Draft:
    """Entries whose keys stand in the other dictionary are multiplied, then entered there."""
    d, e = _create_dict(rng, 4, 12), _create_dict(rng, 2, 9)
    while not set(e) & set(d):
        e = _create_dict(rng, 2, 9)
    plus = rng.randint(1, 30)
    program = [f"d={_dict_text(d)}", f"e={_dict_text(e)}", "s=0", "for k,v in d.items():", "    if k in e:"]
    program += [
        "        s+=v*e[k]",
        "    else:",
        "        e[k]=v",
        "        s-=v",
        f"print(s+len(e)+{plus})",
    ]
    s, lines = 0, []
    for key, value in d.items():
        if key in e:
            part = value * e[key]
            lines.append(f"{key} yes {value}*{e[key]}={part} s={s}+{part}={s + part}")
            s += part
        else:
            e[key] = value
            lines.append(f"{key} no s={s}-{value}={s - value}")
            s -= value
    lines += [f"len {len(e)}", f"{s}+{len(e)}={s + len(e)}", f"{s + len(e)}+{plus}={s + len(e) + plus}"]
    return _print_draft(rng, program, lines, s + len(e) + plus)
