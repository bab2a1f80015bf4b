"""pytest tests/data/test_contamination.py: what gives a test problem away, and what does not."""

import hashlib
import json
import random
import re
import time
import unicodedata
from pathlib import Path

import pytest

from tiny_reasoning_jax.data.contamination import EvaluationText

SHARED = Path(__file__).parents[3] / "shared" / "data"
STAMPS = (
    "Max bought stamps at the post office. Some of the stamps had a snowflake design, some had a truck design, and "
    "some had a rose design. Max bought 16 snowflake stamps. He bought 3 more truck stamps than snowflake stamps, and "
    "9 fewer rose stamps than truck stamps. How many stamps did Max buy in all?"
)
VOCABULARY = [first + second for first in "bcdfghklmnprstvz" for second in ("a", "en", "ist", "ow", "ura", "all")]


def evaluation(*prompts: str, ngram: int = 13) -> EvaluationText:
    made = EvaluationText(ngram)
    for number, prompt in enumerate(prompts):
        made.add(f"test:{number}", prompt)
    return made


def create_words(rng: random.Random, num: int) -> str:
    return " ".join(rng.choices(VOCABULARY, k=num))


def read_prompts(name: str, field: str) -> list[str]:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is absent")
    return [json.loads(line)[field] for line in (SHARED / name).open(encoding="utf-8")]


def find_by_brute_force(tests: list[str], prompts: list[str], ngram: int) -> list[int]:
    """Which prompts share a run, by other means: plain words only, a window over each pair that has words in common."""

    def runs(text: str) -> set[tuple[str, ...]]:
        text = unicodedata.normalize("NFKC", text).lower()
        text = re.sub(r"(?<=\d),(?=\d\d\d(?!\d))", "", text)
        text = re.sub(r"\d+(\.\d+)?", "#", text)
        words = "".join(c if c.isalpha() or c == "#" else " " for c in text.replace("#", " # ")).split()
        words = [w for i, w in enumerate(words) if not (w == "#" and i and words[i - 1] == "#")]
        found = {tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)}
        return {run for run in found if len(set(run)) > ngram // 2}

    known = set().union(*map(runs, tests))
    return [i for i, prompt in enumerate(prompts) if runs(prompt) & known]


def test_a_test_problem_is_found_with_other_numbers_names_case_and_punctuation():
    tests = evaluation("Something else that has nothing to do with it, but is long enough to have a run.", STAMPS)
    changed = STAMPS.replace("Max", "Bella").replace("16", "1,234").replace(" 9 ", " 13.5 ").upper().replace(".", " ;")
    for prompt in (STAMPS, changed, f"Solve this: {changed} Think first.", f"${STAMPS}$"):
        found = tests.find(prompt)
        assert found is not None and found[0] == "test:1"
        assert "bought stamps at the post office some of the stamps had a snowflake" in found[1]


def test_the_shared_words_are_the_whole_run_and_no_more():
    tests = evaluation("zero one alpha beta gamma delta epsilon two three", ngram=3)
    assert tests.find("here alpha beta gamma delta 7 epsilon") == ("test:0", "alpha beta gamma delta")


@pytest.mark.parametrize("ngram", [1, 2, 8, 13])
def test_a_run_counts_from_n_words_on(ngram):
    rng = random.Random(ngram)
    run = rng.sample(VOCABULARY, ngram)
    around = [word for word in VOCABULARY if word not in run]
    tests = evaluation(" ".join([*around[:20], *run, *around[20:40]]), ngram=ngram)
    # Between words that the test problem does not have, n of its words in a row are found and n - 1 are not.
    assert tests.find(" ".join(["xx", *run, "yy"]))
    assert tests.find(" ".join(["xx", *run[:-1], "yy"])) is None
    assert tests.find("") is None
    # Wherever it begins in a prompt: not every place of a prompt is looked up.
    for place in range(2 * ngram):
        assert tests.find(" ".join([*["xx"] * place, *run, "yy"]))
        assert tests.find(" ".join([*["xx"] * place, *run[:-1], "yy"])) is None


def test_formulas_are_no_runs():
    tests = evaluation("Find the largest root of $x^7 + 3x^6 - 2x^5 + 7x^4 - x^3 + 9x^2 + 2x - 11$, please.")
    assert tests.find("Is $2x^9 - 3x^8 + x^7 + 3x^6 - 2x^5 + 7x^4 - 2x^3 + x^2 - x + 1$ prime?") is None
    assert tests.find("Find the largest root of $x^7+3x^6-2x^5+7x^4-x^3+9x^2+2x-11$, please.")


def test_drawings_do_not_count_in_runs_and_an_open_one_costs_no_time():
    draw = "[asy] " + " ".join(VOCABULARY[:40]) + " [/asy]"
    tests = evaluation(f"What is the area of the first one? {draw}")
    assert tests.find(f"How long is the second? {draw} Give it in feet.") is None
    assert tests.find(f"What is the area of the first one? {draw}")
    start = time.process_time()
    assert tests.find("[asy] " * 200_000) is None
    assert time.process_time() - start < 5


def test_boilerplate_of_many_test_problems_gives_none_away_but_a_whole_copy_does():
    rng = random.Random(0)
    form = "Read the input from the first line and write the answer to the last line of the output, nothing else."
    prompts = [f"{create_words(rng, 20)}. {form}" for _ in range(50)]
    few, many = evaluation(*prompts[:3]), evaluation(*prompts)
    assert few.find(f"{create_words(rng, 20)}. {form}") is not None  # in three problems it is not yet a form
    assert many.find(f"{create_words(rng, 20)}. {form}") is None
    assert [many.find(prompt)[0] for prompt in prompts] == [f"test:{i}" for i in range(50)]
    only_form = evaluation(*([f"{form} {number}" for number in range(50)]))
    assert only_form.find(f"Please: {form} 17!") is not None
    assert only_form.find(f"{form} 99") is None


def test_a_short_test_prompt_is_found_whole_with_its_numbers_and_operators():
    tests = evaluation("Compute $\\sin 135^\\circ$.", "What is 2 + 3 * 4 in base 7?")
    assert tests.find("compute  \\sin 135 ^\\circ") == ("test:0", "compute sin 135 ^ circ")
    assert tests.find("Compute $\\sin 120^\\circ$.") is None
    assert tests.find("Compute $\\sin 135^\\circ + \\cos 2^\\circ$.") is None  # of five words, it has to be all
    assert tests.find("Tell me: what is $2+3*4$ in base 7? Box it.") == ("test:1", "what is 2 + 3 * 4 in base 7")
    assert tests.find("What is 2 - 3 * 4 in base 7?") is None
    assert tests.find("What is 2 + 3 * 4 in base 71?") is None


def test_every_test_prompt_is_found_and_a_foreign_one_is_not():
    rng = random.Random(1)
    prompts = [create_words(rng, rng.randint(1, 60)) for _ in range(500)]
    tests = evaluation(*prompts, "", "???")
    assert all(tests.find(f"  {prompt.upper()}. ") for prompt in prompts)
    assert not any(tests.find(create_words(rng, 60) + " zzz") for _ in range(500))


def test_runs_agree_with_a_plain_search_on_gsm8k():
    train, test = read_prompts("gsm8k/train.jsonl", "question"), read_prompts("gsm8k/test.jsonl", "question")
    for ngram, expected in ((8, 213), (13, 8)):
        tests = evaluation(*test, ngram=ngram)
        found = [i for i, prompt in enumerate(train) if tests.find(prompt)]
        # Of 7,473. At 13 they are stories told again, at 8 mostly phrases: "for 3 hours a day for 5 days".
        assert len(found) == expected
        assert found == find_by_brute_force(test, train, ngram)


def test_math_s_two_halves_share_what_they_did_when_it_was_looked_at():
    prompts = read_prompts("math/test.jsonl", "problem")
    halves = [hashlib.blake2b(p.encode(), digest_size=1).digest()[0] % 2 for p in prompts]
    tests = evaluation(*(p for p, half in zip(prompts, halves, strict=True) if half))
    rest = [p for p, half in zip(prompts, halves, strict=True) if not half]
    assert len(rest) == 2511 and sum(tests.find(p) is not None for p in rest) == 210
