"""pytest tests/test_signals.py: told to stop at any moment, a run ends with its code and its state, and goes on."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from same_run import metrics
from small_run import SMALL, make_config
from test_run import assert_same_run
from tiny_reasoning_jax import events, stages
from tiny_reasoning_jax.eval.results import load_samples
from tiny_reasoning_jax.model import store
from tiny_reasoning_jax.sampling import batch
from tiny_reasoning_jax.train import loop
from tiny_reasoning_jax.train.metrics import load_metrics

ROOT = Path(__file__).parents[1]
SETTINGS = {**SMALL, "stages": "data,grade,train,eval,export", "grade.num_problems": 8, "grade.num_samples": 1,
            "train.num_steps": 8, "checkpoint.every_steps": 4, "train.validate_every_steps": 7}  # fmt: skip


class Told(NamedTuple):
    """Signals of one session, and how it must end.

    Attributes:
      place: see signalled.py.
      signals: names.
      then: what the thread at that place does.
      code: exit code.
      message: part of what is said.
      newest: checkpoint that there is then, one of these.
    """

    place: str
    signals: str
    then: str
    code: int
    message: str
    newest: tuple[int | None, ...] = (None,)


# In this order, of one run. Handlers are not called while compiled code "hang"s.
LOOP, CHECKSUMS = "tiny_reasoning_jax.train.loop", "tiny_reasoning_jax.train.checkpoint:Checkpoints._write_checksums@1"
SESSIONS = (
    Told("import:ml_collections", "SIGINT", "hang", 75, "stopped by SIGINT during the start: nothing was begun"),
    Told(
        "tiny_reasoning_jax.workdir:claim@1", "SIGTERM", "hang", 75, "by SIGTERM during the start: nothing was changed"
    ),
    Told("tiny_reasoning_jax.data.prepare:_keep_test@1", "SIGTERM", "hang", 75, "SIGTERM during the stage data: data"),
    Told("tiny_reasoning_jax.eval.grade:summarize@1", "SIGINT", "hang", 75, "SIGINT during the stage grade: problems"),
    Told(f"{LOOP}:run_step@1", "SIGTERM", "hang", 75, "training (step 1): there is no checkpoint"),
    # Where compiling took long, the second step counts as a long one, and is stopped between its micro-steps.
    Told(f"{LOOP}:run_step@2", "SIGTERM,SIGTERM", "go on", 75, ", which is saved", (1, 2)),
    Told(f"{LOOP}:run_step@2", "SIGINT,SIGINT", "hang", 130, "), nothing more is saved", (1, 2)),
    Told(CHECKSUMS, "SIGTERM,SIGINT", "hang", 130, "more is saved: the newest checkpoint is step ", (1, 2)),
    Told(CHECKSUMS, "SIGINT", "go on", 75, "which is saved", (5, 6, 7, 8)),
    Told(f"{LOOP}:_measure@1", "SIGTERM", "go on", 75, "At work: validation (step ", (7, 8)),
    Told("tiny_reasoning_jax.eval.journal:Journal.add@5", "SIGTERM", "hang", 75, "the stage eval: the comp", (8,)),
    Told("tiny_reasoning_jax.model.store:restore_params@3", "SIGINT", "hang", 75, "the stage export: what is", (8,)),
    Told("nowhere", "SIGTERM", "go on", 0, "report: ", (8,)),
)


def run_main(workdir, place="nowhere", signals="SIGTERM", then="go on"):
    flags = [f"--config.{key}={value}" for key, value in {**SETTINGS, "workdir": workdir}.items()]
    command = [sys.executable, ROOT / "tests" / "signalled.py", place, signals, then, "--config=configs/reason.py:tiny"]
    return subprocess.run([*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nobody stopped."""
    workdir = tmp_path_factory.mktemp("signals") / "whole"
    ended = run_main(workdir)
    assert ended.returncode == 0, ended.stderr
    return workdir


def test_a_run_that_is_stopped_everywhere_ends_as_one_that_never_was(whole, tmp_path):
    workdir = tmp_path / "parts"
    for told in SESSIONS:
        ended = run_main(workdir, told.place, told.signals, told.then)
        output = f"{told}\n{ended.stdout}\n{ended.stderr}"
        assert ended.returncode == told.code, output
        assert told.message in ended.stdout + ended.stderr, output
        assert "Traceback" not in ended.stderr, output
        assert not told.code or "the same command goes on" in (ended.stdout + ended.stderr).lower(), output
        saved = store.committed_steps(workdir / "checkpoints") if (workdir / "checkpoints").exists() else []
        assert max(saved, default=None) in told.newest, output
        assert not (workdir / "hf").exists() or not told.code, output
    assert_same_run(whole, workdir, 8)
    assert load_samples(whole) == load_samples(workdir)
    assert (whole / "grades.jsonl").read_bytes() == (workdir / "grades.jsonl").read_bytes()
    names = lambda folder: {str(p.relative_to(folder)) for p in folder.rglob("*") if "tensorboard" not in str(p)}
    assert names(whole / "hf") == names(workdir / "hf")
    assert (whole / "hf" / "model.safetensors").read_bytes() == (workdir / "hf" / "model.safetensors").read_bytes()
    leftovers = names(workdir) - names(whole)
    assert all("checkpoints/" in name or name.startswith("eval/journal") for name in leftovers), leftovers
    stopped = [e["name"] for e in events.load_events(workdir) if e["event"] == "signal"]
    # The first two came before there was a folder to write into.
    assert stopped == [told.signals.partition(",")[0] for told in SESSIONS[2:-1]]
    assert {how for _, how in events.interruptions(events.load_events(workdir))} == {"stopped", "killed"}


@pytest.mark.parametrize("step", [4, 6])
@pytest.mark.parametrize("settled", [{}, {"train__accum_steps": 0, "train__remat": "auto"}], ids=["settled", "open"])
def test_a_probe_is_not_waited_for(tmp_path, monkeypatch, capsys, step, settled):
    """Its step is saved without it; the same command asks its questions first, and then nothing is left of this."""
    small = {"stages": "data,train", "data__curriculum": "adaptive", "train__num_probe": 10, "eval__batch_size": 4,
             **settled}  # fmt: skip
    stages.run(make_config(tmp_path / "whole", **small))
    decode, calls = batch.decode, []

    def counting(*args, **settings):
        calls.append(1)
        if len(calls) == {4: 2, 6: 5}[step]:  # three calls for ten problems
            os.kill(os.getpid(), signal.SIGTERM)
        return decode(*args, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(batch, "decode", counting)
        assert not stages.run(make_config(tmp_path / "parts", **small))
    assert len(calls) == {4: 2, 6: 5}[step] and f"stopped at step {step}, which is saved" in capsys.readouterr().out
    assert load_metrics(tmp_path / "parts")[-1]["step"] == step - 1
    assert stages.run(make_config(tmp_path / "parts", **small))
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "parts")
    assert "nothing to do" not in capsys.readouterr().out
    assert stages.run(make_config(tmp_path / "parts", **small)) and "nothing to do" in capsys.readouterr().out
    for folder in ("whole", "parts"):  # its step may be the last one; what it was asked counts for those after it
        assert stages.run(make_config(tmp_path / folder, **small, train__num_steps=9))
    assert_same_run(tmp_path / "whole", tmp_path / "parts", 9)


def test_a_stop_in_the_validation_of_the_first_step_is_no_traceback(tmp_path, monkeypatch):
    config = make_config(tmp_path / "run", stages="data,train", train__validate_every_steps=1, train__num_steps=3)
    make_validate = loop.make_validate

    def stopping(*args):
        validate = make_validate(*args)
        return lambda *args: os.kill(os.getpid(), signal.SIGTERM) or validate(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_validate", stopping)
        assert not stages.run(config)
    assert not load_metrics(tmp_path / "run") and events.load_events(tmp_path / "run")[-1]["event"] == "end"
    assert stages.run(config) and [line["step"] for line in load_metrics(tmp_path / "run")] == [1, 2, 3]


@pytest.mark.parametrize("step", [2, 4])
def test_a_long_step_is_not_waited_for(tmp_path, monkeypatch, capsys, step):
    """Stopped between its micro-steps: what is saved is the step before."""
    small = {"stages": "data,train", "train__batch_size": 8, "train__accum_steps": 4, "train__num_steps": 5}
    stages.run(make_config(tmp_path / "whole", **small))
    monkeypatch.setattr(loop, "LONG_STEP_SECONDS", 1e-9)  # that of the first is not known yet
    make_train_step, done = loop.make_train_step, []

    def counting(*args):
        compiled = make_train_step(*args)

        def accumulate(*args):
            done.append(1)
            if len(done) == 3 * (step - 1) + 2:  # the second of this step
                os.kill(os.getpid(), signal.SIGTERM)
            return compiled.accumulate(*args)

        return compiled._replace(accumulate=accumulate)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "make_train_step", counting)
        assert not stages.run(make_config(tmp_path / "parts", **small))
    assert len(done) == 3 * (step - 1) + 2
    assert f"stopped at step {step - 1}, which is saved" in capsys.readouterr().out
    assert max(store.committed_steps(tmp_path / "parts" / "checkpoints")) == step - 1
    assert stages.run(make_config(tmp_path / "parts", **small))
    assert_same_run(tmp_path / "whole", tmp_path / "parts", 5)
