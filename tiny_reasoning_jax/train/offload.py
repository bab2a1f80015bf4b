"""Master and moments in the host's memory (train.offload_optimizer), for cards that cannot hold them.

Between updates nobody reads them, and they are most of the state. When all gradients of a step are accumulated, they
come to the card a layer at a time, and go back updated: of the 1.7B with remainder16 and int8 6.4 GiB each way, once a
step, however many micro-steps it has. Each layer is a call of one small program. A single program for all of them does
not do: XLA puts the copies of nearly all arrays before the arithmetic of the first, and they wait on the card.

The arithmetic is that of step.update, on the same numbers in the same order. But a compiler rounds a product and the
sum that follows once or twice as it sees fit, so last bits of the master may differ from a run that offloads nothing.

The idea is DeepSpeed's ZeRO-Offload (arXiv 2101.06840), but the card computes; memory kinds are those of JAX's
"JAX memories and host offloading".
"""

import re
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tiny_reasoning_jax.train.optimizer import accumulator, inner_state, with_inner

HOST = "pinned_host"  # jax's name for memory of the host that a card reads and writes by itself


def to_host(x: jax.Array) -> jax.Array:
    """The array in the host's memory."""
    return jax.device_put(x, jax.memory.Space.Host)


def to_device(x: jax.Array) -> jax.Array:
    """The array in the device's memory."""
    return jax.device_put(x, jax.memory.Space.Device)


def map_offloaded(change: Callable, state):
    """A step.TrainState with `change` made to every array that train.offload_optimizer keeps in the host's memory.

    They are the matrices of master and moments, which nothing but the update reads. Vectors are next to nothing.
    """
    matrices = lambda tree: jax.tree.map(lambda x: change(x) if x.ndim > 1 else x, tree)
    opt_state = with_inner(state.opt_state, matrices(inner_state(state.opt_state)))
    return state._replace(master=matrices(state.master), opt_state=opt_state)


def place(state, sharding: jax.sharding.Sharding, config_train):
    """Shapes and dtypes of a step.TrainState (concrete or from eval_shape) with the place of each array.

    Args:
      state: the state.
      sharding: of a device; what train.offload_optimizer keeps off it is in the memory of its host.
      config_train: the train section.
    """
    at = lambda sharding: lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
    placed = jax.tree.map(at(sharding), state)
    return map_offloaded(at(sharding.with_memory_kind(HOST)), placed) if config_train.offload_optimizer else placed


class LayerwiseUpdate:
    """The update of a state whose gradients are all accumulated, a layer at a time; takes over the state's buffers."""

    def __init__(self, update: Callable):
        """`update` is step.update, given its first arguments."""

        def update_part(trees, rest, grad_norm, leaf_ids):
            state = map_offloaded(to_device, _join(trees, rest))
            grads = {name: jnp.zeros(leaf.shape, jnp.float32) for name, leaf in state.params.items()}
            state, metrics = update(state, jnp.float32(0), grads, grad_norm=grad_norm, leaf_ids=leaf_ids)
            return map_offloaded(to_host, state), metrics

        self._norm = jax.jit(optax.global_norm)
        self._update_part = jax.jit(update_part, donate_argnums=0)

    def __call__(self, state):
        """(state, metrics) after the update of `state`; returns before the device has finished."""
        trees, rest = _split(state)
        grad_norm = self._norm(accumulator(state.opt_state))
        parts = []
        for names in _parts(state.params):
            updated, metrics = self._update_part(_take(trees, names), rest, grad_norm, _ids(state, names))
            parts.append((names, updated))
        return _merge(parts, list(state.params)), metrics

    def lower(self, part) -> jax.stages.Lowered:
        """The program for a part of a state (see `largest_part`), which may be abstract."""
        trees, rest = _split(part)
        scalar = lambda dtype, **at: jax.ShapeDtypeStruct((), dtype, **at)
        ids = dict.fromkeys(part.params, scalar(jnp.uint32))
        return self._update_part.lower(trees, rest, scalar(jnp.float32, sharding=part.step.sharding), ids)


def create_by_layers(create: Callable, params: dict[str, jax.Array]):
    """`create(params)`, a step.TrainState; of what the host's memory gets the device holds about a layer at a time."""
    parts = [(names, map_offloaded(to_host, create(_take([params], names)[0]))) for names in _parts(params)]
    return _merge(parts, list(params))


def largest_part(state):
    """The part of a state, as small as one call of a LayerwiseUpdate takes it, that needs most memory."""
    trees, rest = _split(state)
    size = lambda names: sum(state.params[name].size for name in names.values())
    return _join(_take(trees, max(_parts(state.params), key=size)), rest)


def _parts(params: dict[str, Any]) -> list[dict[str, str]]:
    """The names of what is updated together, by the names that they have then: those of every layer are the same."""
    parts = defaultdict(dict)
    for name in params:
        layer = re.match(r"layers\.\d+\.", name)
        parts[layer[0] if layer else name][name.removeprefix(layer[0]) if layer else name] = name
    return list(parts.values())


def _ids(state, names: dict[str, str]) -> dict[str, np.uint32]:
    places = {name: i for i, name in enumerate(sorted(state.params))}  # as jit orders the whole tree
    return {short: np.uint32(places[name]) for short, name in names.items()}


def _split(state) -> tuple[list[dict[str, Any]], Any]:
    """(the state's trees that are keyed by the parameters' names, the rest, in which they are empty)."""
    is_tree = lambda x: isinstance(x, dict)
    trees = [x for x in jax.tree.leaves(state, is_leaf=is_tree) if is_tree(x)]
    assert all(tree.keys() == trees[0].keys() for tree in trees), "a tree of the state is not keyed by parameters"
    return trees, jax.tree.map(lambda x: {} if is_tree(x) else x, state, is_leaf=is_tree)


def _join(trees: list[dict[str, Any]], rest):
    """What `_split` has split."""
    is_tree, left = lambda x: isinstance(x, dict), iter(trees)
    return jax.tree.map(lambda x: next(left) if is_tree(x) else x, rest, is_leaf=is_tree)


def _merge(parts: list[tuple[dict[str, str], Any]], order: list[str]):
    """The state whose parts were made of these names (see `_parts`); scalars, the same in all, of the last."""
    whole: list[dict[str, Any]] = []
    for names, part in parts:
        trees, rest = _split(part)
        whole = whole or [{} for _ in trees]
        for tree, of_part in zip(whole, trees, strict=True):
            tree |= {name: of_part[short] for short, name in names.items()}
    return _join([{name: tree[name] for name in order} for tree in whole], rest)


def _take(trees: list[dict[str, Any]], names: dict[str, str]) -> list[dict[str, Any]]:
    return [{short: tree[name] for short, name in names.items()} for tree in trees]
