"""pytest tests/data/test_formats.py: each foreign format is read exactly, or dropped with the reason."""

import copy
import gzip
import json
import random
import subprocess
import sys
from collections import Counter

import pytest

from tiny_reasoning_jax.answers import Verdict, grade
from tiny_reasoning_jax.data import arrival, fields
from tiny_reasoning_jax.data.formats import DIFFICULTY_RULE, FORMATS, parse_record, recognise
from tiny_reasoning_jax.data.problems import Dropped, Problem
from tiny_reasoning_jax.errors import UserError


def turns(*texts, role="role", text="content", names=("user", "assistant")):
    return [{role: name, text: content} for name, content in zip(names, texts, strict=True)]


def sharegpt_turns(*texts, names=("human", "gpt")):
    return turns(*texts, role="from", text="value", names=names)


THOUGHT = "<think>\nTwo and two are 4.\n</think>\n\nSo \\boxed{4}."
MARKED = (
    "<|begin_of_thought|>\n\nTwo and two are 4.\n\n<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\n\nSo \\boxed{4}.\n\n<|end_of_solution|>"
)
OPENTHOUGHTS_SYSTEM = (
    "Your role as an assistant involves thoroughly exploring questions through a systematic long thinking process "
    "before providing the final precise and accurate solutions. Please structure your response into two main sections."
)
GSM8K = {"question": "How many?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}
MATH = {
    "problem": "What is $2+2$?",
    "level": "Level 3",
    "type": "Counting & Probability",
    "solution": "It is $\\boxed{\\text{x} + {4}}$.",
}
MBPP = {
    "text": "Write a function to add.",
    "code": "def add(a, b):\r\n\treturn a + b",
    "task_id": 1,
    "test_setup_code": "",
    "test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"],
    "challenge_test_list": [],
}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def add(a, b):\n    """ Adds. """\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "\n\ndef check(candidate):\n    assert candidate(1, 2) == 3\n\n",
}
PROGRAM = {"prompt": "Write f that gives 1.", "tests": ["import math", "assert f() == 1"], "solution": "f = lambda: 1"}
PLAIN = {"question": "How many?", "answer": 4}
MESSAGES = {"messages": turns("How many?", THOUGHT)}
SHAREGPT = {"conversations": sharegpt_turns("How many?", THOUGHT)}
OPENTHOUGHTS = {
    "system": OPENTHOUGHTS_SYSTEM,
    "conversations": sharegpt_turns(
        "Return your final response within \\boxed{}. How many?", MARKED, names=("user", "assistant")
    ),
}
OPENTHOUGHTS_METADATA = {
    "problem": "How many?",
    "deepseek_reasoning": "Two and two are 4.",
    "deepseek_solution": "So \\boxed{4}.",
    "ground_truth_solution": "By counting, $\\boxed{4}$.",
    "domain": "math",
    "source": "numina_math",
    "test_cases": None,
    "starter_code": None,
}
PROMPT_COMPLETION = {"prompt": "How many?", "completion": THOUGHT}
PROMPT_COMPLETION_TURNS = {
    "prompt": turns("How many?", names=("user",)),
    "completion": turns(THOUGHT, names=("assistant",)),
}
VERL = {
    "data_source": "train-math",
    "prompt": turns(
        "How many? Let's think step by step and output the final answer within \\boxed{}.", names=("user",)
    ),
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": '["4"]'},
    "extra_info": {"index": 7, "model_difficulty": {"1.5B": 16, "7B": 8, "32B": 0}},
}
OPENR1 = {
    "problem": "How many?",
    "solution": "By counting.",
    "answer": "4",
    "problem_type": "Number Theory",
    "question_type": "math-word-problem",
    "is_reasoning_complete": [True, False, True, True],
    "generations": [
        "<think>\nIt is 5.\n</think>\n\\boxed{5}",
        "<think>\nCut 4.\n</think>\\boxed{4}",
        THOUGHT,
        "<think>\n</think>\\boxed{4}",
    ],
    "correctness_math_verify": [False, True, True, True],
    "correctness_llama": None,
    "messages": turns("How many?", THOUGHT),
}
SAMPLES = [
    ("gsm8k", GSM8K),
    ("math", MATH),
    ("mbpp", MBPP),
    ("humaneval", HUMANEVAL),
    ("program", PROGRAM),
    ("plain", PLAIN),
    ("messages", MESSAGES),
    ("sharegpt", SHAREGPT),
    ("openthoughts", OPENTHOUGHTS),
    ("openthoughts", OPENTHOUGHTS_METADATA),
    ("prompt_completion", PROMPT_COMPLETION),
    ("prompt_completion", PROMPT_COMPLETION_TURNS),
    ("verl", VERL),
    ("openr1", OPENR1),
]


def parse(record, format="auto") -> Problem | Dropped:
    return parse_record(record, "file:1", "file", format)


def read(record, format="auto") -> Problem:
    problem = parse(record, format)
    assert isinstance(problem, Problem), problem
    return problem


def golden(category, difficulty, prompt, reasoning, answer, tests=""):
    return Problem("file:1", category, difficulty, prompt, reasoning, answer, "file", tests)


WORKED = ("How many?", "Two and two are 4.", "So \\boxed{4}.")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (GSM8K, golden("arithmetic", 1, "How many?", "2 + 2 = 4", "4")),
        (MATH, golden("probability", 3, "What is $2+2$?", MATH["solution"], "\\text{x} + {4}")),
        (
            MBPP,
            golden(
                "code",
                0,
                "Write a function to add.\n\nYour code should pass these tests:\n\n"
                "assert add(1, 2) == 3\nassert add(2, 2) == 4",
                "",
                "```python\ndef add(a, b):\n\treturn a + b\n```",
                "assert add(1, 2) == 3\nassert add(2, 2) == 4\n",
            ),
        ),
        (
            HUMANEVAL,
            golden(
                "code",
                0,
                "Complete this Python function, and write it out in full.\n\n"
                '```python\ndef add(a, b):\n    """ Adds. """\n```',
                "",
                '```python\ndef add(a, b):\n    """ Adds. """\n    return a + b\n```',
                "def check(candidate):\n    assert candidate(1, 2) == 3\n\ncheck(add)\n",
            ),
        ),
        (
            PROGRAM,
            golden(
                "code",
                0,
                "Write f that gives 1.",
                "",
                "```python\nf = lambda: 1\n```",
                "import math\nassert f() == 1\n",
            ),
        ),
        (MESSAGES, golden("other", 0, *WORKED)),
        (SHAREGPT, golden("other", 0, *WORKED)),
        (OPENTHOUGHTS, golden("other", 0, *WORKED)),
        (OPENTHOUGHTS_METADATA, golden("math", 0, *WORKED)),
        (PROMPT_COMPLETION, golden("other", 0, *WORKED)),
        (PROMPT_COMPLETION_TURNS, golden("other", 0, *WORKED)),
        (VERL, golden("math", 3, "How many?", "", "4")),
        (OPENR1, golden("arithmetic", 0, *WORKED)),
    ],
)
def test_golden_records(record, expected):
    before = copy.deepcopy(record)
    assert parse(record) == expected
    assert record == before


def test_every_sample_is_recognised_as_its_own_format_and_every_format_has_one():
    assert {name for name, _ in SAMPLES} == set(FORMATS)
    for name, record in SAMPLES:
        assert recognise(record) == name
        assert parse(record, name) == parse(record)
        # Parquet and `datasets` give every record all columns, null where it has none.
        nulls = dict.fromkeys(key for _, other in SAMPLES for key in other)
        assert recognise(nulls | record) == name
        assert parse(nulls | record) == parse(record)


def test_the_named_format_beats_recognition():
    numina = {"problem": "What?", "solution": "It is $\\boxed{4}$.", "messages": turns("How many?", THOUGHT)}
    assert (recognise(numina), read(numina).prompt) == ("math", "What?")
    assert read(numina, "messages").prompt == "How many?"


def test_an_unknown_format_name_lists_the_known_ones():
    with pytest.raises(UserError, match="alpaca.*gsm8k.*openr1"):
        parse(GSM8K, "alpaca")


def test_the_difficulty_rule_names_every_format_that_has_one():
    assert all(name in DIFFICULTY_RULE for name in ("gsm8k", "math", "verl", "sharegpt"))


# --- what each format allows ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read_as"),
    [
        ("1,600", "1600"),
        ("109,200,000", "109200000"),
        ("-5", "-5"),
        ("2,5", "2,5"),
        ("1,2345", "1,2345"),
        ("0.5", "0.5"),
    ],
)
def test_thousands_commas_go_and_other_commas_stay(written, read_as):
    assert read(GSM8K | {"answer": f"It is {written}.\n#### {written}"}).answer == read_as


def test_gsm8k_difficulty_follows_the_number_of_worked_lines():
    levels = [read(GSM8K | {"answer": "so 1\n" * num + "#### 1"}).difficulty for num in range(1, 10)]
    assert levels == [1, 1, 2, 3, 4, 5, 5, 5, 5]


@pytest.mark.parametrize(("level", "expected"), [("Level 5", 5), (2, 2), ("1", 1), ("Level ?", 0), (None, 0), (9, 0)])
def test_math_levels(level, expected):
    assert read(MATH | {"level": level}).difficulty == expected


def test_math_500_has_a_subject_and_an_answer_that_must_agree():
    record = {
        "problem": "?",
        "solution": "So $\\boxed{\\frac{1}{2}}$.",
        "answer": "0.5",
        "subject": "Prealgebra",
        "level": 2,
    }
    problem = read(record)
    assert (problem.category, problem.difficulty, problem.answer) == ("algebra", 2, "0.5")
    dropped = parse(record | {"answer": "0.7"})
    assert (dropped.reason, dropped.detail) == ("failed its checker", "'\\\\frac{1}{2}' instead of '0.7'")


def test_math_without_a_box_needs_the_answer_beside_it():
    record = {"problem": "?", "solution": "It is clearly 7 pounds."}
    assert parse(record).reason == "no final answer"
    assert read(record | {"answer": "7"}).answer == "7"
    assert parse(record | {"answer": "8"}).reason == "answer not in the reasoning"


def test_mbpp_setup_code_and_imports_come_before_the_tests():
    assert read(MBPP | {"test_setup_code": "x = 1\r\ny = 2"}).tests.startswith("x = 1\ny = 2\nassert add(1, 2)")
    sanitised = {"prompt": "Add.", "code": "c", "test_imports": ["import math"], "test_list": ["assert c"]}
    assert read(sanitised).tests == "import math\nassert c\n"


def test_a_program_needs_tests_but_no_solution():
    bare = read({"prompt": "Write f.", "tests": "assert f() == 1", "difficulty": 2})
    assert (bare.answer, bare.tests, bare.difficulty) == ("", "assert f() == 1\n", 2)
    assert parse({"prompt": "Write f.", "tests": " "}).detail == "tests"
    assert parse({"prompt": "Write f.", "tests": [1]}).reason == "wrong type"
    assert parse({"prompt": " ", "tests": "assert f() == 1"}).detail == "prompt"


def test_reasoning_content_is_the_same_as_think_tags():
    apart = [*turns("How many?", names=("user",)), {"role": "assistant", "content": "So \\boxed{4}."}]
    apart[-1]["reasoning_content"] = "Two and two are 4."
    assert parse({"messages": apart}) == parse(MESSAGES)


def test_a_template_that_opened_think_itself_leaves_a_lone_closing_tag():
    assert parse({"messages": turns("How many?", THOUGHT.removeprefix("<think>\n"))}) == parse(MESSAGES)


@pytest.mark.parametrize("base", [MESSAGES, SHAREGPT])
def test_a_system_text_goes_in_front_of_the_prompt(base):
    (field, items), role = next(iter(base.items())), "role" if base is MESSAGES else "from"
    text = "content" if base is MESSAGES else "value"
    inside = {field: [{role: "system", text: "Be brief."}, *items]}
    assert read(inside).prompt == "Be brief.\n\nHow many?"
    assert parse(base | {"system": "Be brief."}) == parse(inside)
    assert parse(base | {"system": OPENTHOUGHTS_SYSTEM}) == parse(base)


def test_hash_marks_in_messages_become_a_box():
    record = {"messages": turns("?", "<think>\nSo 1600.\n</think>\nIt is so.\n#### 1,600")}
    assert read(record).answer == "It is so.\n\n\\boxed{1600}"
    bare = read({"messages": turns("?", "2 and 2 is 4.\n#### 4")})
    assert (bare.reasoning, bare.answer) == ("2 and 2 is 4.", "\\boxed{4}")


def test_a_sentence_that_names_the_answer_gets_a_box():
    answer = read({"messages": turns("?", "<think>\nSo 4.\n</think>\nThe answer is **4**.")}).answer
    assert answer == "The answer is **4**.\n\n\\boxed{4}"
    assert grade(answer, "4") is Verdict.CORRECT


def test_openthoughts_puzzles_answer_in_a_line_and_code_in_a_block():
    def marked(thought, solution):
        value = MARKED.replace("Two and two are 4.", thought).replace("So \\boxed{4}.", solution)
        return {"conversations": sharegpt_turns("Generate an executable Python function.", value)}

    assert read(marked("It is a candle.", "A candle.")).answer == "A candle."
    code = read(marked("Print it.", "Here:\n\n```python\nprint(4)\n```"))
    assert (code.category, code.answer) == ("code", "Here:\n\n```python\nprint(4)\n```")
    assert parse(marked("Hm.", "One line.\nAnd another.")).reason == "no final answer"
    cut = {"conversations": sharegpt_turns("?", MARKED.partition("<|end_of_solution|>")[0])}
    assert parse(cut).reason == "no final answer"


def test_openthoughts_metadata_is_checked_where_its_reference_has_an_answer():
    assert parse(OPENTHOUGHTS_METADATA | {"ground_truth_solution": "\\boxed{5}"}).reason == "failed its checker"
    assert read(OPENTHOUGHTS_METADATA | {"ground_truth_solution": "Obvious.", "domain": "puzzle"}).category == "logic"
    code = OPENTHOUGHTS_METADATA | {
        "domain": "code",
        "ground_truth_solution": '["\\\\boxed{5}"]',
        "starter_code": "def f():",
    }
    assert read(code).prompt == "How many?\ndef f():"


def test_openthoughts3_difficulties_have_ten_steps():
    levels = [read(SHAREGPT | {"domain": "code", "difficulty": level}).difficulty for level in range(1, 11)]
    assert levels == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert parse(SHAREGPT | {"difficulty": 6}).reason == "difficulty not 1 to 5"


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        ("4", "4"),
        (4, "4"),
        ('["\\\\frac{1}{2}"]', "\\frac{1}{2}"),
        (["4"], "4"),
        ("[1, 2]", "[1, 2]"),
        ("[1,2)", "[1,2)"),
        ('["4", "5"]', "several answers"),
        ('{"inputs": ["1"], "outputs": ["2"]}', "no final answer"),
        (None, "missing field 'ground_truth'"),
        (True, "wrong type"),
        ([], "wrong type"),
    ],
)
def test_verl_ground_truths(truth, expected):
    found = parse(VERL | {"reward_model": {"ground_truth": truth}})
    assert expected == (found.answer if isinstance(found, Problem) else found.reason)


@pytest.mark.parametrize(
    ("counts", "level"),
    [
        ({"7B": 0}, 1),
        ({"7B": 16}, 5),
        ({"1.5B": 12, "7B": 4}, 3),
        ({"7B": None}, 0),
        ({"7B": 17}, 0),
        (None, 0),
        ("x", 0),
    ],
)
def test_verl_levels_come_from_wrong_samples_of_all_models(counts, level):
    assert read(VERL | {"extra_info": {"model_difficulty": counts}}).difficulty == level


def test_openr1_takes_the_first_generation_that_judges_and_our_grader_accept():
    wrong = "<think>\nIt is 5.\n</think>\n\\boxed{5}"
    judged = OPENR1 | {"generations": [wrong, THOUGHT], "is_reasoning_complete": [True, True]}
    assert read(judged | {"correctness_math_verify": [True, True]}).answer == "So \\boxed{4}."
    assert (
        read(judged | {"correctness_math_verify": None, "correctness_llama": [False, True]}).answer == "So \\boxed{4}."
    )
    none = parse(judged | {"correctness_math_verify": [False, False]})
    assert (none.reason, none.detail) == ("failed its checker", "no generation is complete and correct")
    ours = parse(judged | {"correctness_math_verify": [True, False]})
    assert (ours.reason, ours.detail) == ("failed its checker", "'5' instead of '4'")


def test_prompts_lose_what_asks_for_another_form_of_answer():
    for form in fields.ANSWER_FORMS_BEFORE:
        assert read(PROMPT_COMPLETION | {"prompt": f"{form}\n\nHow many?"}) == read(PROMPT_COMPLETION)
    for form in fields.ANSWER_FORMS_AFTER:
        assert read(PROMPT_COMPLETION | {"prompt": f"How many? {form}"}) == read(PROMPT_COMPLETION)


def test_own_difficulty_and_category_are_honoured():
    for _, record in SAMPLES:
        if record is not OPENTHOUGHTS_METADATA:
            problem = read(record | {"difficulty": 5, "category": " my kind "})
            assert (problem.difficulty, problem.category) == (5, "my kind")
            assert parse(record | {"difficulty": None, "category": None}) == parse(record)


# --- what is refused ------------------------------------------------------------------------------


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


# --- arriving at the answer -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reasoning", "answer"),
    [
        ("so it is 4.", "4"),
        ("5 000 000 cars, 650 000/2 = 325 000 each", "325000"),
        ("in all 1,600", "1600"),
        ("in all $1{,}600$", "1600"),
        ("each costs $.50-.25 = $0.25", "25"),
        ("each costs $0.50", "0.5"),
        ("she has twelve", "12"),
        ("that is 3/4 of it", "0.75"),
        ("that is 0.75 of it", "\\frac{3}{4}"),
        ("that is 50% of it", "0.5"),
        ("so sqrt(3) times 2", "2\\sqrt{3}"),
        ("It was Evelyn who ran.", "\\text{Evelyn}"),
        ("It is impossible.", "No"),
        ("x is 007", "7"),
        ("... \\boxed{4}", "So \\boxed{4.0}."),
        ("the answer is x+1", "\\boxed{x + 1}"),
        ("print it", "```python\nprint(4)\n```"),
    ],
)
def test_a_reasoning_arrives_in_whatever_way_it_writes_the_answer(reasoning, answer):
    assert arrival.arrives(reasoning, answer)


@pytest.mark.parametrize(
    ("reasoning", "answer"),
    [
        ("so it is 14.", "4"),
        ("so it is 4.5", "4"),
        ("so it is 4,000", "4"),
        ("so it is 0.4", "4"),
        ("It was Evelyn who ran.", "Bob"),
        ("1/2", "\\frac{1}{3}"),
        ("We are done.", "7"),
    ],
)
def test_a_reasoning_that_ends_elsewhere_does_not_arrive(reasoning, answer):
    assert not arrival.arrives(reasoning, answer)


# --- real lines -----------------------------------------------------------------------------------


def load(path):
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as lines:
        return [json.loads(line) for line in lines]


def test_every_gsm8k_record_is_read_or_wrong_in_itself(shared_data):
    # Read by eye: in these nine the worked steps end in another number than the one behind ####.
    wrong = {"train": [357, 1155, 2771, 3335, 4797, 5351, 6158, 6761, 7445], "test": []}
    for name, num_records, with_commas in (("train", 7473, 79), ("test", 1319, 14)):
        records = load(shared_data / "gsm8k" / f"{name}.jsonl")
        found = [parse_record(record, str(line), name) for line, record in enumerate(records, start=1)]
        assert len(found) == num_records
        dropped = [record for record in found if isinstance(record, Dropped)]
        assert [int(record.id) for record in dropped] == wrong[name]
        assert {record.reason for record in dropped} <= {"answer not in the reasoning"}
        problems = [record for record in found if isinstance(record, Problem)]
        assert {problem.difficulty for problem in problems} == {1, 2, 3, 4, 5}
        assert not any(mark in p.reasoning for mark in ("<<", ">>", "####") for p in problems)
        raw = [record["answer"].rpartition("#### ")[2] for record in records]
        assert sum("," in answer for answer in raw) == with_commas
        assert [raw[int(p.id) - 1].replace(",", "") for p in problems] == [p.answer for p in problems]
        assert all(str(int(problem.answer)) == problem.answer for problem in problems)


def last_box(text):
    """Another way to find it: from the last \\boxed{ (or \\fbox{) count braces forward."""
    start = max(text.rfind("\\boxed{") + 7, text.rfind("\\fbox{") + 6)
    depth, end = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[start : end - 1]


def test_every_math_record_is_read(shared_data):
    records = load(shared_data / "math" / "test.jsonl")
    problems = [read(record) for record in records]
    assert len(problems) == 5000
    for record, problem in zip(records, problems, strict=True):
        assert problem.answer == last_box(record["solution"]).strip()
        assert (problem.prompt, problem.reasoning) == (record["problem"].strip(), record["solution"].strip())
        assert f"Level {problem.difficulty}" == record["level"]
    assert Counter(p.category for p in problems) == {
        "algebra": 3507, "arithmetic": 540, "geometry": 479, "probability": 474,
    }  # fmt: skip


def run_with_tests(problems):
    """Returns the ids of problems whose own answer fails their own tests, each in a name space of its own."""
    jobs = [(p.id, p.answer.removeprefix("```python\n").removesuffix("\n```"), p.tests) for p in problems]
    program = """
import json, sys
for name, code, tests in json.load(sys.stdin):
    try:
        exec(compile(code + "\\n" + tests, name, "exec"), {"__name__": "there"})
    except Exception:
        print(name)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], input=json.dumps(jobs), text=True,
                          capture_output=True, timeout=120, check=True)  # fmt: skip
    return [line for line in done.stdout.splitlines() if line in {p.id for p in problems}]


def test_every_mbpp_record_is_read_and_passes_its_tests(shared_data):
    records = load(shared_data / "mbpp" / "mbpp.jsonl")
    problems = [parse_record(record, f"mbpp:{record['task_id']}", "mbpp") for record in records]
    assert len(problems) == 974 and all(isinstance(problem, Problem) for problem in problems)
    assert run_with_tests(problems[:200]) == []


@pytest.mark.parametrize("answer", ["4", 4, "4.0", 0.5, "x = 4"])
@pytest.mark.parametrize("name", ["question", "problem", "prompt"])
def test_a_question_and_its_answer_are_enough_for_a_problem(name, answer):
    problem = read({name: "How many?", "answer": answer, "category": "algebra"})
    assert problem == golden("algebra", 0, "How many?", "", str(answer))


def test_the_tests_bring_the_helpers_of_the_functions_head_along():
    head = 'import math\n\n\ndef twice(x):\n    return 2 * x\n\n\ndef add(a, b):\n    """ Adds. """\n'
    problem = parse_record(HUMANEVAL | {"prompt": head}, "x", "f", "humaneval")
    assert problem.tests.startswith("import math\ndef twice(x):\n    return 2 * x\n") and "Adds" not in problem.tests


def test_every_humaneval_record_is_read_and_passes_its_tests(shared_data):
    records = load(shared_data / "humaneval" / "HumanEval.jsonl.gz")
    problems = [parse_record(record, record["task_id"], "humaneval") for record in records]
    assert len(problems) == 164 and all(isinstance(problem, Problem) for problem in problems)
    assert run_with_tests(problems) == []
    broken = [
        Problem(p.id, "code", 0, p.prompt, "", p.answer.replace("return", "return not"), "", p.tests) for p in problems
    ]
    assert run_with_tests(broken[:4]) == [p.id for p in broken[:4]]
