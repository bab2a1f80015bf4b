"""GSM8K, 1,319 grade-school word problems. One category; difficulty by the steps of the worked answer.

A base model is shown eight worked problems in the layout of chain-of-thought prompting (Wei et al. 2022, arXiv
2201.11903: 8 examples, "The answer is"); the examples are our own.
"""

from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.eval.tasks.task import Task

SHOTS = (
    (
        "A baker fills 6 trays with 8 rolls each. By noon 19 rolls are sold. How many rolls are left?",
        "Six trays of 8 rolls are 6 * 8 = 48 rolls. After 19 are sold, 48 - 19 = 29 are left. The answer is 29.",
    ),
    (
        "Nora is 4 years older than her brother Tim. Together they are 22 years old. How old is Nora?",
        "Without the 4 extra years both would be equally old and 22 - 4 = 18 years together. So Tim is 18 / 2 = 9, and "
        "Nora is 9 + 4 = 13. The answer is 13.",
    ),
    (
        "A bus ticket costs $3 and a museum ticket $7. A teacher buys both for each of her 12 pupils. How many dollars "
        "does she pay?",
        "For one pupil she pays 3 + 7 = 10 dollars. For 12 pupils that is 12 * 10 = 120 dollars. The answer is 120.",
    ),
    (
        "A tank holds 250 liters. It is two fifths full, and a hose adds 15 liters a minute. How many minutes does it "
        "take to fill the tank?",
        "Two fifths of 250 liters are 250 * 2 / 5 = 100 liters, so 250 - 100 = 150 liters are missing. At 15 liters a "
        "minute that takes 150 / 15 = 10 minutes. The answer is 10.",
    ),
    (
        "Omar reads 14 pages on each school day and 25 pages on each day of the weekend. How many pages does he read "
        "in three weeks?",
        "On 5 school days he reads 5 * 14 = 70 pages and on the weekend 2 * 25 = 50. One week has 70 + 50 = 120 pages, "
        "three weeks have 3 * 120 = 360. The answer is 360.",
    ),
    (
        "A jacket costs $80. First its price falls by 25%, then a coupon takes another $6 off. What does it cost now, "
        "in dollars?",
        "A quarter of 80 is 80 / 4 = 20, so the price falls to 80 - 20 = 60 dollars. With the coupon it is 60 - 6 = 54 "
        "dollars. The answer is 54.",
    ),
    (
        "Three friends share the work of painting a fence of 96 boards. Ida paints twice as many boards as Ben, and "
        "Ben paints as many as Lou. How many boards does Ida paint?",
        "If Ben paints one part, Lou paints one and Ida two, which makes 1 + 1 + 2 = 4 parts. One part is 96 / 4 = 24 "
        "boards, so Ida paints 2 * 24 = 48. The answer is 48.",
    ),
    (
        "A farmer packs 145 eggs into boxes of 12. How many eggs remain when no more full box can be made?",
        "Twelve boxes hold 12 * 12 = 144 eggs, and a thirteenth cannot be filled. So 145 - 144 = 1 egg remains. The "
        "answer is 1.",
    ),
)
_SHOWN = "".join(f"Q: {question}\nA: {answer}\n\n" for question, answer in SHOTS)


def few_shot(problem: Problem) -> str:
    """The eight examples and the question."""
    return f"{_SHOWN}Q: {problem.prompt}\nA:"


TASK = Task("gsm8k", "openai/gsm8k:main:test", few_shot=few_shot, stops=("\nQ:",))
