"""pytest tests/data/test_arrival.py: whether a reasoning arrives at its answer."""

import pytest

from tiny_reasoning_jax.data import arrival


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
