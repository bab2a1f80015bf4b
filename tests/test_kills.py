"""pytest tests/test_kills.py: real SIGKILLs at chosen moments; hundreds at random ones: python benchmarks/faults.py."""

import pytest

from faulty_run import ROOT, Fault, Runner
from same_run import describe, differences
from small_run import SMALL
from tiny_reasoning_jax import events
from tiny_reasoning_jax.model.store import committed_steps

SETTINGS = {
    **SMALL, "stages": "data,train,eval,export", "data.num_problems": 120, "data.curriculum": "staged",
    "train.num_steps": 9, "train.accum_steps": 4, "train.validate_every_steps": 5, "checkpoint.every_steps": 3,
    "eval.num_problems": 4,
}  # fmt: skip
FLAGS = [f"--config={ROOT}/configs/reason.py:tiny", *(f"--config.{key}={value}" for key, value in SETTINGS.items())]
# In the order of a run's life, with the step that it goes on from afterwards; None: it is not in training any more.
KILLS = {
    "data are prepared, and have no name yet": (Fault("replace", file="data"), 0),
    "between two accumulations": (Fault("micro-step", 2, step=5), 3),
    "in the background of a save, before its commit": (Fault("checksums", step=6), 3),
    "rows are packed": (Fault("pack", 2, "after"), 3),
    "half a line of metrics is written": (Fault("metrics line", 1, "torn", step=8), 6),
    "half a completion is written": (Fault("completion", 2, "torn"), None),
    "half a model is exported": (Fault("export tensor", 5), None),
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with Runner(FLAGS, tmp_path_factory.mktemp("cache")) as runner:
        yield runner


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_never_was(runner, tmp_path):
    whole = runner.run(tmp_path / "whole")
    assert whole.status == 0, whole.output
    workdir, expected = tmp_path / "killed" / "run", 0
    for moment, (fault, goes_on_from) in [*KILLS.items(), ("none", (Fault(), None))]:
        told, checkpoints = len(events.load_events(workdir)), workdir / "checkpoints"
        newest = max(committed_steps(checkpoints), default=0) if checkpoints.is_dir() else 0
        ended = runner.run(tmp_path / "killed", fault)
        assert ended.status == (-9 if fault.point else 0), f"{moment}: {ended.output}"
        resumed = [event["step"] for event in events.load_events(workdir)[told:] if event["event"] == "resume"]
        assert resumed == ([newest] if expected and newest else []), moment
        assert not expected or newest == expected, moment
        expected = goes_on_from
    assert differences(describe(tmp_path / "whole" / "run"), workdir) == []
