"""pytest tests/plan/test_plan_stage.py: the plan stage and the plan before training, as users meet them."""

import json

import jax
import pytest
from ml_collections import FrozenConfigDict

from configs import base, reason
from small_run import make_config
from tiny_reasoning_jax import plan_stage, stages
from tiny_reasoning_jax.errors import ShortageError, UserError
from tiny_reasoning_jax.model.spec import PUBLISHED, hf_config
from tiny_reasoning_jax.plan import cards
from tiny_reasoning_jax.xla import cuda_wheels


def cpu_as_card(monkeypatch, memory: int):
    """The CPU stands in for an attached card with so much memory."""
    card = cards.Card("a card", memory, 1e12, 1e14, (9, 0), 1, 0, 1.0)
    target = plan_stage.Target(card, None, {}, attached=False)
    monkeypatch.setattr(plan_stage, "_attached", lambda: target)
    monkeypatch.setattr(plan_stage, "_attention", lambda *_: "reference")


def test_the_stage_shows_a_plan_and_writes_nothing_else(tmp_path, monkeypatch, capsys):
    cpu_as_card(monkeypatch, 2**32)
    workdir, output = tmp_path / "w", tmp_path / "plan.json"
    config = make_config(workdir, stages="plan", plan__output=str(output), train__remat="auto", train__accum_steps=0)
    assert stages.run(config)
    told = capsys.readouterr().out
    for word in ("parameters", "master", "moments", "activations", "peak", "GFLOP a token", "tokens/s", "checkpoint"):
        assert word in told, word
    facts = json.loads(output.read_text())
    assert facts["settings"]["remat"] == "none" and facts["settings"]["accum_steps"] == 1
    assert not workdir.exists()


def test_what_cannot_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    cpu_as_card(monkeypatch, 2**29 + 2**26)
    with pytest.raises(ShortageError, match=r"a card has 0\.0 usable"):
        stages.run(make_config(tmp_path / "w", train__seq_len=3200, train__batch_size=64, train__accum_steps=1))
    assert not (tmp_path / "w").exists()


def test_what_the_host_cannot_hold_is_refused(tmp_path, monkeypatch, capsys):
    cpu_as_card(monkeypatch, 2**32)
    config = make_config(tmp_path / "w", stages="plan", train__offload_optimizer=True, train__accum_steps=2)
    assert stages.run(config)
    assert "of master and moments are in the host's memory" in capsys.readouterr().out
    here = plan_stage._attached()._replace(attached=True)
    monkeypatch.setattr(plan_stage, "_attached", lambda: here)
    monkeypatch.setattr(plan_stage, "host_memory", lambda: 2**10)
    with pytest.raises(ShortageError, match=r"more than half of its 0\.0; take .*offload_optimizer=false"):
        stages.run(config)


def test_open_choices_are_settled_once_and_trained_with(tmp_path, monkeypatch, capsys):
    cpu_as_card(monkeypatch, 2**32)
    workdir = tmp_path / "w"
    open_choices = {"train__remat": "auto", "train__accum_steps": 0, "stages": "data,train"}
    stages.run(make_config(workdir, **open_choices))
    assert capsys.readouterr().out.count("plan:\n") == 1
    meta = json.loads((workdir / "checkpoints" / "6" / "meta" / "metadata").read_text())
    assert meta["config"]["train"]["remat"] == "none" and meta["config"]["train"]["accum_steps"] == 1
    # The folder belongs to what was asked for: on another card the same command may settle it otherwise.
    asked = json.loads((workdir / "config.json").read_text())["train"]
    assert asked["remat"] == "auto" and asked["accum_steps"] == 0
    stages.run(make_config(workdir, **open_choices))
    told = capsys.readouterr().out
    assert "nothing changed" in told and "plan:" not in told, "a finished run plans nothing"
    plan_stage.settle(make_config(workdir, **open_choices, checkpoint__allow_older=True))
    assert "plan:\n" in capsys.readouterr().out, "its newest checkpoint may be damaged, and then it trains again"


def test_a_cpu_keeps_everything_and_accumulates_nothing():
    config = reason.get_config("1.7b")
    settled = plan_stage.settle(FrozenConfigDict({**config.to_dict(), "stages": "eval"}))
    assert settled.train.remat == "none" and settled.train.accum_steps == 1


def test_a_cpu_accumulates_for_an_offloaded_optimizer(tmp_path):
    config = make_config(tmp_path, train__accum_steps=0, train__batch_size=9, train__offload_optimizer=True)
    assert plan_stage.settle(config).train.accum_steps == 3


def test_without_a_card_the_known_ones_are_named():
    config = reason.get_config("1.7b")
    with pytest.raises(UserError, match="no GPU that JAX can use.*h100.*rtx4090"):
        plan_stage.run_plan(FrozenConfigDict(config))
    config.plan.gpu = "h1000"
    with pytest.raises(UserError, match="h1000.*choose one of h100"):
        plan_stage.run_plan(FrozenConfigDict(config))


def test_without_the_compiler_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setattr(cards, "cuda_wheels", lambda: [])
    config = reason.get_config("1.7b")
    config.plan.gpu = "h100"
    with pytest.raises(UserError, match=r'pip install -e "\.\[cuda12\]"'):
        plan_stage.run_plan(FrozenConfigDict(config))


def test_the_stage_stands_alone():
    config = reason.get_config("tiny")
    config.stages = "plan,train"
    with pytest.raises(UserError, match="plan stands alone"):
        base.validate(config)


# As the model cards say.
@pytest.mark.parametrize("name, size", [("0.6B", 596_049_920), ("1.7B", 1_720_574_976), ("4B", 4_022_468_096)])
def test_published_shapes(name, size, tmp_path):
    for source in (f"Qwen/Qwen3-{name}", f"Qwen/Qwen3-{name}-Base"):
        config = reason.get_config("1.7b")
        config.model.source = source
        spec = plan_stage.find_spec(FrozenConfigDict(config))
        assert spec.num_parameters == size
    (tmp_path / "config.json").write_text(json.dumps(hf_config(spec)))
    config.model.source = str(tmp_path)
    assert plan_stage.find_spec(FrozenConfigDict(config)) == PUBLISHED[source]


def test_an_unreadable_config_is_told(tmp_path):
    config = reason.get_config("1.7b")
    config.model.source = str(tmp_path)
    with pytest.raises(UserError, match="config.json does not exist"):
        plan_stage.find_spec(FrozenConfigDict(config))


@pytest.mark.skipif(not cuda_wheels(), reason="needs JAX's CUDA wheels")
def test_every_target_is_one_that_the_compiler_knows():
    for card in cards.CARDS.values():
        with cards.as_if_here(cards.sharding(card)):
            assert jax.sharding.get_abstract_mesh().abstract_device.platform == "gpu"
