"""pytest tests/fuzz/test_fuzz.py: a few hundred damaged files for every reader; benchmarks/fuzz.py has 120,000."""

import random
import signal

import fuzz_pool
import fuzz_worker
import pytest
from fuzz_readers import READERS

INPUTS = {"chat template": 40, "checkpoint": 15, "config.json": 800, "safetensors header": 800, "dataset .jsonl": 400}


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.share])
def test_damaged_files_are_refused_with_a_message_or_read(name, tmp_path):
    folder, reader = tmp_path / "given", READERS[name]
    folder.mkdir()
    reader.create(folder)
    reader.read(folder)  # what is whole is accepted
    targets = fuzz_worker.find_targets(reader, folder)
    before = sorted(tmp_path.rglob("*"))
    outcomes = {}
    old = signal.signal(signal.SIGALRM, fuzz_worker.stop_waiting)
    try:
        for number in range(INPUTS.get(name, 150)):
            outcome, detail = fuzz_worker.run_one(reader, folder, targets, random.Random(f"{name} test {number}"))
            outcomes.setdefault(outcome, []).append((number, detail))
    finally:
        signal.signal(signal.SIGALRM, old)
    assert "other" not in outcomes, outcomes["other"][:3]
    assert len(outcomes) > 1, f"damage that never or always matters tests nothing: {outcomes.keys()}"
    assert sorted(tmp_path.rglob("*")) == before


def test_the_fuzzer_itself_sees_crashes_exhausted_memory_and_strange_files():
    found = fuzz_pool.fuzz("self-test", 7, seed=33)  # has 5, 4, 0, 1, 5, 2, 3
    assert found.outcomes["other"] == len([what for _, what in found.others if "appeared" not in what])
    assert sum(found.outcomes.values()) == 7 and {"accepted", "refused", "other"} == set(found.outcomes)
    told = "\n".join(what for _, what in found.others)
    for sign in ("the process ended with -11", "MemoryError", "KeyError: 'five'", "files appeared", "outside"):
        assert sign in told, (sign, told)
