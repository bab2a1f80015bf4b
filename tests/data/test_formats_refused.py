"""pytest tests/data/test_formats_refused.py: what cannot be read is dropped with the reason."""

import json
import random

import pytest
from foreign_records import (
    GSM8K,
    HUMANEVAL,
    MATH,
    MBPP,
    MESSAGES,
    OPENR1,
    PROMPT_COMPLETION,
    SAMPLES,
    THOUGHT,
    VERL,
    parse,
    read,
    turns,
)

from tiny_reasoning_jax.data.problems import Dropped, Problem


def reply(content, user="How many?"):
    return {"messages": turns(user, content)}


@pytest.mark.parametrize(
    ("expected", "record"),
    [
        ("unknown format", {"text": "hello"}),
        ("unknown format", {}),
        ("unknown format", {"half a pair \ud800": 1}),
        ("unknown format", ["question", "answer"]),
        ("unknown format", 7),
        ("unknown format", None),
        ("wrong type", GSM8K | {"question": 5}),
        ("wrong type", GSM8K | {"answer": [4]}),
        ("wrong type", {"messages": ["hello"]}),
        ("wrong type", {"messages": "hello"}),
        ("wrong type", MBPP | {"test_list": [1]}),
        ("wrong type", VERL | {"reward_model": "4"}),
        ("wrong type", OPENR1 | {"generations": THOUGHT}),
        ("empty", {"messages": []}),
        ("missing field 'content'", {"messages": [{"role": "user", "content": None}]}),
        ("missing field 'test'", {name: value for name, value in HUMANEVAL.items() if name != "test"}),
        ("unsupported turns", {"messages": [*MESSAGES["messages"], {"role": "tool", "content": "x"}]}),
        ("unsupported turns", {"messages": turns("Hello.", names=("assistant",))}),
        ("unsupported turns", VERL | {"prompt": MESSAGES["messages"]}),
        ("several user turns", {"messages": MESSAGES["messages"] * 2}),
        ("empty", GSM8K | {"question": " "}),
        ("empty", GSM8K | {"answer": " \n"}),
        ("empty", reply(THOUGHT, user="")),
        ("empty", {"messages": turns("Be brief.", " ", THOUGHT, names=("system", "user", "assistant"))}),
        ("empty", reply("")),
        ("empty", HUMANEVAL | {"canonical_solution": "\n"}),
        ("prompt is not Python", HUMANEVAL | {"prompt": "def add(a, b:\n"}),
        ("prompt is not Python", HUMANEVAL | {"prompt": "x = " + "(" * 1000}),
        ("empty", MBPP | {"test_list": []}),
        ("empty", VERL | {"reward_model": {"ground_truth": " "}}),
        ("empty", OPENR1 | {"answer": ""}),
        ("no final answer", GSM8K | {"answer": "Two and two.\nIt is 4."}),
        ("no final answer", {"prompt": "How many?", "answer": "4 " * 101}),
        ("no final answer", {"prompt": "How many?", "answer": ["4"]}),
        ("no final answer", GSM8K | {"answer": "It is 4.\n####  "}),
        ("no final answer", reply("<think>\nHm.\n</think>\nIt is 4.")),
        ("no final answer", reply("<think>\nHm, cut off before \\boxed{4}")),
        ("no final answer", reply("<think>\nHm.\n</think>\nIt is \\boxed{4")),
        ("no final answer", reply("<think>\nHm.\n</think>\nIt is \\boxed{}.")),
        ("no final answer", {"messages": turns("How many?", names=("user",))}),
        ("no final answer", MATH | {"solution": "It is 4."}),
        ("failed its checker", PROMPT_COMPLETION | {"label": False}),
        ("answer not in the reasoning", reply(THOUGHT.replace("{4}", "{5}"))),
        ("answer not in the reasoning", GSM8K | {"answer": "2 + 2 = 4\n#### 5"}),
        ("invalid characters", GSM8K | {"question": "half a pair \ud800"}),
        ("invalid characters", GSM8K | {"category": "half a pair \ud800"}),
        ("invalid characters", MBPP | {"test_list": ["assert '\ud800'"]}),
        ("difficulty not 1 to 5", GSM8K | {"difficulty": 6}),
        ("difficulty not 1 to 5", GSM8K | {"difficulty": True}),
        ("difficulty not 1 to 5", MESSAGES | {"difficulty": "hard"}),
        ("category not a word", GSM8K | {"category": " "}),
        ("category not a word", GSM8K | {"category": 3}),
    ],
)
def test_unusable_records_say_why(expected, record):
    dropped = parse(record)
    assert isinstance(dropped, Dropped), dropped
    assert dropped.reason == expected
    json.dumps(dropped.detail, ensure_ascii=False).encode()


def test_unknown_fields_are_named_and_so_is_a_missing_one():
    assert parse({"a": 1, "b": 2}) == Dropped("file:1", "unknown format", detail="fields: a, b")
    assert parse({"problem": "?"}, "math").reason == "missing field 'solution'"
    assert parse({"text": "?"}, "gsm8k").reason == "missing field 'question'"


def test_a_completion_without_reasoning_is_a_problem_to_ask():
    assert (read(reply("So \\boxed{4}.")).reasoning, read(GSM8K | {"answer": "#### 4"}).reasoning) == ("", "")


def test_whatever_stands_in_a_field_gives_a_problem_or_a_reason():
    junk = [
        None,
        True,
        0,
        -1.5,
        "",
        " ",
        "x",
        "\ud800",
        "\\boxed{",
        "####",
        "<think>",
        [],
        {},
        [None],
        ["x"],
        [[]],
        {"a": []},
    ]
    rng = random.Random(0)

    def spoil(value):
        if isinstance(value, dict) and value and rng.random() < 0.8:
            key = rng.choice(sorted(value))
            return value | {key: spoil(value[key])}
        if isinstance(value, list) and value and rng.random() < 0.8:
            at = rng.randrange(len(value))
            return [*value[:at], spoil(value[at]), *value[at + 1 :]]
        return rng.choice(junk)

    for name, record in SAMPLES * 150:
        spoilt = spoil(spoil(record))
        for format in ("auto", name):
            found = parse(spoilt, format)
            assert isinstance(found, Problem | Dropped)
            if isinstance(found, Problem):
                assert found.prompt and (found.answer or found.tests) and found.category
