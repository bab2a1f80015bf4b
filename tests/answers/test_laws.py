"""Run: pytest tests/answers/test_laws.py. What must hold for all answers: of MATH, of GSM8K, and of noise."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tiny_reasoning_jax.answers import Found, Verdict, equal, extract, find, grade
from tiny_reasoning_jax.answers.latex import clean
from tiny_reasoning_jax.answers.structure import split_brackets, split_list

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data beside this checkout")


def boxed(answer: str) -> str:
    return f"<think>\nsteps\n</think>\n\n\\boxed{{{answer}}}"


@pytest.fixture(scope="module")
def math() -> list[str]:
    return [json.loads(line)["solution"] for line in (SHARED / "math" / "test.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def math_answers(math) -> list[str]:
    return sorted({extract(solution) for solution in math})


@pytest.fixture(scope="module")
def gsm8k() -> list[str]:
    lines = [line for name in ("train", "test") for line in (SHARED / "gsm8k" / f"{name}.jsonl").open()]
    return [json.loads(line)["answer"] for line in lines]


def test_every_reference_solution_is_correct_against_its_own_answer(math, gsm8k):
    assert (len(math), len(gsm8k)) == (5000, 8792)
    for solution in math:
        assert find(solution).how == "boxed"
        assert grade(solution, extract(solution)) is grade(solution, solution) is Verdict.CORRECT, solution
    for answer in gsm8k:
        gold = answer.rpartition("####")[2].strip()
        assert find(answer) == Found(gold, "hashes") and grade(answer, gold) is Verdict.CORRECT, answer


def test_the_last_number_of_gsm8ks_steps_is_weak_and_mostly_right(gsm8k):
    hows, right = Counter(), 0
    for answer in gsm8k:
        steps, _, gold = re.sub(r"<<.*?>>", "", answer).rpartition("####")
        hows[find(steps).how] += 1
        right += grade(steps, gold) is Verdict.CORRECT
    assert hows == {"last number": 8787, "answer is": 5} and right == 8544


# --- perturbed answers are wrong ------------------------------------------------------------------


def perturb(answer: str) -> Iterator[tuple[str, str]]:
    """Yields (kind, another answer): one number more, one sign turned, entries swapped, another letter, a part less."""
    for kind, match in zip(("first number", "last number"), spread(re.finditer(r"\d+", answer)), strict=False):
        yield kind, answer[: match.start()] + str(int(match.group()) + 1) + answer[match.end() :]
    if re.search(r"[1-9]|[a-z]", answer) and not re.search(r"[=,(\[]|\\(text|mbox|pm|begin|in|cos|overline)", answer):
        yield "sign", answer[1:] if answer.startswith("-") and "+" not in answer[1:] else f"-({answer})"
    for old, new in (("+", "-"), (r"\cup", r"\cap")):
        if old in answer:
            yield f"{old} is {new}", answer.replace(old, new, 1)
    if match := re.search(r"\\[dt]?frac\{(\w+)\}\{(\w+)\}", answer):
        yield "upside down", answer.replace(match.group(), f"\\frac{{{match[2]}}}{{{match[1]}}}", 1)
    brackets, parts = split_brackets(clean(answer))
    if brackets:
        yield "bracket", ("[" if brackets[0] == "(" else "(") + ",".join(parts) + brackets[1]
        if len(parts) > 1 and parts[0] != parts[1] and brackets != "{}":
            yield "swapped", brackets[0] + ",".join([parts[1], parts[0], *parts[2:]]) + brackets[1]
        if len(parts) > 1:
            yield "a part less", brackets[0] + ",".join(parts[1:]) + brackets[1]
    listed = split_list(clean(answer))
    if len(listed) > 1:
        yield "one less of a list", ", ".join(listed[1:])
        yield "one more in a list", ", ".join([*listed, "12345"])
    if match := re.search(r"(?<=\\text\{)\(?[A-Za-z]", answer) or re.fullmatch(r"[A-Z]", answer):
        letter = match.group()[-1]
        yield "letter", answer[: match.end() - 1] + ("Q" if letter != "Q" else "R") + answer[match.end() :]
    if match := re.search(r"(?<![a-zA-Z\\{])[xyzabkmnprt](?![a-zA-Z(=]| =)", answer):
        yield "variable", answer[: match.start()] + "w" + answer[match.end() :]
    if answer not in ("0", "1"):
        yield "power", f"({answer})^3"


def spread(matches: Iterator[re.Match]) -> list[re.Match]:
    matches = list(matches)
    return [matches[0], matches[-1]][: len(matches)] if matches else []


def test_no_perturbed_answer_of_math_is_correct(math_answers):
    counts = Counter()
    for answer in math_answers:
        for kind, other in perturb(answer):
            counts[kind] += 1
            assert grade(boxed(other), answer) is Verdict.WRONG, (kind, other, answer)
    assert counts == {
        "first number": 1990, "last number": 1161, "sign": 1541, "+ is -": 151, "\\cup is \\cap": 25,
        "upside down": 430, "bracket": 147, "swapped": 132, "a part less": 139, "one less of a list": 72,
        "one more in a list": 72, "letter": 44, "variable": 133, "power": 2041,
    }  # fmt: skip


def test_no_perturbed_answer_of_gsm8k_is_correct(gsm8k):
    for answer in gsm8k:
        gold = answer.rpartition("####")[2].strip()
        value = int(gold.replace(",", ""))
        others = (
            value + 1,
            value - 1,
            -value or 1,
            10 * value or 10,
            f"{value}.5",
            f"{value}x",
            f"{value}, 1",
            f"({value}",
        )
        for other in others:
            assert grade(boxed(str(other)), gold) is Verdict.WRONG, (other, gold)
        for same in (
            f"{value:,}",
            f"${value}",
            f"{value}.00",
            f"\\frac{{{2 * value}}}{{2}}",
            f"x = {value}",
            f"{value} apples",
        ):
            assert grade(boxed(same), gold) is Verdict.CORRECT, (same, gold)


SAME_IN_MATH = [
    ("(\\text{E})", "\\text{(E)}"), ("0.4", "\\frac{2}{5}"), ("18", "18\\text{ units}"), ("18", "18^\\circ"),
    ("2 \\sqrt{5}", "2\\sqrt{5}"), ("30", "30^\\circ"), ("75\\%", "\\frac34"), ("A", "a"),
    ("\\frac 34", "\\frac{3}{4}"), ("\\frac12", "\\frac{1}{2}"), ("\\frac34", "\\frac{3}{4}"),
]  # fmt: skip


def test_different_answers_of_math_are_not_equal(math_answers):
    """Of 40,000 pairs, those that are called equal are the same number or word in two forms."""
    rng = random.Random(0)
    pairs = [rng.sample(math_answers, 2) for _ in range(40_000)]
    reported = {frozenset(pair) for pair in pairs if equal(*pair) or equal(*pair[::-1])}
    assert reported == set(map(frozenset, SAME_IN_MATH))


def test_what_sympy_makes_of_an_answer_is_equal_to_it(math_answers):
    """Expanded, factored and as Python writes it: other forms than ours, by those who share no code with us."""
    import sympy

    from tiny_reasoning_jax.answers.worker import _parse

    readable = [
        answer for answer in math_answers if not re.search(r"_|:|,|text|mbox|overline|[%=RE]|f\(|\de|4t", answer)
    ]
    count = Counter()
    for answer in readable[::6]:
        tree = _parse(answer)[0] if _parse(answer) else None
        if isinstance(tree, sympy.Expr):
            value = tree.doit()
            for make in (lambda v: sympy.latex(sympy.expand(v)), lambda v: sympy.latex(sympy.factor(v)), str):
                assert equal(make(value), answer) and equal(answer, make(value)), (make(value), answer)
                count[make] += 1
    assert sum(count.values()) == 756
