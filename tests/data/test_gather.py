"""pytest tests/data/test_gather.py: which records are used, where they go, and why the others are not."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from test_prepare import create_config

from tiny_reasoning_jax.data import gather
from tiny_reasoning_jax.data.contamination import Benchmark
from tiny_reasoning_jax.data.formats import parse_record
from tiny_reasoning_jax.data.gather import SPLITS, TEST, TRAIN, VALIDATION, Gathered
from tiny_reasoning_jax.data.problems import Dropped
from tiny_reasoning_jax.errors import UserError

THINGS = (
    "apples bricks clocks dogs eels forks goats hats inks jugs kites lamps mugs nuts owls pens quilts rings".split()
)


def story(n: int, *, extra: str = "") -> dict:
    """A word problem whose words, and not only whose numbers, differ from those of its neighbours."""
    rng = np.random.default_rng(n)
    words = " ".join(rng.choice(THINGS, 24))
    return {"question": f"{words}{extra} {n} and 2?", "answer": f"{n} and 2 make {n + 2}.\n#### {n + 2}"}


def write(path, records) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def run(tmp_path, benchmarks=(), **overrides) -> tuple[Gathered, dict, list[tuple[str, Dropped]]]:
    config = create_config(**overrides)
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    gathered, dropped = Gathered(folder / "gathered.jsonl"), []
    gathered.read(config, lambda split, record: dropped.append((split, record)), lambda records: records)
    near = gathered.decide(config, benchmarks)
    dropped += gathered.drops()
    rows = gathered.live(TRAIN)
    found = map(gathered.find_contamination, rows, gathered.stream(rows))
    dropped += [("train", record) for record in found if record]
    return gathered, {"near_duplicates": near, "contaminated": gathered.contaminated}, dropped


def ids(gathered: Gathered, split: int) -> list[str]:
    return [problem.id for problem in gathered.stream(gathered.live(split))]


def by_reason(dropped, reason: str) -> dict[str, str]:
    return {record.id: record.of for _, record in dropped if record.reason == reason}


def test_what_is_held_out_depends_on_neither_order_nor_seed(tmp_path):
    records = [story(n) for n in range(200)]
    first, _, _ = run(tmp_path, data__source=write(tmp_path / "a.jsonl", records))
    turned, _, _ = run(tmp_path, data__source=write(tmp_path / "b.jsonl", records[::-1]), seed=7)
    prompts = lambda g, split: {p.prompt for p in g.stream(g.live(split))}
    for split, size in ((TEST, 20), (VALIDATION, 20), (TRAIN, 160)):
        assert prompts(first, split) == prompts(turned, split) and len(prompts(first, split)) == size


def test_a_training_copy_of_a_test_problem_goes_wherever_it_stands(tmp_path):
    records = [story(n) for n in range(100)]
    shouted = {**records[4], "question": "  " + records[4]["question"].upper()}
    source = write(tmp_path / "a" / "train.jsonl", [*records[:50], records[3], shouted])
    write(tmp_path / "a" / "test.jsonl", [*records[50:80], records[3], records[3]])
    gathered, _, dropped = run(tmp_path, data__source=source)
    assert by_reason(dropped, "also in test") == {"train.jsonl:4": "test.jsonl:31", "train.jsonl:51": "test.jsonl:31"}
    (twin,) = by_reason(dropped, "duplicate").items() - {("test.jsonl:32", "test.jsonl:31")}
    assert twin == ("train.jsonl:52", "train.jsonl:5") or "also in validation" in gathered.reasons
    assert len(ids(gathered, TEST)) == 31


def test_near_duplicates_lose_to_what_is_held_out_and_say_how_alike_they_are(tmp_path):
    records = [story(n) for n in range(60)]
    reworded = [{**records[n], "question": records[n]["question"].replace("?", " now?")} for n in range(10)]
    source = write(tmp_path / "all.jsonl", records + reworded)
    gathered, facts, dropped = run(tmp_path, data__source=source, data__near_duplicates=0.7)
    near = by_reason(dropped, "near duplicate")
    pairs = {frozenset((f"all.jsonl:{n + 1}", f"all.jsonl:{n + 61}")) for n in range(10)}
    tests = set(ids(gathered, TEST))
    assert {frozenset(pair) for pair in near.items()} == {pair for pair in pairs if not pair <= tests}
    assert len(near) == facts["near_duplicates"]["pairs"] >= 9
    held = tests | set(ids(gathered, VALIDATION))
    assert not held & set(near) and held & set(near.values()), "no held-out problem among the pairs"
    assert all(record.detail.startswith("similarity 0.") for _, record in dropped)
    _, facts, dropped = run(tmp_path, data__source=source, data__near_duplicates=1.0, data__decontamination_ngram=0)
    assert not dropped and facts["near_duplicates"]["pairs"] == 0


def test_a_copy_of_a_held_out_problem_goes_though_it_is_less_like_the_first_copy(tmp_path):
    """a ~ b ~ c, but not a ~ c: b is a test problem, so both others go, unless they are held out themselves."""
    words = [f"{THINGS[i % 16]}{THINGS[i // 16]}" for i in range(40)]
    texts = [["x"] * 3 + words[3:], words, words[:-3] + ["y"] * 3]
    problem = lambda text: {"question": " ".join(text) + " 2 and 3?", "answer": "2 and 3 make 5.\n#### 5"}
    first = write(tmp_path / "all.jsonl", [problem(texts[0]), *[story(n) for n in range(30)], problem(texts[2])])
    second = write(tmp_path / "other" / "train.jsonl", [story(n) for n in range(40, 60)])
    write(tmp_path / "other" / "test.jsonl", [problem(texts[1])])  # read after the copies of it
    _, _, dropped = run(
        tmp_path, data__source=f"{first},{second}", data__near_duplicates=0.8, data__decontamination_ngram=0
    )
    # By their hashes c is held out for the test as well, and absorbs b; still a goes because of b.
    assert by_reason(dropped, "near duplicate") == {"1/all.jsonl:1": "2/test.jsonl:1"}


def test_a_folder_with_its_own_test_file_is_not_read_whole(tmp_path):
    for name in ("train.jsonl", "test.jsonl"):
        write(tmp_path / "set" / name, [story(n) for n in range(9)])
    with pytest.raises(UserError, match="holds training and held-out files .test.jsonl.*training files alone"):
        run(tmp_path, data__source=str(tmp_path / "set"))


def test_other_numbers_make_another_problem(tmp_path):
    wording = " ".join(THINGS)
    records = [{"question": f"{wording} {n} and {n * 7}?", "answer": f"So {n}.\n#### {n}"} for n in range(50)]
    _, _, dropped = run(tmp_path, data__source=write(tmp_path / "all.jsonl", records), data__decontamination_ngram=0)
    assert not dropped


def test_a_training_problem_that_gives_a_test_problem_away_goes_with_its_evidence(tmp_path):
    records = [story(n) for n in range(60)]
    leak = {
        "question": records[50]["question"].replace("50 and 2", "77 and 9") + " Really?",
        "answer": "It is 5.\n#### 5",
    }
    source = write(tmp_path / "train.jsonl", [*records[:50], leak])
    write(tmp_path / "test.jsonl", records[50:])
    _, facts, dropped = run(tmp_path, data__source=source)
    assert by_reason(dropped, "contaminated") == {"train.jsonl:51": "test.jsonl:1"}
    assert facts["contaminated"] == {"ngram": 13, "test_problems": 10, "training_problems": 1}
    (record,) = [record for _, record in dropped if record.reason == "contaminated"]
    assert len(record.detail.split()) >= 13 and record.detail.split()[0] in records[50]["question"]
    _, facts, dropped = run(tmp_path, data__source=source, data__decontamination_ngram=0)
    assert not dropped and facts["contaminated"]["training_problems"] == 0


def test_a_training_problem_that_gives_a_benchmark_away_goes_and_is_counted_under_its_name(tmp_path):
    records = [story(n) for n in range(80)]
    # Two of the training problems stand in a benchmark, one of those among what the benchmark passes over.
    named = write(tmp_path / "bench.jsonl", [records[3], records[70], records[5]])
    keep = lambda record, record_id, *rest: (
        None if record_id == "bench.jsonl:3" else parse_record(record, record_id, *rest)
    )
    source = write(tmp_path / "train.jsonl", records[:50])
    write(tmp_path / "test.jsonl", [*records[50:60], records[7] | {"question": records[7]["question"] + " Really?"}])
    settings = {"data__source": source, "data__near_duplicates": 1.0}
    _, facts, dropped = run(tmp_path, [Benchmark("stories", named, keep)], **settings)
    assert by_reason(dropped, "contaminated") == {
        "train.jsonl:4": "stories/bench.jsonl:1", "train.jsonl:8": "test.jsonl:11"}  # fmt: skip
    expected = {"ngram": 13, "test_problems": 11, "training_problems": 2}
    assert facts["contaminated"] == {**expected, "training_problems_of_stories": 1}
    _, facts, _ = run(tmp_path, **settings)
    assert facts["contaminated"] == {**expected, "training_problems": 1}
    _, facts, dropped = run(tmp_path, [Benchmark("stories", named, keep)], data__decontamination_ngram=0, **settings)
    assert not dropped and facts["contaminated"] == {"ngram": 0, "test_problems": 11, "training_problems": 0}


def test_a_mixture_reads_every_source_and_remembers_which(tmp_path, monkeypatch):
    import test_prepare

    monkeypatch.setattr(gather, "generate", test_prepare.generate)
    source = write(tmp_path / "own" / "train.jsonl", [story(n) for n in range(40)])
    write(tmp_path / "own" / "test.jsonl", [story(n) for n in range(40, 47)])
    gathered, _, _ = run(tmp_path, data__source=f"procedural, {source}")
    counts = np.zeros((3, 2), int)
    np.add.at(counts, (gathered.split, gathered.source), 1)
    # Validation and generated test problems are shared out; the file's own test set is used whole.
    assert counts.tolist() == [[300, 36], [10, 4], [15, 7]]
    assert gathered.generated.sum() == 325


def test_files_of_one_name_keep_their_problems_apart(tmp_path):
    names = []
    for start, folder in ((0, "first"), (50, "second")):
        names.append(write(tmp_path / folder / "train.jsonl", [story(n) for n in range(start, start + 20)]))
        write(tmp_path / folder / "test.jsonl", [story(start + 20)])
    gathered, _, _ = run(tmp_path, data__source=",".join(names))
    assert ids(gathered, TEST) == ["1/test.jsonl:1", "2/test.jsonl:1"]
    found = [i for split in range(3) for i in ids(gathered, split)]
    assert len(set(found)) == len(found) == 42


def test_a_test_source_of_its_own_replaces_all_others(tmp_path):
    source = write(tmp_path / "a" / "train.jsonl", [story(n) for n in range(40)])
    write(tmp_path / "a" / "test.jsonl", [story(n) for n in range(40, 47)])
    other = write(tmp_path / "other.jsonl", [story(n) for n in range(90, 95)])
    gathered, _, _ = run(tmp_path, data__source=source, data__test_source=other)
    assert ids(gathered, TEST) == [f"other.jsonl:{n}" for n in range(1, 6)]


def test_a_quota_keeps_a_choice_that_does_not_depend_on_the_order(tmp_path):
    records = [{**story(n), "category": "algebra" if n % 3 else "logic"} for n in range(90)]
    kept = []
    for name, rows in (("a", records), ("b", records[::-1])):
        source = write(tmp_path / f"{name}.jsonl", rows)
        gathered, _, dropped = run(tmp_path, data__source=source, data__category_quotas="algebra=10, logic=1000")
        train = list(gathered.stream(gathered.live(TRAIN)))
        assert sum(problem.category == "algebra" for problem in train) == 10
        assert set(SPLITS.index(split) for split, _ in dropped) == {TRAIN}
        assert {record.reason for _, record in dropped} == {"over its category's quota"}
        kept.append({problem.prompt for problem in train})
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("quotas", "message"),
    [
        ("algebra", "'algebra' is no quota"),
        ("algebra=many", "is no quota"),
        ("algebra=1,algebra=2", "is no quota"),
        ("alchemy=5", "alchemy, which no problem has; the categories are: arithmetic"),
    ],
)
def test_a_wrong_quota_is_refused(tmp_path, quotas, message):
    source = write(tmp_path / "a.jsonl", [story(n) for n in range(40)])
    with pytest.raises(UserError, match=message):
        run(tmp_path, data__source=source, data__category_quotas=quotas)


def test_families_can_be_chosen_and_reasoning_gym_can_only_be_asked(tmp_path):
    sizes = {"data__num_problems": 60, "data__num_test": 10, "data__num_validation": 10}
    gathered, _, _ = run(tmp_path, data__source="procedural:sums+liars", **sizes)
    found = {problem.source for split in range(3) for problem in gathered.stream(gathered.live(split))}
    assert found == {"sums", "liars"} and gathered.generated.all()
    with pytest.raises(UserError, match="no procedural family is called alchemy; choose from sums, "):
        run(tmp_path, data__source="procedural:alchemy", **sizes)
    with pytest.raises(UserError, match="name each once"):
        run(tmp_path, data__source="procedural:sums+sums", **sizes)
    with pytest.raises(UserError, match="it can be data.test_source"):
        run(tmp_path, data__source="gym:chain_sum", **sizes)


@pytest.mark.parametrize("source", ["", "a.jsonl,", "procedural,procedural"])
def test_sources_are_named_once_each(source):
    with pytest.raises(UserError, match="name every source once"):
        gather.source_names(create_config(data__source=source).data)


def test_measured_difficulties_come_from_the_grades_and_unmeasured_training_goes(tmp_path):
    source = write(tmp_path / "a.jsonl", [{**story(n), "difficulty": 2} for n in range(60)])
    rows = [{"id": f"a.jsonl:{n}", "correct": n % 5, "samples": 4} for n in range(1, 41)]
    grades = write(tmp_path / "grades.jsonl", rows)
    gathered, _, dropped = run(
        tmp_path, data__source=source, data__difficulty="measured", data__grades=grades, data__near_duplicates=1.0
    )
    levels = dict(zip(ids(gathered, TRAIN), gathered.level[gathered.live(TRAIN)].tolist(), strict=True))
    assert levels and levels == {i: 5 - int(i.partition(":")[2]) % 5 for i in levels}
    assert set(by_reason(dropped, "not measured")) <= {f"a.jsonl:{n}" for n in range(41, 61)}
    held = [*ids(gathered, TEST), *ids(gathered, VALIDATION)]
    assert len(levels) + len(dropped) + len(held) == 60
    assert {int(gathered.level[row]) for split in (TEST, VALIDATION) for row in gathered.live(split)} >= {2}


def test_a_problem_without_reasoning_can_be_asked_but_not_learned_from(tmp_path):
    verl = [
        {"prompt": [{"role": "user", "content": story(n)["question"]}], "reward_model": {"ground_truth": str(n)}}
        for n in range(30)
    ]
    source = write(tmp_path / "verl.jsonl", verl)
    gathered, _, dropped = run(tmp_path, data__source=source)
    assert len(ids(gathered, TEST)) == 3 and not ids(gathered, TRAIN) and not ids(gathered, VALIDATION)
    assert {record.reason for _, record in dropped} == {"no reasoning"} and len(dropped) == 27
