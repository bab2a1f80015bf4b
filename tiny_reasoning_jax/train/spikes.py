"""Loss spikes: which steps are so far from the usual that their update is not made (train.max_spike).

A step is a spike if its loss or its gradient norm lies more than train.max_spike standard deviations above the running
mean. It is the rule of SkipStepOptimizer in allenai/OLMo-core (128 steps, from the 64th on, 6 deviations), with three
differences: mean and variance are exponentially weighted, so that they are a few numbers and no list; a spike does not
enter them, so that it does not hide the next one; and MAX_IN_ROW spikes in a row end the run, because what is far from
the usual for so long is no spike.

A skipped step moves nothing: parameters, moments and the learning rate's schedule stay. Its data are used up.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

WINDOW = 128  # steps over which means are taken: each new step weighs 1 / WINDOW
MIN_STEPS = 64  # before so many have been seen nothing is a spike
MAX_IN_ROW = 10


class Usual(NamedTuple):
    """What steps are usually like; kept whether spikes are skipped or not, so that this can change within a run.

    Attributes:
      count: int32, steps taken in.
      mean, variance: float32 [2], of the loss and of the gradient norm.
      skipped: int32, spikes of the whole run.
      in_row: int32, spikes since the last step that was none.
    """

    count: jax.Array
    mean: jax.Array
    variance: jax.Array
    skipped: jax.Array
    in_row: jax.Array


def create() -> Usual:
    """Nothing seen yet."""
    return Usual(jnp.int32(0), jnp.zeros(2, jnp.float32), jnp.zeros(2, jnp.float32), jnp.int32(0), jnp.int32(0))


def is_spike(usual: Usual, values: jax.Array, max_spike: float) -> jax.Array:
    """Bool scalar for a step's loss and gradient norm, float32 [2]; with max_spike 0 never."""
    if not max_spike:
        return jnp.bool_(False)
    far = values - usual.mean > max_spike * jnp.sqrt(usual.variance)
    return (usual.count >= MIN_STEPS) & jnp.any(far)


def take_in(usual: Usual, values: jax.Array, spike: jax.Array) -> Usual:
    """`usual` after one more step, whose values are finite; of a spike only the counts keep track."""
    weight = jnp.maximum(1.0 / WINDOW, 1.0 / (usual.count + 1))  # at first the plain mean of all so far
    away = values - usual.mean
    mean = usual.mean + weight * away
    variance = (1 - weight) * (usual.variance + weight * away * away)
    return Usual(
        usual.count + ~spike,
        jnp.where(spike, usual.mean, mean),
        jnp.where(spike, usual.variance, variance),
        usual.skipped + spike,
        jnp.where(spike, usual.in_row + 1, 0),
    )
