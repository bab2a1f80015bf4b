"""Checkpoints of a run: everything needed to go on as if it had never stopped, in one atomic commit.

Layout under workdir/checkpoints (shared with the converter, see model/store.py):
  tokenizer/        Hugging Face tokenizer files
  <step>/params     bfloat16 parameters
  <step>/state      master, moments, step. Not the accumulator: it is zero between steps, and train.accum_steps may
                    change between sessions
  <step>/data       state of the Grain iterator: step, cursors of the curriculum, pending examples
  <step>/meta       model config, seed and step (every random draw is a function of these two), and what the numbers
                    of the run depend on, see workdir.py
  <step>/checksums.json
                    of every file of the four, see checksums.py. Orbax itself notices damage to its trees and not to
                    the numbers: flipped bits in weights, moments and JSON come back without a word.

The checksums are computed in the background, like the save, before the step is committed: there is no committed step
without them, wherever the process is killed.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from tiny_reasoning_jax import checksums, events
from tiny_reasoning_jax.errors import DamagedError, ShortageError, is_full_disk
from tiny_reasoning_jax.model import orbax_noise
from tiny_reasoning_jax.model.store import committed_steps
from tiny_reasoning_jax.train.offload import HOST, place
from tiny_reasoning_jax.train.optimizer import between_steps, inner_state
from tiny_reasoning_jax.train.step import TrainState
from tiny_reasoning_jax.workdir import require_disk

ITEMS = ("params", "state", "data", "meta")
# What Orbax itself needs to know of a step; it changes at the commit, after the checksums.
_ORBAX_FACTS = "_CHECKPOINT_METADATA"


def cadence(every_steps: int) -> tuple[int, int]:
    """(steps from one save to the next, steps that may be taken while one is written), from checkpoint.every_steps.

    A killed run loses their sum at most: the steps of the save that was still being written, and those since.
    """
    ahead = every_steps // 10
    return every_steps - ahead, ahead


def find_damage(folder: Path) -> list[str]:
    """What is wrong with the files of a committed step, a line each; reads all of them."""
    damage = checksums.find_damage(folder)
    try:
        json.loads((folder / _ORBAX_FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        damage.append(f"{_ORBAX_FACTS} cannot be read ({str(error)[:100]})")
    return damage


def choose_step(workdir: Path, allow_older: bool) -> int | None:
    """The step to go on from: the newest, once its checksums have been found right.

    Args:
      workdir: the run's folder.
      allow_older: True: if the newest is damaged, move it to workdir/damaged-checkpoints and take the newest that is
        not.

    Returns:
      The step; None if there is no checkpoint at all.

    Raises:
      DamagedError: the newest is damaged; says how, which older one is good, and how to go on from there.
    """
    folder, told, moved = workdir / "checkpoints", [], []
    for step in sorted(committed_steps(folder), reverse=True) if folder.is_dir() else ():
        damage = find_damage(folder / str(step))
        if damage:
            told.append(f"checkpoint {folder / str(step)} is damaged: {checksums.tell(damage)}")
            moved.append(step)
            continue
        if not moved:
            return step
        if not allow_older:
            raise DamagedError(
                f"{'. '.join(told)}. The newest good checkpoint is step {step}; "
                f"--config.checkpoint.allow_older=true goes on from there, does the {moved[0] - step} steps since then "
                f"again, and keeps the damaged files in {workdir / 'damaged-checkpoints'}"
            )
        for damaged, line in zip(moved, told, strict=True):
            target = _move_aside(folder / str(damaged), workdir / "damaged-checkpoints")
            print(f"{line}. It is now {target}", flush=True)
            events.record(workdir, "damaged", step=damaged, message=line, moved_to=str(target))
        print(f"train: goes on from step {step}, which is good, as checkpoint.allow_older=True asks", flush=True)
        return step
    if moved:
        raise DamagedError(
            f"{'. '.join(told)}. No older checkpoint is good; move {folder} away, and the same command begins the "
            f"training again"
        )
    return None


def _move_aside(folder: Path, where: Path) -> Path:
    where.mkdir(exist_ok=True)
    target = where / folder.name
    while target.exists():  # it was damaged before, too
        target = target.with_name(f"{target.name}-again")
    return folder.rename(target)


class Checkpoints:
    """The checkpoints of one run; saving is asynchronous, the newest `keep` stay on disk."""

    def __init__(self, folder: Path, keep: int):
        self.folder = folder
        orbax_noise.silence()
        self._saving: int | None = None  # the step that is being written
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            enable_async_checkpointing=True,
            create=True,
            async_options=ocp.AsyncOptions(post_finalization_callback=self._write_checksums),
        )
        # Uncompressed: zstd takes four times as long and saves little on weights.
        arrays = lambda: ocp.PyTreeCheckpointHandler(use_compression=False)
        handlers = {
            "params": arrays(),
            "state": arrays(),
            "data": ocp.JsonCheckpointHandler(),
            "meta": ocp.JsonCheckpointHandler(),
        }
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options, item_handlers=handlers)

    def latest_step(self) -> int | None:
        """The newest committed step, None when there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: TrainState, data_state: dict[str, Any], meta: dict[str, Any]) -> None:
        """Starts saving; returns when the state's arrays may be overwritten. Errors of the save before surface here.

        Raises:
          ShortageError: the disk has no room for it, or was full during the save before. Earlier checkpoints stay.
        """
        with self._explain_full_disk():
            self._manager.wait_until_finished()  # what it still writes must count as used
            require_disk(self.folder, num_bytes(state), f"the checkpoint of step {step}")
            self._saving = step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.PyTreeSave(state.params),
                    state=ocp.args.PyTreeSave(jax.tree.map(_for_orbax, _rest(state))),
                    data=ocp.args.JsonSave(data_state),
                    meta=ocp.args.JsonSave(meta),
                ),
            )

    def _write_checksums(self) -> None:
        """Called by Orbax in the background, when all items are on disk and before the step gets its name."""
        unnamed = list(self.folder.glob(f"{self._saving}{ocp.utils.TMP_DIR_SUFFIX}*"))
        assert len(unnamed) == 1, f"one unfinished checkpoint of step {self._saving}, not {unnamed}"
        checksums.create(unnamed[0], ITEMS)

    @contextlib.contextmanager
    def _explain_full_disk(self):
        try:
            yield
        except (ValueError, OSError) as error:
            if not is_full_disk(error):
                raise
            raise ShortageError(
                f"the disk under {self.folder} was full while a checkpoint was written; the newest whole one is step "
                f"{self._manager.latest_step()}. Make room and run the same command again: it goes on from there"
            ) from error

    def restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The state and the data iterator's state saved at `step`.

        Args:
          step: a committed step.
          like: shapes, dtypes and shardings of the state to fill (see `abstract`).

        Raises:
          DamagedError: the checkpoint cannot be read; names an earlier one to go on from.
        """
        restored = self._restore(
            step,
            params=_restore_like(like.params),
            state=_restore_like(_rest(like)),
            data=ocp.args.JsonRestore(),
        )
        state = TrainState(**restored["state"])._replace(params=restored["params"])
        return state._replace(opt_state=between_steps(like.opt_state, state.opt_state, step)), restored["data"]

    def _restore(self, step: int, **items):
        try:
            return self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, OSError, KeyError, TypeError) as error:
            # Its checksums are right: it was written in this state, or for another model.
            earlier = [s for s in self._manager.all_steps() if s < step]
            remedy = f"go on from step {max(earlier)}" if earlier else "start this run anew"
            raise DamagedError(
                f"checkpoint {self.folder / str(step)} cannot be read ({type(error).__name__}: {str(error)[:300]}). "
                f"To {remedy}, move it away and run the same command again: "
                f"mv {self.folder / str(step)} {self.folder.parent / f'corrupt-checkpoint-{step}'}"
            ) from error

    def wait(self) -> None:
        """Waits until what was begun is on disk; raises what went wrong in the background."""
        with self._explain_full_disk():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits as `wait`, and ends."""
        self.wait()
        self._manager.close()


def _rest(state: TrainState) -> dict[str, Any]:
    return state._replace(params={}, opt_state=inner_state(state.opt_state))._asdict()


def _for_orbax(x: jax.Array) -> jax.Array | np.ndarray:
    """An array of the host's memory as numpy's, which Orbax copies before it returns.

    Of the array itself it would keep hold until it is written, and jax 0.11 for good: a GPU refuses to take over memory
    that somebody holds, and the next update would end the run.
    """
    return np.asarray(x) if x.sharding.memory_kind == HOST else x


def num_bytes(state: TrainState) -> int:
    """Size on disk of a checkpoint of `state`, concrete or from eval_shape; bytes."""
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((state.params, _rest(state))))


def _restore_like(tree) -> ocp.args.PyTreeRestore:
    return ocp.args.PyTreeRestore(item=tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree))


def bind(state: TrainState) -> TrainState:
    """The same arrays, bound to their device; nothing is copied.

    What is restored is bound and what is new is not, and jit makes different programs of the two: a run that goes on
    would compile its step anew, twice where only a part is bound, and on a GPU might get other kernels.
    """
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.device_put(state, jax.tree.map(lambda x: here.with_memory_kind(x.sharding.memory_kind), state))


def abstract(state: TrainState, config_train) -> TrainState:
    """What `Checkpoints.restore` fills: shapes of `state` (concrete or from eval_shape), each in its place here."""
    return place(state, jax.sharding.SingleDeviceSharding(jax.devices()[0]), config_train)
