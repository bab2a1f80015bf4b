"""Looks for numbers that are not finite: in a state, and in what a micro-batch makes of it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tiny_reasoning_jax.data.batch import Batch
from tiny_reasoning_jax.errors import NumericsError
from tiny_reasoning_jax.model import rope
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.train.offload import to_device
from tiny_reasoning_jax.train.optimizer import inner_state
from tiny_reasoning_jax.train.step import TrainState, gradients, micro_batches, micro_loss


@jax.jit
def _count_non_finite(leaf):
    return jnp.sum(~jnp.isfinite(to_device(leaf)), dtype=jnp.int32)


def require_finite(state: TrainState, origin: str) -> None:
    """Refuses to train from, or to save, numbers that are not finite; one pass over the state.

    Args:
      state: as it was made or restored.
      origin: where its numbers come from, and what to do, for the message.

    Raises:
      NumericsError: names the arrays and says how many of their numbers are NaN or infinite.
    """
    parts = {"parameter": state.params, "master": state.master, "optimizer": inner_state(state.opt_state)}
    leaves = [
        (f"{part} {'.'.join(str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key)))) for key in path)}",
         leaf)
        for part, tree in parts.items()
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]  # fmt: skip
    # One at a time: there may be no room on the device for all that is in the host's memory.
    counts = jax.device_get([_count_non_finite(leaf) for _, leaf in leaves])
    found = [
        f"{name} ({count:,} of {leaf.size:,})" for (name, leaf), count in zip(leaves, counts, strict=True) if count
    ]
    if found:
        more = f" and {len(found) - 5} arrays more" if len(found) > 5 else ""
        raise NumericsError(
            f"numbers that are not finite, before step {int(state.step) + 1}: {', '.join(found[:5])}{more}. They come "
            f"from {origin}"
        )


@functools.partial(jax.jit, static_argnums=(0, 1))
def measure(model_def: ModelDef, loss_chunk: int, state: TrainState, batch: Batch):
    """A micro-batch's share of the step's loss, and the norm of each parameter's gradient, which go no further."""
    loss, grads = gradients(model_def, loss_chunk, state, batch)
    return loss, {name: jnp.sqrt(jnp.sum(grad * grad)) for name, grad in grads.items()}


def find_bad(model_def: ModelDef, loss_chunk: int, state: TrainState, arrays: Batch) -> list[int]:
    """Indices of the micro-batches that, computed once more, give a loss or a gradient that is not finite."""
    measured = [measure(model_def, loss_chunk, state, part) for part in micro_batches(arrays)]
    return [
        i for i, values in enumerate(measured) if not all(map(np.isfinite, jax.tree.leaves(jax.device_get(values))))
    ]


@functools.partial(jax.jit, static_argnums=0)
def _finite_after(model_def, params, batch):
    model = model_def.bind(params)
    x, _ = model.look_up(batch.tokens)
    angles = rope.rope_angles(batch.positions, model.spec.head_dim, model.spec.rope_theta)
    stages = [x]
    for layer in model.layers:
        x, _ = layer(x, angles, batch.segment_ids, None, None)
        stages.append(x)
    stages.append(model.final_norm(x))
    return [jnp.isfinite(stage).all(-1) for stage in stages]


def first_bad_activation(model_def: ModelDef, params: Params, batch: Batch) -> tuple[str, int, int] | None:
    """(stage, row, position) of the first activation of a micro-batch that is not finite; None if all are.

    Padding is passed over: no loss sees it.
    """
    after = jax.device_get(_finite_after(model_def, params, batch))
    names = ["embed", *(f"layers.{i}" for i in range(len(after) - 2)), "final_norm"]
    for name, finite in zip(names, after, strict=True):
        places = np.argwhere(~finite & (np.asarray(batch.segment_ids) > 0))
        if len(places):
            return name, int(places[0, 0]), int(places[0, 1])
    return None


@functools.partial(jax.jit, static_argnums=(0, 1))
def _loss_of(model_def, loss_chunk, params, batch, row, segment):
    one = Batch(*(jax.lax.dynamic_slice_in_dim(x, row, 1) for x in batch[:-1]), loss_denom=jnp.float32(1))
    mask = one.loss_mask & (one.segment_ids == segment)
    return micro_loss(model_def, loss_chunk, params, one._replace(loss_mask=mask)), jnp.sum(mask)


def example_losses(model_def: ModelDef, loss_chunk: int, params: Params, batch: Batch) -> list[dict[str, Any]]:
    """Of each example of a micro-batch, in order: row, trained tokens, and the mean loss of one."""
    found = []
    for row, segment_ids in enumerate(np.asarray(batch.segment_ids)):
        for segment in range(1, int(segment_ids.max()) + 1):
            loss_sum, trained = jax.device_get(_loss_of(model_def, loss_chunk, params, batch, row, segment))
            found.append({"row": row, "trained": int(trained), "loss": float(loss_sum) / max(int(trained), 1)})
    return found
