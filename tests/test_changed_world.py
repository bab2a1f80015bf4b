"""pytest tests/test_changed_world.py: what may change between two sessions of a run, and what is said if it may not."""

import ast
import json
import re
import shutil
from pathlib import Path

import pytest

from small_run import make_config
from tiny_reasoning_jax import checksums, events, stages, world
from tiny_reasoning_jax import workdir as rundir
from tiny_reasoning_jax.errors import DamagedError, OtherRunError
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.run import Run

PACKAGE = Path(world.__file__).parent
MODEL = ModelDef(ModelSpec(64, 16, 32, 1, 2, 1, 8, 1e4), attention="reference")
NEVER = {
    "seed": 1, "model.source": "elsewhere", "model.random.head_dim": 8, "tokenizer.source": "elsewhere",
    "tokenizer.vocab_size": 500, "data.source": "procedural:algebra", "data.curriculum": "none", "data.weights": "2,1",
    "data.num_problems": 299, "train.batch_size": 8, "train.seq_len": 400, "train.master": "remainder16",
    "train.moments": "int8",
}  # fmt: skip
ASKED = {
    "train.learning_rate": 1e-4, "train.warmup_steps": 1, "train.final_learning_rate_ratio": 0.5,
    "train.weight_decay": 0.5, "train.b1": 0.8, "train.b2": 0.8, "train.clip_norm": 2.0, "train.loss_chunk": 128,
    "train.compute_dtype": "bfloat16",
}  # fmt: skip
FREE = {
    "train.num_steps": 60, "train.validate_every_steps": 1, "train.num_probe": 3, "checkpoint.every_steps": 1,
    "checkpoint.keep": 9, "eval.num_problems": 3, "eval.max_new_tokens": 3, "eval.tasks": "gsm8k", "stages": "eval",
    "data.prefetch_steps": 9, "grade.num_samples": 9, "plan.output": "plan.json",
}  # fmt: skip


def plain(workdir, changes=None):
    """A configuration as JSON has it, with keys changed past what validate would say."""
    content = json.loads(make_config(workdir).to_json())
    for key, value in (changes or {}).items():
        *sections, name = key.split(".")
        section = content
        for part in sections:
            section = section[part]
        assert section[name] != value, key
        section[name] = value
    return content


@pytest.fixture
def begun(tmp_path):
    """A run's folder that has a checkpoint."""
    rundir.claim(tmp_path, plain(tmp_path))
    (tmp_path / "checkpoints" / "2").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("key", NEVER)
def test_another_experiment_is_refused_with_what_was_and_what_is(begun, key):
    was = rundir.flatten(plain(begun))[key]
    for allowed in (False, True):
        changes = {key: NEVER[key], **({"checkpoint.allow_changes": True} if allowed else {})}
        told = re.escape(f"{key} was {was!r}, is now {NEVER[key]!r}")
        with pytest.raises(OtherRunError, match=rf"another run: {told}\. .*--config.workdir="):
            rundir.claim(begun, plain(begun, changes))
    assert json.loads((begun / "config.json").read_text())["seed"] == 0


@pytest.mark.parametrize("key", ASKED)
def test_other_numbers_are_refused_until_they_are_asked_for(begun, key):
    was = rundir.flatten(plain(begun))[key]
    before = (begun / "config.json").read_bytes()
    told = re.escape(f"{key} was {was!r}, is now {ASKED[key]!r}")
    with pytest.raises(OtherRunError, match=rf"{told}.*checkpoint.allow_changes=true") as error:
        rundir.claim(begun, plain(begun, {key: ASKED[key]}))
    assert error.value.exit_code == 5 and (begun / "config.json").read_bytes() == before
    rundir.claim(begun, plain(begun, {key: ASKED[key], "checkpoint.allow_changes": True}))
    assert (begun / "config.json").read_bytes() != before


@pytest.mark.parametrize("key", ASKED)
def test_before_the_first_checkpoint_there_are_no_numbers_to_keep(tmp_path, key):
    rundir.claim(tmp_path, plain(tmp_path))
    rundir.claim(tmp_path, plain(tmp_path, {key: ASKED[key]}))


@pytest.mark.parametrize("key", FREE)
def test_the_rest_is_free(begun, key, capsys):
    rundir.claim(begun, plain(begun, {key: FREE[key]}))
    assert f"changed since the last session: {key}" in capsys.readouterr().out


@pytest.mark.parametrize("key", rundir.PROBE)
def test_an_adaptive_curriculum_binds_what_it_follows(tmp_path, key):
    adaptive = {"data.curriculum": "adaptive"}
    was, now = plain(tmp_path, adaptive), plain(tmp_path, {**adaptive, key: 77})
    assert rundir.find_other_numbers(was, now) and not rundir.find_other_numbers(was, was)
    assert not rundir.find_other_numbers(plain(tmp_path), plain(tmp_path, {key: 77}))


def test_a_run_grows_and_does_not_shrink(tmp_path):
    length = lambda steps: plain(tmp_path, {"train.num_steps": steps})
    assert rundir.find_other_numbers(length(40), length(60)) == []
    assert rundir.find_other_numbers(length(60), length(40)) == ["train.num_steps was 60, is now 40, which is shorter"]


def test_every_key_has_its_place():
    """A new key of the section that trains must be put into one of the lists, or be named here."""
    free = {"num_steps", "validate_every_steps", "num_probe", "watchdog_seconds"}
    settled = {"accum_steps", "remat", "attention", "offload_optimizer"}  # world.py compares what became of them
    known = free | settled | {key.removeprefix("train.") for key in rundir.IDENTITY + rundir.NUMERICS}
    assert set(make_config("w").train) <= known


def test_a_damaged_config_is_no_traceback(begun):
    text = (begun / "config.json").read_text()
    for damage in (text[: len(text) // 2], "", "[]", "{}", text.replace('"curriculum"', '"curriculun"')):
        (begun / "config.json").write_text(damage)
        with pytest.raises(DamagedError, match="config.json is damaged"):
            rundir.claim(begun, plain(begun))


@pytest.fixture
def data(tmp_path):
    """A folder with the parts of prepared data, and checksums."""
    for part in ("train", "validation", "tokenizer"):
        (tmp_path / "data" / part).mkdir(parents=True)
        (tmp_path / "data" / part / "file").write_text(part)
    checksums.create(tmp_path / "data")
    return tmp_path / "data"


def test_every_part_of_the_world_is_told(data, tmp_path, monkeypatch):
    source = tmp_path / "source"
    source.mkdir()
    (source / "model.safetensors").write_bytes(b"weights")
    config = make_config(tmp_path, train__remat="none")
    describe = lambda config=config, model=MODEL: world.describe(config, data, source, model)
    was = describe()
    assert was == describe() == json.loads(json.dumps(was))
    changed = lambda now: {name for name in was if was[name] != now[name]}
    for part in ("train", "validation", "tokenizer"):
        (data / part / "file").write_text("other")
        checksums.create(data)
        assert changed(describe()) == {f"content of data/{part}"}
        (data / part / "file").write_text(part)
        checksums.create(data)
    (source / "model.safetensors").write_bytes(b"weightt")
    assert changed(describe()) == {"content of model.source"} and world.is_fixed("content of model.source")
    (source / "model.safetensors").write_bytes(b"weights")
    assert changed(describe(make_config(tmp_path, train__remat="full"))) == {"train.remat"}
    assert changed(describe(make_config(tmp_path, train__remat="none", train__accum_steps=1))) == {"train.accum_steps"}
    offloaded = make_config(tmp_path, train__remat="none", train__offload_optimizer=True)
    assert changed(describe(offloaded)) == {"train.offload_optimizer"}
    assert changed(describe(model=ModelDef(MODEL.spec, attention="blockwise"))) == {"attention"}
    with monkeypatch.context() as patch:
        patch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
        patch.setattr(world, "device_name", lambda: "gpu: Another Card")
        patch.setattr(world.importlib.metadata, "version", lambda name: "99")
        now = describe()
        assert changed(now) == {"XLA_FLAGS", "device", *world._PACKAGES}
        assert not any(map(world.is_fixed, changed(now)))


def test_a_comment_is_no_change_of_the_code(tmp_path):
    package = tmp_path / "package"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    hash_code = lambda package: world.hash_code.__wrapped__(package, world._CODE)
    was = hash_code(package)
    assert was == hash_code(PACKAGE)
    path = package / "train" / "losses.py"
    text = path.read_text()
    path.write_text(text.replace('"""', '"""Other words. ', 1) + "\n\n# a comment\n")
    assert hash_code(package) == was
    path.write_text(text + "\nEPSILON = 2.0\n")
    assert hash_code(package) != was


def test_a_file_of_the_hub_is_compared_with_its_name(tmp_path):
    blobs, source = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    source.mkdir(parents=True)
    for content, damaged in ((b"weights", False), (b"weighty", True)):
        name = "9a4e0d1a" * 8 if damaged else checksums.hashlib.sha256(content).hexdigest()
        (blobs / name).write_bytes(content)
        (source / "model.safetensors").unlink(missing_ok=True)
        (source / "model.safetensors").symlink_to(blobs / name)
        if damaged:
            with pytest.raises(DamagedError, match=rf"the hub gave it as 9a4e.*delete {blobs}"):
                world._hash_weights(source)
        else:
            assert world._hash_weights(source)


def test_a_run_goes_on_in_another_world_only_if_asked(data, tmp_path, monkeypatch, capsys):
    config = make_config(tmp_path, train__remat="none")
    this = Run(config, tmp_path, None)
    here = world.describe(config, data, None, MODEL)
    meta = {"config": json.loads(config.to_json()), "world": here, "step": 2}
    assert stages._accept_world(this, meta, MODEL) == meta and not events.load_events(tmp_path)
    older = {**meta, "world": {**here, "jax": "0.9.0", "device": "gpu: Another Card"}}
    told = "device was 'gpu: Another Card', is now .*; jax was '0.9.0', is now "
    with pytest.raises(OtherRunError, match=told):
        stages._accept_world(this, older, MODEL)
    allowed = Run(make_config(tmp_path, train__remat="none", checkpoint__allow_changes=True), tmp_path, None)
    assert stages._accept_world(allowed, older, MODEL)["world"] == here  # what the next checkpoint says
    (event,) = events.load_events(tmp_path)
    assert event["event"] == "changed" and re.search(told, "; ".join(event["changes"]))
    assert "goes on otherwise" in capsys.readouterr().out
    for name in ("content of data/train", "content of data/tokenizer"):
        other = {**meta, "world": {**here, name: "other"}}
        with pytest.raises(OtherRunError, match=f"another run: {name} was 'other'"):
            stages._accept_world(allowed, other, MODEL)


def test_a_resumed_run_is_asked_about_its_world(tmp_path, monkeypatch):
    """The stage itself: a session under another version does nothing, then, if asked, goes on and says so."""
    short = {"stages": "data,train", "train__num_steps": 3, "train__validate_every_steps": 9}
    workdir = tmp_path / "run"
    stages.run(make_config(workdir, **short))
    lines = (workdir / "metrics.jsonl").read_text()
    version = world.importlib.metadata.version
    monkeypatch.setattr(world.importlib.metadata, "version", lambda name: "99" if name == "optax" else version(name))
    longer = {**short, "train__num_steps": 4}
    with pytest.raises(OtherRunError, match="optax was .*, is now '99'"):
        stages.run(make_config(workdir, **longer))
    assert (workdir / "metrics.jsonl").read_text() == lines
    stages.run(make_config(workdir, **longer, checkpoint__allow_changes=True))
    assert [e["event"] for e in events.load_events(workdir)].count("changed") == 1
    versions = {
        step: json.loads((workdir / "checkpoints" / step / "meta" / "metadata").read_text())["world"]["optax"]
        for step in ("3", "4")
    }
    assert versions == {"3": version("optax"), "4": "99"}  # from here on that is the run's own world
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 4


def _imports(module):
    """The modules of the package that one of them imports."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / module).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tiny_reasoning_jax"):
            base = "/".join(node.module.split(".")[1:])
            names = [f"{base}.py", f"{base}/__init__.py", *(f"{base}/{alias.name}.py" for alias in node.names)]
            found |= {name.lstrip("/") for name in names if (PACKAGE / name.lstrip("/")).is_file()}
    return found


@pytest.mark.parametrize(
    ("roots", "known", "others"),
    [
        # Shapes and readers are compared by what they give: the configuration, the model, the content of the data.
        (("train/step.py", "data/pipeline.py", "model/attention/__init__.py"), world._CODE,
         {"errors.py", "__init__.py", "model/__init__.py", "train/__init__.py", "model/spec.py", "data/prepared.py",
          "data/problems.py", "model/cache.py"}),
        (("sampling/generate.py", "answers/__init__.py", "answers/worker.py"), world._CODE + world._PROBE_CODE,
         {"errors.py", "device.py", "__init__.py", "model/__init__.py", "train/__init__.py", "model/spec.py"}),
    ],
    ids=["training", "probe"],
)  # fmt: skip
def test_the_code_that_is_compared_is_all_that_numbers_come_from(roots, known, others):
    todo, seen = set(roots), set()
    while todo:
        seen.add(module := todo.pop())
        todo |= _imports(module) - seen
    assert set(roots) <= seen and len(seen) > 8
    assert seen - set(known) <= others


def test_another_run_s_settings_are_refused_on_record(begun):
    workdir = Path(begun)
    (workdir / "data").mkdir(exist_ok=True)
    with pytest.raises(OtherRunError, match="seed was 0, is now 5"):
        stages.run(make_config(workdir, stages="data", seed=5))
    assert [event["event"] for event in events.load_events(workdir)] == ["refusal"]
