"""Checksums of a folder's files, in checksums.json beside them: what was written is what is read.

SHA-256, as shards.json and the Hugging Face hub have it: processors compute it in hardware, 1.1 GB/s on one Xeon core,
and several files go at a time. A CRC is twice as fast and too short to tell two data sets apart, which these numbers
are for as well; faster long hashes would be one more dependency.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tiny_reasoning_jax.errors import DamagedError

FILE = "checksums.json"
_THREADS = min(8, os.cpu_count() or 1)  # hashing lets other threads run; more would only make a disk seek
_SHOWN = 12  # hex digits of a checksum in messages
_MAX_TOLD = 5  # damaged files named in a message


def hash_files(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256, in hex digits, of each of the files `names` in `folder`, in sorted order.

    Raises:
      OSError: one cannot be read.
    """
    names = sorted(names)

    def hash_one(name: str) -> str:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(names, pool.map(hash_one, names), strict=True))


def create(folder: Path, within: Sequence[str] = ("",)) -> None:
    """Writes checksums.json for all files in `folder`, or in those of its folders that `within` names.

    Raises:
      OSError: a file cannot be read, or the disk is full.
    """
    paths = [path for part in within for path in (folder / part).rglob("*") if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in paths if path != folder / FILE]
    sums = hash_files(folder, names)
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": digest} for name, digest in sums.items()}
    temporary = folder / f"{FILE}.tmp"
    temporary.write_text(json.dumps({"files": files, "sha256": _seal(files)}, indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / FILE)


def find_damage(folder: Path, within: Sequence[str] = ("",)) -> list[str]:
    """What is wrong with the files that checksums.json of `folder` lists, a line each; empty if nothing is.

    Args:
      folder: where checksums.json lies.
      within: look only at what lies in these of its folders.
    """
    try:
        files = _load(folder)
    except DamagedError as error:
        return [str(error)]
    heads = tuple(f"{part}/" if part else "" for part in within)
    files = {name: facts for name, facts in files.items() if name.startswith(heads)}
    damage, whole = [], []
    for name, facts in files.items():
        path = folder / name
        if not path.is_file():
            damage.append(f"{name} is missing, {facts['bytes']:,} bytes were written")
        elif (there := path.stat().st_size) != facts["bytes"]:
            damage.append(f"{name} has {there:,} bytes, {facts['bytes']:,} were written")
        else:
            whole.append(name)
    try:
        sums = hash_files(folder, whole)
    except OSError as error:
        return [*damage, f"{error.filename} cannot be read ({error.strerror})"]
    for name, found in sums.items():
        if found != (wrote := files[name]["sha256"]):
            damage.append(f"{name} has the SHA-256 {found[:_SHOWN]}..., {wrote[:_SHOWN]}... was written")
    return damage


def tell(damage: Sequence[str]) -> str:
    """`find_damage`'s lines as a part of a sentence."""
    more = f"; and {len(damage) - _MAX_TOLD} more" if len(damage) > _MAX_TOLD else ""
    return "; ".join(damage[:_MAX_TOLD]) + more


def content(folder: Path, part: str) -> str:
    """One checksum for all that `folder`/`part` held when its checksums were written: equal for equal content.

    Raises:
      DamagedError: checksums.json cannot be used.
    """
    return _seal({name: facts for name, facts in _load(folder).items() if name.startswith(f"{part}/")})[:16]


def _seal(files: dict[str, dict]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _load(folder: Path) -> dict[str, dict]:
    path = folder / FILE
    if not path.is_file():
        raise DamagedError(f"{FILE} is missing")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = content["files"]
        if content["sha256"] != _seal(files):
            raise ValueError("its own checksum is wrong")
        outside = [name for name in files if Path(name).is_absolute() or ".." in Path(name).parts]
        if outside or not all(isinstance(f["bytes"], int) and isinstance(f["sha256"], str) for f in files.values()):
            raise ValueError("it lists what no folder holds")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{FILE} is not what was written ({str(error)[:100]})") from error
    return files
