"""pytest tests/train/test_offload.py: with master and moments in the host's memory the numbers are the same."""

import functools
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_step

from small_run import make_config
from test_run import assert_same_run
from tiny_reasoning_jax import stages
from tiny_reasoning_jax.errors import NumericsError
from tiny_reasoning_jax.model import store
from tiny_reasoning_jax.train import examine, loop
from tiny_reasoning_jax.train.checkpoint import Checkpoints, abstract, bind
from tiny_reasoning_jax.train.master import load as load_master
from tiny_reasoning_jax.train.offload import HOST
from tiny_reasoning_jax.train.optimizer import inner_state, make_optimizer
from tiny_reasoning_jax.train.step import create_state, make_train_step, run_step

MODEL = test_step.MODEL


def begin(config):
    return bind(create_state(MODEL.create_params(0), make_optimizer(config), config))


def train(state, config, steps):
    """The state after `steps` more steps, and their metrics."""
    batch, metrics = test_step.split(test_step.four_uneven_rows(), config.accum_steps), []
    for _ in range(steps):
        state, told = run_step(make_train_step(MODEL, config), state, batch)
        metrics.append(jax.device_get(told))
    return state, metrics


def kinds(tree, ndims):
    """The kinds of memory that the tree's arrays of so many dimensions are in."""
    return {x.sharding.memory_kind for x in jax.tree.leaves(tree) if x.ndim in ndims}


def assert_in_place(state):
    """Matrices of master and moments, and nothing else, are in the host's memory."""
    kept = state.master, inner_state(state.opt_state)
    assert kinds(kept, (2, 3)) == {HOST} and kinds(kept, (0, 1)) == {"device"}
    rest = state._replace(master=None, opt_state=None)
    assert kinds((rest, getattr(state.opt_state, "acc_grads", ())), range(4)) == {"device"}


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize(
    ("master", "moments", "accum_steps"),
    [("float32", "float32", 2), ("remainder16", "bfloat16", 4), ("remainder16", "int8", 4)],
)
def test_offloaded_is_not_offloaded(master, moments, accum_steps):
    """Loss, norm and moments of the first step bit for bit, the master to its last bit; then as near as that allows."""
    stored = {"master": master, "moments": moments, "accum_steps": accum_steps, "num_steps": 6}
    plain, hosted = (test_step.config(**stored, offload_optimizer=offload) for offload in (False, True))
    one, other = begin(plain), begin(hosted)
    assert_same(one, other)
    assert_in_place(other)
    (one, told), (other, told_other) = train(one, plain, 1), train(other, hosted, 1)
    assert_same((told, one.usual, inner_state(one.opt_state), one.opt_state.acc_grads),
                (told_other, other.usual, inner_state(other.opt_state), other.opt_state.acc_grads))  # fmt: skip
    here = functools.partial(jax.tree.map, lambda x: jnp.asarray(np.asarray(x)))
    masters = [load_master(state.params, here(state.master)) for state in (one, other)]
    for name, (a, b) in ((name, jax.device_get([tree[name] for tree in masters])) for name in one.params):
        # Last bits of the update, which is the learning rate in size, and of the sum.
        assert np.all(np.abs(a - b) <= 4 * np.spacing(np.maximum(np.abs(a), np.float32(plain.learning_rate)))), name
    (one, told), (other, told_other) = train(one, plain, 5), train(other, hosted, 5)
    np.testing.assert_allclose([m.loss for m in told], [m.loss for m in told_other], rtol=1e-4)
    assert_in_place(other)


def test_a_step_that_is_not_applied_keeps_the_host_arrays():
    config = test_step.config(offload_optimizer=True, accum_steps=2)
    state, _ = train(begin(config), config, 2)
    before = jax.device_get(state)
    batch = test_step.split(test_step.four_uneven_rows(), 2)
    state, metrics = run_step(make_train_step(MODEL, config), state, batch._replace(loss_denom=batch.loss_denom * 0))
    assert not metrics.finite
    assert_in_place(state)
    assert_same((state.params, state.master, inner_state(state.opt_state)[2]),
                (before.params, before.master, inner_state(before.opt_state)[2]))  # fmt: skip


@pytest.mark.parametrize("saved", [False, True])
def test_the_host_arrays_are_taken_over_and_nothing_is_there_twice(tmp_path, saved):
    """Also while a checkpoint is written: what Orbax holds a CPU copies, and a GPU refuses to overwrite."""
    config = test_step.config(offload_optimizer=True, accum_steps=4)
    before = begin(config)
    checkpoints = Checkpoints(tmp_path / "run", keep=1)
    if saved:
        was = jax.tree.map(np.array, before)
        checkpoints.save(0, before, {}, {})
    batch = test_step.split(test_step.four_uneven_rows(), 4)
    run_step(make_train_step(MODEL, config), before, batch)
    if saved:
        checkpoints.wait()
        assert_same(checkpoints.restore(0, abstract(begin(config), config))[0], was)
    checkpoints.close()
    arrays = [leaf for leaf in jax.tree.leaves((before.params, before.master, before.opt_state)) if leaf.ndim]
    if saved:  # the others it copies to the host; a CPU's lie there already
        arrays = [leaf for leaf in arrays if leaf.sharding.memory_kind == HOST]
    assert arrays and all(leaf.is_deleted() for leaf in arrays)


def test_stopped_and_resumed_is_never_stopped(tmp_path):
    config = test_step.config(master="remainder16", moments="int8", accum_steps=4, offload_optimizer=True)
    never_stopped, _ = train(begin(config), config, 4)
    state, _ = train(begin(config), config, 2)
    examine.require_finite(state, "a test")
    checkpoints = Checkpoints(tmp_path / "run", keep=1)
    checkpoints.save(2, state, {}, {})
    checkpoints.wait()
    restored, _ = checkpoints.restore(2, abstract(begin(config), config))
    elsewhere, _ = checkpoints.restore(2, abstract(begin(config), test_step.config(accum_steps=4)))
    checkpoints.close()
    assert_same(restored, state)
    assert_in_place(restored)
    assert_same(elsewhere, state)
    assert kinds(elsewhere, range(4)) == {"device"}
    resumed, _ = train(bind(restored), config, 2)
    assert_same(resumed, never_stopped)


def test_a_run_compiles_one_program_for_all_layers():
    config = test_step.config(offload_optimizer=True, accum_steps=2)
    state, _ = train(begin(config), config, 3)
    step = make_train_step(MODEL, config)
    assert step.accumulate._cache_size() == 1
    assert step.apply._update_part._cache_size() == 3  # a layer, the embedding, the last norm
    assert list(state.params) == list(state.master) == list(MODEL.shapes())


def test_what_is_not_finite_in_the_hosts_memory_is_found():
    config = test_step.config(offload_optimizer=True, accum_steps=2)
    state = begin(config)
    bad = state.master["layers.1.mlp.down"].at[0, 0].set(np.nan)
    state = state._replace(master=state.master | {"layers.1.mlp.down": jax.device_put(bad, jax.memory.Space.Host)})
    assert_in_place(state)
    with pytest.raises(NumericsError, match=r"master layers.1.mlp.down \(1 of 1,536\)"):
        examine.require_finite(state, "a test")


def test_a_whole_run_stopped_and_resumed_is_one_never_stopped(tmp_path, monkeypatch):
    """Data, training with validation and saves, a stop between two micro-steps of step 3, and on from step 2."""
    small = {"stages": "data,train", "train__offload_optimizer": True, "train__num_steps": 4}
    assert stages.run(make_config(tmp_path / "whole", **small))
    make, added = loop.make_train_step, []

    def stopping(*args):
        compiled = make(*args)

        def accumulate(*args):
            added.append(1)
            if len(added) == 5:  # two in a step
                os.kill(os.getpid(), signal.SIGTERM)
            return compiled.accumulate(*args)

        return compiled._replace(accumulate=accumulate)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "LONG_STEP_SECONDS", 1e-9)
        patch.setattr(loop, "make_train_step", stopping)
        assert not stages.run(make_config(tmp_path / "parts", **small))
    assert store.committed_steps(tmp_path / "parts" / "checkpoints")[-1] == 2
    assert stages.run(make_config(tmp_path / "parts", **small))
    assert_same_run(tmp_path / "whole", tmp_path / "parts", 4)
