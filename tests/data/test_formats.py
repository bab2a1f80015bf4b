"""pytest tests/data/test_formats.py: each foreign format is read exactly."""

import copy

import pytest
from foreign_records import (
    GSM8K,
    HUMANEVAL,
    MARKED,
    MATH,
    MBPP,
    MESSAGES,
    OPENR1,
    OPENTHOUGHTS,
    OPENTHOUGHTS_METADATA,
    OPENTHOUGHTS_SYSTEM,
    PROGRAM,
    PROMPT_COMPLETION,
    PROMPT_COMPLETION_TURNS,
    SAMPLES,
    SHAREGPT,
    THOUGHT,
    VERL,
    parse,
    read,
    sharegpt_turns,
    turns,
)

from tiny_reasoning_jax.answers import Verdict, grade
from tiny_reasoning_jax.data import fields
from tiny_reasoning_jax.data.formats import DIFFICULTY_RULE, FORMATS, parse_record, recognise
from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.errors import UserError


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


@pytest.mark.parametrize("answer", ["4", 4, "4.0", 0.5, "x = 4"])
@pytest.mark.parametrize("name", ["question", "problem", "prompt"])
def test_a_question_and_its_answer_are_enough_for_a_problem(name, answer):
    problem = read({name: "How many?", "answer": answer, "category": "algebra"})
    assert problem == golden("algebra", 0, "How many?", "", str(answer))


def test_the_tests_bring_the_helpers_of_the_functions_head_along():
    head = 'import math\n\n\ndef twice(x):\n    return 2 * x\n\n\ndef add(a, b):\n    """ Adds. """\n'
    problem = parse_record(HUMANEVAL | {"prompt": head}, "x", "f", "humaneval")
    assert problem.tests.startswith("import math\ndef twice(x):\n    return 2 * x\n") and "Adds" not in problem.tests
