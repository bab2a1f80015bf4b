"""What a step that was not finite leaves behind: everything that computes it again, in workdir/non-finite/step-<n>.

  batch.npz   the step's arrays [accum_steps, B, T]
  facts.json  step, loss, gradient norm, model, configuration, ids of the examples, device
  state/      parameters, master and optimizer that the step began with, in the format of a checkpoint

None of it is taken for a checkpoint: it lies elsewhere, and no meta in it says what model it is.
`python -m tiny_reasoning_jax.train.replay <folder>` reads it.
"""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tiny_reasoning_jax.data.batch import Batch, StepBatch
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.train.checkpoint import Checkpoints, abstract, num_bytes
from tiny_reasoning_jax.train.step import TrainState, abstract_state
from tiny_reasoning_jax.workdir import require_disk, write_json


class Dump(NamedTuple):
    """A dump that was read again, all but its state.

    Attributes:
      folder: where it is.
      facts: facts.json.
      arrays: the step's Batch.
      model_def: the model as the run computed it.
    """

    folder: Path
    facts: dict[str, Any]
    arrays: Batch
    model_def: ModelDef


def write_dump(
    workdir: Path, config, model_def: ModelDef, state: TrainState, batch: StepBatch, facts: dict[str, Any]
) -> tuple[Path, str]:
    """Writes the dump of a step, in the place of an earlier one of the same step.

    Args:
      workdir: the run's folder.
      config: the whole configuration.
      model_def: the model.
      state: what the step began with.
      batch: its data.
      facts: step, loss and grad_norm.

    Returns:
      The folder; and why the state, or on a full disk anything, is not in it, empty if all is.
    """
    folder = workdir / "non-finite" / f"step-{facts['step']}"
    shutil.rmtree(folder, ignore_errors=True)
    described = {
        **{name: value if np.isfinite(value) else str(value) for name, value in facts.items()},
        "model": dataclasses.asdict(model_def),
        "config": json.loads(config.to_json()),
        "examples": batch.ids,
        "device": jax.local_devices()[0].device_kind,
    }
    try:
        folder.mkdir(parents=True)
        np.savez(folder / "batch.npz", **batch.arrays._asdict())
        write_json(folder / "facts.json", described)
        # Room for the next checkpoint, too: a dump must not be what stops the run that goes on.
        require_disk(workdir, 2 * num_bytes(state), "the state that the step began with, beside one more checkpoint,")
        states = Checkpoints(folder / "state", 1)
        try:
            states.save(facts["step"], state._replace(loss=jnp.float32(0)), {}, {})
        finally:
            states.close()
    except (UserError, OSError) as error:
        shutil.rmtree(folder / "state", ignore_errors=True)
        return folder, str(error)
    return folder, ""


def load_dump(folder: Path) -> Dump:
    """Reads all but the state.

    Raises:
      UserError: it is no dump.
    """
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        with np.load(folder / "batch.npz", allow_pickle=False) as arrays:
            batch = Batch(**{name: arrays[name] for name in Batch._fields})
        model = facts["model"]
        model_def = ModelDef(**{**model, "spec": ModelSpec(**model["spec"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder} is not the dump of a step ({type(error).__name__}: {error}); give a folder "
            "<workdir>/non-finite/step-<n>, whose name the run's message ends with"
        ) from error
    return Dump(folder, facts, batch, model_def)


def load_state(dump: Dump, config_train) -> TrainState:
    """The state that the step began with, on the first device.

    Raises:
      UserError: it is not in the dump, or damaged.
    """
    if not (dump.folder / "state").is_dir():
        raise UserError(
            f"{dump.folder} holds no state: the disk had no room for it. Make room and run the same command again: it "
            "repeats the steps since the last checkpoint, comes here again, and writes a whole dump"
        )
    states = Checkpoints(dump.folder / "state", 1)
    try:
        like = abstract(abstract_state(dump.model_def, config_train), config_train)
        return states.restore(dump.facts["step"], like)[0]
    finally:
        states.close()
