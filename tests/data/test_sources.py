"""pytest tests/data/test_sources.py: files and folders are streamed; what is damaged is counted or refused."""

import inspect
import json
import tracemalloc

import pyarrow
import pyarrow.parquet
import pytest
from source_files import gsm8k, read, show, write, write_parquet

from tiny_reasoning_jax.data import files, sources
from tiny_reasoning_jax.data.problems import Dropped, Problem, dump_problem, stream_problems
from tiny_reasoning_jax.errors import UserError


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz"])
def test_json_lines_are_read_under_any_of_their_names(tmp_path, name):
    path = write(tmp_path / name, gsm8k(1), gsm8k(2))
    assert show(read(path)) == [(f"{name}:1", "1"), (f"{name}:2", "2")]
    assert {record.source for record in read(path)} == {name}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([gsm8k(1), gsm8k(2)]),
        json.dumps([gsm8k(1), gsm8k(2)], indent=2),
        json.dumps({"data": [gsm8k(1), gsm8k(2)]}),
        json.dumps(
            {"version": 12345678901234567890, "of": [{"data": 3}], "data": [gsm8k(1), gsm8k(2)], "end": 7}, indent=1
        ),
        "\ufeff \n [" + json.dumps(gsm8k(1)) + " ,\n\n" + json.dumps(gsm8k(2)) + "]\n ",
    ],
)
@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
def test_json_arrays_are_read_wherever_a_piece_ends(tmp_path, monkeypatch, text, piece):
    monkeypatch.setattr(files, "_PIECE", piece)
    path = tmp_path / "a.json"
    path.write_text(text, encoding="utf-8")
    assert show(read(path)) == [("a.json:1", "1"), ("a.json:2", "2")]


def test_a_json_object_without_data_is_one_record(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(gsm8k(1), indent=2))
    assert show(read(path)) == [("a.json:1", "1")]
    path.write_text(json.dumps({"train": [gsm8k(1)], "test": []}, indent=2))
    assert read(path) == [Dropped("a.json:1", "unknown format", detail="fields: train, test")]


def test_parquet_is_read_as_the_same_records(tmp_path):
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "<think>\n4\n</think>\n\\boxed{4}"}]
    records = [gsm8k(0) | {"messages": None}, *map(gsm8k, range(1, 300)), {"messages": turns}]
    path = write_parquet(tmp_path / "a.parquet", records, row_group_size=77)
    assert show(read(path)) == [(f"a.parquet:{n + 1}", str(n)) for n in range(300)] + [("a.parquet:301", "\\boxed{4}")]


def test_a_folder_is_its_files_in_order_with_everything_below(tmp_path):
    write(tmp_path / "b.jsonl", gsm8k(2))
    write_parquet(tmp_path / "a" / "x y.parquet", [gsm8k(1)])
    write(tmp_path / "c.jsonl.gz", gsm8k(3), gsm8k(4))
    write(tmp_path / ".cache" / "d.jsonl", gsm8k(5))
    (tmp_path / "README.md").write_text("not data")
    found = read(tmp_path)
    assert show(found) == [("a/x_y.parquet:1", "1"), ("b.jsonl:1", "2"), ("c.jsonl.gz:1", "3"), ("c.jsonl.gz:2", "4")]
    assert [record.source for record in found] == ["a/x y.parquet", "b.jsonl", "c.jsonl.gz", "c.jsonl.gz"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_an_empty_file_has_no_records(tmp_path, name):
    (tmp_path / name).touch()
    assert read(tmp_path / name) == []


def test_our_own_lines_come_back_as_they_were(tmp_path):
    problem = Problem("a:1", "logic", 4, "Is ∀x\u2028 true?\r\n", "ja\tnein", '"\\boxed{½}"', "made")
    (tmp_path / "own.jsonl").write_bytes(dump_problem(problem) * 2)
    assert list(stream_problems(tmp_path / "own.jsonl")) == [problem, problem]


# --- damage ---------------------------------------------------------------------------------------


def test_bad_lines_cost_themselves_and_no_others(tmp_path):
    path = tmp_path / "my data.jsonl"
    good = json.dumps(gsm8k()).encode()
    deep = b"[" * 200_000 + b"]" * 200_000
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join([good, b" ", b"{broken", b"\xff\xfe\xfa", deep, good, good[:20]]))
    found = read(path)
    reasons = ["4", *["not JSON"] * 3, "4", "not JSON"]
    assert show(found) == [(f"my_data.jsonl:{line}", r) for line, r in zip((1, 3, 4, 5, 6, 7), reasons, strict=True)]
    assert all(record.detail for record in found if isinstance(record, Dropped))


def test_invalid_bytes_in_a_json_array_cost_their_record(tmp_path):
    text = json.dumps([gsm8k(1), gsm8k(2), gsm8k(3)], indent=1).encode()
    (tmp_path / "a.json").write_bytes(text.replace(b"They are 2", b"They are \xff 2"))
    assert show(read(tmp_path / "a.json")) == [("a.json:1", "1"), ("a.json:2", "invalid characters"), ("a.json:3", "3")]


def test_invalid_bytes_in_parquet_cost_their_record(tmp_path):
    texts = [json.dumps(gsm8k(n)["answer"]).encode() for n in range(70)]
    texts[66] = b"\xff\xfe"
    answers = pyarrow.array(texts, pyarrow.binary()).view(pyarrow.string())
    table = pyarrow.table({"question": ["How many?"] * 70, "answer": answers})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = read(tmp_path / "a.parquet")
    assert [r.id for r in found] == [f"a.parquet:{row}" for row in range(1, 71)]
    assert [r.id for r in found if isinstance(r, Dropped)] == ["a.parquet:67"]


def test_a_record_of_ten_megabytes_is_read(tmp_path):
    long = gsm8k(answer="word " * 2_000_000 + "is 1\n#### 1")
    for name, text in (("a.jsonl", json.dumps(long)), ("a.json", json.dumps([long]))):
        (tmp_path / name).write_text(text)
        (found,) = read(tmp_path / name)
        assert len(found.reasoning) == 10_000_004


def test_a_record_over_the_limit_is_refused_without_reading_it_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_RECORD_BYTES", 1 << 20)
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(json.dumps(gsm8k(1)).encode() + b"\n")
        for _ in range(32):
            file.write(b"x" * (1 << 20))
        file.write(b"\n" + json.dumps(gsm8k(2)).encode() + b"\n" + b"y" * (3 << 20))
    tracemalloc.start()
    found = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    too_large = "record too large"
    assert show(found) == [("a.jsonl:1", "1"), ("a.jsonl:2", too_large), ("a.jsonl:3", "2"), ("a.jsonl:4", too_large)]
    assert peak < 8 << 20
    (tmp_path / "a.json").write_text(json.dumps([gsm8k(1), "x" * (4 << 20)]))
    with pytest.raises(UserError, match="cannot be read on after 1 records: .*longer than any record"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps([gsm8k(1), gsm8k(2)])[:-20], "after 1 records: no JSON value at character"),
        (json.dumps([gsm8k(1)])[:-1], "after 1 records: it ends before ']'"),
        (json.dumps([gsm8k(1)]) + json.dumps([gsm8k(2)]), "after 1 records: more text behind the end"),
        (json.dumps([gsm8k(1)])[:-1] + " 7]", "after 1 records: '7' in place of ']'"),
        (json.dumps({"data": [gsm8k(1)]})[:-1], "after 1 records: it ends before ','"),
        ("{broken", "after 0 records: no JSON value at character 1"),
        ("id,question\n1,How many?\n", "after 0 records: 'i' in place of '\\['"),
        ("[" * 100_000, "after 0 records: no JSON value at character 1 "),
    ],
)
@pytest.mark.parametrize("piece", [5, 1 << 20])
def test_a_damaged_json_array_is_an_error_with_its_place(tmp_path, monkeypatch, text, message, piece):
    monkeypatch.setattr(files, "_PIECE", piece)
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as raised:
        read(path)
    assert str(path) in str(raised.value) and "JSON lines" in str(raised.value)


def test_other_damaged_files_are_errors_that_name_them(tmp_path):
    whole = write(tmp_path / "a.jsonl.gz", *map(gsm8k, range(2000))).read_bytes()
    parquet = write_parquet(tmp_path / "b.parquet", [gsm8k(n) for n in range(2000)], write_page_checksum=True)
    parquet = parquet.read_bytes()
    middle = len(parquet) // 3
    cases = {
        "cut.jsonl.gz": whole[: len(whole) // 2],
        "spoilt.jsonl.gz": whole[:3000] + b"zzzz" + whole[3004:],
        "worse.jsonl.gz": whole[:10] + b"\xff" * 20 + whole[30:],
        "no.jsonl.gz": b"no gzip",
        "cut.parquet": parquet[:-100],
        "spoilt.parquet": parquet[:middle] + bytes(200) + parquet[middle + 200 :],
        "no.parquet": b"no parquet",
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}' cannot be read on after [0-9,]+ records"):
            read(tmp_path / name)


def test_what_was_whole_before_the_damage_has_been_given(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([gsm8k(1), gsm8k(2)])[:-5])
    records = sources.read_source(str(tmp_path / "a.json"))
    assert next(records).answer == "1"
    with pytest.raises(UserError):
        next(records)


@pytest.mark.parametrize("spec", ["missing.jsonl", "folder/missing.parquet", "/missing/folder/", "gsm8k", "a/b/c", ""])
def test_a_missing_source_is_the_users_mistake_at_once(tmp_path, monkeypatch, spec):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for function in (sources.read_source, sources.mark_source):
        with pytest.raises(UserError, match=r"data.test_source=.*(does not exist|without any)"):
            function(spec, key="data.test_source")


def test_unknown_suffixes_are_listed(tmp_path):
    for name in ("a.csv", "sub/b.txt", "LICENSE"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(UserError, match=r"without any \.jsonl.*holds \.csv, \.txt, LICENSE"):
        sources.read_source(str(tmp_path))
    with pytest.raises(UserError, match=r"a\.csv' has an unknown suffix; give a file \(\.jsonl"):
        sources.read_source(str(tmp_path / "a.csv"))


def test_an_unknown_format_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(UserError, match="data.format='alpaca'"):
        sources.read_source(str(write(tmp_path / "a.jsonl", gsm8k())), "alpaca")
    assert read(tmp_path / "a.jsonl", "math")[0].reason == "missing field 'problem'"


# --- memory, marks, test sources ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path, name):
    records = [gsm8k(n, more="x" * 2000) for n in range(10_000)]  # 20 MB
    if name.endswith("parquet"):
        write_parquet(tmp_path / name, records, compression="none", use_dictionary=False)
    elif name.endswith("json"):
        (tmp_path / name).write_text(json.dumps(records))
    else:
        write(tmp_path / name, *records)
    del records
    found = sources.read_source(str(tmp_path / name))
    assert inspect.isgenerator(found)
    arrow = pyarrow.total_allocated_bytes()
    tracemalloc.start()
    beside = max(pyarrow.total_allocated_bytes() - arrow for _ in found)
    peak = tracemalloc.get_traced_memory()[1] + beside
    tracemalloc.stop()
    assert peak < 8 << 20, f"{peak:,}"


def test_marks_change_with_content_and_names_and_nothing_else(tmp_path):
    path = write(tmp_path / "one" / "a.jsonl", gsm8k(1))
    file_mark, folder_mark = sources.mark_source(str(path)), sources.mark_source(str(tmp_path / "one"))
    assert file_mark.startswith("a.jsonl with sha256 ") and folder_mark.startswith("one, 1 files, with sha256 ")
    assert sources.mark_source(str(write(tmp_path / "two" / "a.jsonl", gsm8k(1)))) == file_mark
    assert sources.mark_source(str(write(tmp_path / "two" / "a.jsonl", gsm8k(2)))) != file_mark
    (tmp_path / "one" / "notes.txt").write_text("no data")
    assert sources.mark_source(str(tmp_path / "one")) == folder_mark
    path.rename(tmp_path / "one" / "b.jsonl")
    assert sources.mark_source(str(tmp_path / "one")) != folder_mark


def test_test_problems_are_found_beside_train(tmp_path):
    for name in (
        "train.jsonl",
        "test.jsonl",
        "train-0-of-1.parquet",
        "test-0-of-1.parquet",
        "other.jsonl",
        "train.json",
    ):
        write(tmp_path / name, gsm8k())
    found = sources.find_test_source
    assert found(str(tmp_path / "train.jsonl")) == str(tmp_path / "test.jsonl")
    assert found(str(tmp_path / "train-0-of-1.parquet")) == str(tmp_path / "test-0-of-1.parquet")
    for name in ("train.json", "test.jsonl", "other.jsonl", "missing.jsonl"):
        assert found(str(tmp_path / name)) is None
    assert found("org/train") is None
    write(tmp_path / "test2.jsonl", gsm8k())
    assert found(str(tmp_path / "train2.jsonl")) is None
    write(tmp_path / "train" / "a.jsonl", gsm8k())
    assert found(str(tmp_path / "train")) is None
    write(tmp_path / "test" / "a.jsonl", gsm8k())
    assert found(str(tmp_path / "train")) == str(tmp_path / "test")
