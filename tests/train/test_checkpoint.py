"""pytest tests/train/test_checkpoint.py: what a checkpoint holds, and how a state comes back from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_step

from tiny_reasoning_jax.train.checkpoint import Checkpoints, abstract, num_bytes
from tiny_reasoning_jax.train.optimizer import accumulator, inner_state, make_optimizer
from tiny_reasoning_jax.train.step import create_state, make_train_step, run_step

SMALLEST = {"master": "remainder16", "moments": "int8"}


class Run:
    """Steps of one configuration over the same four rows, cut into its micro-batches."""

    def __init__(self, **changes):
        self.config = test_step.config(**changes)
        self.optimizer = make_optimizer(self.config)
        self.step = make_train_step(test_step.MODEL, self.config)
        self.batch = test_step.split(test_step.four_uneven_rows(), self.config.accum_steps)

    def begin(self):
        return create_state(test_step.MODEL.create_params(0), self.optimizer, self.config)

    def go_on(self, state, steps):
        for _ in range(steps):
            state, _ = run_step(self.step, state, self.batch)
        return state

    def like(self):
        return abstract(jax.eval_shape(self.begin), self.config)


def save(folder, state):
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(int(state.step), state, {"at": 3}, {})
    checkpoints.close()


def restore(folder, like, step):
    checkpoints = Checkpoints(folder, keep=1)
    state, data = checkpoints.restore(step, like)
    checkpoints.close()
    assert data == {"at": 3}
    return state


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_going_on_in_the_smallest_form_is_as_if_never_stopped(tmp_path):
    run = Run(accum_steps=2, **SMALLEST)
    state = run.go_on(run.begin(), 3)
    save(tmp_path, state)
    whole = run.go_on(state, 3)
    resumed = run.go_on(restore(tmp_path, run.like(), 3), 3)
    assert_equal(whole, resumed)


@pytest.mark.parametrize("other", [1, 4])
def test_the_number_of_micro_batches_may_change(tmp_path, other):
    run = Run(accum_steps=2)
    state = run.go_on(run.begin(), 2)
    save(tmp_path, state)
    changed = Run(accum_steps=other)
    resumed = restore(tmp_path, changed.like(), 2)
    assert_equal((state.params, state.master, state.step), (resumed.params, resumed.master, resumed.step))
    assert_equal(inner_state(state.opt_state), inner_state(resumed.opt_state))
    assert not any(jnp.any(x) for x in jax.tree.leaves(accumulator(resumed.opt_state)))
    state, resumed = run.go_on(state, 1), changed.go_on(resumed, 1)
    for name in state.master:  # the same step, but for the order of its sums
        np.testing.assert_allclose(state.master[name], resumed.master[name], rtol=0, atol=1e-4, err_msg=name)


def test_its_size_is_what_lies_on_the_disk(tmp_path):
    run = Run(accum_steps=2, **SMALLEST)
    expected = num_bytes(run.like())
    save(tmp_path, run.begin())
    arrays = [file for item in ("params", "state") for file in (tmp_path / "0" / item).rglob("*") if file.is_file()]
    on_disk = sum(file.stat().st_size for file in arrays)
    assert expected <= on_disk < 1.5 * expected + 200_000  # and the names and shapes of the arrays
    parameters = sum(x.size for x in jax.tree.leaves(run.like().params))
    assert expected < 8 * parameters  # 2 + 2 + 1 + 1, scales and the small leaves; an accumulator would be 4 more
