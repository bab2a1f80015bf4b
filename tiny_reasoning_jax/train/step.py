"""The training step: one micro-batch forward and backward, and every accum_steps of them one update.

Laws: params are the master rounded to the nearest bfloat16 after every step; accum_steps micro-batches give the update
of their union; a non-finite loss or gradient leaves params, master and optimizer as they were, the metrics say so,
and every step after it does the same; a spike (train/spikes.py) leaves them, too, but only itself. How the state is
stored (train.master, accum_steps) changes no number.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import FrozenConfigDict

from tiny_reasoning_jax.data.batch import Batch
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.train import losses, spikes
from tiny_reasoning_jax.train import master as master_of
from tiny_reasoning_jax.train.offload import LayerwiseUpdate, create_by_layers
from tiny_reasoning_jax.train.optimizer import Optimizer, inner_state, make_optimizer, only_sums, with_inner


class TrainState(NamedTuple):
    """Everything that training changes; on the device, or in part in its host's memory (train/offload.py).

    Attributes:
      step: int32 scalar, optimizer steps done.
      params: bfloat16 parameters, a view of the master: always the nearest bfloat16 (train/master.py).
      master: what is kept of the float32 parameters that the optimizer updates: all of it, or the 16-bit remainder.
      opt_state: optimizer's state: Adam's moments and the counters; with several micro-batches in a step an
        optax.MultiStepsState around it, with the gradient accumulator. optimizer.inner_state and
        optimizer.accumulator find the two.
      loss: float32 scalar, loss of the current step's micro-batches so far; 0 between steps, NaN after one that was not
        finite: the host reads metrics a step late, and finds the state that the bad step began with.
      usual: what losses and gradient norms are usually like (train/spikes.py).
    """

    step: jax.Array
    params: Params
    master: Params
    opt_state: optax.OptState
    loss: jax.Array
    usual: spikes.Usual


class Metrics(NamedTuple):
    """What one step reports; scalars on the device."""

    loss: jax.Array  # mean loss over the step's trained tokens
    grad_norm: jax.Array  # global norm before clipping
    finite: jax.Array  # False: loss or gradient was not finite and the update was not applied
    skipped: jax.Array  # int32: spikes of the run so far, this step included
    skipped_in_row: jax.Array  # int32: how many of them in a row, this step the last; 0: it was none


def create_state(params: Params, optimizer: Optimizer, config_train) -> TrainState:
    """A fresh state around bfloat16 `params`; allocates master, moments and accumulator, and nothing else."""

    @jax.jit  # so that a float32 master that only gives shapes is never made
    def create(params):
        image = {name: leaf.astype(jnp.float32) for name, leaf in params.items()}
        master = master_of.create(params, config_train.master)
        return TrainState(jnp.int32(0), (), master, optimizer.init(image), jnp.float32(0), spikes.create())

    state = create_by_layers(create, params) if config_train.offload_optimizer else create(params)
    return state._replace(params=params)


def abstract_state(model_def: ModelDef, config_train) -> TrainState:
    """Shapes and dtypes of the state that training starts with."""
    optimizer = make_optimizer(config_train)
    return jax.eval_shape(lambda params: create_state(params, optimizer, config_train), model_def.shapes())


def micro_loss(model_def: ModelDef, loss_chunk: int, params: Params, batch: Batch) -> jax.Array:
    """A micro-batch's share of the step's mean loss: its loss sum / the trained tokens of the whole step."""
    model = model_def.bind(params)
    rows, head = model.look_up(batch.tokens)
    hidden, _ = model.run(rows, batch.positions, batch.segment_ids)
    return losses.cross_entropy_sum(hidden, head, batch.targets, batch.loss_mask, loss_chunk, batch.loss_denom)


def gradients(model_def, loss_chunk, state, batch):
    """(loss, float32 gradients) of a micro-batch.

    A matrix that layers cast to the dtype of activations has a gradient with no more bits than that dtype: it is
    differentiated in it, so that gradients wait for the optimizer in half the memory, and lose nothing. The embedding
    (and the head) are differentiated at their float32 image, which is exact: contributions that meet there add up in
    float32.
    """
    narrow = lambda name, p: p.ndim > 1 and name not in ("embed", "lm_head")
    at = {n: p.astype(model_def.dtype if narrow(n, p) else jnp.float32) for n, p in state.params.items()}
    loss, grads = jax.value_and_grad(micro_loss, argnums=2)(model_def, loss_chunk, at, batch)
    return loss, {name: grad.astype(jnp.float32) for name, grad in grads.items()}


def accumulate(model_def, sums: optax.MultiSteps, loss_chunk, state: TrainState, batch: Batch) -> TrainState:
    """A micro-step without an update: adds its gradient to the accumulator. `state` is what `detach` leaves.

    MultiSteps updates in one branch of a condition on mini_step. With mini_step a constant the compiler sees which
    branch is taken, and removes the other from this function.
    """
    loss, grads = gradients(model_def, loss_chunk, state, batch)
    counted = state.opt_state.mini_step
    first = state.opt_state._replace(mini_step=jnp.int32(0))  # summing does not depend on which micro-step it is
    _, opt_state = sums.update(grads, first)
    return state._replace(opt_state=opt_state._replace(mini_step=counted + 1), loss=state.loss + loss)


def detach(state: TrainState) -> TrainState:
    """The state without what only the update reads, master and moments; `attach` puts it back.

    A program that passes arrays on need not be handed them, and those in the host's memory XLA refuses to pass on.
    """
    return state._replace(master={}, opt_state=with_inner(state.opt_state, ()))


def attach(state: TrainState, detached: TrainState) -> TrainState:
    """What has become of `detached`, with the master and moments of the `state` that it was taken from."""
    opt_state = with_inner(detached.opt_state, inner_state(state.opt_state))
    return detached._replace(master=state.master, opt_state=opt_state)


def apply(
    model_def, optimizer, loss_chunk, accum_steps, max_spike, state: TrainState, batch: Batch
) -> tuple[TrainState, Metrics]:
    """The last micro-step of a step: accumulates, then updates master and parameters."""
    loss, grads = gradients(model_def, loss_chunk, state, batch)
    return update(optimizer, accum_steps, max_spike, state, loss, grads)


def update(optimizer, accum_steps, max_spike, state: TrainState, loss, grads, **of_whole) -> tuple[TrainState, Metrics]:
    """Accumulates the last gradients of a step, then updates master and parameters.

    Args:
      optimizer: make_optimizer's.
      accum_steps: of the step.
      max_spike: train.max_spike.
      state: the whole, or a part of it (train/offload.py).
      loss: of the last micro-batch.
      grads: its gradients.
      of_whole: of a part: `grad_norm` and `leaf_ids` of the whole, for the optimizer.
    """
    opt_state = state.opt_state
    if accum_steps > 1:
        opt_state = opt_state._replace(mini_step=jnp.int32(accum_steps - 1))
    master = master_of.load(state.params, state.master)
    updates, opt_state = optimizer.update(grads, opt_state, master, **of_whole)
    step_loss = state.loss + loss
    inner, inner_before = inner_state(opt_state), inner_state(state.opt_state)
    grad_norm = inner[0].grad_norm
    finite = jnp.isfinite(step_loss) & jnp.isfinite(grad_norm)
    values = jnp.stack([step_loss, grad_norm])
    spike = finite & spikes.is_spike(state.usual, values, max_spike)
    applied = finite & ~spike
    keep = lambda new, old: jax.tree.map(functools.partial(jnp.where, applied), new, old)
    params, master = master_of.store(optax.apply_updates(master, _only_if(applied, updates)), like=state.master)
    inner = keep(inner, inner_before)
    opt_state = with_inner(opt_state, inner)
    seen = spikes.take_in(state.usual, values, spike)
    usual = jax.tree.map(functools.partial(jnp.where, finite), seen, state.usual)
    loss = jnp.where(finite, jnp.float32(0), jnp.float32(jnp.nan))
    new_state = TrainState(state.step + finite, params, master, opt_state, loss, usual)
    return new_state, Metrics(step_loss, grad_norm, finite, usual.skipped, usual.in_row)


def _only_if(applied: jax.Array, updates: Params) -> Params:
    """The updates, or -0.0, which leaves every master as it is, even -0.0.

    In integers and with a mask that no compiler knows, because compilers contract a product and the sum that follows
    (FMA: one rounding for two) where it suits them. Both forms of the master must round alike.
    """
    mask = jax.lax.optimization_barrier(jnp.where(applied, jnp.uint32(0xFFFFFFFF), jnp.uint32(0)))
    masked = lambda x: (jax.lax.bitcast_convert_type(x, jnp.uint32) & mask) | (jnp.uint32(0x80000000) & ~mask)
    return jax.tree.map(lambda x: jax.lax.bitcast_convert_type(masked(x), jnp.float32), updates)


class TrainStep(NamedTuple):
    """What a step is made of; both functions take over (donate) the buffers of the state that they are given."""

    accumulate: callable  # (detached state, batch) -> detached state
    apply: callable  # (state, batch) -> state, metrics; if adds_all (state) -> state, metrics
    adds_all: bool  # every micro-batch is accumulated, and apply only updates (train/offload.py)


@functools.lru_cache(maxsize=4)
def make_train_step(model_def: ModelDef, config_train: FrozenConfigDict) -> TrainStep:
    """Jits the step; each variant compiles once for a whole run, because batch shapes never change.

    The same functions for the same arguments: what the plan has traced, training does not trace again.
    """
    optimizer, chunk = make_optimizer(config_train), config_train.loss_chunk
    rest = config_train.accum_steps, config_train.max_spike
    adding = jax.jit(functools.partial(accumulate, model_def, only_sums(config_train), chunk), donate_argnums=0)
    if config_train.offload_optimizer:
        return TrainStep(adding, LayerwiseUpdate(functools.partial(update, optimizer, *rest)), adds_all=True)
    last = functools.partial(apply, model_def, optimizer, chunk, *rest)
    return TrainStep(adding, jax.jit(last, donate_argnums=0), adds_all=False)


def micro_batches(arrays: Batch) -> list[Batch]:
    """The parts [B, T] of a step's arrays [accum_steps, B, T]."""
    return [Batch(*(x[i] for x in arrays)) for i in range(arrays.tokens.shape[0])]


def run_step(
    train_step: TrainStep, state: TrainState, arrays: Batch, is_asked: Callable[[], bool] | None = None
) -> tuple[TrainState, Metrics | None]:
    """One optimizer step over Batch arrays [accum_steps, B, T]; returns before the device has finished.

    Args:
      train_step: the compiled step.
      state: where it begins; its buffers are taken over.
      arrays: of the whole step.
      is_asked: if given, each micro-step but the last is waited for, and where this then says so the step ends there
        and there are no metrics: the state is that of the step before in all that a checkpoint holds.
    """
    to_add = micro_batches(arrays)
    accum_steps, last = len(to_add), () if train_step.adds_all else (to_add.pop(),)
    for number, micro_batch in enumerate(to_add, 1):
        state = attach(state, train_step.accumulate(detach(state), micro_batch))
        if is_asked is not None and number < accum_steps:
            jax.block_until_ready(state.loss)
            if is_asked():
                return state._replace(loss=jnp.float32(0)), None
    return train_step.apply(state, *last)
