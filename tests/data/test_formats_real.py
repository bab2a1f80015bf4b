"""pytest tests/data/test_formats_real.py: every record of real data sets is read, or is wrong in itself."""

import gzip
import json
import subprocess
import sys
from collections import Counter

from foreign_records import (
    read,
)

from tiny_reasoning_jax.data.formats import parse_record
from tiny_reasoning_jax.data.problems import Dropped, Problem


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


def test_every_humaneval_record_is_read_and_passes_its_tests(shared_data):
    records = load(shared_data / "humaneval" / "HumanEval.jsonl.gz")
    problems = [parse_record(record, record["task_id"], "humaneval") for record in records]
    assert len(problems) == 164 and all(isinstance(problem, Problem) for problem in problems)
    assert run_with_tests(problems) == []
    broken = [
        Problem(p.id, "code", 0, p.prompt, "", p.answer.replace("return", "return not"), "", p.tests) for p in problems
    ]
    assert run_with_tests(broken[:4]) == [p.id for p in broken[:4]]
