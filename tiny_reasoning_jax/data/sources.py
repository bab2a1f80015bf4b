"""Foreign data: JSONL files, one record a line, read as `Problem`s.

Two forms are recognised, by their keys:

    {"question": "...", "answer": "steps with <<48/2=24>> marks\\n#### 72"}                      GSM8K
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}  messages

Either may carry `difficulty` (1 to 5) and `category` (a word); null is as good as none. A record that cannot
be used becomes a `Dropped` with the reason; nothing is guessed, cut or passed over silently.
"""

import hashlib
import json
import re
import unicodedata
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tiny_reasoning_jax.data.problems import DIFFICULTIES, Dropped, Problem
from tiny_reasoning_jax.errors import UserError

DIFFICULTY_RULE = (
    "the record's own difficulty if it has one; otherwise, in GSM8K form, by steps (lines before ####): "
    "up to 2 is 1, 3 is 2, 4 is 3, 5 is 4, more is 5; in messages form 3"
)

_CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")
_THOUSANDS_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


class _Unusable(Exception):
    """Carries the reason out of a parser; never leaves this module."""


def read_jsonl(path: Path) -> Iterator[Problem | Dropped]:
    """Reads a JSONL file line by line; blank lines are no records.

    Ids are "<file name>:<line number>".

    Raises:
      UserError: the file does not exist or is not a file.
    """
    if not path.is_file():
        raise UserError(
            f"data file {str(path)!r} does not exist or is no file; give a JSONL file, one record a line, "
            'or data.source="procedural"'
        )
    return _read_lines(path)


def parse_record(record: object, record_id: str, source: str) -> Problem | Dropped:
    """Reads one decoded JSON value in whichever form it has."""
    try:
        prompt, reasoning, answer, form = _parse_form(record)
        if not prompt or not answer:
            raise _Unusable("empty")
        if not reasoning:
            raise _Unusable("no reasoning")
        if not _is_unicode(prompt + reasoning + answer):
            raise _Unusable("invalid characters")
        difficulty, category = record.get("difficulty"), record.get("category")
        if difficulty is None:
            difficulty = _grade(form, reasoning)
        if category is None:
            category = "arithmetic" if form == "gsm8k" else "other"
        if type(difficulty) is not int or difficulty not in DIFFICULTIES:
            raise _Unusable("difficulty not 1 to 5")
        if not isinstance(category, str) or not category.strip() or not _is_unicode(category):
            raise _Unusable("category not a word")
    except _Unusable as unusable:
        return Dropped(record_id, str(unusable))
    return Problem(record_id, category.strip(), difficulty, prompt, reasoning, answer, source)


def read_splits(data) -> Iterator[tuple[str, Problem | Dropped]]:
    """Yields every record with its split: the test file's, if there is one, then the source's.

    Validation, and test where there is no file, are those source problems whose prompts have the smallest
    hashes, at most a tenth of the problems each: a choice that depends on neither seed nor order.

    Args:
      data: the section config.data.
    """
    path, test_path = Path(data.source).expanduser(), find_test_file(data)
    test_keys = array("Q")
    if test_path:
        for record in read_jsonl(test_path):
            if isinstance(record, Problem):
                test_keys.append(hash_prompt(record.prompt))
            yield "test", record
    keys = array("Q", (hash_prompt(r.prompt) for r in read_jsonl(path) if isinstance(r, Problem)))
    distinct = np.setdiff1d(np.asarray(keys, np.uint64), np.asarray(test_keys, np.uint64))  # in rising order
    tenth = max(1, len(distinct) // 10)
    num_test = 0 if test_path else min(data.num_test, tenth)
    held_out = distinct[: num_test + min(data.num_validation, tenth)].tolist()
    splits = {key: "test" if rank < num_test else "validation" for rank, key in enumerate(held_out)}
    for record in read_jsonl(path):
        if isinstance(record, Problem):
            yield splits.get(hash_prompt(record.prompt), "train"), record
        else:
            yield "train", record


def find_test_file(data) -> Path | None:
    """Returns the file of test problems, or None where they are held out from the source."""
    if data.test_source != "auto":
        return Path(data.test_source).expanduser()
    path = Path(data.source).expanduser()
    sibling = path.with_name("test.jsonl")
    return sibling if path.name == "train.jsonl" and sibling.is_file() else None


def hash_prompt(prompt: str) -> int:
    """Returns 64 bits that are equal for prompts differing in letter case and white space only."""
    normal = " ".join(unicodedata.normalize("NFC", prompt).casefold().split())
    return int.from_bytes(hashlib.blake2b(normal.encode(), digest_size=8).digest(), "little")


def _read_lines(path: Path) -> Iterator[Problem | Dropped]:
    # Ids are kept one a line, so they hold no white space.
    name = "_".join(path.name.split())
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            record_id = f"{name}:{number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):  # not JSON, not UTF-8, or nested beyond reason
                yield Dropped(record_id, "not JSON")
                continue
            yield parse_record(record, record_id, source=path.name)


def _parse_form(record: object) -> tuple[str, str, str, str]:
    """Returns prompt, reasoning, answer and the name of the form."""
    if isinstance(record, dict):
        if isinstance(record.get("messages"), list):
            return *_parse_messages(record["messages"]), "messages"
        if isinstance(record.get("question"), str) and isinstance(record.get("answer"), str):
            return *_parse_gsm8k(record["question"], record["answer"]), "gsm8k"
    raise _Unusable("unknown form")


def _parse_gsm8k(question: str, worked: str) -> tuple[str, str, str]:
    if not question.strip() or not worked.strip():
        raise _Unusable("empty")
    steps, answer = _split_final_answer(worked)
    return question.strip(), _CALCULATOR_MARK.sub("", steps), answer


def _parse_messages(messages: list) -> tuple[str, str, str]:
    """A system text goes in front of the user's, so that nothing the problem needs is lost.

    A conversation with several user turns is no single problem: its last question may not stand alone.
    """
    if not all(isinstance(turn, dict) and isinstance(turn.get("content"), str) for turn in messages):
        raise _Unusable("unknown form")
    roles = [turn.get("role") for turn in messages]
    if roles.count("user") > 1:
        raise _Unusable("several user turns")
    if roles in (["user"], ["system", "user"]):
        raise _Unusable("no final answer")
    if roles not in (["user", "assistant"], ["system", "user", "assistant"]):
        raise _Unusable("unknown form")
    parts = [turn["content"].strip() for turn in messages[:-1]]
    if not parts[-1]:
        raise _Unusable("empty")
    reasoning, content = _split_reasoning(messages[-1])
    if "\\boxed{" not in content:
        text, answer = _split_final_answer(content)
        boxed = f"\\boxed{{{answer}}}"
        # Without a <think> part the text before #### is the reasoning, as in GSM8K form.
        reasoning, content = (reasoning, f"{text}\n\n{boxed}".strip()) if reasoning else (text, boxed)
    return "\n\n".join(part for part in parts if part), reasoning, content


def _split_reasoning(turn: dict) -> tuple[str, str]:
    """Returns an assistant turn's reasoning ("" if it has none) and the rest of it."""
    content = turn["content"].strip()
    if isinstance(turn.get("reasoning_content"), str):
        return turn["reasoning_content"].strip(), content
    if "</think>" in content:
        reasoning, _, content = content.partition("</think>")
        return reasoning.strip().removeprefix("<think>").strip(), content.strip()
    if "<think>" in content:  # cut off before it came to an answer
        raise _Unusable("no final answer")
    return "", content


def _split_final_answer(text: str) -> tuple[str, str]:
    """Splits "steps #### 1,600" into "steps" and "1600"."""
    steps, _, answer = text.rpartition("####")
    if not steps.strip() and not answer.strip():
        raise _Unusable("empty")
    if "####" not in text or not answer.strip():
        raise _Unusable("no final answer")
    return steps.strip(), _THOUSANDS_COMMA.sub("", answer.strip())


def _grade(form: str, reasoning: str) -> int:
    """Returns the difficulty of a record that names none. See DIFFICULTY_RULE."""
    if form != "gsm8k":
        return 3
    num_steps = sum(1 for line in reasoning.splitlines() if line.strip())
    return min(max(num_steps - 1, 1), 5)


def _is_unicode(text: str) -> bool:
    """JSON can spell half of a surrogate pair, which no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
