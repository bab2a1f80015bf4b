"""AdamW on the float32 master, with the gradient norm kept where the step can read it; over several micro-batches under
`optax.MultiSteps`."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from tiny_reasoning_jax.train import moments

# What make_optimizer returns: MultiSteps, or with accum_steps 1 the optimizer inside it.
Optimizer = optax.MultiSteps | optax.GradientTransformation


class GradNormState(NamedTuple):
    """State of `record_grad_norm`."""

    grad_norm: jax.Array  # float32 scalar: global norm of the last gradient, before clipping


def record_grad_norm() -> optax.GradientTransformationExtraArgs:
    """Passes gradients on unchanged and remembers their global norm, for the metrics and the finite check.

    Its update takes `grad_norm`, the norm of the whole, where it is given a part of the gradients (offload.py).
    """

    def update(updates, state, params=None, *, grad_norm=None, **others):
        del state, params, others
        return updates, GradNormState(_norm(updates, grad_norm))

    return optax.GradientTransformationExtraArgs(lambda params: GradNormState(jnp.float32(0)), update)


def clip_by_global_norm(max_norm: float) -> optax.GradientTransformationExtraArgs:
    """optax's, which takes `grad_norm` as `record_grad_norm` does."""

    def update(updates, state, params=None, *, grad_norm=None, **others):
        del params, others
        norm = _norm(updates, grad_norm)
        return jax.tree.map(lambda g: jnp.where(norm < max_norm, g, g / norm * max_norm), updates), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def _norm(updates, of_whole: jax.Array | None) -> jax.Array:
    return optax.global_norm(updates) if of_whole is None else of_whole


def make_schedule(config_train) -> optax.Schedule:
    """Learning rate by optimizer step: linear warm-up, then a cosine to final_learning_rate_ratio of the peak."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=config_train.learning_rate,
        warmup_steps=config_train.warmup_steps,
        decay_steps=config_train.num_steps,
        end_value=config_train.learning_rate * config_train.final_learning_rate_ratio,
    )


def make_optimizer(config_train) -> Optimizer:
    """The optimizer of a run; feed it float32 gradients of a loss already divided by the whole step's trained tokens.

    Gradients are summed over micro-batches, not averaged: with the divisor in the loss the sum is the gradient of the
    step, and the accumulating micro-steps do not depend on their number, so one compilation serves them all. A step of
    one micro-batch has nothing to sum: it takes no MultiSteps, whose accumulator is 4 bytes a parameter.
    """
    adamw = optax.adamw(
        # Step 0 of the schedule has rate 0; the first update uses the rate of step 1.
        lambda count: make_schedule(config_train)(count + 1),
        b1=config_train.b1,
        b2=config_train.b2,
        weight_decay=config_train.weight_decay,
        mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    )
    inner = optax.chain(
        record_grad_norm(),
        clip_by_global_norm(config_train.clip_norm),
        moments.stored_as(config_train.moments, adamw),
    )
    if config_train.accum_steps == 1:
        return inner
    return optax.MultiSteps(inner, config_train.accum_steps, use_grad_mean=False)


def only_sums(config_train) -> optax.MultiSteps:
    """make_optimizer's MultiSteps for micro-steps that are not the last; what it would do after them is left out.

    It would not run, but it would be traced, which takes seconds at 310 parameters.
    """
    nothing = optax.GradientTransformation(lambda params: (), lambda updates, state, params=None: (updates, state))
    return optax.MultiSteps(nothing, config_train.accum_steps, use_grad_mean=False)


def inner_state(opt_state: Any) -> Any:
    """State of the optimizer that updates, whether MultiSteps wraps it or not; the same tree for every accum_steps."""
    return opt_state.inner_opt_state if isinstance(opt_state, optax.MultiStepsState) else opt_state


def with_inner(opt_state: Any, inner: Any) -> Any:
    """`opt_state` with another `inner_state`."""
    return opt_state._replace(inner_opt_state=inner) if isinstance(opt_state, optax.MultiStepsState) else inner


def accumulator(opt_state: Any) -> Any:
    """The float32 gradients summed so far, zero between steps; {} where a step has one micro-batch."""
    return opt_state.acc_grads if isinstance(opt_state, optax.MultiStepsState) else {}


def between_steps(like: Any, inner: Any, step: int) -> Any:
    """A whole optimizer state with the tree of `like` around the inner one, as it is after `step` steps."""
    if not isinstance(like, optax.MultiStepsState):
        return inner
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like.acc_grads)
    return like._replace(mini_step=jnp.int32(0), gradient_step=jnp.int32(step), inner_opt_state=inner, acc_grads=zeros)
