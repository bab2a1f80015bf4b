"""pytest tests/train/test_watchdog.py: what hangs is named and ended; what is slow the first time is not."""

import json
import subprocess
import sys
import threading
import time

import pytest
import test_loop_mixture as small

from tiny_reasoning_jax.train import loop, watchdog
from tiny_reasoning_jax.train.checkpoint import Checkpoints

HANGS = """
import sys, time
from pathlib import Path
from tiny_reasoning_jax.train.watchdog import Watchdog

def a_disk_that_never_answers():
    time.sleep(100)

with Watchdog(0.2, Path(sys.argv[1])) as dog:
    dog.at("waiting for data", 1)
    dog.at("waiting for data", 2)
    a_disk_that_never_answers()
"""


def test_a_hang_ends_the_process_by_name_with_the_stacks_of_all_threads(tmp_path):
    ended = subprocess.run([sys.executable, "-c", HANGS, tmp_path], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 7
    assert "error: waiting for data (step 2) has not ended within 0.2 s" in ended.stderr
    (stacks,) = tmp_path.glob("hang-*.txt")
    assert "a_disk_that_never_answers" in stacks.read_text() and str(stacks) in ended.stderr
    (event,) = map(json.loads, (tmp_path / "events.jsonl").read_text().splitlines())
    assert event["event"] == "hang" and event["where"] == "waiting for data (step 2)"


@pytest.fixture
def ended(monkeypatch):
    """Where the watchdog would have ended the process; it lets go of `release` in place of that."""
    found, release = [], threading.Event()

    def end(self, where, limit):
        found.append(where)
        release.set()
        self._done.set()

    monkeypatch.setattr(watchdog.Watchdog, "_end", end)
    return found, release


def test_only_the_first_of_a_kind_may_take_longer(ended, tmp_path):
    found, release = ended
    with watchdog.Watchdog(1.0, tmp_path) as dog:
        dog.at("training", 1)
        time.sleep(2)
        assert not found
        for step in (2, 3, 4):  # longer than the limit, all together
            dog.at("training", step)
            time.sleep(0.5)
        assert not found
        dog.at("training", 5)
        assert release.wait(30)
    assert found == ["training (step 5)"]


def test_a_limit_of_0_watches_nothing(tmp_path):
    before = threading.active_count()
    with watchdog.Watchdog(0.0, tmp_path) as dog:
        dog.at("training", 1)
        assert threading.active_count() == before


@pytest.mark.parametrize("stage", ["waiting for data", "training", "validation", "saving a checkpoint",
                                   "waiting for a checkpoint", "waiting for the last checkpoint"])  # fmt: skip
def test_each_stage_of_the_loop_is_told_by_its_name(ended, tmp_path, monkeypatch, stage):
    """What hangs is hung on the first try; all stages have come before, but that of the end."""
    found, release = ended
    where = {
        "waiting for data": (small.Draws, "__next__"), "training": (loop, "run_step"),
        "validation": (loop, "_measure"), "saving a checkpoint": (Checkpoints, "save"),
        "waiting for a checkpoint": (Checkpoints, "wait"), "waiting for the last checkpoint": (Checkpoints, "wait"),
    }  # fmt: skip
    comes_once = stage == "waiting for the last checkpoint"
    if comes_once:
        small.train(tmp_path / "compiled")  # so that nothing needs the longer time of its first time
    does, calls, hangs_at = getattr(*where[stage]), [], 3 if comes_once else 2

    def hangs(*args, **settings):
        calls.append(1)
        if len(calls) == hangs_at:
            assert release.wait(60)
        return does(*args, **settings)

    monkeypatch.setattr(*where[stage], hangs)
    monkeypatch.setattr(small, "CONFIG", small.with_train(watchdog_seconds=3.0))
    monkeypatch.setattr(watchdog, "FIRST_TIME", 1 if comes_once else 20)
    small.train(tmp_path / "run")
    step = {"waiting for data": 2, "training": 2}.get(stage, 8)
    assert found == [f"{stage} (step {step})"]
