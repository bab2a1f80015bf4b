"""pytest tests/test_integrity.py: damaged files are found before anything is done with them, whatever the damage."""

import json
import random
import shutil
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from convert.from_hf import load_hf
from small_run import make_config
from tiny_reasoning_jax import checksums, events, stages
from tiny_reasoning_jax.errors import DamagedError
from tiny_reasoning_jax.eval.grade import hash_params
from tiny_reasoning_jax.eval.report import write_report
from tiny_reasoning_jax.eval.results import load_results
from tiny_reasoning_jax.model import store
from tiny_reasoning_jax.run import load_checkpoint, load_json
from tiny_reasoning_jax.train import checkpoint, loop
from tiny_reasoning_jax.train.checkpoint import Checkpoints, choose_step
from tiny_reasoning_jax.train.metrics import load_metrics
from tiny_reasoning_jax.train.step import TrainState

SHORT = {"stages": "data,train", "train__num_steps": 4}
BITS = 4  # flipped, one at a time, in every file


def damages(data: bytes, rng: random.Random):
    """(name, damaged content or None for a deleted file) of everything that is tried with a file."""
    yield "deleted", None
    yield "cut in half", data[: len(data) // 2]
    yield "emptied", b""
    yield "longer", data + b"\0"
    for _ in range(BITS):
        place, bit = rng.randrange(len(data)), rng.randrange(8)
        flipped = bytearray(data)
        flipped[place] ^= 1 << bit
        yield f"bit {bit} of byte {place} flipped", bytes(flipped)


def damage_each(folder, look):
    """Calls look(file, damage) once for every file in a folder and every damage, which is then undone."""
    rng, tried = random.Random(0), 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        for name, content in damages(data, rng) if data else ():
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            look(path, name)
            path.write_bytes(data)
            tried += 1
    return tried


def tiny_state(step):
    """A state that no model was needed for."""
    parts = dict.fromkeys(TrainState._fields, jnp.ones(3))
    return TrainState(**parts | {"step": jnp.int32(step), "params": {"w": jnp.full((40, 30), step, jnp.bfloat16)}})


@pytest.fixture(scope="module")
def small_checkpoints(tmp_path_factory):
    """Two committed steps."""
    workdir = tmp_path_factory.mktemp("small")
    checkpoints = Checkpoints(workdir / "checkpoints", keep=2)
    for step in (3, 5):
        checkpoints.save(step, tiny_state(step), {"at": step}, {"seed": 0})
    checkpoints.close()
    return workdir


def test_every_damage_to_every_file_of_a_checkpoint_is_found(small_checkpoints):
    folder = small_checkpoints / "checkpoints" / "5"
    assert checkpoint.find_damage(folder) == []

    def look(path, name):
        if path.parent == folder and path.name != checksums.FILE:
            return  # Orbax's own notes on the step; nothing of the run stands in them
        told = checkpoint.find_damage(folder)
        if path.is_relative_to(folder / "params") or path.name == checksums.FILE:  # what evaluation and export read
            with pytest.raises(DamagedError, match="use step 3"):
                store.open_checkpoint(folder)
        assert len(told) == 1 and path.relative_to(folder).as_posix() in told[0], (path, name, told)
        with pytest.raises(DamagedError, match=r"newest good checkpoint is step 3; --config.checkpoint.allow_older=tr"):
            choose_step(small_checkpoints, allow_older=False)

    assert damage_each(folder, look) > 100
    assert choose_step(small_checkpoints, allow_older=False) == 5


def test_what_orbax_alone_does_not_notice(small_checkpoints):
    """The reason for checksums: when this fails, Orbax has its own, and ours may go."""
    folder = small_checkpoints / "checkpoints" / "5" / "data"
    text = (folder / "metadata").read_text()
    (folder / "metadata").write_text(text.replace("5", "7"))
    checkpoints = Checkpoints(small_checkpoints / "checkpoints", keep=2)
    try:
        assert checkpoints._manager.restore(
            5, args=checkpoint.ocp.args.Composite(data=checkpoint.ocp.args.JsonRestore())
        )
        assert checkpoint.find_damage(folder.parent)
    finally:
        (folder / "metadata").write_text(text)
        checkpoints.close()


def test_no_step_is_committed_without_checksums(tmp_path, monkeypatch):
    """A process that dies while it computes them leaves no step of that name."""
    seen, go_on = threading.Event(), threading.Event()

    def waiting(folder, within):
        seen.set()
        go_on.wait(60)
        create(folder, within)

    create = checksums.create
    monkeypatch.setattr(checksums, "create", waiting)
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, tiny_state(1), {}, {})
    assert seen.wait(60) and store.committed_steps(tmp_path) == []
    go_on.set()
    checkpoints.close()
    assert store.committed_steps(tmp_path) == [1] and not checkpoint.find_damage(tmp_path / "1")


def test_only_damaged_checkpoints_leave_nothing_to_go_on_from(small_checkpoints, tmp_path):
    shutil.copytree(small_checkpoints / "checkpoints", tmp_path / "checkpoints")
    for step in (3, 5):
        (tmp_path / "checkpoints" / str(step) / checksums.FILE).unlink()
    for allow_older in (False, True):
        with pytest.raises(DamagedError, match=r"5 is damaged.*3 is damaged.*No older checkpoint is good; move"):
            choose_step(tmp_path, allow_older)
    assert sorted(store.committed_steps(tmp_path / "checkpoints")) == [3, 5]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run of four steps, with checkpoints of steps 2 and 4."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    stages.run(make_config(workdir, **SHORT))
    return workdir


def test_every_damage_to_every_file_of_the_data_is_found_before_any_stage(trained, tmp_path, monkeypatch):
    workdir, worked = tmp_path / "run", []
    shutil.copytree(trained, workdir)
    monkeypatch.setattr(stages, "STAGES", {"train": worked.append})
    monkeypatch.setattr(stages.plan_stage, "settle", lambda config: config)
    config = make_config(workdir, **{**SHORT, "stages": "train"})

    def look(path, name):
        with pytest.raises(DamagedError) as error:
            stages.run(config)
        assert path.relative_to(workdir / "data").as_posix() in str(error.value), (path, name)
        assert "run the data stage again" in str(error.value) and not worked

    assert damage_each(workdir / "data", look) > 150


def flip_largest(folder):
    """One bit of the largest file: one of a number, which no reader could notice."""
    path = max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    return path


def test_a_damaged_checkpoint_is_refused_and_the_one_before_gives_the_same_run(trained, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    damaged = flip_largest(workdir / "checkpoints" / "4" / "state")
    longer = {**SHORT, "train__num_steps": 6}
    monkeypatch.setattr(loop, "run_step", lambda *_: pytest.fail("a step was made from a damaged checkpoint"))
    with pytest.raises(
        DamagedError, match=rf"{damaged.name} has the SHA-256 .*newest good checkpoint is step 2"
    ) as error:
        stages.run(make_config(workdir, **longer))
    assert error.value.exit_code == 4
    with pytest.raises(DamagedError, match=rf"{damaged.parent.name}|use step 2"):
        (workdir / "checkpoints" / "4" / "params" / "_METADATA").write_text("{}")
        stages.run(make_config(workdir, stages="export", train__num_steps=4))
    monkeypatch.undo()

    stages.run(make_config(workdir, **SHORT, checkpoint__allow_older=True))
    kept = workdir / "damaged-checkpoints" / "4"
    assert kept.is_dir() and choose_step(workdir, allow_older=False) == 4
    found = [event for event in events.load_events(workdir) if event["event"] == "damaged"]
    assert [(event["step"], event["moved_to"]) for event in found] == [(4, str(kept))]
    left, right = (store.restore_params(store.open_checkpoint(w / "checkpoints" / "4")) for w in (trained, workdir))
    assert left.keys() == right.keys() and all(np.array_equal(left[name], right[name]) for name in left)
    losses = [[json.loads(line)["loss"] for line in (w / "metrics.jsonl").open()] for w in (trained, workdir)]
    assert len(losses[0]) == 4 and losses[0] == losses[1]
    sums = [(w / "checkpoints" / "4" / "data" / "metadata").read_text() for w in (trained, workdir)]
    assert sums[0] == sums[1]


def test_a_damaged_tokenizer_is_not_exported(trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    path = workdir / "checkpoints" / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text().replace('"vocab"', '"vocbb"', 1))
    export = make_config(workdir, **{**SHORT, "stages": "export"})
    with pytest.raises(DamagedError, match=r"tokenizer is damaged: tokenizer.json has the SHA-256"):
        stages.run(export)
    shutil.rmtree(path.parent)
    with pytest.raises(DamagedError, match="tokenizer is missing, and every export needs it; copy"):
        stages.run(export)
    assert not (workdir / "hf").exists()
    shutil.copytree(workdir / "data" / "tokenizer", path.parent)
    assert stages.run(export) and (workdir / "hf" / "tokenizer.json").exists()


def test_what_was_made_of_a_lost_checkpoint_is_made_anew(tmp_path):
    """The same step, trained again with other numbers, is another model."""
    small = {"train__num_steps": 4, "eval__num_problems": 4, "eval__max_new_tokens": 4}
    workdir = tmp_path / "run"
    stages.run(make_config(workdir, **small))
    weights, results = (workdir / "hf" / "model.safetensors").read_bytes(), load_results(workdir)
    next((workdir / "checkpoints" / "4" / "params").rglob("manifest.ocdbt")).write_bytes(b"")
    changed = {"checkpoint__allow_older": True, "checkpoint__allow_changes": True, "train__learning_rate": 0.5}
    stages.run(make_config(workdir, **small, **changed))
    assert (workdir / "hf" / "model.safetensors").read_bytes() != weights
    hashes = [hash_params(load_hf(workdir / "hf").params)]
    hashes.append(hash_params(load_checkpoint(workdir / "checkpoints" / "4")[1]))
    assert hashes[0] == hashes[1]
    again = load_results(workdir)
    assert again["before"] == results["before"]
    assert again["after"]["last_session_seconds"] != results["after"]["last_session_seconds"]


def test_damaged_json_of_a_run_is_told_by_file_and_line(trained, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    path = workdir / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole + '{"step": 5, "lo')  # what a kill or a full disk leaves of a line
    assert len(load_metrics(workdir)) == 4 and write_report(workdir).exists()
    path.write_text(whole.replace('"step": 2', '"step: 2'))
    for look in (lambda: load_metrics(workdir), lambda: write_report(workdir)):
        with pytest.raises(DamagedError, match=r"metrics.jsonl, line 2 is"):
            look()
    (workdir / "run.json").write_text("{")
    with pytest.raises(DamagedError, match="run.json is damaged"):
        load_json(workdir / "run.json")


def test_facts_that_a_kill_left_unwritten_are_written_by_the_next_session(trained, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    facts = json.loads((workdir / "run.json").read_text())
    assert facts["tokens"] == sum(line["tokens"] for line in load_metrics(workdir))
    (workdir / "run.json").unlink()
    stages.run(make_config(workdir, **SHORT))
    assert json.loads((workdir / "run.json").read_text()) == facts
