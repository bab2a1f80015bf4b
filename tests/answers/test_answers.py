"""Run: pytest tests/answers/test_answers.py. The grader against tables, noise and hostile texts."""

import random
import sys
import time

import pytest

from tiny_reasoning_jax.answers import Verdict, equal, extract, grade


def boxed(answer: str) -> str:
    return "<think>\nsome steps\n</think>\n\n\\boxed{" + answer + "}"


EXTRACTED = [
    ("<think>\nsteps\n</think>\n\n\\boxed{42}", "42"),
    ("\\boxed{42}", "42"),  # a model that does not think
    ("<think>\n\\boxed{1}\n</think>\n\n\\boxed{2}", "2"),
    ("<think>\n\\boxed{1}\n</think>\n\nI do not know.", None),  # tried out, never given
    ("<think>\n\\boxed{1}", None),  # cut off while thinking
    ("<think>a</think> \\boxed{1} <think> wait", None),
    ("a</think>b \\boxed{1}</think>c \\boxed{2}", "2"),
    ("steps</think>\n\\boxed{7}", "7"),  # the prompt opened the block
    ("\\boxed{1} or rather \\boxed{2}", "2"),
    ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
    ("\\boxed{\\boxed{3}}", "\\boxed{3}"),
    ("\\boxed{1}, so \\boxed{\\frac{1}{2}", "1"),  # the last is not balanced
    ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
    ("\\boxed {5}", "5"),
    ("\\fbox{5}", "5"),
    ("\\boxed{  }", None),
    ("\\boxed{", None),
    ("}}} \\boxed{5}}}", "5"),
    ("She has 5.\n#### 5", "5"),
    ("#### 4\n#### 5\nthanks", "5"),
    ("####", None),
    ("The answer is 5.", "5"),
    ("The answer is 3.5. I am sure.", "3.5"),
    ("the final answer is: **blue**\nbye", "**blue**"),
    ("**Answer:** 12", "12"),
    ("The answer is\n\\[\n12\n\\]", "12"),
    ("The answer is 4. No, the answer is 5.", "5"),
    ("The answer is \\boxed{6}.", "6"),
    ("She has 16 - 3 - 4 = 9 eggs, which makes 18 dollars.", None),  # no guessing
    ("\\boxed{5}<|im_end|>\\boxed{6}", "5"),
    ("", None),
]

# (what is in the box, reference answer)
CORRECT = [
    ("42", "42"), ("042", "42"), ("42.", "42"), ("42.0", "42"), (" 42 ", "42"), ("+3", "3"), ("-3", "-3"),
    ("−3", "-3"), ("- 3", "-3"), ("0", "-0"), (".5", "0.5"), ("0.50", "0.5"), ("1,000", "1000"),
    ("1000", "1,000"), ("1{,}000", "1000"), ("32,\\!760", "32760"), ("1\\,000", "1000"),
    ("1,234,567.5", "1234567.5"), ("0.5", "1/2"), ("3/6", "1/2"), ("\\frac{1}{2}", "0.5"),
    ("\\frac12", "1/2"), ("\\frac{360}7", "360/7"), ("\\dfrac{3}{4}", "\\frac{3}{4}"),
    ("-\\frac{1}{2}", "\\frac{-1}{2}"), ("\\frac{1}{-2}", "-0.5"), ("1 1/2", "3/2"),
    ("1\\frac{1}{2}", "1.5"), ("-1\\frac12", "-3/2"), ("4/2", "2"), ("0.125", "\\tfrac18"),
    ("$\\frac{1}{3}$", "1/3"), ("2^10", "1024"), ("50%", "50"), ("50\\%", "50%"), ("50 percent", "0.5"), ("1/2", "50%"),
    ("50", "50%"), ("$18", "18"), ("\\$18", "18"), ("$18.00", "18"), ("-$18", "-18"),
    ("$1,450,000", "1450000"), ("18 dollars", "$18"), ("18$", "18"), ("$\\$18$", "18"),
    ("$18 per hour", "18"), ("7 cm", "7"), ("7\\text{ cm}", "7 cm"), ("7cm", "7 centimeters"),
    ("7 \\text{ cm}^2", "7 square cm"), ("42 apples", "42"), ("3 cups of flour", "3"),
    ("60 miles per hour", "60 miles/hour"), ("5 m", "5 meters"), ("3 1/2 inches", "3.5"),
    ("90^\\circ", "90"), ("90°", "90 degrees"), ("90^{\\circ}", "90^\\circ"), ("x=5", "5"),
    ("5", "x = 5"), ("x = 5", "x=5.0"), ("area = 12", "12"), ("Yes", "yes"), ("yes.", "Yes"),
    ("No!", "no"), ("\\text{Knight}", "knight"), ("**blue**", "Blue"), ("(B)", "B"), ("\\text{(B)}", "b"),
    ("'abc'", "abc"), ('"abc"', "'abc'"), ("New  York", "new york"), ("(1, 2)", "(1,2)"),
    ("(0.5, 3)", "(\\frac{1}{2}, 3)"), ("1, 2", "(1,2)"), ("(1,2)", "1, 2"), ("[1, 2, 3]", "[1,2,3]"),
    ("\\{1, 2\\}", "{1,2}"), ("((1, 2), 3)", "((1, 4/2), 3.0)"),
    ("\\left(3, \\frac{\\pi}{2}\\right)", "(3,\\frac{\\pi}{2})"), ("x=1, y=2", "(1, 2)"),
    ("(100,200)", "(100, 200)"), ("100,200", "(100, 200)"), ("x^2 + 1", "x^2+1"),
    ("2250 \\pi", "2250\\pi"), ("2250π", "2250\\pi"), ("3 \\cdot x", "3\\times x"), ("\\boxed{3}", "3"),
    ("42", "so it is \\boxed{42}"), ("True", "true"), ("1 2 3", "1 2 3"), ("12:30", "12:30"),
    ("***", "***"),
]  # fmt: skip

WRONG = [
    ("41", "42"), ("-42", "42"), ("4.2", "42"), ("0.333", "1/3"), ("1/2", "2"), ("2/1", "1/2"),
    ("1/0", "0"), ("1 1/2", "11/2"), ("1\\frac12", "11/2"), ("50%", "0.05"), ("50%", "5000"),
    ("50%", "0.5%"), ("5.", "0.5"), (".5", "5"), ("$18", "18 cents"), ("7 cm", "7 m"), ("7 cm", "7 cm^2"),
    ("3x", "3"), ("5m", "5"), ("5 million", "5"), ("5 dozen", "5"), ("5!", "5"), ("5 squared", "5"),
    ("5 or 6", "5"), ("5 am", "5 pm"), ("x = 5", "y = 5"), ("5, 6", "5"), ("5", "5, 6"),
    ("(1,2)", "(2,1)"), ("(1,2)", "(1,2,3)"), ("(0,1]", "[0,1]"), ("(1,0)", "1,000"),
    ("(100,200)", "100200"), ("[5]", "5"), ("1,00", "100"), ("yes", "no"), ("not blue", "blue"),
    ("", "5"), ("1 2 3", "123"), ("3:4", "3/4"), ("5", ""), ("?", "!"), ("1e3", "1000"),
    ("3\\pi", "3"), ("\\sqrt{2}", "2"), ("1/2/3", "1/6"), ("5 of", "5"), ("-", "0"),
]  # fmt: skip


@pytest.mark.parametrize(("completion", "expected"), EXTRACTED)
def test_extract_finds_the_final_answer(completion, expected):
    assert extract(completion) == expected


@pytest.mark.parametrize(("found", "answer"), CORRECT)
def test_equal_answers_are_correct(found, answer):
    assert grade(boxed(found), answer) is Verdict.CORRECT


@pytest.mark.parametrize(("found", "answer"), WRONG)
def test_different_answers_are_not_correct(found, answer):
    assert grade(boxed(found), answer) is (Verdict.WRONG if found else Verdict.UNPARSED)


def test_no_answer_is_unparsed_and_not_wrong():
    assert grade("<think>\nit is 5, \\boxed{5}", "5") is Verdict.UNPARSED
    assert grade("I do not know", "5") is Verdict.UNPARSED
    assert grade("\\boxed{I do not know}", "5") is Verdict.WRONG
    assert [str(verdict) for verdict in Verdict] == ["correct", "wrong", "unparsed"]


PIECES = (
    *"0123456789+-*/^=.,:;!?%$#(){}[]\\ \n\t'\"`_abxyzπ√½²٣⁵−≤≥≠∪∈∅±≈…<>|&eif",
    *("\\boxed{", "}", "</think>", "<think>", "\\frac", "\\text{", "####", "answer is ", "\ud800", "\x00", "\\sqrt"),
    *("\\left(", "\\right)", "1/0", "10^10^10", "9" * 50, "<|im_end|>", " cm", "\\circ", "{,}", "\\sqrt{", "\\sqrt["),
    *("\\begin{pmatrix}", "\\end{pmatrix}", "\\\\", "\\pm", "\\cup", "\\infty", " and ", " or ", "\\log_", "\\sin"),
    *("\\int", "\\sum_{", "\\binom", "\\overline{", "x = ", "1,000", "12:30", "(B) ", "yes, ", "\\lfloor", "**", "^{"),
)  # fmt: skip


def test_noise_never_raises_and_equals_itself():
    rng = random.Random(0)
    for _ in range(8_000):
        found, answer = ("".join(rng.choices(PIECES, k=rng.randrange(25))) for _ in range(2))
        assert isinstance(grade(found, answer), Verdict)
        assert isinstance(grade(boxed(found), answer), Verdict)
        assert equal(found, found) == bool(found.strip())
        assert isinstance(equal(found, answer), bool)


def test_numbers_beyond_the_interpreters_digit_limit_stay_text():
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(640)  # the lowest that Python allows
    try:
        assert grade(boxed("9" * 900), "1" * 900) is Verdict.WRONG
        assert grade(boxed("9" * 900), "9" * 900) is Verdict.CORRECT
    finally:
        sys.set_int_max_str_digits(limit)


HOSTILE = [
    "\\boxed{" * 50_000, "\\boxed{" * 50_000 + "}" * 50_000, "\\boxed{1}" * 30_000, "answer is " * 30_000,
    "<think>" * 50_000, "\\boxed{" + "9" * 300_000 + "}", "\\boxed{" + "(" * 990 + "}",
    "\\boxed{" + "(" * 490 + ")" * 490 + "}", "\\boxed{" + "\\text{" * 150 + "}" * 151,
    "\\boxed{" + "1," * 490 + "}", "\\boxed{9" + "9" * 150 + "/" + "7" * 40 + "}",
    "\\boxed{" + "$" * 990 + "}", "\\boxed{" + "\\$" * 490 + "$}", "\\boxed{1 " + "a" * 190 + "}",
    "\\boxed{10^{10^{10^{10}}}}", "\\boxed{" + "a=" * 400 + "}", "answer" + " " * 200_000,
    "\\boxed" + " " * 200_000, "\\" * 200_000, "\\boxed{" + "(1," * 240 + "1" + ")" * 240 + "}",
    "\\boxed{" + "\\frac" * 190 + "}", "#" * 200_000, "\\boxed{" + "x^" * 490 + "x}", "\\boxed{" + "1+" * 490 + "1}",
    "\\boxed{" + "1/" * 490 + "1}", "\\boxed{" + "\\sin" * 190 + "x}", "\\boxed{" + "x!" * 490 + "}",
    "\\boxed{(x+1)^{999999}(y+1)^{999999}}", "\\boxed{2000!" + "*2000!" * 100 + "}", "\\boxed{e^{e^{e^{e^{99}}}}}",
    "\\boxed{" + "|" * 990 + "}", "\\boxed{" + "-" * 990 + "}", "\\boxed{" + "(0,1)\\cup" * 90 + "(0,1)}",
    "\\boxed{" + ",".join(f"\\sin{{{i}x}}" for i in range(70)) + "}", "\\boxed{" + "\\pm" * 300 + "}",
    "\\boxed{" + "x=" * 490 + "1}", "\\boxed{" + "1<" * 490 + "x}", "\\boxed{" + "\\sqrt{" * 140 + "2" + "}" * 141,
    "\\boxed{" + "\\begin{pmatrix}" * 60 + "}", "\\boxed{\\frac{1}{9999999999!}}", "\\boxed{9^{9^{9}}}",
    "\\boxed{\\binom{99999999}{49999999}}", "\\boxed{" + "1 and " * 160 + "1}", "1 " * 100_000,
    "\\boxed{" + "[" * 990 + "}",
]  # fmt: skip


@pytest.mark.parametrize("completion", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_completions_cost_little(completion):
    start = time.process_time()
    answers = [
        "5",
        "(1,2)",
        completion[7:900],
        "9" * 900,
        "1," * 400 + "2",
        "\\sin x",
        "x^{999999}",
        "x = 5",
        "\\{1,2\\}",
    ]
    answers += ["[0,1]", "\\cos 1,\\cos 2", completion[7:900].replace("1", "2"), completion[7:900].replace("x", "y")]
    for answer in answers:
        assert isinstance(grade(completion, answer), Verdict)
    assert time.process_time() - start < 2.0
