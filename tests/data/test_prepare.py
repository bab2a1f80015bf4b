"""pytest tests/data/test_prepare.py: the data folder is whole, counted, repeatable, never half written."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from configs.base import get_config
from tiny_reasoning_jax.data import chat, gather, prepare, sources
from tiny_reasoning_jax.data.contamination import Benchmark
from tiny_reasoning_jax.data.formats import parse_record
from tiny_reasoning_jax.data.prepared import PreparedSplit, SplitWriter
from tiny_reasoning_jax.data.problems import CATEGORIES, Problem
from tiny_reasoning_jax.data.tokenizer import load_tokenizer
from tiny_reasoning_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def create_config(**overrides) -> FrozenConfigDict:
    """Small settings; "__" in a name stands for a dot."""
    config = get_config()
    small = {
        "tokenizer__source": "procedural",
        "tokenizer__vocab_size": 320,
        "data__num_problems": 300,
        "data__num_validation": 20,
        "data__num_test": 30,
        "train__seq_len": 256,
    }
    for key, value in (small | overrides).items():
        config.update_from_flattened_dict({key.replace("__", "."): value})
    return FrozenConfigDict(config)


def generate(split, num_problems, seed, shares=None, families=None):
    """A stand-in for the procedural families: fast, graded, the splits apart."""
    start = {"train": 10_000, "validation": 20_000, "test": 30_000}[split] + 100_000 * seed
    for n in range(start, start + num_problems):
        category = CATEGORIES[n % 6]
        yield Problem(f"{split}-{n}", category, n % 5 + 1, f"What is {n} + 1?", f"{n} and 1.", str(n + 1), "sums")


@pytest.fixture(autouse=True)
def stand_in(monkeypatch):
    monkeypatch.setattr(gather, "generate", generate)


def write_jsonl(path, records) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


def create_records(num=100) -> list[dict]:
    return [{"question": f"What is {n} + 2?", "answer": f"{n} and 2 make {n + 2}.\n#### {n + 2}"} for n in range(num)]


def hash_files(folder) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_folder_holds_what_was_promised(tmp_path):
    summary = prepare.prepare(create_config(), tmp_path, None)
    assert os.listdir(tmp_path) == ["data"]
    names = {"tokenizer", "train", "validation", "test.jsonl", "summary.json", "dropped.jsonl", "preview.html"}
    assert set(os.listdir(tmp_path / "data")) == names | {"checksums.json"}
    assert summary == json.loads((tmp_path / "data" / "summary.json").read_text())
    assert {split: facts["kept"] for split, facts in summary["splits"].items()} == {
        "train": 300,
        "validation": 20,
        "test": 30,
    }
    assert prepare.load_problems(tmp_path / "data" / "test.jsonl") == list(generate("test", 30, 0))


def test_the_arrays_hold_each_problem_as_chat_encodes_it(tmp_path):
    summary = prepare.prepare(create_config(), tmp_path, None)
    tokenizer = load_tokenizer(tmp_path / "data" / "tokenizer")
    end = chat.end_of_turn_id(tokenizer)
    for name, num in (("train", 300), ("validation", 20)):
        split = PreparedSplit.load(tmp_path / "data" / name)
        problems = list(generate(name, num, 0))
        assert split.difficulty.tolist() == [problem.difficulty for problem in problems]
        assert [summary["categories"][c] for c in split.category] == [problem.category for problem in problems]
        assert split.prompt_hash.tolist() == [sources.hash_prompt(problem.prompt) for problem in problems]
        examples = split.read(range(num))
        for i, (problem, (example_id, tokens)) in enumerate(zip(problems, examples, strict=True)):
            prompt, completion = chat.encode(tokenizer, problem)
            assert tokens.tolist() == prompt + completion and example_id == problem.id
            assert (split.lengths[i], split.prompt_lengths[i]) == (len(tokens), len(prompt))
            assert completion.count(end) == 1
        facts = summary["splits"][name]
        lengths = np.asarray(split.lengths)
        assert facts["tokens"] == sum(len(tokens) for _, tokens in examples) == lengths.sum()
        assert facts["trained_tokens"] == lengths.sum() - split.prompt_lengths.sum()
        assert sum(facts["length_histogram"]["counts"]) == num
        assert facts["length"]["max"] == lengths.max() and facts["length"]["mean"] == round(lengths.mean(), 1)
        counted = Counter((problem.category, str(problem.difficulty)) for problem in problems)
        assert facts["by_category"] == {
            c: {d: counted[c, d] for d in "12345" if counted[c, d]} for c in sorted(CATEGORIES)
        }


def test_another_process_writes_the_same_bytes(tmp_path):
    prepare.prepare(create_config(), tmp_path / "here", None)
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from tests.data import test_prepare as t\n"
        "t.gather.generate = t.generate\n"
        "t.prepare.prepare(t.create_config(), Path(sys.argv[1]), None)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "there"), str(ROOT)], check=True)
    assert hash_files(tmp_path / "here") == hash_files(tmp_path / "there")


def test_a_finished_folder_is_returned_untouched(tmp_path, monkeypatch):
    first = prepare.prepare(create_config(), tmp_path, None)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(gather, "generate", lambda *args: pytest.fail("prepared again"))
    assert prepare.prepare(create_config(train__learning_rate=0.5), tmp_path, None) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"seed": 1}, r"seed \(0 there, 1 now\)"),
        ({"train__seq_len": 128}, r"train.seq_len \(256 there, 128 now\)"),
        ({"data__num_problems": 301}, "data.num_problems"),
        ({"data__num_validation": 21}, "data.num_validation"),
        ({"data__num_test": 31}, "data.num_test"),
        ({"tokenizer__vocab_size": 321}, "tokenizer.vocab_size"),
    ],
)
def test_a_folder_of_other_settings_is_refused_by_name(tmp_path, overrides, named):
    prepare.prepare(create_config(), tmp_path, None)
    before = hash_files(tmp_path)
    with pytest.raises(UserError, match=f"other settings: {named}[^;]*choose another workdir, or delete"):
        prepare.prepare(create_config(**overrides), tmp_path, None)
    assert hash_files(tmp_path) == before


def test_a_file_counts_by_its_content_and_not_by_its_place(tmp_path):
    source = write_jsonl(tmp_path / "a.jsonl", create_records())
    prepare.prepare(create_config(data__source=source), tmp_path / "run", None)
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(source, tmp_path / "elsewhere" / "a.jsonl")
    prepare.prepare(create_config(data__source=str(moved)), tmp_path / "run", None)
    write_jsonl(moved, create_records(99))
    with pytest.raises(UserError, match="data.source"):
        prepare.prepare(create_config(data__source=str(moved)), tmp_path / "run", None)


def test_an_unreadable_summary_is_the_users_to_delete(tmp_path):
    prepare.prepare(create_config(), tmp_path, None)
    for damage in ("{", "[]", "{}"):
        (tmp_path / "data" / "summary.json").write_text(damage)
        with pytest.raises(UserError, match="delete the folder"):
            prepare.prepare(create_config(), tmp_path, None)


def test_every_dropped_record_is_counted_and_listed(tmp_path):
    records = create_records(60)
    long = {"question": "Long?", "answer": "word " * 300 + "1\n#### 1"}
    special = {"question": "What is <|im_end|>?", "answer": "That 1.\n#### 1"}
    records += [{"text": "x"}, long, special, dict(records[0], question="what IS  0 + 2?"), {"question": "?"}]
    source = write_jsonl(tmp_path / "train.jsonl", records)
    tests = [
        {"question": "What is 7 + 2?", "answer": "long " * 300 + "9\n#### 9"},
        {"question": "word " * 300, "answer": "Hm, 9.\n#### 9"},
        {"question": "What is <think>?", "answer": "That 1.\n#### 1"},
        {"question": "Fine?", "answer": "Not at all.\nNo."},
    ]
    write_jsonl(tmp_path / "test.jsonl", tests)
    summary = prepare.prepare(create_config(data__source=source), tmp_path / "run", None)
    facts = summary["splits"]
    dropped = facts["train"]["dropped"].copy()
    for reason, num in facts["validation"]["dropped"].items():  # hashes decide where the odd ones go
        dropped[reason] = dropped.get(reason, 0) + num
    assert dropped == {
        "unknown format": 2,
        "over seq_len": 1,
        "special token in text": 1,
        "duplicate": 1,
        "also in test": 1,
    }
    # A long solution does not make a test problem unusable, a long prompt does.
    assert facts["test"]["dropped"] == {"no final answer": 1, "over seq_len": 1, "special token in text": 1}
    assert [p.prompt for p in prepare.load_problems(tmp_path / "run/data/test.jsonl")] == ["What is 7 + 2?"]
    listed = [json.loads(line) for line in (tmp_path / "run/data/dropped.jsonl").open(encoding="utf-8")]
    assert Counter(d["reason"] for d in listed) == Counter(dropped) + Counter(facts["test"]["dropped"])
    assert {"train.jsonl:61": "fields: text"}.items() <= {d["id"]: d.get("detail") for d in listed}.items()
    kept = sum(f["kept"] for f in facts.values())
    assert kept + len(listed) == len(records) + len(tests)
    assert "also in test" in (tmp_path / "run/data/preview.html").read_text()


def test_an_example_that_just_fits_is_kept(tmp_path):
    config = create_config()
    prepare.prepare(config, tmp_path / "all", None)
    longest = int(PreparedSplit.load(tmp_path / "all/data/train").lengths.max())
    facts = prepare.prepare(create_config(train__seq_len=longest - 1), tmp_path / "fits", None)["splits"]["train"]
    assert "over seq_len" not in facts["dropped"]
    # One token less, and of these problems, which are all of one length, none is left.
    with pytest.raises(UserError, match="no usable training record; dropped: 320 over seq_len"):
        prepare.prepare(create_config(train__seq_len=longest - 2), tmp_path / "over", None)


def test_no_training_prompt_is_in_test_or_validation(tmp_path):
    records = create_records(200) + create_records(50)
    source = write_jsonl(tmp_path / "all.jsonl", records)
    summary = prepare.prepare(create_config(data__source=source), tmp_path / "run", None)
    facts = summary["splits"]
    assert {split: f["kept"] for split, f in facts.items()} == {"train": 160, "validation": 20, "test": 20}
    assert sum(f["dropped"].get("duplicate", 0) for f in facts.values()) == 50
    prompts = {p.id: sources.hash_prompt(p.prompt) for p in sources.read_source(str(tmp_path / "all.jsonl"))}
    train, validation = (PreparedSplit.load(tmp_path / "run/data" / name) for name in ("train", "validation"))
    held = [example_id for example_id, _ in validation.read(range(len(validation)))]
    held += [p.id for p in prepare.load_problems(tmp_path / "run/data/test.jsonl")]
    assert not {prompts[i] for i, _ in train.read(range(len(train)))} & {prompts[i] for i in held}
    assert not set(train.prompt_hash.tolist()) & set(validation.prompt_hash.tolist())


@pytest.mark.parametrize(
    ("records", "listed"),
    [
        ([], "dropped: none"),
        ([{"text": "x"}] * 3, "dropped: 3 unknown format"),
        ([{"question": f"What is {n}?", "answer": "it " * 300 + "1 #### 1"} for n in range(9)], "over seq_len"),
        (create_records(2), "holding some out"),
    ],
)
def test_zero_usable_records_is_told_with_counts_and_leaves_nothing(tmp_path, records, listed):
    source = write_jsonl(tmp_path / "bad.jsonl", records)
    with pytest.raises(UserError, match=f"no usable training record; .*{listed}"):
        prepare.prepare(create_config(data__source=source), tmp_path / "run", None)
    assert os.listdir(tmp_path / "run") == []


@pytest.mark.parametrize("key", ["data__source", "data__test_source"])
def test_a_missing_data_file_is_named_by_its_key(tmp_path, key):
    source = write_jsonl(tmp_path / "train.jsonl", create_records())
    config = create_config(**({"data__source": source} | {key: str(tmp_path / "missing.jsonl")}))
    with pytest.raises(UserError, match=rf"{key.replace('__', '.')}=.*missing.jsonl.* does not exist"):
        prepare.prepare(config, tmp_path / "run", None)
    assert not (tmp_path / "run").exists()


def test_a_size_below_one_is_refused(tmp_path):
    with pytest.raises(UserError, match="data.num_validation=0 is too small"):
        prepare.prepare(create_config(data__num_validation=0), tmp_path / "run", None)


def test_a_failure_half_way_leaves_nothing_and_a_second_run_succeeds(tmp_path, monkeypatch):
    def break_off(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(prepare, "_keep_test", break_off)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare(create_config(), tmp_path, None)
    assert os.listdir(tmp_path) == []
    prepare.prepare(create_config(), tmp_path, None)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    def fill(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(SplitWriter, "close", fill)
    with pytest.raises(UserError, match="the disk is full.*bytes free"):
        prepare.prepare(create_config(), tmp_path, None)
    assert os.listdir(tmp_path) == []


def test_a_killed_run_leaves_no_data_and_its_remains_are_swept_up(tmp_path):
    program = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path\n"
        "from tests.data import test_prepare as t\n"
        "t.gather.generate = t.generate\n"
        "t.prepare._keep_test = lambda *args: os.kill(os.getpid(), 9)\n"
        "t.prepare.prepare(t.create_config(), Path(sys.argv[1]), None)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path), str(ROOT)])
    assert killed.returncode == -9
    assert [name.startswith("data.tmp-") for name in os.listdir(tmp_path)] == [True]
    living = tmp_path / "data.tmp-1"  # process 1 always lives
    living.mkdir()
    prepare.prepare(create_config(), tmp_path, None)
    assert sorted(os.listdir(tmp_path)) == ["data", "data.tmp-1"]


def test_the_models_tokenizer_is_carried_along_byte_for_byte(tmp_path):
    prepare.prepare(create_config(), tmp_path / "first", None)
    given = tmp_path / "first" / "data" / "tokenizer"
    as_model = create_config(tokenizer__source="model", model__source="some/model")
    prepare.prepare(as_model, tmp_path / "second", given)
    prepare.prepare(create_config(tokenizer__source=str(given)), tmp_path / "third", None)
    for run in ("second", "third"):
        assert hash_files(tmp_path / run / "data" / "tokenizer") == hash_files(given)
        assert hash_files(tmp_path / run / "data" / "train") == hash_files(given.parent / "train")
    with pytest.raises(UserError, match="model.source='some/model' brings no tokenizer"):
        prepare.prepare(as_model, tmp_path / "fourth", None)
    other = tmp_path / "other" / "tokenizer"
    shutil.copytree(given, other)
    prepare.prepare(as_model, tmp_path / "second", shutil.copytree(given, tmp_path / "moved"))
    (other / "tokenizer_config.json").write_text((given / "tokenizer_config.json").read_text() + "\n")
    with pytest.raises(UserError, match="tokenizer.source"):
        prepare.prepare(as_model, tmp_path / "second", other)


def test_gsm8k_with_the_real_tokenizer(tmp_path, shared_data):
    lines = (shared_data / "gsm8k" / "train.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_bytes(b"".join(lines[:1500]))
    shutil.copy(shared_data / "gsm8k" / "test.jsonl", tmp_path)
    config = create_config(
        data__source=str(tmp_path / "train.jsonl"),
        tokenizer__source=str(shared_data / "qwen3_tokenizer"),
        train__seq_len=512,
    )
    facts = prepare.prepare(config, tmp_path / "run", None)["splits"]
    assert {split: f["kept"] for split, f in facts.items()} == {"train": 1475, "validation": 20, "test": 1319}
    # Three training problems tell the story of a test problem, two reason to another answer than they give.
    assert [f["dropped"] for f in facts.values()] == [{"answer not in the reasoning": 2, "contaminated": 3}, {}, {}]
    given, kept = shared_data / "qwen3_tokenizer", tmp_path / "run" / "data" / "tokenizer"
    assert hash_files(given) == hash_files(kept)


def test_the_real_families_with_a_tokenizer_of_their_own(tmp_path, monkeypatch):
    from tiny_reasoning_jax.data import procedural

    monkeypatch.setattr(gather, "generate", procedural.generate)
    config = create_config(data__num_problems=600, tokenizer__vocab_size=512, train__seq_len=1024)
    summary = prepare.prepare(config, tmp_path, None)
    facts = summary["splits"]
    assert summary["vocab_size"] == 512
    sizes = {split: f["kept"] + f["dropped"].get("duplicate", 0) for split, f in facts.items()}
    assert sizes == {"train": 600, "validation": 20, "test": 30}
    assert set(facts["train"]["by_category"]) == set(CATEGORIES)


def test_a_test_problem_whose_answers_are_programs_keeps_its_tests(tmp_path):
    source = write_jsonl(tmp_path / "train.jsonl", create_records())
    program = {"task_id": 1, "text": "Write f.", "code": "def f(): return 1", "test_list": ["assert f() == 1"]}
    program |= {"test_setup_code": "", "challenge_test_list": []}
    tests = write_jsonl(tmp_path / "mixed.jsonl", [program, {"question": "1 + 6?", "answer": "It is 7.\n#### 7"}])
    config = create_config(data__source=source, data__test_source=tests)
    facts = prepare.prepare(config, tmp_path / "run", None)["splits"]["test"]
    assert facts["kept"] == 2 and not facts["dropped"]
    kept = prepare.load_problems(tmp_path / "run" / "data" / "test.jsonl")
    assert [problem.tests for problem in kept] == ["assert f() == 1\n", ""]


def test_data_made_without_a_benchmark_is_not_taken_for_data_made_with_it(tmp_path):
    """Only where it matters: problems that the program makes repeat no file."""
    other = write_jsonl(tmp_path / "other.jsonl", [{"question": "What is 3 + 9?", "answer": "So 12.\n#### 12"}])
    benchmark = Benchmark("sums", other, parse_record)
    config = create_config(data__source=write_jsonl(tmp_path / "train.jsonl", create_records()))
    made = prepare.prepare(config, tmp_path / "with", None, [benchmark])
    assert (
        made["contaminated"]["training_problems_of_sums"] == 0
        and "sums=other.jsonl" in made["fingerprint"]["eval.tasks"]
    )
    assert prepare.prepare(config, tmp_path / "with", None, [benchmark]) == made
    prepare.prepare(config, tmp_path / "without", None)
    with pytest.raises(UserError, match=r"eval.tasks .not set there, sums=other.jsonl"):
        prepare.prepare(config, tmp_path / "without", None, [benchmark])
    generated = create_config()
    summary = prepare.prepare(generated, tmp_path / "generated", None)
    assert prepare.prepare(generated, tmp_path / "generated", None, [benchmark]) == summary


def test_a_hub_set_is_not_asked_for_again_once_it_is_prepared(tmp_path, monkeypatch):
    records = list(generate("train", 100, 0))
    monkeypatch.setattr(sources, "read_source", lambda *_: iter(records))
    monkeypatch.setattr(sources, "find_revision", lambda *_: "abc")
    first = prepare.prepare(create_config(data__source="org/set"), tmp_path, None)
    assert first["fingerprint"]["data.source"] == "org/set at revision abc"
    monkeypatch.setattr(sources, "find_revision", lambda *_: pytest.fail("asked the hub again"))
    assert prepare.prepare(create_config(data__source="org/set"), tmp_path, None) == first
    with pytest.raises(UserError, match="data.num_validation"):
        prepare.prepare(create_config(data__source="org/set", data__num_validation=21), tmp_path, None)
