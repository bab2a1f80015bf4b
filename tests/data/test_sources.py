"""pytest tests/data/test_sources.py: foreign records are read exactly, or dropped with the reason."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest

from tiny_reasoning_jax.data import sources
from tiny_reasoning_jax.data.problems import Dropped, Problem, dump_problem, stream_problems
from tiny_reasoning_jax.errors import UserError


def gsm8k(question="How many?", answer="2 + 2 = <<2+2=4>>4\n#### 4", **more) -> dict:
    return {"question": question, "answer": answer} | more


def messages(content="<think>\nTwo and two.\n</think>\n\nSo \\boxed{4}.", user="How many?", system=None, **more):
    turns = [{"role": "system", "content": system}] if system else []
    turns += [{"role": "user", "content": user}, {"role": "assistant", "content": content} | more]
    return {"messages": turns}


def parse(record) -> Problem | Dropped:
    return sources.parse_record(record, "file.jsonl:1", "file.jsonl")


def reason(record) -> str:
    dropped = parse(record)
    assert isinstance(dropped, Dropped), dropped
    return dropped.reason


def write(path, *records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return path


def test_gsm8k_form_loses_its_marks_and_nothing_else():
    problem = parse(gsm8k(" Q? ", "She sold 48/2 = <<48/2=24>>24 clips.\nThat is 48+24 = <<48+24=72>>72.\n#### 72"))
    steps = "She sold 48/2 = 24 clips.\nThat is 48+24 = 72."
    assert problem == Problem("file.jsonl:1", "arithmetic", 1, "Q?", steps, "72", "file.jsonl")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("1,600", "1600"),
        ("109,200,000", "109200000"),
        ("-5", "-5"),
        ("2,5", "2,5"),
        ("1,2345", "1,2345"),
        ("0.5", "0.5"),
    ],
)
def test_thousands_commas_go_and_other_commas_stay(written, read):
    assert parse(gsm8k(answer=f"step\n#### {written}")).answer == read


def test_gsm8k_difficulty_follows_the_number_of_worked_lines():
    grades = [parse(gsm8k(answer="a step\n" * num + "#### 1")).difficulty for num in range(1, 10)]
    assert grades == [1, 1, 2, 3, 4, 5, 5, 5, 5]


def test_messages_form_keeps_the_final_content_as_it_is():
    problem = parse(messages())
    assert (problem.prompt, problem.reasoning, problem.answer) == (
        "How many?",
        "Two and two.",
        "So \\boxed{4}.",
    )
    assert (problem.category, problem.difficulty) == ("other", 3)


def test_reasoning_content_is_the_same_as_think_tags():
    apart = messages("So \\boxed{4}.", reasoning_content="Two and two.")
    assert parse(apart) == parse(messages())


def test_a_template_that_opened_think_itself_leaves_a_lone_closing_tag():
    assert parse(messages("Two and two.\n</think>\n\nSo \\boxed{4}.")) == parse(messages())


def test_a_system_text_goes_in_front_of_the_prompt():
    assert parse(messages(system="Be brief.")).prompt == "Be brief.\n\nHow many?"


def test_hash_marks_in_messages_become_a_box():
    assert parse(messages("<think>\nHm.\n</think>\nIt is so.\n#### 1,600")).answer == "It is so.\n\n\\boxed{1600}"
    bare = parse(messages("2 and 2.\n#### 4"))
    assert (bare.reasoning, bare.answer) == ("2 and 2.", "\\boxed{4}")


def test_own_difficulty_and_category_are_honoured():
    for form in (gsm8k(), messages()):
        problem = parse(form | {"difficulty": 5, "category": "geometry"})
        assert (problem.difficulty, problem.category) == (5, "geometry")
        assert parse(form | {"difficulty": None, "category": None}) == parse(form)


@pytest.mark.parametrize(
    ("expected", "record"),
    [
        ("unknown form", {"text": "hello"}),
        ("unknown form", ["question", "answer"]),
        ("unknown form", 7),
        ("unknown form", gsm8k(answer=4)),
        ("unknown form", {"messages": ["hello"]}),
        ("unknown form", {"messages": []}),
        ("unknown form", {"messages": [{"role": "user", "content": None}]}),
        ("unknown form", {"messages": [*messages()["messages"], {"role": "tool", "content": "x"}]}),
        ("several user turns", {"messages": messages()["messages"] * 2}),
        ("empty", gsm8k(question=" ")),
        ("empty", gsm8k(answer=" \n")),
        ("empty", messages(user="")),
        ("empty", messages(user=" ", system="Be brief.")),
        ("empty", messages(content="")),
        ("no final answer", gsm8k(answer="It is 4.")),
        ("no final answer", gsm8k(answer="It is 4.\n####  ")),
        ("no final answer", messages("<think>\nHm.\n</think>\nIt is 4.")),
        ("no final answer", messages("<think>\nHm, cut off before \\boxed{4}")),
        ("no final answer", {"messages": messages()["messages"][:1]}),
        ("no reasoning", gsm8k(answer="#### 4")),
        ("no reasoning", messages("So \\boxed{4}.")),
        ("no reasoning", messages("<think>\n\n</think>\n\n\\boxed{4}")),
        ("invalid characters", gsm8k(question="half a pair \ud800")),
        ("difficulty not 1 to 5", gsm8k(difficulty=6)),
        ("difficulty not 1 to 5", gsm8k(difficulty=True)),
        ("difficulty not 1 to 5", messages() | {"difficulty": "hard"}),
        ("category not a word", gsm8k(category=" ")),
        ("category not a word", gsm8k(category=3)),
    ],
)
def test_unusable_records_say_why(expected, record):
    assert reason(record) == expected


def test_a_file_is_read_line_by_line_and_bad_lines_do_not_stop_it(tmp_path):
    path = tmp_path / "my data.jsonl"
    good = json.dumps(gsm8k()).encode()
    deep = b"[" * 200_000 + b"]" * 200_000
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join([good, b"", b"{broken", b"\xff\xfe\xfa", deep, good]) + b"\n")
    records = list(sources.read_jsonl(path))
    assert [record.id for record in records] == [f"my_data.jsonl:{line}" for line in (1, 3, 4, 5, 6)]
    assert [isinstance(record, Problem) for record in records] == [True, False, False, False, True]
    assert {record.reason for record in records[1:4]} == {"not JSON"}


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_a_missing_file_is_the_users_mistake(tmp_path, name):
    with pytest.raises(UserError, match="does not exist or is no file"):
        sources.read_jsonl(tmp_path / name)


def settings(source, num_validation=5, num_test=7, test_source="auto"):
    return SimpleNamespace(
        source=str(source), test_source=test_source, num_validation=num_validation, num_test=num_test
    )


def test_held_out_problems_depend_on_neither_order_nor_seed(tmp_path):
    records = [gsm8k(f"How many in box {i}?") for i in range(200)]
    forward = write(tmp_path / "forward.jsonl", *records)
    backward = write(tmp_path / "backward.jsonl", *reversed(records))

    def split_of(path):
        return {problem.prompt: split for split, problem in sources.read_splits(settings(path))}

    splits = split_of(forward)
    assert splits == split_of(backward)
    assert Counter(splits.values()) == {"train": 188, "validation": 5, "test": 7}


def test_at_most_a_tenth_is_held_out_and_equal_prompts_share_a_split(tmp_path):
    records = [gsm8k(f"How many in box {i}?") for i in range(50)]
    again = [gsm8k(f"how  many in BOX {i}?") for i in range(50)]
    path = write(tmp_path / "all.jsonl", *records, *again)
    pairs = list(sources.read_splits(settings(path, num_validation=1000, num_test=1000)))
    assert Counter(split for split, _ in pairs[:50]) == {"train": 40, "validation": 5, "test": 5}
    assert [split for split, _ in pairs[:50]] == [split for split, _ in pairs[50:]]


def test_auto_takes_the_test_file_beside_a_train_file(tmp_path):
    train = write(tmp_path / "train.jsonl", *[gsm8k(f"Box {i}?") for i in range(30)])
    shared = [f"Box {i}?" for i in range(20)]
    test = write(tmp_path / "test.jsonl", gsm8k("Another?"), *map(gsm8k, shared))
    assert sources.find_test_file(settings(train)) == test
    assert sources.find_test_file(settings(test)) is None
    assert sources.find_test_file(settings(train, test_source="elsewhere.jsonl")).name == "elsewhere.jsonl"
    pairs = list(sources.read_splits(settings(train)))
    assert [problem.prompt for split, problem in pairs if split == "test"] == ["Another?", *shared]
    validation = [problem.prompt for split, problem in pairs if split == "validation"]
    assert len(validation) == 1 and not set(validation) & set(shared)


def test_our_own_lines_come_back_as_they_were(tmp_path):
    problem = Problem("a:1", "logic", 4, "Is ∀x\u2028 true?\r\n", "ja\tnein", '"\\boxed{½}"', "made")
    (tmp_path / "own.jsonl").write_text(dump_problem(problem) * 2, encoding="utf-8")
    assert list(stream_problems(tmp_path / "own.jsonl")) == [problem, problem]


def test_every_gsm8k_record_is_read(shared_data):
    for name, expected, with_commas in (("train", 7473, 79), ("test", 1319, 14)):
        path = shared_data / "gsm8k" / f"{name}.jsonl"
        problems = list(sources.read_jsonl(path))
        assert len(problems) == expected
        assert all(isinstance(problem, Problem) for problem in problems)
        assert all(str(int(problem.answer)) == problem.answer for problem in problems)
        assert not any("<<" in p.reasoning or ">>" in p.reasoning or "####" in p.reasoning for p in problems)
        assert {problem.difficulty for problem in problems} == {1, 2, 3, 4, 5}
        raw = [json.loads(line)["answer"].rpartition("#### ")[2] for line in path.open(encoding="utf-8")]
        assert sum("," in answer for answer in raw) == with_commas
        assert [answer.replace(",", "") for answer in raw] == [problem.answer for problem in problems]
