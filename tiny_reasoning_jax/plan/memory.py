"""The memory of a training step, by compiling it: what its arrays are, and what is at work at its fullest moment."""

import contextlib
import functools
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import logging

from tiny_reasoning_jax.data.batch import Batch
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.plan import cards, live
from tiny_reasoning_jax.train.offload import largest_part, map_offloaded, place
from tiny_reasoning_jax.train.optimizer import accumulator
from tiny_reasoning_jax.train.step import TrainState, abstract_state, detach, make_train_step

NUM_LARGEST = 12  # values told of
SCALARS = 64  # bytes of the state's scalars, which are no arguments of a program that does not read them


class Memory(NamedTuple):
    """What a step needs of a device.

    Attributes:
      parts: bytes by what they are; their sum is the peak. "parameters", "master", "moments", "accumulator", "batch",
        then either "gradients" and "activations", or, where XLA has not written down what is where, "temporaries"; and
        "workspace", of cuDNN's attention, where there is no card to compile on and it is in use at the fullest moment.
      variant: which of the step's two programs has the peak: "accumulate" or "apply".
      largest: largest temporaries at the fullest moment.
      hidden_remat: instructions that XLA recomputes to save memory, without being asked.
      donated: bytes of the state that the step's results take over, or that it is not given; the rest would be there
        twice.
      host: bytes of the state that are in the host's memory and not in the device's (train.offload_optimizer).
      compile_seconds: lowering and compiling all programs.
    """

    parts: dict[str, int]
    variant: str
    largest: list[live.Value]
    hidden_remat: int
    donated: int
    host: int
    compile_seconds: float

    @property
    def peak(self) -> int:
        """Bytes of the device at the fullest moment, resident state included."""
        return sum(self.parts.values())


def split_state(state: TrainState, config_train) -> tuple[dict[str, int], int]:
    """(bytes of the state on the device by what they are, bytes of it in the host's memory); exact."""
    here = state
    if config_train.offload_optimizer:
        here = map_offloaded(lambda x: jax.ShapeDtypeStruct((0,), x.dtype), state)
    sums = _size(accumulator(here.opt_state))
    parts = {
        "parameters": _size(here.params),
        "master": _size(here.master),
        "moments": _size((here.step, here.opt_state, here.loss, here.usual)) - sums,
        "accumulator": sums,
    }
    return parts, _size(state) - _size(here)


def _size(tree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def abstract_batch(rows: int, seq_len: int) -> Batch:
    """Shapes and dtypes of one micro-batch."""
    ids = jax.ShapeDtypeStruct((rows, seq_len), jnp.int32)
    mask = jax.ShapeDtypeStruct((rows, seq_len), jnp.bool_)
    return Batch(tokens=ids, targets=ids, loss_mask=mask, segment_ids=ids, positions=ids,
                 loss_denom=jax.ShapeDtypeStruct((), jnp.float32))  # fmt: skip


@functools.lru_cache(maxsize=4)  # tracing the optimizer takes a second at 1.7B, and several ask
def arguments(model_def: ModelDef, config_train) -> tuple[TrainState, Batch]:
    """Shapes and dtypes of what a micro-step is called with."""
    rows = config_train.batch_size // config_train.accum_steps
    return abstract_state(model_def, config_train), abstract_batch(rows, config_train.seq_len)


def program_names(config_train) -> tuple[str, ...]:
    """The programs of a step: with one micro-batch nothing is accumulated."""
    return ("accumulate", "apply") if config_train.accum_steps > 1 else ("apply",)


def lower(name: str, model_def: ModelDef, config_train, sharding: jax.sharding.Sharding | None) -> jax.stages.Lowered:
    """The very program that training runs, ready to be compiled for a device that need not be here.

    Without a sharding (the device at hand) it is that program letter by letter, and what is compiled here is what the
    run finds in the compile cache: the state is bound to the device (checkpoint.bind), the batch comes from the host.
    """
    step = make_train_step(model_def, config_train)
    context = cards.as_if_here(sharding) if sharding else contextlib.nullcontext()
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state, *batch = _given(name, model_def, config_train)
    with context:
        return getattr(step, name).lower(place(state, sharding, config_train), *batch)


def _given(name: str, model_def: ModelDef, config_train) -> tuple[TrainState, Batch] | tuple[TrainState]:
    """What the program `name` is called with (step.run_step); the rest of the state stays where it is meanwhile.

    Of an update that goes layer by layer the part that takes most.
    """
    state, batch = arguments(model_def, config_train)
    if name == "accumulate":
        return detach(state), batch
    return (largest_part(state),) if config_train.offload_optimizer else (state, batch)


def plan_memory(
    model_def: ModelDef,
    config_train,
    sharding: jax.sharding.Sharding | None,
    options: dict[str, Any],
    workspace: int = 0,
) -> Memory:
    """Compiles the programs of a training step, and says what they need.

    Args:
      model_def: the model, its rung of train.remat and its attention.
      config_train: the train section; accum_steps is a number here, not 0.
      sharding: the device, which need not be here; None for the one at hand.
      options: XLA's, for this compilation.
      workspace: what kernels take that a compiler without a card does not know of (live.read_fullest_moment).
    """
    began = time.monotonic()
    found = [
        _compile(name, lower(name, model_def, config_train, sharding), model_def, config_train, options, workspace)
        for name in program_names(config_train)
    ]
    return join(found, time.monotonic() - began)


def join(programs: list[Memory], seconds: float) -> Memory:
    """The memory of a step, of its programs': what the one that needs most needs."""
    return max(programs, key=lambda memory: memory.peak)._replace(
        hidden_remat=max(memory.hidden_remat for memory in programs),
        donated=min(memory.donated for memory in programs),
        compile_seconds=seconds,
    )


def _compile(name: str, lowered, model_def: ModelDef, config_train, options, workspace) -> Memory:
    folder = Path(tempfile.mkdtemp(prefix="plan-"))
    try:
        compiled = lowered.compile(compiler_options={**options, "xla_dump_to": str(folder)})
        if memory := read_dump(name, folder, model_def, config_train, workspace):
            return memory
        if any(folder.iterdir()):
            logging.warning(
                "XLA of jax %s writes down its memory in a form that is not known here; the plan has its total, "
                "but not what gradients and activations are of it", jax.__version__,
            )  # fmt: skip
    finally:
        shutil.rmtree(folder)
    # Nothing was written where the program came from the compile cache. The sizes alone are known.
    sizes = compiled.memory_analysis()
    parts, given, host = _resident(name, model_def, config_train)
    beside = sum(parts.values()) - given
    parts["batch"] = max(0, sizes.argument_size_in_bytes - given)
    if workspace:
        parts["workspace"] = workspace
    # Results that are not put where an argument was come on top of the temporaries: the metrics.
    parts["temporaries"] = sizes.temp_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    hidden = live.count_hidden_remat(compiled.as_text())
    return Memory(parts, name, [], hidden, beside + sizes.alias_size_in_bytes, host, 0.0)


def _resident(name: str, model_def: ModelDef, config_train) -> tuple[dict[str, int], int, int]:
    """(split_state's parts, bytes of them that the program `name` is given, split_state's bytes in the host)."""
    state, _ = arguments(model_def, config_train)
    given, _ = split_state(_given(name, model_def, config_train)[0], config_train)
    parts, host = split_state(state, config_train)
    return parts, sum(given.values()), host


def read_dump(name: str, folder: Path, model_def: ModelDef, config_train, workspace: int) -> Memory | None:
    """The memory of the program `name`, from what XLA wrote into `folder`; None if it wrote nothing readable."""
    state, batch = arguments(model_def, config_train)
    parts, given, host = _resident(name, model_def, config_train)
    beside = sum(parts.values()) - given
    sizes = live.read_sizes(folder)
    if sizes is None or sizes.arguments < given - SCALARS:
        return None
    values = live.read_fullest_moment(folder, workspace)
    parts["batch"] = max(0, sizes.arguments - given)
    tokens = {batch.tokens.shape[1], batch.tokens.size}
    shapes = [leaf.shape for leaf in state.params.values()]
    gradients = live.find_gradients(values, shapes, model_def.spec.hidden_size, tokens)
    parts["gradients"] = sum(value.num_bytes for value in gradients)
    used = sum(value.num_bytes for value in values if value.shape == live.WORKSPACE)
    # XLA lays out a little more than is ever needed at one time.
    temporaries = max(sizes.temporaries, sum(value.num_bytes for value in values))
    parts["activations"] = temporaries - used - parts["gradients"]
    if used:
        parts["workspace"] = used
    program = next(folder.glob("*after_optimizations.txt")).read_text(errors="replace")
    hidden = live.count_hidden_remat(program)
    return Memory(parts, name, values[:NUM_LARGEST], hidden, beside + sizes.donated, host, 0.0)
