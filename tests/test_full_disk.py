"""pytest tests/test_full_disk.py: a disk without a byte left, a real one; more moments: python benchmarks/faults.py."""

import errno
import os
import re
import subprocess

import pytest

from faulty_run import ROOT, Fault, Runner
from same_run import describe, differences
from small_run import SMALL, make_config
from tiny_reasoning_jax import events, stages
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.store import committed_steps
from tiny_reasoning_jax.train.checkpoint import find_damage

SETTINGS = {
    **SMALL, "stages": "data,train,export", "data.num_problems": 120, "train.num_steps": 15,
    "train.validate_every_steps": 20, "checkpoint.every_steps": 3,
}  # fmt: skip
FLAGS = [f"--config={ROOT}/configs/reason.py:tiny", *(f"--config.{key}={value}" for key, value in SETTINGS.items())]
# With the steps that may be committed then, and what the message may say. In training several things are written at the
# same time: which of them finds the disk full first, and whether the last save had its end by then, is a matter of
# speed.
IN_TRAINING = "the checkpoint of step|full while a checkpoint was written|the disk of run is full"
MOMENTS = {
    "data are prepared": (Fault("tokenise"), [set()], "while writing"),
    "a checkpoint is about to be written": (Fault("save", 2), [set(), {3}], IN_TRAINING),
    "a checkpoint is being written": (Fault("save has room", 2, "after"), [set(), {3}, {3, 6}], IN_TRAINING),
    "a line of metrics": (Fault("metrics line", step=4), [set(), {3}], IN_TRAINING),
    "the model is exported": (Fault("export tensor", 2), [{12, 15}], "filled up"),
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with Runner(FLAGS, tmp_path_factory.mktemp("cache")) as runner:
        yield runner


@pytest.fixture(scope="module")
def reference(runner, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert runner.run(folder).status == 0
    return describe(folder / "run")


@pytest.fixture
def disk(tmp_path):
    """A file system in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount the file system that is to be filled up")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_full_disk_is_told_and_costs_nothing_once_there_is_room(runner, reference, disk, tmp_path, moment):
    fault, steps, message = MOMENTS[moment]
    ballast = disk / "ballast"
    full = runner.run(disk, fault._replace(ballast=str(ballast)), log=tmp_path / "log")
    assert full.status == 3, full.output
    told = [line for line in full.output.splitlines() if line.startswith("error:")]
    assert len(told) == 1 and re.search(message, told[0]), full.output
    assert "Traceback" not in full.output, full.output
    checkpoints = disk / "run" / "checkpoints"
    committed = set(committed_steps(checkpoints)) if checkpoints.is_dir() else set()
    assert committed in steps
    assert not any(find_damage(checkpoints / str(step)) for step in committed)
    ballast.unlink()
    again = runner.run(disk, log=tmp_path / "log")
    assert again.status == 0, again.output
    assert differences(reference, disk / "run") == []


def test_a_refusal_is_told_where_no_event_can_be_written(tmp_path, monkeypatch):
    record = events.record

    def full(workdir, event, **facts):
        if event == "refusal":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        record(workdir, event, **facts)

    monkeypatch.setattr(events, "record", full)
    with pytest.raises(UserError, match="run the data stage first"):
        stages.run(make_config(tmp_path / "w", stages="train"))
