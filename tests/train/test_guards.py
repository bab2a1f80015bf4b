"""pytest tests/train/test_guards.py: NaN in weights, batches and gradients is named, kept out and replayed; spikes."""

import errno
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import test_loop_mixture as small

from tiny_reasoning_jax.data.batch import Batch
from tiny_reasoning_jax.errors import NumericsError, ShortageError, UserError
from tiny_reasoning_jax.model import store
from tiny_reasoning_jax.train import dump, examine, loop, replay, spikes
from tiny_reasoning_jax.train.checkpoint import Checkpoints, abstract
from tiny_reasoning_jax.train.metrics import load_metrics
from tiny_reasoning_jax.train.optimizer import inner_state, make_optimizer
from tiny_reasoning_jax.train.step import create_state, make_train_step

TWO = small.with_train(accum_steps=2)
SPIKY = small.with_train(max_spike=6.0)
make_step = functools.cache(lambda config: make_train_step(small.MODEL, config.train))


class Draws(small.Draws):
    """Two micro-batches a step, of two examples each; `divisor` replaces loss_denom at a step: {5: [16, nan]}."""

    def __init__(self, divisors=None, accum_steps=2):
        super().__init__()
        self.divisors, self.accum_steps = divisors or {}, accum_steps

    def __next__(self):
        step = super().__next__()
        parts = [np.repeat(x, self.accum_steps, 0) for x in step.arrays]
        arrays = Batch(*parts)._replace(tokens=(parts[0] + np.arange(self.accum_steps)[:, None, None]) % 64)
        arrays.segment_ids[:, :, 8:] = 2
        arrays = arrays._replace(loss_denom=np.full(self.accum_steps, 16.0 * self.accum_steps, np.float32))
        if self.step in self.divisors:
            arrays = arrays._replace(loss_denom=np.asarray(self.divisors[self.step], np.float32))
        ids = [[f"s{self.step}m{i}a", f"s{self.step}m{i}b"] for i in range(self.accum_steps)]
        return small.StepBatch(arrays, ids, step.num_tokens, step.num_trained_tokens, step.difficulty_tokens)


def train(monkeypatch, workdir, config, draws, **how):
    monkeypatch.setattr(small, "CONFIG", config)
    monkeypatch.setattr(small, "STEP", make_step(config))
    return small.train(workdir, draws=draws, **how)


def refused(monkeypatch, workdir, draws):
    """The message, and the whole state at the start of every step."""
    states, run_step = [], loop.run_step

    def watching(train_step, state, arrays, *rest):
        states.append(jax.device_get((state.params, state.master, inner_state(state.opt_state), state.step)))
        return run_step(train_step, state, arrays, *rest)

    monkeypatch.setattr(loop, "run_step", watching)
    with pytest.raises(NumericsError) as error:
        train(monkeypatch, workdir, TWO, draws)
    return str(error.value), states


def test_a_card_too_full_to_look_for_the_micro_batch_hides_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(examine, "find_bad", full)
    told, _ = refused(monkeypatch, tmp_path / "run", Draws({6: [32.0, np.nan]}))
    assert "step 6: loss=nan" in told and "could not be computed (RESOURCE_EXHAUSTED" in told and "s6m1a" in told


@pytest.mark.parametrize("divisor, loss", [(np.nan, "nan"), (1e-36, "6.3")], ids=["batch", "gradient"])
def test_a_bad_micro_batch_is_named_and_replayed_from_its_dump(tmp_path, monkeypatch, capsys, divisor, loss):
    """A loss that is NaN; and one that is finite, with gradients whose norm is not."""
    workdir = tmp_path / "run"
    told, states = refused(monkeypatch, workdir, Draws({6: [32.0, divisor]}))
    assert (
        f"step 6: loss={loss}" in told
        and "micro-batch 1 of 2" in told
        and "s6m1a, s6m1b" in told
        and "s6m0a" not in told
    )
    # Nothing bad is saved: the last checkpoint is an earlier one, and no line tells of the step.
    assert store.committed_steps(workdir / "checkpoints") == [4] and len(load_metrics(workdir)) == 5
    # One more step was on its way; the dump holds the state that the bad one began with all the same.
    folder = workdir / "non-finite" / "step-6"
    kept = dump.load_state(dump.load_dump(folder), TWO.train)
    kept = (kept.params, kept.master, inner_state(kept.opt_state), kept.step)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(kept), states[5])
    assert told.endswith(f"python -m tiny_reasoning_jax.train.replay {folder}")
    with pytest.raises(UserError):  # it is no checkpoint
        store.open_checkpoint(folder / "state")
    capsys.readouterr()
    replay.replay(folder)
    out = capsys.readouterr().out
    assert "row 0 s6m0a: mean loss" in out and "of 8 tokens" in out
    assert "gradients that are not finite" in out.split("micro-batch 1")[1]
    assert "not finite" not in out.split("micro-batch 1")[0]
    assert ", as in the run" in out


def test_a_weight_that_breaks_during_the_run_is_found_by_the_replay(tmp_path, monkeypatch, capsys):
    workdir, run_step, calls = tmp_path / "run", loop.run_step, []

    def breaking(train_step, state, arrays, *rest):
        calls.append(1)
        if len(calls) == 3:
            broken = lambda tree: {**tree, "layers.0.mlp.up": tree["layers.0.mlp.up"].at[0, 0].set(jnp.nan)}
            state = state._replace(params=broken(state.params), master=broken(state.master))
        return run_step(train_step, state, arrays, *rest)

    monkeypatch.setattr(loop, "run_step", breaking)
    with pytest.raises(NumericsError, match="step 3: loss=nan.*micro-batch 0, 1 of 2"):
        train(monkeypatch, workdir, TWO, Draws())
    replay.replay(workdir / "non-finite" / "step-3")
    assert "first activation that is not finite: after layers.0, row 0, position 0" in capsys.readouterr().out


def test_a_step_that_only_the_device_got_wrong_is_told(tmp_path, monkeypatch):
    run_step = loop.run_step

    def flawed(train_step, state, arrays, *rest):
        arrays = arrays._replace(loss_denom=arrays.loss_denom * np.float32(np.nan))
        return run_step(train_step, state, arrays, *rest)

    monkeypatch.setattr(loop, "run_step", flawed)
    with pytest.raises(NumericsError, match="Computed once more every micro-batch is finite"):
        train(monkeypatch, tmp_path / "run", TWO, Draws())


def test_a_full_disk_leaves_a_dump_without_its_state_and_says_so(tmp_path, monkeypatch):
    def full(*_):
        raise ShortageError("no room")

    monkeypatch.setattr(dump, "require_disk", full)
    told, _ = refused(monkeypatch, tmp_path / "run", Draws({2: [np.nan, 32.0]}))
    folder = tmp_path / "run" / "non-finite" / "step-2"
    assert told.endswith(f"{folder} has no state to compute the step from again: no room")
    with pytest.raises(UserError, match="holds no state: the disk had no room"):
        replay.replay(folder)
    with pytest.raises(UserError, match="is not the dump of a step"):
        replay.replay(tmp_path)


@pytest.mark.parametrize("part", ["parameter layers.0.mlp.up", "master embed", "optimizer 2.0.mu.embed"])
def test_a_state_that_is_not_finite_is_refused_before_the_first_step(part):
    optimizer = make_optimizer(small.CONFIG.train)
    state = create_state(small.MODEL.create_params(0), optimizer, small.CONFIG.train)
    examine.require_finite(state, "here")
    field, name = {"p": "params", "m": "master", "o": "opt_state"}[part[0]], part.split()[1]

    def poison(path, leaf):
        own = ".".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path)
        return leaf.at[0, 0].set(jnp.inf) if own == name else leaf

    state = state._replace(**{field: jax.tree_util.tree_map_with_path(poison, getattr(state, field))})
    with pytest.raises(NumericsError, match=rf"before step 1: {part} \(1 of [\d,]+\).*from here"):
        examine.require_finite(state, "here")


def test_a_validation_loss_that_is_not_finite_is_refused_by_its_batch(tmp_path):
    good = small.validation_batch()
    params = small.MODEL.create_params(0)
    one = params["embed"].at[63].set(jnp.nan)  # of a token that the first batch lacks
    calm = good._replace(tokens=np.ones_like(good.tokens), targets=np.ones_like(good.targets))
    validate = loop.make_validate(small.MODEL, 32, [calm, calm._replace(tokens=calm.tokens * 63)])
    assert np.isfinite(validate(params, lambda: False))
    with pytest.raises(NumericsError, match=r"validation loss is nan: of 2 validation batches .* 0, 1|are 1"):
        validate({**params, "embed": one}, lambda: False)


def test_means_and_variances_are_those_of_all_steps_at_first_and_then_forget():
    values = np.random.default_rng(0).normal(3, 1, (400, 2)).astype(np.float32)
    usual = spikes.create()
    add = jax.jit(lambda usual, value: spikes.take_in(usual, value, jnp.bool_(False)))
    for n, value in enumerate(values[: spikes.WINDOW], 1):
        usual = add(usual, value)
        np.testing.assert_allclose(usual.mean, values[:n].mean(0), rtol=1e-4)
        np.testing.assert_allclose(usual.variance, values[:n].var(0), rtol=1e-3, atol=1e-5)
    for value in values[spikes.WINDOW :] + 5:
        usual = add(usual, value)
    assert np.all(usual.mean > 7) and int(usual.count) == 400
    high = jnp.asarray(usual.mean + 6.1 * np.sqrt(usual.variance))
    for value, spike in ((high, True), (high.at[0].set(0), True), (usual.mean, False)):
        assert bool(spikes.is_spike(usual, value, 6.0)) == spike and not spikes.is_spike(usual, value, 0.0)
    assert not spikes.is_spike(usual._replace(count=jnp.int32(spikes.MIN_STEPS - 1)), high, 6.0)


@pytest.fixture
def early(monkeypatch):
    """Spikes are told from the 4th step on."""
    monkeypatch.setattr(spikes, "MIN_STEPS", 3)
    return {step: [0.01] for step in (5,)}  # a divisor that makes loss and gradient huge


def test_a_spike_makes_no_update_is_counted_and_resumes_alike(tmp_path, monkeypatch, early):
    states, run_step = {}, loop.run_step

    def watching(train_step, state, arrays, *rest):
        states[int(state.step)] = jax.device_get((state.params, state.master, inner_state(state.opt_state)))
        return run_step(train_step, state, arrays, *rest)

    monkeypatch.setattr(loop, "run_step", watching)
    whole, _ = train(monkeypatch, tmp_path / "whole", SPIKY, Draws(early, 1))
    jax.tree.map(np.testing.assert_array_equal, states[4], states[5])
    assert not np.array_equal(states[5][1]["embed"], states[6][1]["embed"])
    lines = load_metrics(tmp_path / "whole")
    assert [line["skipped_steps"] for line in lines] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert lines[4]["learning_rate"] == lines[5]["learning_rate"] < lines[3]["learning_rate"]
    events = [json.loads(line) for line in (tmp_path / "whole" / "events.jsonl").read_text().splitlines()]
    assert [(e["step"], e["examples"]) for e in events if e["event"] == "skip"] == [(5, [["s5m0a", "s5m0b"]])]
    for stop_at in (4, 5):
        workdir = tmp_path / f"stopped-{stop_at}"
        train(monkeypatch, workdir, SPIKY, Draws(early, 1), stop_at=stop_at)
        state, _ = train(monkeypatch, workdir, SPIKY, Draws(early, 1))
        jax.tree.map(np.testing.assert_array_equal, state, whole)
        assert small.without_timings(workdir) == small.without_timings(tmp_path / "whole")


def test_without_the_guard_the_same_spike_is_trained_on(tmp_path, monkeypatch, early):
    state, _ = train(monkeypatch, tmp_path / "off", small.CONFIG, Draws(early, 1))
    assert int(state.usual.skipped) == 0 and int(state.usual.count) == 8
    assert not any("skipped_steps" in line for line in load_metrics(tmp_path / "off"))


def test_too_many_spikes_in_a_row_end_the_run(tmp_path, monkeypatch, early):
    monkeypatch.setattr(spikes, "MAX_IN_ROW", 3)
    draws = Draws({step: [0.01] for step in (5, 6, 7)}, 1)
    with pytest.raises(NumericsError, match="step 7: the last 3 steps were all more than train.max_spike=6"):
        train(monkeypatch, tmp_path / "run", SPIKY, draws)
    assert store.committed_steps(tmp_path / "run" / "checkpoints") == [4]
    saved = Checkpoints(tmp_path / "run" / "checkpoints", 2)
    like = create_state(small.MODEL.create_params(0), make_optimizer(SPIKY.train), SPIKY.train)
    state, _ = saved.restore(4, abstract(like, SPIKY.train))
    saved.close()
    assert all(np.isfinite(leaf).all() for leaf in map(np.asarray, state.params.values()))


@pytest.mark.parametrize("part", ["master", "mu", "nu"])
def test_what_a_finite_loss_does_not_show_is_not_saved(tmp_path, monkeypatch, part):
    """A NaN in what the forward pass does not read, in the step before a save."""
    run_step, calls = loop.run_step, []

    def breaking(train_step, state, arrays, *rest):
        calls.append(1)
        if len(calls) == 8:
            broken = lambda tree: {**tree, "embed": tree["embed"].at[0, 0].set(jnp.nan)}
            if part == "master":
                state = state._replace(master=broken(state.master))
            else:
                is_adam = lambda x: isinstance(x, optax.ScaleByAdamState)
                change = lambda x: x._replace(**{part: broken(getattr(x, part))}) if is_adam(x) else x
                state = state._replace(opt_state=jax.tree.map(change, state.opt_state, is_leaf=is_adam))
        return run_step(train_step, state, arrays, *rest)

    monkeypatch.setattr(loop, "run_step", breaking)
    monkeypatch.setattr(small, "VALIDATE", lambda *_: 1.0)
    with pytest.raises(NumericsError, match=r"embed \(1 of 1,024\).*from step 8, whose loss was finite"):
        train(monkeypatch, tmp_path / "run", TWO, Draws())
    assert store.committed_steps(tmp_path / "run" / "checkpoints") == [4]
    monkeypatch.setattr(loop, "run_step", run_step)
    state, _ = train(monkeypatch, tmp_path / "run", TWO, Draws())
    assert int(state.step) == 8 and len(load_metrics(tmp_path / "run")) == 8


def test_a_validation_that_is_given_up_hides_no_loss_that_is_not_finite(tmp_path, monkeypatch):
    validate = loop.make_validate(small.MODEL, 32, [small.validation_batch()] * 2)
    params = {name: value * jnp.nan for name, value in small.MODEL.create_params(0).items()}
    with pytest.raises(NumericsError, match="the validation loss is nan"):
        validate(params, lambda: True)
    # One that is only found afterwards: the step that was saved is named, and how to do without it.
    stop = small.Stop()
    stop.is_asked = lambda: draws.step == 4
    draws = Draws()
    train(monkeypatch, tmp_path / "run", TWO, draws, stop=stop)
    monkeypatch.setattr(small, "VALIDATE", lambda *_: validate(params, lambda: False))
    with pytest.raises(NumericsError, match="That is step 4, saved before this was known: mv .*/checkpoints/4 "):
        train(monkeypatch, tmp_path / "run", TWO, Draws())


def test_a_full_disk_hides_no_step_that_is_not_finite(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(dump.np, "savez", full)
    told, _ = refused(monkeypatch, tmp_path / "run", Draws({6: [32.0, np.nan]}))
    assert "step 6: loss=nan" in told and "s6m1a" in told and "No space left" in told
