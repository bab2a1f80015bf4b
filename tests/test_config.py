"""pytest tests/test_config.py: the configuration and what it refuses."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from configs import base, reason
from small_run import make_config
from tiny_reasoning_jax.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("variant", reason.VARIANTS)
def test_every_variant_is_valid_and_adds_no_key(variant):
    config = reason.get_config(variant)
    base.validate(config)
    keys = lambda c: (
        {(k, type(v).__name__) for k, v in c.items()}
        | {(f"{k}.{sub}", type(v).__name__) for k, s in c.items() if hasattr(s, "items") for sub, v in s.items()}
    )
    assert keys(config) == keys(base.get_config())


def test_every_key_is_read_somewhere():
    """A knob that nothing reads has no effect and no error."""
    code = (
        "\n".join(p.read_text() for p in (ROOT / "tiny_reasoning_jax").rglob("*.py")) + (ROOT / "main.py").read_text()
    )
    sections = base.get_config()
    for name, section in sections.items():
        names = [k for k in section if k != "random"] if hasattr(section, "items") else [name]
        for key in names:
            assert re.search(rf"\.{key}\b", code), f"{name}.{key} is read nowhere"


def test_no_accelerator_means_tiny_and_says_so():
    config = reason.get_config()
    assert config.model.source == "random" and "no accelerator" in config.recipe and "reason.py:1.7b" in config.recipe


class Card:
    """An accelerator as JAX shows it."""

    platform, device_kind = "gpu", "Some Card"

    def __init__(self, gib):
        self.gib = gib

    def memory_stats(self):
        return {"bytes_limit": int(self.gib * 2**30 * 0.5)}


@pytest.mark.parametrize(
    ("gib", "variant"),
    [(79.1, "1.7b-80gb"), (47.5, "1.7b-48gb"), (44.1, "1.7b-48gb"), (23.6, "1.7b-24gb"),
     (15.7, "1.7b-16gb"), (15.4, "0.6b"), (11.8, "tiny")],
)  # fmt: skip
def test_the_variant_follows_the_memory_of_the_card(monkeypatch, gib, variant):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    monkeypatch.setattr(reason.jax, "local_devices", lambda: [Card(gib)])
    config = reason.get_config()
    assert config.recipe.startswith(f"recipe reason:{variant} ")
    assert f"Some Card with {gib:.1f} GiB" in config.recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"train__accum_steps": 1, "train__offload_optimizer": True},
            r"train.offload_optimizer=True .*train.accum_steps=1 .*train.accum_steps=2",
        ),
        (
            {"train__accum_steps": 0, "train__batch_size": 1, "train__offload_optimizer": True},
            r"train.offload_optimizer=True .*train.batch_size=1 ",
        ),
        ({"train__accum_steps": 3}, r"train.batch_size=4 .*train.accum_steps=3 .*train.batch_size=6"),
        ({"stages": "data,trian"}, r"stages='data,trian'.*data,grade,train,eval,export"),
        ({"train__warmup_steps": 6}, r"warmup_steps=6 .*num_steps=6"),
        ({"train__learning_rate": 0.0}, r"train.learning_rate=0.0 must be above 0"),
        ({"train__remat": "little"}, r"train.remat='little'.*none, most, some, full"),
        ({"data__curriculum": "hard"}, r"data.curriculum='hard'.*none, linear, staged, anneal, adaptive"),
        ({"data__curriculum": "adaptive"}, r"train.num_probe=0 asks none; try --config.train.num_probe=100"),
        ({"data__control": True, "data__curriculum": "none"}, r"data.control=True.*linear, staged or anneal"),
        ({"data__near_duplicates": 0.0}, r"data.near_duplicates=0.0 must be above 0 and at most 1"),
        ({"data__decontamination_ngram": -1}, r"data.decontamination_ngram=-1 must not be below 0"),
        ({"data__difficulty": "measured"}, r"data.grades='none'.*--config.stages=data,grade"),
        ({"data__grades": "a.jsonl"}, r"data.difficulty='source' and data.grades='a.jsonl' go together"),
        ({"train__num_probe": -1}, r"train.num_probe=-1 must not be below 0"),
        ({"grade__temperature": 0.0}, r"grade.temperature=0.0 gives grade.num_samples=4 equal completions"),
        ({"grade__num_samples": 0}, r"grade.num_samples=0 must be above 0"),
        ({"eval__num_problems": 0}, r"eval.num_problems=0"),
        ({"eval__top_p": 1.5}, r"eval.top_p=1.5 not above 1"),
        ({"eval__num_samples": 0}, r"eval.num_samples=0 must be above 0"),
        ({"eval__num_samples": 4}, r"eval.temperature=0.0 gives eval.num_samples=4 equal completions"),
        ({"eval__temperature": float("nan")}, r"eval.temperature=nan must be a finite number"),
        ({"eval__temperature": float("inf")}, r"eval.temperature=inf must be a finite number"),
        ({"grade__temperature": float("inf")}, r"grade.temperature=inf must be a finite number"),
        ({"eval__protocol": "few-shot", "eval__thinking": False}, r"eval.thinking=False .*no effect .*few-shot"),
        ({"eval__protocol": "few-shot", "eval__instruction": "Box it."}, r"eval.instruction='Box it.' have no effect"),
        ({"eval__protocol": "fewshot"}, r"eval.protocol='fewshot': choose one of chat, few-shot"),
    ],
)
def test_a_broken_rule_is_refused_with_value_limit_and_remedy(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        make_config(tmp_path, **change)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.train.num_stepz=3", "num_steps"),
        ("--config.trian.num_steps=3", "train"),
        ("--config.train.num_steps=many", "many"),
        ("--config.train.accum_steps=3", "train.batch_size"),
        ("--config.model.source=/nowhere", "/nowhere"),
        ("--config.eval.tasks=gsm9k", "choose from test, gsm8k, math"),
        ("--config=configs/reason.py:7b", "choose one of tiny, 0.6b, 1.7b"),
        ("--config=configs/nothing.py", "configs/nothing.py"),
    ],
)
def test_the_command_line_refuses_without_a_traceback_and_writes_nothing(tmp_path, flag, message):
    command = [
        sys.executable,
        "main.py",
        "--config",
        "configs/reason.py:tiny",
        f"--config.workdir={tmp_path / 'w'}",
        flag,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "w").exists()
