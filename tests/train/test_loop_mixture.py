"""pytest tests/train/test_loop_mixture.py: what was trained on, and what the model could then do, is on record."""

import types
from pathlib import Path
from unittest import mock

import jax
import ml_collections
import numpy as np
import pytest

from tiny_reasoning_jax.data.batch import Batch, StepBatch
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.model.store import load_meta
from tiny_reasoning_jax.stop import Stop
from tiny_reasoning_jax.train import loop
from tiny_reasoning_jax.train.checkpoint import Checkpoints, abstract
from tiny_reasoning_jax.train.metrics import by_difficulty, load_metrics
from tiny_reasoning_jax.train.optimizer import make_optimizer
from tiny_reasoning_jax.train.step import create_state, make_train_step

MODEL = ModelDef(ModelSpec(64, 16, 32, 1, 2, 1, 8, 1e4), dtype="float32")
NAN = float("nan")
META = {"model_config": {}, "generation_config": None, "base_model": "none"}
TIMINGS = {"seconds", "tokens_per_second", "data_wait_seconds"}
CONFIG = ml_collections.FrozenConfigDict({
    "train": dict(
        num_steps=8, warmup_steps=1, learning_rate=1e-2, final_learning_rate_ratio=0.1, weight_decay=0.1, b1=0.9,
        b2=0.95, clip_norm=1.0, accum_steps=1, loss_chunk=32, validate_every_steps=4,
        master="float32", moments="float32", offload_optimizer=False, max_spike=0.0, watchdog_seconds=0.0,
    ),
    "checkpoint": dict(every_steps=4, keep=2),
})  # fmt: skip


def with_train(**changes):
    """CONFIG with other settings of training."""
    plain = CONFIG.to_dict()
    return ml_collections.FrozenConfigDict({**plain, "train": {**plain["train"], **changes}})


STEP = make_train_step(MODEL, CONFIG.train)  # compiled once for all runs of this file


class Draws:
    """An iterator whose every batch depends on its step and on all that it has observed, like the adaptive one's."""

    def __init__(self):
        self.step, self.observed, self.calls = 0, [], []

    def __iter__(self):
        return self

    def __next__(self):
        self.step += 1
        rng = np.random.default_rng([self.step, *(round(1000 * x) for row in self.observed for x in row if x == x)])
        tokens = rng.integers(1, 64, (1, 1, 16)).astype(np.int32)
        mask = np.ones_like(tokens, bool)
        arrays = Batch(tokens, tokens, mask, mask.astype(np.int32), np.arange(16)[None, None], np.full(1, 16, "f4"))
        parts = rng.multinomial(16, [0.2] * 5)
        return StepBatch(arrays, [["x"]], num_tokens=16, num_trained_tokens=16, difficulty_tokens=parts)

    def observe(self, step, pass_rates):
        self.calls.append(("observe", step, self.step))
        self.observed.append(list(pass_rates))

    def get_state(self):
        self.calls.append(("get_state", self.step))
        return {"step": self.step, "observed": [[None if x != x else x for x in row] for row in self.observed]}

    def set_state(self, state):
        self.step = state["step"]
        self.observed = [[NAN if x is None else x for x in row] for row in state["observed"]]


def probe(params, give_up=lambda: False):
    """A stand-in for asking problems: five numbers that only these parameters give, the last difficulty not asked."""
    rates = np.abs(np.sin(1e4 * np.asarray(params["embed"], np.float64).sum() + np.arange(5)))
    return [*rates[:4].tolist(), NAN]


def validation_batch():
    return Batch(*(array[0] for array in next(Draws()).arrays))


VALIDATE = loop.make_validate(MODEL, CONFIG.train.loss_chunk, [validation_batch()] * 2)


@mock.patch.object(loop, "make_train_step", lambda *_: STEP)
@mock.patch.object(loop, "make_validate", lambda *_: VALIDATE)
def train(workdir: Path, *, stop_at=None, stop=None, probe=probe, draws=None):
    """Trains to the end or until after `stop_at`, or `stop`, from the newest checkpoint if there is one."""
    draws, optimizer = draws or Draws(), make_optimizer(CONFIG.train)
    checkpoints = Checkpoints(workdir / "checkpoints", 2)
    workdir.mkdir(exist_ok=True)
    if stop is None:
        stop = Stop()
        stop.is_asked = lambda: draws.step == stop_at
    unmeasured = None
    state = create_state(MODEL.create_params(0), optimizer, CONFIG.train)
    latest = checkpoints.latest_step()
    if latest is not None:
        state, data_state = checkpoints.restore(latest, abstract(state, CONFIG.train))
        draws.set_state(data_state)
        unmeasured = load_meta(workdir / "checkpoints" / str(latest)).get("unmeasured")
    try:
        state = loop.train(
            CONFIG, MODEL, state, draws, checkpoints, workdir=workdir, meta=META, validation=[],
            probe=probe, stop=stop, unmeasured=unmeasured,
        )  # fmt: skip
    finally:
        checkpoints.close()
    return state, draws


def without_timings(workdir):
    return [{k: v for k, v in line.items() if k not in TIMINGS} for line in load_metrics(workdir)]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return workdir, *train(workdir)


def test_every_step_tells_which_share_of_its_tokens_each_difficulty_had(uninterrupted):
    lines = load_metrics(uninterrupted[0])
    again = Draws()
    for line in lines:
        expected = next(again).difficulty_tokens / 16
        assert [line[f"mixture_{level}"] for level in range(1, 6)] == expected.tolist()
        if line["step"] == 4:
            again.observed.append([line[f"pass_rate_{level}"] for level in range(1, 5)])
    assert len(lines) == 8


def test_pass_rates_are_written_where_the_loss_is_validated_and_only_of_what_was_asked(uninterrupted):
    workdir, state, draws = uninterrupted
    for line in load_metrics(workdir):
        names = {name for name in line if name.startswith("pass_rate")}
        assert names == ({f"pass_rate_{level}" for level in (1, 2, 3, 4)} if line["step"] in (4, 8) else set())
        assert ("validation_loss" in line) == (line["step"] in (4, 8))
    assert [line[f"pass_rate_{n}"] for n in (1, 2, 3, 4)] == probe(state.params)[:4]
    assert draws.observed[-1][:4] == probe(state.params)[:4]
    assert "NaN" not in (workdir / "metrics.jsonl").read_text()


def test_an_observation_is_part_of_the_checkpoint_of_its_own_step(uninterrupted):
    observe, get_state = ("observe", 4, 4), ("get_state", 4)
    assert uninterrupted[2].calls == [observe, get_state, ("observe", 8, 8), ("get_state", 8)]


@pytest.mark.parametrize("stop_at", [4, 6])
def test_a_run_stopped_at_a_step_that_validates_and_saves_goes_on_as_if_it_had_not_been(
    uninterrupted, tmp_path, stop_at
):
    whole, state, _ = uninterrupted
    train(tmp_path / "run", stop_at=stop_at)
    assert len(load_metrics(tmp_path / "run")) == (3 if stop_at == 4 else 6)  # the validation of step 4 is owed
    resumed, draws = train(tmp_path / "run")
    assert without_timings(tmp_path / "run") == without_timings(whole)
    assert draws.observed[0][:4] == uninterrupted[2].observed[0][:4] and len(draws.observed) == 2
    jax.tree.map(np.testing.assert_array_equal, resumed, state)


@pytest.mark.parametrize("during", ["validation", "probe"])
@pytest.mark.parametrize("step", [4, 8])
def test_a_validation_that_a_stop_cuts_short_is_owed(uninterrupted, tmp_path, during, step):
    whole, state, whole_draws = uninterrupted
    draws, stop = Draws(), Stop()
    # The first two questions of a step come after the two validation batches, the third within the probe.
    asked, first = [], {"validation": 1, "probe": 3}[during]
    stop.is_asked = lambda: draws.step == step and (asked.append(1) or len(asked) >= first)

    train(tmp_path / "run", stop=stop, probe=lambda *args: None if args[1]() else probe(args[0]), draws=draws)
    assert len(load_metrics(tmp_path / "run")) == step - 1 and len(draws.observed) == step // 4 - 1
    assert load_meta(tmp_path / "run" / "checkpoints" / str(step))["unmeasured"]["step"] == step
    resumed, draws = train(tmp_path / "run")
    assert without_timings(tmp_path / "run") == without_timings(whole)
    seconds = [line["seconds"] for line in load_metrics(tmp_path / "run")]
    assert seconds == sorted(seconds)
    assert [row[:4] for row in draws.observed] == [row[:4] for row in whole_draws.observed]
    jax.tree.map(np.testing.assert_array_equal, resumed, state)
    if step == 4:  # what was saved since then owes nothing
        assert "unmeasured" not in load_meta(tmp_path / "run" / "checkpoints" / "8")


def test_the_time_of_the_probe_is_not_a_step_s(tmp_path, monkeypatch):
    clock = [0.0]
    draws = Draws()

    def tick():
        clock[0] += 0.001
        return clock[0]

    def slow_probe(params, give_up):
        clock[0] += 1000
        return [NAN] * 5

    monkeypatch.setattr(loop, "time", types.SimpleNamespace(monotonic=tick))
    train(tmp_path / "run", probe=slow_probe, draws=draws)
    lines = load_metrics(tmp_path / "run")
    assert all(line["tokens"] / line["tokens_per_second"] < 1 for line in lines)
    assert lines[-1]["seconds"] > 1000


def test_a_run_without_a_probe_observes_nothing(tmp_path):
    _, draws = train(tmp_path / "run", probe=None)
    assert draws.observed == [] and not any("pass_rate_1" in line for line in load_metrics(tmp_path / "run"))


def test_by_difficulty_names_five_values_and_leaves_out_nan():
    assert by_difficulty("x", np.array([1, 0, NAN, 0.5, NAN])) == {"x_1": 1.0, "x_2": 0.0, "x_4": 0.5}
    with pytest.raises(ValueError):
        by_difficulty("x", [0.5] * 4)
