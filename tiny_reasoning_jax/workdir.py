"""A run's folder: who owns it, what may change between sessions, and the facts kept in it."""

import contextlib
import fcntl
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from tiny_reasoning_jax.errors import OtherRunError, ShortageError, UserError

LOCK = ".lock"
# Keys that decide what the run is. A session with others would go on with a different experiment under the same name.
IDENTITY = (
    "seed", "model", "tokenizer", "data.source", "data.format", "data.weights", "data.test_source", "data.num_problems",
    "data.num_validation", "data.num_test", "data.category_quotas", "data.near_duplicates",
    "data.decontamination_ngram", "data.difficulty", "data.grades", "data.curriculum", "data.control", "train.seq_len",
    "train.batch_size", "train.master", "train.moments",
)  # fmt: skip


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


def refuse_other(was: dict[str, Any], now: dict[str, Any], where: Path) -> None:
    """Raises OtherRunError with every key in which two identities differ."""
    differing = [key for key in sorted(was | now) if was.get(key) != now.get(key)]
    if differing:
        changes = "; ".join(f"{key} was {was.get(key)!r}, is now {now.get(key)!r}" for key in differing)
        raise OtherRunError(
            f"{where} belongs to another run: {changes}. Go back to those values, or start a run of its own with "
            f"--config.workdir=<another folder>"
        )


def claim(workdir: Path, config: dict[str, Any]) -> None:
    """Makes workdir this run's own and writes config.json; on a later session notes what has changed.

    Raises:
      OtherRunError: the folder belongs to a run with another identity.
    """
    path = workdir / "config.json"
    config = {key: value for key, value in config.items() if key != "recipe"}  # how it was chosen, not what it is
    if path.exists():
        was = json.loads(path.read_text(encoding="utf-8"))
        refuse_other(identity(was), identity(config), workdir)
        before, after = flatten(was), flatten(config)
        if before == after:
            return
        for key in sorted(before | after):
            if before.get(key) != after.get(key):
                print(f"changed since the last session: {key} {before.get(key)!r} -> {after.get(key)!r}")
    write_json(path, config)


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
            f"{what} needs {num_bytes / 1e9:.2f} GB, {folder} has {free / 1e9:.2f} GB free; make room, lower "
            f"checkpoint.keep, or choose another disk with --config.workdir=<folder>"
        )
