"""Foreign data: where records come from. A source is one of

    a file              .jsonl, .json, .parquet; .jsonl.gz and .json.gz
    a folder            all such files in it and below, in the order of their names
    a hub id            "org/name", "org/name:config" or "org/name:config:split"; split is "train" unless named

All are streamed: memory holds a bounded piece. A record that cannot be used becomes a `Dropped` with the reason; a
source that breaks off is an error and never taken for one that ended. What exists here comes before the hub.
"""

import dataclasses
import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

from tiny_reasoning_jax.data.files import SUFFIXES, Raw, read_file
from tiny_reasoning_jax.data.formats import check_format, parse_record
from tiny_reasoning_jax.data.hub import find_revision, parse_hub_id, stream_hub
from tiny_reasoning_jax.data.problems import Dropped, Problem
from tiny_reasoning_jax.errors import UserError

_DIGEST_CHARS = 16  # of a sha256, as a mark

# (decoded record, its id, file or hub id, format) -> its problem, why there is none, or None to pass it over.
Parse = Callable[[object, str, str, str], Problem | Dropped | None]


def read_source(
    spec: str, format: str = "auto", key: str = "data.source", prefix: str = "", parse: Parse = parse_record
) -> Iterator[Problem | Dropped]:
    """Reads a source record by record.

    Ids are "<file>:<line or row>", with the path inside the folder where a folder was given, or "<hub id>:<row>".

    Args:
      spec: the source; see the module.
      format: a name in `formats.FORMATS`, or "auto".
      key: the setting that it stands in, for messages.
      prefix: put before every id; several sources may have files of one name.
      parse: how a record becomes a problem, where a source needs a way of its own.

    Raises:
      UserError: on the call, if the source does not exist, holds no readable file or `format` is unknown; while
        reading, if a file is damaged or the hub breaks off.
    """
    check_format(format)
    files = _find_files(spec, key)
    if files is None:
        hub_id = parse_hub_id(spec)
        return _parse(((raw, hub_id.name) for raw in stream_hub(hub_id, spec, key)), format, prefix, parse)
    raws = ((raw, name) for path, name in files for raw in read_file(path, "_".join(name.split())))
    return _parse(raws, format, prefix, parse)


def _parse(raws: Iterator[tuple[Raw, str]], format: str, prefix: str, parse: Parse) -> Iterator[Problem | Dropped]:
    for raw, name in raws:
        if isinstance(raw, Dropped):
            yield dataclasses.replace(raw, id=prefix + raw.id)
        elif (record := parse(raw[1], prefix + raw[0], name, format)) is not None:
            yield record


def mark_source(spec: str, key: str = "data.source") -> str:
    """Returns what changes when the source's content does: names and sha256 of files, or the hub's revision.

    Raises:
      UserError: the source does not exist, or the hub does not tell.
    """
    files = _find_files(spec, key)
    if files is None:
        return f"{spec} at revision {find_revision(parse_hub_id(spec), spec, key)}"
    digests = []
    for path, name in files:
        with path.open("rb") as file:
            digests.append((name, hashlib.file_digest(file, "sha256").hexdigest()))
    if Path(spec).expanduser().is_file():
        return f"{digests[0][0]} with sha256 {digests[0][1][:_DIGEST_CHARS]}"
    digest = hashlib.sha256("".join(f"{name}\0{digest}\n" for name, digest in digests).encode()).hexdigest()
    return f"{Path(spec).name}, {len(digests)} files, with sha256 {digest[:_DIGEST_CHARS]}"


def is_hub_id(spec: str, key: str) -> bool:
    """Whether a source is neither file nor folder here, but has a hub id's form."""
    return _find_files(spec, key) is None


def find_test_source(spec: str) -> str | None:
    """Returns the test problems beside a source: test.jsonl beside train.jsonl, the folder test beside train; or None.

    The name must begin with "train"; everything behind it is the same ("-00000-of-00001.parquet").
    """
    path = Path(spec).expanduser()
    test = path.with_name("test" + path.name.removeprefix("train"))
    return str(test) if path.name.startswith("train") and path.exists() and test.exists() else None


def hash_prompt(prompt: str) -> int:
    """Returns 64 bits that are equal for prompts differing in letter case and white space only."""
    normal = " ".join(unicodedata.normalize("NFC", prompt).casefold().split())
    return int.from_bytes(hashlib.blake2b(normal.encode(), digest_size=8).digest(), "little")


def _find_files(spec: str, key: str) -> list[tuple[Path, str]] | None:
    """Returns a local source's files with their names inside it; None for a hub id."""
    path = Path(spec).expanduser()
    if path.is_file() and path.name.endswith(SUFFIXES):
        return [(path, _show(path.name))]
    if path.is_dir():
        return _list_folder(path, key)
    if path.exists() or path.name.endswith(SUFFIXES) or parse_hub_id(spec) is None:
        problem = "has an unknown suffix" if path.exists() else "does not exist"
        raise UserError(
            f"{key}={spec!r} {problem}; give a file ({', '.join(SUFFIXES)}), a folder of them, a hub id "
            '("org/name:config:split"), or "procedural"'
        )
    return None


_HELD_OUT = ("test", "validation", "valid", "dev", "eval")


def list_names(folder: Path) -> list[str]:
    """Files in a folder and below, in order. Hidden files and folders, such as the hub's .cache, are passed over."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return [name for name in names if not any(part.startswith(".") for part in name.split("/"))]


def _show(name: str) -> str:
    """A file's name as text: its bytes need not be any, and it becomes part of ids."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _list_folder(folder: Path, key: str) -> list[tuple[Path, str]]:
    names = list_names(folder)
    files = [(folder / name, _show(name)) for name in names if name.endswith(SUFFIXES)]
    if not files:
        others = ", ".join(sorted({Path(name).suffix or name for name in names})) or "nothing"
        raise UserError(
            f"{key}={str(folder)!r} is a folder without any {', '.join(SUFFIXES)}; it holds {others}. Give a folder "
            "with data files, or convert them to JSON lines"
        )
    held_out = [name for name in names if name.startswith(_HELD_OUT)]
    if held_out and any(name.startswith("train") for name in names):
        raise UserError(
            f"{key}={str(folder)!r} holds training and held-out files ({held_out[0]}), and a folder is read whole; "
            f"give the training files alone: one file, or a folder train beside a folder test"
        )
    return files
