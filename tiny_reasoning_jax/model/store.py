"""Parameters on disk: the checkpoint layout that training and the converter share.

    DIR/tokenizer/    the Hugging Face tokenizer's files, byte for byte, and their checksums.json
    DIR/<step>/       one Orbax checkpoint: item `params` (the flat dict, bfloat16) and item `meta` (JSON:
                      step, model_config, generation_config, base_model); training adds `state` and `data`
                      beside them, and checksums.json, of all four

It reads single parameters without reading the others, and refuses a step that was not committed whole, one whose files
are not those that its checksums were made of, and one that announces more than its files can hold.
"""

import contextlib
import dataclasses
import json
import math
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from tiny_reasoning_jax import checksums
from tiny_reasoning_jax.errors import DamagedError, UserError
from tiny_reasoning_jax.foreign import require_own
from tiny_reasoning_jax.model import orbax_noise

# What is carried along unchanged from the folder where the weights came from to the one we export. Tokenizers
# of Qwen3 consist of these files; readers differ in which of them they look at.
CARRIED_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "LICENSE",
)
ITEMS = ("params", "meta")
# Bytes of arrays that Orbax may have in flight to the disk; it wants more than the largest array has.
_MIN_BYTES_IN_FLIGHT = 256 * 2**20
# Parameters are written uncompressed, but for blocks of zeros, which are left out, and what others compress. Beyond
# this times the size of the files, plus some, a shape is a claim to memory and not data.
_MAX_EXPANSION, _SMALL_BYTES = 64, 64 * 2**20


@dataclasses.dataclass(frozen=True)
class OpenCheckpoint:
    """A committed step whose meta has been read.

    Attributes:
      step_folder: DIR/<step>.
      meta: the `meta` item.
      shapes: name -> shape and dtype of every parameter in the step.
      tokenizer_folder: DIR/tokenizer, None when there is none.
    """

    step_folder: Path
    meta: dict[str, Any]
    shapes: dict[str, jax.ShapeDtypeStruct]
    tokenizer_folder: Path | None


def copy_carried_files(source: Path, folder: Path) -> None:
    """Copies those CARRIED_FILES that `source` has into `folder` (created), byte for byte."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in CARRIED_FILES:
        if (source / name).is_file():
            require_own(source / name)
            shutil.copyfile(source / name, folder / name)


def save_tokenizer(root: Path, source: Path, license_file: Path | None = None) -> None:
    """Writes DIR/tokenizer, the CARRIED_FILES of `source` and another's license, and checksums of them."""
    copy_carried_files(source, root / "tokenizer")
    if license_file is not None and license_file.is_file():
        shutil.copyfile(license_file, root / "tokenizer" / "LICENSE")
    checksums.create(root / "tokenizer")


def save_params(
    root: Path, step: int, params: dict[str, jax.Array], meta: dict[str, Any], tokenizer_folder: Path
) -> None:
    """Writes DIR/tokenizer and DIR/<step>, and returns when they are on disk.

    Args:
      root: DIR.
      step: the optimizer step that the parameters belong to; 0 for weights as they came.
      params: the flat dict; on a CPU they are written without being copied.
      meta: stored beside them, see the module docstring.
      tokenizer_folder: where the tokenizer's files lie.
    """
    save_tokenizer(root, tokenizer_folder)
    largest = max(array.nbytes for array in params.values())
    in_flight = max(_MIN_BYTES_IN_FLIGHT, largest + 1)
    # Uncompressed: zstd takes four times as long, holds a second copy, and saves little on bfloat16 weights.
    handler = ocp.PyTreeCheckpointHandler(save_concurrent_gb=in_flight / 1e9, use_compression=False)
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False, create=True)
    handlers = {"params": handler, "meta": ocp.JsonCheckpointHandler()}
    with ocp.CheckpointManager(root.absolute(), options=options, item_handlers=handlers) as manager:
        args = ocp.args.Composite(params=ocp.args.PyTreeSave(params), meta=ocp.args.JsonSave(meta))
        manager.save(step, args=args)
    checksums.create(root / str(step), ITEMS)


def open_checkpoint(path: str | Path) -> OpenCheckpoint:
    """Opens DIR at its latest step, or DIR/<step>; parameters are read only to check those that a training run saved.

    Raises:
      UserError: there is no checkpoint.
      DamagedError: the step is incomplete or damaged; names the steps that could be used.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise UserError(
            f"checkpoint {str(path)!r} is not a folder; give DIR or DIR/<step> of a training run or of convert.from_hf"
        )
    steps = committed_steps(path)
    step_folder = path / str(max(steps)) if steps else path
    others = [step for step in (steps or committed_steps(path.parent)) if str(step) != step_folder.name]
    lacking = [item for item in ITEMS if not (step_folder / item).is_dir()]
    if not steps and len(lacking) == len(ITEMS):
        raise UserError(_nothing_found(path))
    if lacking or not ocp.path.step.is_path_finalized(step_folder.absolute()):
        why = f"it has no {' and no '.join(lacking)}" if lacking else "its save was interrupted"
        raise DamagedError(_damaged(step_folder, why, others))
    # A converter that was killed has left none. A training run commits no step without them.
    has_checksums = (step_folder / checksums.FILE).exists() or (step_folder / "state").is_dir()
    if has_checksums and (damage := checksums.find_damage(step_folder, ITEMS)):
        raise DamagedError(_damaged(step_folder, checksums.tell(damage), others))
    with _explain_damage(step_folder, others):
        meta = _read_meta(step_folder)
        handler = ocp.PyTreeCheckpointHandler()
        tree = handler.metadata(step_folder.absolute() / "params").tree
        handler.close()
        shapes = {name: jax.ShapeDtypeStruct(tuple(leaf.shape), leaf.dtype) for name, leaf in tree.items()}
        _check_size(step_folder / "params", shapes)
    tokenizer_folder = step_folder.parent / "tokenizer"
    has_checksums = (tokenizer_folder / checksums.FILE).exists()  # older ones have none
    if has_checksums and (damage := checksums.find_damage(tokenizer_folder)):
        raise DamagedError(
            f"{tokenizer_folder} is damaged: {checksums.tell(damage)}; put back the files of the model that training "
            f"began with (a run has them in data/tokenizer, too), or delete {checksums.FILE} there if it was on purpose"
        )
    return OpenCheckpoint(step_folder, meta, shapes, tokenizer_folder if tokenizer_folder.is_dir() else None)


def restore_params(
    opened: OpenCheckpoint, names: Iterable[str] | None = None, sharding: jax.sharding.Sharding | None = None
) -> dict[str, Any]:
    """Reads parameters, and only those that are asked for.

    Args:
      opened: the checkpoint.
      names: which; None for all.
      sharding: where to put them as jax arrays; None for numpy arrays.

    Raises:
      UserError: a name that the checkpoint does not have.
      DamagedError: data that cannot be read.
    """
    names = list(opened.shapes if names is None else names)
    unknown = [name for name in names if name not in opened.shapes]
    if unknown:
        raise UserError(
            f"checkpoint {opened.step_folder} has no parameter {', '.join(unknown[:5])} (it has "
            f"{len(opened.shapes)}: {', '.join(sorted(opened.shapes)[:5])}, ...); it belongs to a model of "
            "another shape"
        )
    if sharding is None:
        how = ocp.RestoreArgs(restore_type=np.ndarray)
    else:
        how = ocp.ArrayRestoreArgs(restore_type=jax.Array, sharding=sharding)
    args = ocp.args.PyTreeRestore(
        item={name: 0 for name in names}, restore_args={name: how for name in names}, partial_restore=True
    )
    others = [step for step in committed_steps(opened.step_folder.parent) if str(step) != opened.step_folder.name]
    with _explain_damage(opened.step_folder, others):
        return _restore(ocp.PyTreeCheckpointHandler(), opened.step_folder / "params", args)


def load_meta(step_folder: Path) -> dict[str, Any]:
    """The `meta` item of DIR/<step>, a committed one. Its checksums are not looked at.

    Raises:
      DamagedError: it cannot be read.
    """
    others = [step for step in committed_steps(step_folder.parent) if str(step) != step_folder.name]
    with _explain_damage(step_folder, others):
        return _read_meta(step_folder)


def _read_meta(step_folder: Path) -> dict[str, Any]:
    meta = _restore(ocp.JsonCheckpointHandler(), step_folder / "meta", ocp.args.JsonRestore())
    _check_meta(meta)
    return meta


def _check_meta(meta: Any) -> None:
    """Raises ValueError where a meta lacks what every reader of it takes for granted, or cannot be written again."""
    kinds = {"step": int, "model_config": dict, "generation_config": dict | None, "base_model": str}
    wrong = [key for key, kind in kinds.items() if not isinstance(meta, dict) or not isinstance(meta.get(key), kind)]
    if wrong or "generation_config" not in meta:
        raise ValueError(f"its meta has no proper {', '.join(wrong) or 'generation_config'}")
    json.dumps(meta, ensure_ascii=False).encode()


def _check_size(folder: Path, shapes: dict[str, jax.ShapeDtypeStruct]) -> None:
    """Raises ValueError where the announced shapes are out of all proportion to the files that should hold them."""
    announced = sum(math.prod(shape.shape) * shape.dtype.itemsize for shape in shapes.values())
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if announced > _MAX_EXPANSION * there + _SMALL_BYTES:
        raise ValueError(f"it announces {announced:,} bytes of parameters and its files have {there:,}")


def _restore(handler, folder: Path, args):
    with ocp.Checkpointer(handler) as checkpointer:
        return checkpointer.restore(folder.absolute(), args=args)


def committed_steps(root: Path) -> list[int]:
    """Steps under `root` whose save was finished, in no order."""
    folders = [f for f in root.iterdir() if f.name.isascii() and f.name.isdecimal() and f.is_dir()]
    return [int(folder.name) for folder in folders if ocp.path.step.is_path_finalized(folder.absolute())]


@contextlib.contextmanager
def _explain_damage(step_folder: Path, others: list[int]):
    """Turns what Orbax raises on unreadable files into a message for the user.

    Orbax and those below it raise unrelated types; nothing of ours runs in there but the checks of what they gave.
    """
    orbax_noise.silence()
    try:
        yield
    except Exception as error:
        why = f"{type(error).__name__}: {str(error).strip()[:300]}"
        raise DamagedError(_damaged(step_folder, why, others)) from error


def _damaged(step_folder: Path, why: str, others: list[int]) -> str:
    is_older = lambda step: not step_folder.name.isdecimal() or step < int(step_folder.name)
    older = max(filter(is_older, others), default=None)
    remedy = "make it anew"
    if older is not None:
        remedy = (
            f"use step {older}: {step_folder.parent / str(older)}. A run trains what is lost again with "
            f"--config.checkpoint.allow_older=true"
        )
    return f"checkpoint {step_folder} cannot be used ({why}); {remedy}"


def _nothing_found(path: Path) -> str:
    found = sorted(entry.name for entry in path.iterdir())
    unfinished = [name for name in found if ".orbax-checkpoint-tmp" in name]
    interrupted = f" A save was interrupted: {', '.join(unfinished)} cannot be used." if unfinished else ""
    return (
        f"no checkpoint in {str(path)!r}: it holds {', '.join(found[:8]) or 'nothing'}, where folders named "
        f"by a step were expected, with {' and '.join(ITEMS)} in them.{interrupted} Give DIR or DIR/<step> "
        "of a training run or of convert.from_hf"
    )
