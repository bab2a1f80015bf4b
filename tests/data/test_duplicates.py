"""pytest tests/data/test_duplicates.py: near-duplicates against exact Jaccard, exact greed and the theory's odds."""

import hashlib
import json
import math
import os
import random
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tiny_reasoning_jax.data.duplicates import (
    NUM_COLUMNS,
    NUM_HASHES,
    find_near_duplicates,
    rows_in_band,
    sign,
    split_words,
)

SHARED = Path(__file__).parents[3] / "shared" / "data"
VOCABULARY = [first + second for first in "bcdfghklmnprsvz" for second in ("a", "en", "ist", "ow", "ura", "all")]
JOSIE = "Josie received $50 as a gift. She buys two cassette tapes that cost $9 each and headphones that cost $25. "
QUESTION = "How much money will she have left?"


def find(texts, similarity=0.8, answers=None):
    return find_near_duplicates(sign(texts, answers), np.ones(len(texts), bool), similarity)


def of(texts, similarity=0.8, answers=None) -> list[int]:
    return find(texts, similarity, answers)[0].tolist()


def jaccard(a: str, b: str) -> float:
    """Exact similarity of two texts of plain words."""
    a, b = ({tuple(words[i : i + 3]) for i in range(len(words) - 2)} for words in (a.split(), b.split()))
    return len(a & b) / len(a | b)


def create_pair(rng: random.Random, num_changes: int) -> tuple[str, str]:
    words = rng.choices(VOCABULARY, k=rng.randint(30, 80))
    changed = list(words)
    for place in rng.sample(range(len(words)), num_changes):
        changed[place] = rng.choice(VOCABULARY)
    return " ".join(words), " ".join(changed)


def find_greedily(signatures, candidates, similarity) -> list[int]:
    """The rule of `find_near_duplicates` as it is said: one row after the other, against all that are kept."""
    width = rows_in_band(similarity)
    num_bands = NUM_HASHES // width
    kept, dropped = [], []
    for row in np.flatnonzero(candidates):
        equal = signatures[kept] == signatures[row]
        meets = equal[:, : num_bands * width].reshape(len(kept), num_bands, width).all(2).any(1)
        alike = meets & equal[:, NUM_HASHES:].all(1) & (equal[:, :NUM_HASHES].mean(1) >= similarity)
        if alike.any():
            dropped.append(int(row))
        else:
            kept.append(int(row))
    return dropped


def create_signatures(rng: np.random.Generator, num_rows: int, num_families: int, width: int) -> np.ndarray:
    """Families of drifting signatures: each row changes some hashes of an earlier one, so that there are chains."""
    rows = rng.integers(0, 2**32, (num_rows, NUM_COLUMNS), np.uint32)
    rows[:, NUM_HASHES:] = rng.integers(0, 2, (num_rows, 2))
    for row in range(num_families, num_rows):
        mother = rows[rng.integers(max(0, row - width), row)].copy()
        places = rng.choice(NUM_HASHES, rng.integers(0, 26), replace=False)
        mother[places] = rng.integers(0, 2**32, len(places), np.uint32)
        if rng.random() < 0.9:
            rows[row] = mother
    return rows


def check_result(signatures, candidates, similarity, found_of, found) -> None:
    """What holds of every answer: `of` names an earlier kept candidate with that share of equal hashes."""
    later = np.flatnonzero(found_of >= 0)
    firsts = found_of[later]
    assert candidates[later].all() and candidates[firsts].all()
    assert (firsts < later).all() and (found_of[firsts] == -1).all()
    equal = signatures[firsts] == signatures[later]
    np.testing.assert_allclose(equal[:, :NUM_HASHES].mean(1), found[later], atol=1e-6)
    assert equal[:, NUM_HASHES:].all() and (found[later] >= similarity).all()
    assert (found[found_of < 0] == 0).all()


def test_case_punctuation_and_latex_spacing_do_not_count():
    same = [
        "If \\frac{1}{2} of $10,\\!000$ people left, how many stayed?",
        "If $\\dfrac{1}{2}$ of 10,000 people left\\quad how many stayed",
        "IF \\tfrac{1}{2} of 10{,}000 people\u00a0left , how many stayed ?",
        "\uff29f \\frac{1}{2}\\, of 10000 people \\left left, how many stayed",
    ]
    assert [split_words(text) for text in same[:3]] == [split_words(same[0])] * 3
    assert split_words(same[3]) == split_words(same[0])
    assert of(same) == [-1, 0, 0, 0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("Tom's 3.50 dollars!", ["tom", "s", "3.50", "dollars"]),
        ("(5! - 2)!/2", ["5", "!", "-", "2", "!", "/", "2"]),
        ("$x_1^2-3x \\le 7$", ["x", "_", "1", "^", "2", "-", "3", "x", "le", "7"]),
        ("1,2,345 and 12,34", ["1", "2345", "and", "12", "34"]),
        ("\u82f9\u679c 3\u4e2a", ["\u82f9", "\u679c", "3", "\u4e2a"]),
        ("Stra\u00dfe \ufb01ve \u00bd", ["strasse", "five", "1", "2"]),
        ("\\leftarrow \\left(", ["leftarrow"]),
    ],
)
def test_words_of_a_prompt(text, words):
    assert split_words(text) == words


def test_the_same_story_is_one_and_other_numbers_or_another_answer_are_another():
    story = JOSIE + QUESTION
    others = [
        story.replace("Josie", "Amanda"),
        story.replace("$9", "$8"),
        story.replace("two", "three"),
        story.replace("two", "2"),
        story.replace("$50", "$25", 1).replace("cost $25", "cost $50"),
        story.replace("left", "spent"),
    ]
    assert of([story, *others], 0.7, ["7"] * 6 + ["43"]) == [-1, 0, -1, -1, 0, -1, -1]
    assert of([story, *others], 0.7) == [-1, 0, -1, -1, 0, -1, 0]  # without answers the question is only a word


def test_answers_are_compared_by_what_is_boxed():
    answers = ["7", "So she has $\\boxed{7}$ left.", "\\boxed{7}", "\\boxed{8}", "Seven."]
    assert of([JOSIE + QUESTION] * 5, 0.8, answers) == [-1, 0, 0, -1, -1]


def test_short_and_empty_prompts_are_compared_as_they_are():
    assert of(["", "?!", "yes", "Yes!", "yes no", "no yes", "yes  NO"]) == [-1, 0, -1, 2, -1, -1, 4]
    assert sign([]).shape == (0, NUM_COLUMNS)
    assert find_near_duplicates(sign([]), np.zeros(0, bool), 0.8)[0].shape == (0,)


def test_signatures_are_the_same_in_every_process_and_however_they_are_grouped():
    rng = random.Random(0)
    texts = [" ".join(rng.choices([*VOCABULARY, "\u00e9t\u00e9", "7"], k=rng.randint(0, 90))) for _ in range(300)]
    whole = sign(texts)
    np.testing.assert_array_equal(whole, np.concatenate([sign([text]) for text in texts]))
    code = (
        "import hashlib, sys; from tiny_reasoning_jax.data.duplicates import sign;"
        "print(hashlib.sha256(sign(sys.stdin.read().split('|')).tobytes()).hexdigest())"
    )
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": seed, "PYTHONIOENCODING": "utf-8"}
        run = [sys.executable, "-c", code]
        printed = subprocess.run(run, input="|".join(texts).encode(), env=environment, capture_output=True, check=True)
        assert printed.stdout.decode().strip() == hashlib.sha256(whole.tobytes()).hexdigest()


def test_signatures_are_those_that_were_written_down():
    # Whoever changes the words, the hashes or the library learns here that other duplicates may be found.
    digest = hashlib.sha256(sign([JOSIE, QUESTION, ""], ["7", "8", ""]).tobytes()).hexdigest()
    assert digest[:16] == "c230b74e791bc0c9"


@pytest.mark.parametrize("similarity", [0.7, 0.8, 0.9])
def test_recall_and_precision_are_what_the_theory_predicts(similarity):
    rng = random.Random(0)
    pairs = [create_pair(rng, rng.randint(0, 7)) for _ in range(3000)]
    pairs += [create_pair(rng, rng.randint(3, 20)) for _ in range(500)]
    exact = np.array([jaccard(*pair) for pair in pairs])
    found_of, _ = find([text for pair in pairs for text in pair], similarity)
    found = found_of[1::2] >= 0
    assert (found_of[::2] == -1).all()
    assert (found_of[1::2][found] == 2 * np.flatnonzero(found)).all()  # dropped for the other of the pair, nobody else
    # A pair is found if enough hashes are equal, binomial in its similarity, and a band is.
    least = math.ceil(similarity * NUM_HASHES - 1e-9)
    width = rows_in_band(similarity)
    enough = np.array(
        [sum(math.comb(128, k) * s**k * (1 - s) ** (128 - k) for k in range(least, 129)) for s in exact.clip(0, 1)]
    )
    meet = 1 - (1 - exact**width) ** (NUM_HASHES // width)
    for among, sign_ in ((exact >= similarity + 0.01, 1), (exact < similarity - 0.01, -1)):
        odds = (enough * meet)[among] if sign_ > 0 else enough[among]
        sigma = math.sqrt((odds * (1 - odds)).sum())
        assert among.sum() > 300
        assert sign_ * (found[among].sum() - odds.sum()) >= -4 * sigma
    assert found[exact >= similarity + 0.15].all() and not found[exact < similarity - 0.2].any()


def test_all_pairs_of_many_prompts_agree_with_exact_jaccard():
    """Prompts that share phrases, as real ones do; every pair is compared exactly."""
    rng = random.Random(1)
    phrases = [" ".join(rng.choices(VOCABULARY, k=rng.randint(4, 12))) for _ in range(100)]
    texts = [" ".join(rng.sample(phrases, rng.randint(3, 5))) for _ in range(800)]
    texts += [" ".join(create_near(rng, text)) for text in texts]
    texts = rng.sample(texts, 1500)
    found_of, found = find(texts)
    by_shingle: dict[tuple, list[int]] = {}
    for row, text in enumerate(texts):
        words = text.split()
        for shingle in {tuple(words[i : i + 3]) for i in range(len(words) - 2)}:
            by_shingle.setdefault(shingle, []).append(row)
    pairs = {(a, b) for rows in by_shingle.values() for i, b in enumerate(rows) for a in rows[:i]}
    exact = {pair: jaccard(texts[pair[0]], texts[pair[1]]) for pair in pairs}
    dropped = np.flatnonzero(found_of >= 0)
    errors = np.array([found[row] - exact[found_of[row], row] for row in dropped])
    assert len(dropped) > 200
    assert np.abs(errors).max() < 5 * math.sqrt(0.8 * 0.2 / NUM_HASHES)
    # Of the kept, no pair is clearly above the threshold: by four standard deviations of the estimate.
    margin = 4 * math.sqrt(0.8 * 0.2 / NUM_HASHES)
    assert not [p for p, s in exact.items() if s > 0.8 + margin and found_of[p[0]] < 0 and found_of[p[1]] < 0]
    assert all(exact[found_of[row], row] > 0.8 - margin for row in dropped)


def create_near(rng: random.Random, text: str) -> list[str]:
    words = text.split()
    for _ in range(rng.randint(0, 3)):
        words[rng.randrange(len(words))] = rng.choice(VOCABULARY)
    return words


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.95])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_greedy_rule_exactly(seed, similarity):
    rng = np.random.default_rng(seed)
    signatures = create_signatures(rng, 500, 30, 40)
    candidates = rng.random(500) < 0.9
    found_of, found = find_near_duplicates(signatures, candidates, similarity)
    check_result(signatures, candidates, similarity, found_of, found)
    dropped = np.flatnonzero(found_of >= 0).tolist()
    assert dropped == find_greedily(signatures, candidates, similarity)
    assert len(dropped) > 50


def test_a_chain_keeps_every_other_link():
    rows = np.random.default_rng(0).integers(0, 2**32, (1, NUM_COLUMNS), np.uint32).repeat(9, axis=0)
    for link in range(1, 9):  # each shares 104 hashes with the one before, 80 with the one before that
        rows[link:, (24 * link - 24) % 120 : (24 * link - 24) % 120 + 24] += np.uint32(link)
    found_of, _ = find_near_duplicates(rows, np.ones(9, bool), 0.8)
    assert found_of.tolist() == [-1, 0, -1, 2, -1, 4, -1, 6, -1]


def test_a_copy_goes_where_its_original_goes():
    rows = np.random.default_rng(0).integers(0, 2**32, (4, NUM_COLUMNS), np.uint32)
    rows[1] = rows[0]
    rows[1, :20] += 1
    rows[2:] = rows[1]
    found_of, found = find_near_duplicates(rows, np.ones(4, bool), 0.8)
    assert found_of.tolist() == [-1, 0, 0, 0]
    np.testing.assert_allclose(found, [0, 108 / 128, 108 / 128, 108 / 128])
    assert find_near_duplicates(rows, np.array([False, True, True, True]), 0.8)[0].tolist() == [-1, -1, 1, 1]


def test_at_similarity_one_only_equal_signatures_are_duplicates():
    rows = np.random.default_rng(0).integers(0, 2**32, (3, NUM_COLUMNS), np.uint32)
    rows[1:] = rows[0]
    rows[1, 0] += 1
    assert find_near_duplicates(rows, np.ones(3, bool), 1.0)[0].tolist() == [-1, -1, 0]


@pytest.mark.parametrize("similarity", [0.05, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_bands_meet_at_the_threshold_with_the_stated_odds(similarity):
    def odds(width):
        return 1 - (1 - similarity**width) ** (NUM_HASHES // width)

    width = rows_in_band(similarity)
    assert odds(width) >= 0.99
    assert width == NUM_HASHES or odds(width + 1) < 0.99


def test_thousands_of_copies_and_one_form_filled_in_many_ways_cost_no_more_than_their_number():
    rng = np.random.default_rng(0)
    form = rng.integers(0, 2**32, NUM_COLUMNS, np.uint32)
    rows = np.tile(form, (60_000, 1))
    for row in rows[30_000:]:  # fillings that share 90 of 128 hashes with the form, and fewer with each other
        places = rng.choice(NUM_HASHES, 38, replace=False)
        row[places] = rng.integers(0, 2**32, len(places), np.uint32)
    rows[59_999] = rows[45_000]  # one is a near-duplicate of another
    rows[59_999, :9] += 1
    rows[59_800:59_900] = rows[50_000]  # and one is there a hundred times more
    start = time.process_time()
    found_of, found = find_near_duplicates(rows, np.ones(len(rows), bool), 0.8)
    seconds = time.process_time() - start
    check_result(rows, np.ones(len(rows), bool), 0.8, found_of, found)
    expected = np.full(len(rows), -1)
    expected[1:30_000], expected[59_800:59_900], expected[59_999] = 0, 50_000, 45_000
    np.testing.assert_array_equal(found_of, expected)
    assert seconds < 20, seconds


def test_one_form_with_many_numbers_is_many_problems_and_each_is_kept_once():
    rng = np.random.default_rng(0)
    rows = np.tile(rng.integers(0, 2**32, NUM_COLUMNS, np.uint32), (20_000, 1))
    rows[:10_000, NUM_HASHES:] = rows[10_000:, NUM_HASHES:] = rng.integers(0, 2**32, (10_000, 2), np.uint32)
    rows[10_000:, :10] += 1
    found_of, _ = find_near_duplicates(rows, np.ones(len(rows), bool), 0.8)
    assert (found_of[:10_000] == -1).all() and (found_of[10_000:] == np.arange(10_000)).all()


def test_memory_is_a_few_dozen_bytes_a_row(tmp_path):
    rng = np.random.default_rng(0)
    rows = np.memmap(tmp_path / "signatures", np.uint32, "w+", shape=(200_000, NUM_COLUMNS))
    for start in range(0, len(rows), 10_000):
        rows[start : start + 10_000] = rng.integers(0, 2**32, (10_000, NUM_COLUMNS), np.uint32)
    rows[100_000:120_000] = rows[:20_000]
    rows[100_000:120_000, :12] += 1
    candidates = np.ones(len(rows), bool)
    tracemalloc.start()
    found_of, _ = find_near_duplicates(rows, candidates, 0.8)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found_of >= 0).sum() == 20_000
    assert peak / len(rows) < 130, peak / len(rows)  # with 10 MB of chunks, which do not grow


@pytest.mark.parametrize(
    ("name", "prompt", "answer", "expected"),
    [
        ("gsm8k/train.jsonl", "question", lambda record: record["answer"].rpartition("####")[2], {0.8: 1, 0.7: 1}),
        ("math/test.jsonl", "problem", lambda record: record["solution"], {0.8: 2, 0.7: 3}),
    ],
)
def test_real_data_hold_as_many_as_when_each_was_looked_at(name, prompt, answer, expected):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    records = [json.loads(line) for line in path.open(encoding="utf-8")]
    signatures = sign([record[prompt] for record in records], [answer(record) for record in records])
    for similarity, number in expected.items():
        found_of, _ = find_near_duplicates(signatures, np.ones(len(records), bool), similarity)
        assert (found_of >= 0).sum() == number
