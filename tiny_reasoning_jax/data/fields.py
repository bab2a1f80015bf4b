"""What the readers of foreign formats share: fields of the right type, final answers, and how to refuse.

A reader takes a record apart and returns `Parts`, or raises `Unusable`. It looks at nothing but its record.
"""

import re
from typing import NamedTuple

from tiny_reasoning_jax import answers

# What other data sets call a problem's kind, in our words; a word that is not here is kept, in lower case.
CATEGORY_OF = {
    "algebra": "algebra", "intermediate algebra": "algebra", "prealgebra": "algebra", "precalculus": "algebra",
    "inequalities": "algebra", "number theory": "arithmetic", "geometry": "geometry",
    "counting & probability": "probability", "combinatorics": "probability", "logic and puzzles": "logic",
    "puzzle": "logic",
}  # fmt: skip

# What data sets add to a problem to get answers in one form. Ours has its own, so these would teach nothing or worse;
# and being the same everywhere they would make problems look alike to the search for duplicates and contamination.
ANSWER_FORMS_BEFORE = (
    "Return your final response within \\boxed{}.",  # OpenThoughts
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.",  # DAPO
)
ANSWER_FORMS_AFTER = (
    "Please reason step by step, and put your final answer within \\boxed{}.",  # DeepSeek-R1, OpenR1
    "Let's think step by step and output the final answer within \\boxed{}.",  # verl's MATH, Skywork
    'Let\'s think step by step and output the final answer after "####".',  # verl's GSM8K
    'Remember to put your answer on its own line after "Answer:".',  # DAPO
)
_THOUSANDS_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


class Unusable(Exception):
    """Carries reason and detail out of a reader; `formats.parse_record` makes a `Dropped` of it."""

    def __init__(self, reason: str, detail: str = ""):
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class Parts(NamedTuple):
    """What a reader finds, as in `Problem`; level is 0 where the format has none."""

    prompt: str
    reasoning: str
    answer: str
    category: str = "other"
    level: int = 0
    tests: str = ""


def text_of(record: dict, field: str) -> str:
    """Returns a field that must hold text."""
    value = record.get(field)
    if isinstance(value, str):
        return value
    if value is None:
        raise Unusable(f"missing field {field!r}")
    raise Unusable("wrong type", f"{field} is {type(value).__name__}, not text")


def list_of(record: dict, field: str, of: type) -> list:
    """Returns a field that must hold a list of one type; a missing or null one is empty."""
    value = record.get(field)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, of) for item in value):
        raise Unusable("wrong type", f"{field} is no list of {of.__name__}")
    return value


def category_of(record: dict, *fields: str) -> str:
    """Returns the first of these fields that is there as one of our categories, "other" where none is."""
    for field in fields:
        if record.get(field) is not None:
            word = text_of(record, field).strip().lower()
            return CATEGORY_OF.get(word, word or "other")
    return "other"


def strip_answer_form(prompt: str) -> str:
    """Removes what only asks for a form of answer from the ends of a prompt."""
    prompt = prompt.strip()
    if prompt.endswith(ANSWER_FORMS_AFTER):
        prompt = next(prompt.removesuffix(form) for form in ANSWER_FORMS_AFTER if prompt.endswith(form)).strip()
    if prompt.startswith(ANSWER_FORMS_BEFORE):
        prompt = next(prompt.removeprefix(form) for form in ANSWER_FORMS_BEFORE if prompt.startswith(form)).strip()
    return prompt


def split_hashes(text: str) -> tuple[str, str]:
    """Splits "steps #### 1,600" into "steps" and "1600"."""
    steps, hashes, answer = text.rpartition("####")
    if not text.strip("# \r\n\t"):
        raise Unusable("empty", "answer")
    if not hashes or not answer.strip():
        raise Unusable("no final answer")
    return steps.strip(), _THOUSANDS_COMMA.sub("", answer.strip())


def find_box(text: str) -> str | None:
    """Returns the content of the last balanced \\boxed{...}, None where there is none or an empty one.

    Braces before the first box cannot matter; not looking at them makes this several times faster.
    """
    start = text.find("box")
    tail = text[max(start - 4, 0) :]
    return answers.extract(tail) if start >= 0 and "{" in tail else None


def finish(content: str) -> str:
    """Returns the final text of a completion as it is, with its answer in a box if it was marked otherwise."""
    if not content:
        raise Unusable("empty", "answer")
    if "\\boxed{" in content:
        if find_box(content) is None:
            raise Unusable("no final answer", "an empty or unfinished \\boxed{")
        return content
    if "```" in content:
        return content
    if "####" in content:
        content, answer = split_hashes(content)
    else:
        answer = (answers.extract(content) or "").strip("* ").rstrip(".")  # "the answer is ..."
    if not answer:
        raise Unusable("no final answer")
    return f"{content}\n\n\\boxed{{{answer}}}".strip()


def compare(completion: str, reference: str) -> None:
    """Refuses worked text whose final answer is not the reference."""
    if answers.grade(completion, reference) is not answers.Verdict.CORRECT:
        raise Unusable("failed its checker", f"{answers.extract(completion) or ''!r:.80} instead of {reference!r:.80}")


def fence(code: str) -> str:
    """Returns code as a fenced block."""
    return "```python\n" + code.strip("\n") + "\n```"
