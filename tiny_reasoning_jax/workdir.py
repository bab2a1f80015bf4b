"""A run's folder: who owns it, what may change between sessions, and the facts kept in it.

What a later session of a run may change:

    seed, model, tokenizer, data, row length and batch size,    never: it would be another experiment under the same
    forms of master and moments (IDENTITY); the content of      name. Refused with what was and what is.
    the prepared data and of the source's weights
    learning rate and its schedule, AdamW's numbers, clipping,  only with checkpoint.allow_changes=True, once a
    loss_chunk, compute_dtype (NUMERICS), train.num_steps made  checkpoint is there: the run goes on, and not with the
    shorter; versions of jax, jaxlib, numpy, optax; XLA_FLAGS;  numbers that it would have had. Refused otherwise;
    the device; the code of the step; settled accum_steps,      events.jsonl records what was accepted. The first
    remat, attention, offload_optimizer (world.py)              group of world.py's facts excepted.
    train.num_steps made longer                                 freely. The steps so far stay as they are; from here
                                                                on the learning rate and the curriculum are those of
                                                                the longer run.
    everything else: cadence of checkpoints and validation,     freely. Numbers of training do not depend on it. With
    how many are kept, evaluation, grading, stages, prefetch    data.curriculum="adaptive" those of the probe count as
                                                                NUMERICS: what it measures decides what is drawn.
"""

import contextlib
import fcntl
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from tiny_reasoning_jax import events
from tiny_reasoning_jax.errors import DamagedError, OtherRunError, ShortageError, UserError

LOCK = ".lock"
# Keys that decide what the run is. A session with others would go on with a different experiment under the same name.
IDENTITY = (
    "seed", "model", "tokenizer", "data.source", "data.format", "data.weights", "data.test_source", "data.num_problems",
    "data.num_validation", "data.num_test", "data.category_quotas", "data.near_duplicates",
    "data.decontamination_ngram", "data.difficulty", "data.grades", "data.curriculum", "data.control", "train.seq_len",
    "train.batch_size", "train.master", "train.moments",
)  # fmt: skip
# Keys that the numbers of a step depend on. They may have to change, for a rate that was too high; never by accident.
# How a step is cut for the card (accum_steps, remat, attention, offload_optimizer) is compared as settled (world.py).
NUMERICS = (
    "train.learning_rate", "train.warmup_steps", "train.final_learning_rate_ratio", "train.weight_decay", "train.b1",
    "train.b2", "train.clip_norm", "train.max_spike", "train.compute_dtype", "train.loss_chunk",
)  # fmt: skip
# And these where an adaptive curriculum follows the probe's pass rates.
PROBE = ("train.num_probe", "train.validate_every_steps", "eval.max_new_tokens", "eval.batch_size")


def flatten(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"num_steps": 1}} -> {"train.num_steps": 1}; tuples become lists, as in JSON."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of a resolved configuration that must not change within a run."""
    is_identity = lambda key: any(key == name or key.startswith(name + ".") for name in IDENTITY)
    return {key: value for key, value in flatten(config).items() if is_identity(key)}


def numerics(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of a resolved configuration that change only where checkpoint.allow_changes says so."""
    flat = flatten(config)
    names = NUMERICS + (PROBE if flat["data.curriculum"] == "adaptive" else ())
    return {key: value for key, value in flat.items() if key in names}


def find_changes(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Every key in which two flat dictionaries differ, in words."""
    differing = [key for key in sorted(was | now) if was.get(key) != now.get(key)]
    return [f"{key} was {was.get(key)!r}, is now {now.get(key)!r}" for key in differing]


def find_other_numbers(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Every change since a checkpoint was made that only checkpoint.allow_changes permits, in words.

    Args:
      was: the configuration that it was made with.
      now: this session's.
    """
    changes = find_changes(numerics(was), numerics(now))
    before, after = was["train"]["num_steps"], now["train"]["num_steps"]
    if after < before:
        changes.append(f"train.num_steps was {before}, is now {after}, which is shorter")
    return changes


def refuse_other(was: dict[str, Any], now: dict[str, Any], where: Path) -> None:
    """Raises OtherRunError with every key in which two identities differ."""
    if changes := find_changes(was, now):
        raise OtherRunError(
            f"{where} belongs to another run: {'; '.join(changes)}. Go back to those values, or start a run of its own "
            f"with --config.workdir=<another folder>"
        )


def refuse_changes(changes: list[str], allowed: bool, where: Path) -> None:
    """Raises OtherRunError if there are changes, unless checkpoint.allow_changes has `allowed` them."""
    if changes and not allowed:
        raise OtherRunError(
            f"{where} was trained otherwise: {'; '.join(changes)}. From here on it would not have the numbers of the "
            f"run that was begun. Go back, or go on all the same with --config.checkpoint.allow_changes=true, which "
            f"{events.FILE} will tell"
        )


def claim(workdir: Path, config: dict[str, Any]) -> None:
    """Makes workdir this run's own and writes config.json; on a later session notes what has changed.

    Raises:
      OtherRunError: the folder belongs to a run with another identity, or one that was trained with other numbers.
      DamagedError: config.json cannot be read.
    """
    path = workdir / "config.json"
    config = {key: value for key, value in config.items() if key != "recipe"}  # how it was chosen, not what it is
    if path.exists():
        was = _read_config(path)
        refuse_other(identity(was), identity(config), workdir)
        if any((workdir / "checkpoints").glob("[0-9]*")):  # before the first there are no numbers yet
            changes = find_changes(numerics(was), numerics(config))
            refuse_changes(changes, config["checkpoint"]["allow_changes"], workdir)
        before, after = flatten(was), flatten(config)
        if before == after:
            return
        for key in sorted(before | after):
            if before.get(key) != after.get(key):
                print(f"changed since the last session: {key} {before.get(key)!r} -> {after.get(key)!r}")
    write_json(path, config)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        identity(config), numerics(config)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedError(
            f"{path} is damaged ({type(error).__name__}: {str(error)[:100]}); it holds the settings of this run. Put "
            f'back a copy, for instance "config" of checkpoints/<newest step>/meta/metadata there'
        ) from error
    return config


@contextlib.contextmanager
def locked(workdir: Path):
    """Creates the folder and keeps it to this process: two runs in one folder would mix their checkpoints.

    The lock is the kernel's: it goes with the process that holds it, however that ends, so that none is ever stale. The
    file says whose it is.

    Raises:
      UserError: the folder is no run's or cannot be made.
      OtherRunError: another process works in it.
    """
    ours = (workdir / "config.json").exists()
    if not ours and workdir.is_dir() and any(e.name not in (LOCK, "config.json.tmp") for e in workdir.iterdir()):
        raise UserError(
            f"{workdir} is not empty and is not a run's folder (no config.json); nothing was written. "
            f"Choose another with --config.workdir=<folder>"
        )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        lock = (workdir / LOCK).open("a+")
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(
            f"cannot create {workdir}: {error.strerror}; choose another with --config.workdir=<folder>"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise OtherRunError(
                f"another process is at work in {workdir}: {lock.read().strip() or 'it has not said which'}; wait for "
                f"it, or choose another folder with --config.workdir=<folder>"
            ) from error
        lock.truncate(0)
        lock.write(f"pid {os.getpid()} on {platform.node()}\n")
        lock.flush()
        yield


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes atomically: a killed process leaves the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def require_disk(folder: Path, num_bytes: int, what: str) -> None:
    """Raises ShortageError unless `num_bytes` are free where `folder` is."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise ShortageError(
            f"{what} needs {num_bytes / 1e6:,.1f} MB, {folder} has {free / 1e6:,.1f} MB free; make room, lower "
            f"checkpoint.keep, or choose another disk with --config.workdir=<folder>"
        )
