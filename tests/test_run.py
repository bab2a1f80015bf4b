"""pytest tests/test_run.py: whole runs, small: the files they leave, and going on as if never stopped."""

import json
import math
import os
import shutil
import signal
import threading
import time

import numpy as np
import pytest

import check_run
from same_run import flat, metrics, saved_arrays
from small_run import make_config
from tiny_reasoning_jax import stages
from tiny_reasoning_jax import workdir as rundir
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model import store
from tiny_reasoning_jax.train import loop
from tiny_reasoning_jax.train.checkpoint import Checkpoints

GRADE = {"grade__num_problems": 40, "grade__num_samples": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that went through all its stages without a break."""
    workdir = tmp_path_factory.mktemp("run") / "whole"
    stages.run(make_config(workdir))
    return workdir


def stop_after(monkeypatch, steps: int, number=signal.SIGTERM):
    """A real signal arrives while the step after `steps` - 1 others is at work."""
    done, run_step = [], loop.run_step

    def counting(*args):
        done.append(1)
        if len(done) == steps:
            os.kill(os.getpid(), number)
        return run_step(*args)

    monkeypatch.setattr(loop, "run_step", counting)


def assert_same_run(a, b, step):
    left, right = flat(saved_arrays(a, step)), flat(saved_arrays(b, step))
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert np.array_equal(np.asarray(value), np.asarray(right[name])), name
    assert metrics(a) == metrics(b)


def test_the_run_leaves_what_the_readme_promises(finished):
    for name in check_run.FILES:
        assert (finished / name).stat().st_size > 0, name
    assert any((finished / "tensorboard").iterdir())
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    wanted = {"step", "loss", "tokens", "grad_norm", "learning_rate", "tokens_per_second", "data_wait_seconds"}
    assert all(wanted <= line.keys() for line in lines)
    assert [line["step"] for line in lines if "validation_loss" in line] == [4, 6]
    for before, line in zip(lines, lines[1:], strict=False):
        if "validation_loss" not in before:  # the rate covers all the time since the step before, whatever took it
            took = line["seconds"] - before["seconds"]
            assert line["tokens"] / line["tokens_per_second"] == pytest.approx(took, rel=1e-3)
    results = json.loads((finished / "eval" / "results.json").read_text())
    for label in ("before", "after"):
        task = results[label]["tasks"]["procedural"]
        assert task["n"] == 10 and {"correct", "accuracy", "ci95", "by_category"} <= task.keys()
        assert set(task["by_difficulty"]) <= set("12345")
    samples = [json.loads(line) for line in (finished / "eval" / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 20
    assert sorted(int(p.name) for p in (finished / "checkpoints").iterdir() if p.name.isdecimal()) == [4, 6]


def test_a_finished_run_says_so_and_changes_nothing(finished, capsys):
    sessions = (".lock", "events.jsonl")  # which tell that somebody came and went
    times = lambda: {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file() and p.name not in sessions}
    before = times()
    capsys.readouterr()
    stages.run(make_config(finished))
    assert "finished" in capsys.readouterr().out
    assert before == times()


def test_a_run_killed_before_its_second_report_writes_it_the_next_time(finished, tmp_path, monkeypatch):
    workdir = tmp_path / "longer"
    shutil.copytree(finished, workdir)
    longer = make_config(workdir, stages="data,train", train__num_steps=7)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(stages, "write_report", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        stages.run(longer)
    before = (workdir / "report.html").read_bytes()
    stages.run(longer)
    assert (workdir / "report.html").read_bytes() != before


@pytest.mark.parametrize("stop_at", [1, 3])
def test_stopped_and_resumed_is_never_stopped(finished, tmp_path, monkeypatch, capsys, stop_at):
    workdir = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_after(patch, stop_at)
        stages.run(make_config(workdir))
    assert f"stopped at step {stop_at}" in capsys.readouterr().out
    assert not (workdir / "hf").exists()
    stages.run(make_config(workdir, stages="data,train"))
    assert_same_run(finished, workdir, 6)


def test_an_adaptive_run_hears_of_its_probe_alike_whether_stopped_or_not(tmp_path, monkeypatch):
    adaptive = {"data__curriculum": "adaptive", "train__num_probe": 5, "train__validate_every_steps": 1,
                "train__num_steps": 24, "data__prefetch_steps": 3, "checkpoint__every_steps": 50,
                "stages": "data,train"}  # fmt: skip
    # An untrained model solves nothing, so the rates are made up; they follow the parameters, as real ones do.
    some = lambda params: float(abs(params["layers.0.attn.q"].astype(np.float32)).sum() % 1)
    monkeypatch.setattr(
        stages.grade, "make_probe", lambda *_: lambda params, _: [0.9, math.nan, some(params), 0.1, 0.0]
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    stages.run(make_config(whole, **adaptive))
    with monkeypatch.context() as patch:
        stop_after(patch, 14)
        stages.run(make_config(parts, **adaptive))
    stages.run(make_config(parts, **adaptive))
    assert_same_run(whole, parts, 24)
    assert all(line["pass_rate_1"] == 0.9 and "pass_rate_2" not in line for line in metrics(whole))
    observed = json.loads(saved_arrays(whole, 24)["data"]["observed"])
    assert [step for step, _ in observed] == list(range(1, 25)) and len({rates[2] for _, rates in observed}) > 20


@pytest.fixture(scope="module")
def graded(finished, tmp_path_factory):
    """The finished run, and the pass rates of its last checkpoint."""
    workdir = tmp_path_factory.mktemp("run") / "graded"
    shutil.copytree(finished, workdir)
    stages.run(make_config(workdir, stages="grade", **GRADE))
    return workdir


def test_a_graded_run_feeds_one_whose_difficulties_are_measured(graded, tmp_path, capsys):
    facts = json.loads((graded / "grades.json").read_text())
    assert facts["settings"]["model"]["name"] == "run at step 6" and facts["settings"]["num_samples"] == 2
    before = (graded / "grades.jsonl").stat().st_mtime_ns
    stages.run(make_config(graded, stages="grade", **GRADE))
    told = capsys.readouterr().out
    assert "solves 0.0% of 40 training problems" in told and "nothing to do" in told
    assert (graded / "grades.jsonl").stat().st_mtime_ns == before
    measured = {"data__difficulty": "measured", "data__grades": str(graded / "grades.jsonl"), "stages": "data"}
    stages.run(make_config(tmp_path / "measured", **measured))
    summary = json.loads((tmp_path / "measured" / "data" / "summary.json").read_text())
    train = summary["splits"]["train"]
    assert {level for levels in train["by_category"].values() for level in levels} == {"5"}
    assert train["kept"] == 40 and train["dropped"]["not measured"] == 260
    assert "measured pass rate" in summary["difficulty_rule"]


def test_a_command_that_grades_and_trains_goes_on_when_it_was_stopped_in_training(tmp_path, monkeypatch):
    config = make_config(tmp_path, stages="data,grade,train", **{**GRADE, "grade__num_problems": 4})
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert not stages.run(config)
    grades = (tmp_path / "grades.json").read_bytes()
    assert stages.run(config) and (tmp_path / "grades.json").read_bytes() == grades
    with pytest.raises(UserError, match="model.name was 'random', is now 'run at step 6'"):
        stages.run(make_config(tmp_path, stages="grade", **{**GRADE, "grade__num_problems": 4}))


@pytest.mark.parametrize("kind", ["hf", "checkpoints", "a run"])
def test_any_model_of_ours_can_grade(finished, graded, tmp_path, kind):
    """The same parameters, in whatever form they are given, are one model with one set of grades."""
    stages.run(make_config(tmp_path, stages="data"))
    model = {"hf": finished / "hf", "checkpoints": finished / "checkpoints", "a run": finished}[kind]
    stages.run(make_config(tmp_path, stages="grade", grade__model=str(model), **GRADE))
    facts = [json.loads((folder / "grades.json").read_text()) for folder in (tmp_path, graded)]
    assert facts[0]["settings"]["model"]["sha256"] == facts[1]["settings"]["model"]["sha256"]
    assert (tmp_path / "grades.jsonl").read_bytes() == (graded / "grades.jsonl").read_bytes()


def test_a_model_with_another_tokenizer_cannot_grade(finished, tmp_path):
    stages.run(make_config(tmp_path / "w", stages="data", tokenizer__vocab_size=300))
    with pytest.raises(UserError, match="tokenizer of .* entries that is not the one of"):
        stages.run(make_config(tmp_path / "w", stages="grade", tokenizer__vocab_size=300, grade__model=str(finished)))


def test_steps_after_the_last_checkpoint_are_done_again(finished, tmp_path, monkeypatch):
    """As after a kill at step 5: the checkpoint of step 4 is there, and lines of metrics beyond it."""
    workdir = tmp_path / "killed"

    class Killed(Exception):
        pass

    run_step, done = loop.run_step, []

    def dying(*args):
        done.append(1)
        if len(done) == 6:
            raise Killed
        return run_step(*args)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "run_step", dying)
        stages.run(make_config(workdir, stages="data,train"))
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # a line that the kill cut off
    stages.run(make_config(workdir, stages="data,train"))
    assert_same_run(finished, workdir, 6)


@pytest.mark.parametrize("every_steps", [1, 10])
def test_a_kill_loses_no_more_than_every_steps_however_slow_the_disk(tmp_path, monkeypatch, every_steps):
    run_step, write, lost, tenth = loop.run_step, Checkpoints._write_checksums, [], threading.Event()

    def counting(*args):
        result = run_step(*args)
        folder = tmp_path / "run" / "checkpoints"
        lost.append(len(lost) + 1 - max(store.committed_steps(folder) if folder.is_dir() else [], default=0))
        if len(lost) == 10:
            tenth.set()
        return result

    def slow(checkpoints):
        time.sleep(0.3)
        assert every_steps == 1 or tenth.wait(60)
        write(checkpoints)

    monkeypatch.setattr(loop, "run_step", counting)
    monkeypatch.setattr(loop, "LONG_STEP_SECONDS", math.inf)  # on a busy machine compiling takes longer
    monkeypatch.setattr(Checkpoints, "_write_checksums", slow)
    steps = {"train__num_steps": 13, "checkpoint__every_steps": every_steps, "stages": "data,train"}
    stages.run(make_config(tmp_path / "run", **steps))
    assert len(lost) == 13 and max(lost) == every_steps  # of 10, step 10 is taken while step 9 is written


@pytest.mark.parametrize("change", [{"seed": 1}, {"data__curriculum": "none"}, {"model__random__head_dim": 8}])
def test_a_workdir_of_another_run_is_refused_by_the_differing_key(finished, change):
    key = next(iter(change)).replace("__", ".")
    with pytest.raises(UserError, match=key):
        stages.run(make_config(finished, **change))


def test_a_checkpoint_of_another_run_is_refused_by_the_differing_key(finished, tmp_path):
    """Even when someone has copied the checkpoints into a fresh folder."""
    workdir = tmp_path / "mixed"
    stages.run(make_config(workdir, stages="data", seed=5))
    shutil.copytree(finished / "checkpoints", workdir / "checkpoints")
    with pytest.raises(UserError, match="seed"):
        stages.run(make_config(workdir, seed=5, train__num_steps=8))


def test_a_folder_in_use_is_refused(finished):
    with rundir.locked(finished), pytest.raises(UserError, match="another process"):
        stages.run(make_config(finished))


def test_a_full_disk_is_noticed_before_training_writes(tmp_path, monkeypatch):
    config = make_config(tmp_path / "full")
    stages.run(make_config(tmp_path / "full", stages="data"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(UserError, match="free"):
        stages.run(config)
    assert not list((tmp_path / "full" / "checkpoints").glob("[0-9]*"))


def test_a_disk_that_fills_up_during_the_run_loses_nothing(tmp_path, monkeypatch):
    workdir, usage, asked = tmp_path / "filling", shutil.disk_usage(tmp_path), []

    def shrinking(_):
        asked.append(1)
        return usage._replace(free=usage.free if len(asked) <= 2 else 1000)  # before training, and for step 2

    with monkeypatch.context() as patch, pytest.raises(UserError, match="checkpoint of step 4 needs"):
        patch.setattr(shutil, "disk_usage", shrinking)
        stages.run(make_config(workdir, stages="data,train"))
    assert store.committed_steps(workdir / "checkpoints") == [2]


def test_a_non_finite_step_stops_with_its_examples_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    workdir, run_step, done = tmp_path / "nan", loop.run_step, []

    def poisoned(train_step, state, arrays, *rest):
        done.append(1)
        if len(done) == 3:
            arrays = arrays._replace(loss_denom=arrays.loss_denom * 0)
        return run_step(train_step, state, arrays, *rest)

    monkeypatch.setattr(loop, "run_step", poisoned)
    with pytest.raises(UserError, match=r"step 3: loss=(inf|nan).*micro-batch 1: \w+"):
        stages.run(make_config(workdir, stages="data,train"))
    assert store.committed_steps(workdir / "checkpoints") == [2]
    assert [m["step"] for m in metrics(workdir)] == [1, 2]
