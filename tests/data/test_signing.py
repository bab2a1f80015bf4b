"""python -m pytest tests/data/test_signing.py"""

import errno
import subprocess
import sys

import numpy as np
import pytest

from tiny_reasoning_jax.data import duplicates, signing
from tiny_reasoning_jax.data.problems import Problem, dump_problem


def write(path, num_problems: int = 7) -> tuple[list[Problem], list[int]]:
    """Writes problems, one with a line separator that is none in JSON; returns them and where each line begins."""
    prompts = [f"Ann has {i} apples\u2028and \x85 gives {i % 3} away, how many?" for i in range(num_problems)]
    problems = [Problem(f"p{i}", "algebra", 1, prompt, "", str(i), "s") for i, prompt in enumerate(prompts)]
    lines = [dump_problem(problem) for problem in problems]
    path.write_bytes(b"".join(lines))
    return problems, [0, *np.cumsum([len(line) for line in lines]).tolist()]


def test_the_asked_problems_are_signed_in_the_wanted_order(tmp_path):
    problems, starts = write(tmp_path / "records.jsonl")
    asked = [problems[i] for i in (1, 2, 4, 5, 6)]
    expected = duplicates.sign([p.prompt for p in asked], [p.answer for p in asked])
    order = np.array([4, 2, 0, 1, 3])
    for wanted in (order, np.arange(5)):
        signatures = signing.Signatures(tmp_path / "records.jsonl")
        signatures.ask(starts[1], starts[3])
        signatures.ask(starts[4], starts[7])
        np.testing.assert_array_equal(signatures.sort(wanted), expected[wanted])
        signatures.close()
        assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]


def test_what_goes_wrong_in_the_other_process_is_told(tmp_path):
    write(tmp_path / "records.jsonl")
    signatures = signing.Signatures(tmp_path / "records.jsonl")
    signatures.ask(3, 40)  # no whole line
    with pytest.raises(RuntimeError, match="JSONDecodeError"):
        signatures.sort(np.arange(1))
    signatures.close()


def test_a_full_disk_is_a_full_disk_here_too(tmp_path, monkeypatch):
    write(tmp_path / "records.jsonl")
    full = "import errno, sys; sys.exit(errno.ENOSPC)"
    real = subprocess.Popen
    monkeypatch.setattr(signing.subprocess, "Popen", lambda _, **rest: real([sys.executable, "-c", full], **rest))
    signatures = signing.Signatures(tmp_path / "records.jsonl")
    with pytest.raises(OSError) as caught:
        for _ in range(100_000):  # until the pipe to the ended process breaks, or at the latest when its end is awaited
            signatures.ask(0, 1)
        signatures.sort(np.arange(1))
    assert caught.value.errno == errno.ENOSPC
    signatures.close()


def test_the_command_ends_with_its_own_code_where_a_file_cannot_grow(tmp_path):
    _, starts = write(tmp_path / "records.jsonl", 50)
    device = "/dev/full"
    command = [sys.executable, "-m", "tiny_reasoning_jax.data.signing", tmp_path / "records.jsonl", device]
    done = subprocess.run(command, input=f"0 {starts[-1]}\n", text=True, capture_output=True, check=False)
    assert done.returncode == errno.ENOSPC, done.stderr


def test_it_ends_with_whoever_started_it(tmp_path):
    write(tmp_path / "records.jsonl")
    signatures = signing.Signatures(tmp_path / "records.jsonl")
    signatures.ask(0, 0)
    signatures._process.stdin.close()  # what the system does when a process is killed
    assert signatures._process.wait(30) == 0
    signatures._process = None
    signatures.close()


def test_stopping_leaves_no_process_and_no_file(tmp_path):
    _, starts = write(tmp_path / "records.jsonl", 2000)
    signatures = signing.Signatures(tmp_path / "records.jsonl")
    for _ in range(50):
        signatures.ask(0, starts[-1])
    process = signatures._process
    signatures.close()
    assert process.returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == ["records.jsonl"]
