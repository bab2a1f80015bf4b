"""python -m pytest tests/data/test_procedural.py: the laws of the procedural problems."""

import ast
import collections
import dataclasses
import functools
import itertools
import logging
import math
import os
import random
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from tiny_reasoning_jax.data.problems import CATEGORIES, DIFFICULTIES, Problem
from tiny_reasoning_jax.data.procedural import FAMILIES, SPLITS, check, families, generate, steps
from tiny_reasoning_jax.data.procedural.spaces import MARKS, SPACES
from tiny_reasoning_jax.data.procedural.steps import Draft
from tiny_reasoning_jax.errors import UserError

ROOM = Path(families.__file__).parent
NUM_CELLS = len(FAMILIES) * len(DIFFICULTIES)
SAMPLES = 200  # training problems of every family and difficulty that the tests look at, where there are as many


@pytest.fixture(scope="module")
def samples() -> dict[tuple[str, int], list[Problem]]:
    cells = itertools.product(FAMILIES, DIFFICULTIES)
    return {cell: list(itertools.islice(families.problems_of("train", *cell, seed=5), SAMPLES)) for cell in cells}


def num_tokens(problem: Problem) -> int:
    """What a tokenizer with single digits needs when every word is one token."""
    text = f"{problem.prompt}\n{problem.reasoning}\n{problem.answer}"
    return len(re.findall(r"[^\r\nA-Za-z\d]?[A-Za-z]+|\d| ?[^\sA-Za-z\d]+\n*|\s*\n|\s+(?!\S)|\s", text))


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def test_there_are_enough_families_in_every_category():
    counts = collections.Counter(category for category, _, _ in FAMILIES.values())
    assert set(counts) == set(CATEGORIES) and len(FAMILIES) >= 30
    assert min(counts.values()) >= 5


def test_every_family_and_difficulty_contributes_evenly():
    counts = collections.Counter((p.source, p.difficulty) for p in generate("train", 60 * NUM_CELLS, seed=5))
    assert counts == dict.fromkeys(itertools.product(FAMILIES, DIFFICULTIES), 60)


def test_every_family_has_200_problems_of_its_category_at_each_difficulty_or_states_how_few(samples):
    for (family, difficulty), problems in samples.items():
        assert {problem.category for problem in problems} == {FAMILIES[family][0]}
        assert {problem.difficulty for problem in problems} == {difficulty}
        size = families.num_distinct("train", family, difficulty)
        assert len(problems) == (SAMPLES if size is None else min(SAMPLES, size)), (family, difficulty)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_independent_check_agrees_and_rejects_every_other_answer(samples, family, monkeypatch):
    category, create, solve = FAMILIES[family]
    monkeypatch.setitem(FAMILIES, family, (category, create, functools.cache(solve)))
    for difficulty in DIFFICULTIES:
        problems = samples[family, difficulty]
        for problem, other in itertools.pairwise(problems):
            assert check(problem), problem
            corrupted = [other.answer] if other.answer != problem.answer else []
            if re.fullmatch(r"-?\d+(/\d+)?", problem.answer):
                corrupted += [str(Fraction(problem.answer) + 1), str(Fraction(problem.answer) - 10)]
            for answer in corrupted:
                assert not check(dataclasses.replace(problem, answer=answer)), (problem, answer)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_reasoning_ends_with_the_answer(samples, family):
    for difficulty in DIFFICULTIES:
        for problem in samples[family, difficulty]:
            last = problem.reasoning.split("\n")[-1]
            assert re.search(rf"(^|[ =:]){re.escape(problem.answer)}$", last), problem


PURE = re.compile(r"[-+*/%()\d]*\d[-+*/%()\d]*")


@functools.cache
def value_of(expression: str) -> Fraction:
    """An arithmetic expression of the reasoning, where / is exact and // and % are Python's."""
    tree = ast.parse(re.sub(r"(?<![\w.])0+(?=\d)", "", expression), mode="eval")
    wrapped = re.sub(r"\d+", lambda digits: f"Fraction({digits[0]})", ast.unparse(tree))
    return eval(wrapped, {"Fraction": Fraction, "__builtins__": {}})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_equation_of_the_reasoning_holds(samples, family):
    num_equations = 0
    for difficulty in DIFFICULTIES:
        for problem in samples[family, difficulty]:
            for line in problem.reasoning.split("\n"):
                words = [word.rstrip(",:") for word in line.split(" ")] if "% of" not in line else []
                for word in words:
                    sides = [side for side in word.split("=") if PURE.fullmatch(side)]
                    values = {value_of(side) for side in sides}
                    assert len(values) <= 1, (line, problem)
                    num_equations += len(sides) > 1
    assert num_equations >= 3 * SAMPLES or FAMILIES[family][0] == "logic"


@pytest.mark.parametrize("family", ["linear", "system", "angles"])
def test_every_line_about_an_unknown_holds_at_the_solution(samples, family):
    num_lines = 0
    for difficulty in DIFFICULTIES:
        for problem in samples[family, difficulty]:
            lines = problem.reasoning.split("\n")
            known = {line[0]: Fraction(line.split("=")[-1]) for line in lines if re.match("[xy]=", line)}
            for line in lines:
                letters = set(re.findall("[xy]", line))
                if "=" in line and letters and letters <= set(known):
                    sides = [re.sub(r"(?<=[\dxy)])(?=[xy(])", "*", side) for side in line.split("=")]
                    for letter, value in known.items():
                        sides = [side.replace(letter, f"({value})") for side in sides]
                    assert len({value_of(side) for side in sides}) == 1, (line, problem)
                    num_lines += 1
    assert num_lines >= SAMPLES


def test_stated_divisors_and_multiples_are_right(samples):
    num_stated = 0
    for problems in samples.values():
        for problem in problems:
            lines = problem.reasoning.split("\n")
            for line, after in itertools.pairwise(lines):
                if line.startswith("gcd"):
                    p, q = map(int, re.match(r"(-?\d+)/(\d+)", after).groups())
                    assert line == f"gcd {math.gcd(p, q)}", problem
                    num_stated += 1
                if line.startswith("lcm") and problem.difficulty < 5:
                    denominators = map(int, re.findall(r"/(\d+)", problem.prompt))
                    assert line == f"lcm {math.lcm(*denominators)}", problem
    assert num_stated > 1000


def last_digits(lines: list[str]) -> str:
    """The number that a column computation writes: the ones of every line, the last line in full."""
    results = [line.split("=")[-1] for line in lines]
    return (results[-1] + "".join(result[-1] for result in reversed(results[:-1]))).lstrip("0") or "0"


def test_column_steps_write_the_digits_of_the_result():
    rng = random.Random(0)
    for _ in range(2000):
        a, b = (rng.choice((-1, 1)) * rng.randint(10, 10 ** rng.randint(2, 5)) for _ in range(2))
        *columns, last = steps.add(a, b)
        assert last == f"{a}{b:+d}={a + b}" and last_digits(columns) == str(abs(a + b))


def test_digit_products_write_the_digits_of_the_product():
    rng = random.Random(0)
    for _ in range(2000):
        a, b = rng.randint(11, 10 ** rng.randint(2, 4)), rng.randint(2, 9)
        *lines, last = steps.multiply(a, b)
        assert last == f"{a}*{b}={a * b}"
        with_carry = [line for i, line in enumerate(lines) if "+" not in "".join(lines[i + 1 : i + 2])]
        zeros = len(str(a)) - len(str(a).rstrip("0"))
        assert last_digits(with_carry) + "0" * zeros == str(a * b)


def test_partial_products_are_added_up():
    rng = random.Random(0)
    for _ in range(2000):
        a, b = rng.randint(11, 999), rng.randint(11, 99)
        *lines, last = steps.multiply(a, b)
        partial = [int(line.split("=")[1]) for line in lines if re.match(rf"{max(a, b)}\*\d+=", line)]
        assert last == f"{a}*{b}={a * b}"
        assert sum(partial) == a * b or (not partial and str(min(a, b)).endswith("0"))


def test_long_division_brings_down_every_digit():
    rng = random.Random(0)
    for _ in range(2000):
        b = rng.randint(2, 19)
        quotient = rng.randint(13, 10 ** rng.randint(2, 4))
        *lines, last = steps.divide(quotient * b, b)
        parts = [list(map(int, re.split(r"[=*+]", line))) for line in lines]
        assert last == f"{quotient * b}/{b}={quotient}"
        assert "".join(str(digit) for _, digit, _, _ in parts) == str(quotient) and parts[-1][-1] == 0
        rests = [str(whole)[: len(str(whole)) - 1] for whole, _, _, _ in parts[1:]]
        assert rests == [str(rest or "") for _, _, _, rest in parts[:-1]]


def work(problem: Problem) -> int:
    """Characters to read and to write; a case that has to be tried in full counts as many."""
    return len(problem.prompt) + len(problem.reasoning) + 100 * problem.reasoning.count("If ")


@pytest.mark.parametrize("family", FAMILIES)
def test_length_rises_with_difficulty_and_stays_within_the_budget(samples, family):
    lengths = [mean(map(work, samples[family, d])) for d in DIFFICULTIES]
    assert lengths == sorted(set(lengths)) and lengths[-1] > 1.5 * lengths[0]
    assert mean(map(num_tokens, samples[family, 1])) <= 60
    assert mean(map(num_tokens, samples[family, 5])) <= 220
    assert max(num_tokens(p) for d in DIFFICULTIES for p in samples[family, d]) <= 260


@pytest.mark.parametrize("family", FAMILIES)
def test_every_difficulty_has_three_wordings(samples, family):
    for difficulty in DIFFICULTIES:
        skeletons = set()
        for problem in samples[family, difficulty]:
            first_line = problem.prompt.split("\n")[0]
            words = re.findall(r"[A-Za-z]{2,}[?]?", first_line)
            skeletons.add(" ".join(words[:2] + words[-2:] if FAMILIES[family][0] == "logic" else words))
        assert len(skeletons) >= 3, (difficulty, skeletons)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_answer_can_be_guessed(samples, family):
    for difficulty in DIFFICULTIES:
        counts = collections.Counter(problem.answer for problem in samples[family, difficulty])
        share = counts.most_common(1)[0][1] / len(samples[family, difficulty])
        assert share <= (0.65 if len(counts) == 2 else 0.35), (difficulty, counts.most_common(3))


def test_small_problems_are_many_and_distinct_over_all_difficulties(samples):
    for family in FAMILIES:
        assert len(samples[family, 1]) >= 100
        hashes = [p.id.split("-")[-1] for d in DIFFICULTIES for p in samples[family, d]]
        assert len(set(hashes)) == len(hashes), f"{family} has a problem at two difficulties"


def test_splits_share_no_problem_and_no_prompt_whatever_the_seed():
    found = {}
    for seed, (split, num) in enumerate((("train", 6000), ("validation", 1500), ("test", 1500))):
        found[split] = list(generate(split, num, seed=seed))
        assert len(found[split]) == num
        assert len({p.id for p in found[split]}) == num
        assert len({p.prompt for p in found[split]}) == num, "two problems with one prompt"
    for a, b in itertools.combinations(SPLITS, 2):
        for key in (lambda p: p.id, lambda p: p.prompt):
            assert not {key(p) for p in found[a]} & {key(p) for p in found[b]}


def test_the_same_seed_gives_the_same_problems_in_any_process():
    code = (
        "import hashlib; from tiny_reasoning_jax.data.procedural import generate;"
        "text = repr([list(generate(s, 400, 3)) for s in ('train', 'validation', 'test')]);"
        "print(hashlib.blake2b(text.encode()).hexdigest())"
    )
    printed = set()
    for hash_seed in ("1", "2"):
        env = os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOM.parents[2])}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        printed.add(done.stdout)
    assert len(printed) == 1
    assert list(generate("train", 200, 3)) != list(generate("train", 200, 4))


def test_problems_do_not_depend_on_how_many_are_asked_for_or_on_other_families():
    many = list(generate("train", 3 * NUM_CELLS, 0))
    assert list(generate("train", NUM_CELLS + 7, 0)) == many[: NUM_CELLS + 7]
    few = list(generate("train", 3 * 2 * len(DIFFICULTIES), 0, families=("order", "sums")))
    assert set(few) == {p for p in many if p.source in ("order", "sums")}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_problem_in_other_words_has_the_same_canonical_form_and_no_other_problem_has_it(family):
    _, create, solve = FAMILIES[family]
    for difficulty in DIFFICULTIES:
        rng, forms = random.Random(f"{family}/{difficulty}"), collections.defaultdict(dict)
        for _ in range(4000 if difficulty == 1 else 500):
            draft = create(rng, difficulty)
            forms[draft.canonical][draft.prompt] = draft.answer
        repeated = [prompts for prompts in forms.values() if len(prompts) > 1]
        assert repeated or difficulty > 1, "no canonical form was met in two wordings"
        for prompts in repeated[:50]:
            answers = {"a name" if answer.istitle() else answer for answer in map(solve, list(prompts)[:3])}
            assert len(answers) == 1, prompts


def test_an_exhausted_space_ends_with_its_true_size_and_one_warning(monkeypatch, caplog):
    def tiny(rng, difficulty):
        text = f"{difficulty} {rng.randrange(40)}"
        return Draft(text, text, text, text)

    monkeypatch.setattr(families, "FAMILIES", {"tiny": ("logic", tiny, str)})
    given = []
    for split in SPLITS:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            problems = list(generate(split, 1000, 0, families=("tiny",)))
        given += problems
        assert len(caplog.records) == 1 and f"{len(problems)} of 1000" in caplog.text
    assert len(given) == len({p.id for p in given}) == 40 * len(DIFFICULTIES)


def test_every_stated_size_was_counted_with_the_generators_of_today():
    assert set(MARKS) == set(FAMILIES)
    stale = [family for family in FAMILIES if families.mark_family(family) != MARKS[family]]
    assert not stale, f"run: python benchmarks/procedural.py --spaces {' '.join(stale)}"
    assert {family for family, _ in SPACES} <= set(FAMILIES)
    assert all(len(size) == len(SPLITS) and sum(size) < families.COUNTED for size in SPACES.values())


@pytest.mark.parametrize("cell", [cell for cell, size in SPACES.items() if sum(size) < 400])
def test_a_stated_size_is_what_can_be_drawn(cell, monkeypatch):
    """With other seeds and more patience; a size stated too small would cut a split short."""
    monkeypatch.setattr(families, "SPACES", {})
    monkeypatch.setattr(families, "_PATIENCE", 30)
    given = [[p.id for p in families.problems_of(split, *cell, seed=9)] for split in SPLITS]
    assert tuple(map(len, given)) == SPACES[cell] == tuple(len(set(ids)) for ids in given)


def test_a_space_that_was_counted_ends_without_a_search_for_more(monkeypatch):
    drafts = []

    def tiny(rng, difficulty):
        drafts.append(rng.randrange(40))
        return Draft(f"{drafts[-1]}", f"{drafts[-1]}", "1", "1")

    monkeypatch.setattr(families, "FAMILIES", {"tiny": ("logic", tiny, str)})
    counted = families.count_space("tiny", 1)
    assert sum(counted) == 40
    drafts.clear()
    ids = {p.id for split in SPLITS for p in families.problems_of(split, "tiny", 1, seed=0)}
    searched = len(drafts)
    drafts.clear()
    monkeypatch.setattr(families, "SPACES", {("tiny", 1): counted})
    assert ids == {p.id for split in SPLITS for p in families.problems_of(split, "tiny", 1, seed=0)}
    assert len(drafts) < searched / 3


def test_shares_set_the_mixture_and_a_share_of_zero_neither_gives_nor_hangs(monkeypatch):
    counts = collections.Counter(p.difficulty for p in generate("train", 7 * len(FAMILIES), 0, (4, 2, 1, 0, 0)))
    assert counts == {1: 4 * len(FAMILIES), 2: 2 * len(FAMILIES), 3: len(FAMILIES)}
    monkeypatch.setattr(
        families,
        "FAMILIES",
        {"tiny": ("logic", lambda rng, d: Draft(f"{d} {rng.randrange(9)}", *"pra"), str)},
    )
    assert {p.difficulty for p in generate("train", 1000, 0, (1, 0, 0, 0, 2), ("tiny",))} == {1, 5}


def test_a_real_space_is_given_in_full():
    pairs = {tuple(sorted((a, b))) for a in [*range(2, 10), *range(11, 40)] for b in range(2, 10)}
    given = {p.id for split in SPLITS for p in families.problems_of(split, "products", 1, seed=0)}
    assert len(given) == len(pairs)


def test_bad_requests_are_refused():
    with pytest.raises(UserError, match="'dev'.*test, train, validation"):
        generate("dev", 1, 0)
    with pytest.raises(UserError, match="-1"):
        generate("train", -1, 0)
    problem = dataclasses.replace(next(generate("train", 1, 0)), source="gsm8k")
    with pytest.raises(UserError, match="gsm8k"):
        check(problem)
    assert list(generate("train", 0, 0)) == []


@pytest.mark.parametrize(
    "program",
    [
        "import os",
        "print(().__class__)",
        "while 1>0:\n    a=1",
        "print(open)",
        "def f(x):\n    return f(x)\nf(1)",
    ],
)
def test_the_check_runs_no_foreign_program(program):
    problem = dataclasses.replace(next(generate("train", 1, 0)), source="loop", prompt=f"What?\n{program}")
    with pytest.raises((ValueError, NameError)):
        check(problem)


def test_checks_share_no_code_with_generators():
    for path in ROOM.glob("checks_*.py"):
        modules = re.findall(r"(?:from|import) (tiny_reasoning_jax[\w.]*)", path.read_text())
        assert all(module.startswith("tiny_reasoning_jax.data.procedural.checks_") for module in modules), path
    for path in set(ROOM.glob("*.py")) - {ROOM / "families.py"}:
        assert "import checks" not in path.read_text() and "sympy" not in path.read_text(), path
