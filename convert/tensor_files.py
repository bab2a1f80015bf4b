"""Safetensors files, one tensor at a time: an 8-byte length, a JSON header, and the tensors' bytes one after
the other.

Read and written with plain file calls instead of a memory map, so that a process never holds more than the
tensor at hand. It refuses truncated files, data types that are not plain floats, and headers that say what cannot be:
memory is asked for only when a tensor's shape, its place and the file's size agree.
"""

import collections
import json
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.foreign import read_json

DTYPES = {"BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16), "F32": np.dtype(np.float32)}
SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
# The format allows 100 MB; parsed, such a header can take 25 times as much. The largest dense Qwen3 has 80 kB.
MAX_HEADER_BYTES = 16 * 2**20
MAX_AXES = 8
_NAME_BYTES = 255  # of a file's name, on every common file system
_NAMED = 100  # of many problems, how many a message names


class StoredTensor(NamedTuple):
    """Where a tensor lies: bytes start..stop of a file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def name_some(problems: list[str]) -> str:
    """The problems in one text; of very many, which a hostile file can have, the first hundred and their number."""
    more = f"; and {len(problems) - _NAMED:,} more" if len(problems) > _NAMED else ""
    return "; ".join(problem[:300] for problem in problems[:_NAMED]) + more


def list_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: those its index names, or the single file.

    Raises:
      UserError: there are none, or some of them are missing.
    """
    if (folder / INDEX_FILE).is_file():
        files = [folder / name for name in sorted(set(_read_weight_map(folder).values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing or not files:
            raise UserError(
                f"{folder / INDEX_FILE} names {len(files)} files, of which {name_some(missing) or 'all'} are "
                "missing; fetch them"
            )
        return files
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    raise UserError(
        f"no weights in {str(folder)!r}: neither {SINGLE_FILE} nor {INDEX_FILE} is there. Pickled weights "
        "(pytorch_model.bin) are not read: convert them with transformers' save_pretrained(..., "
        "safe_serialization=True)"
    )


def _read_weight_map(folder: Path) -> dict[str, str]:
    """Tensor -> file, of the index. A file is named without a folder: nothing outside the model's own is opened."""
    weight_map = read_json(folder / INDEX_FILE).get("weight_map") or {}
    if not isinstance(weight_map, dict):
        raise UserError(
            f"weight_map in {folder / INDEX_FILE} is a JSON {type(weight_map).__name__}, an object was expected; "
            "fetch the file again"
        )
    for tensor, name in weight_map.items():
        is_name = isinstance(name, str) and name not in (".", "..", "") and len(name.encode()) <= _NAME_BYTES
        if not is_name or any(char in name for char in "/\\\0"):
            raise UserError(
                f"{folder / INDEX_FILE} places {tensor[:80]!r} in {str(name)[:80]!r}, which is not the name of a file "
                "in that folder; nothing outside it is read. Fetch the index again"
            )
    return weight_map


def list_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Name -> place of every tensor in a model folder.

    Raises:
      UserError: a file is damaged, or the index and the files contradict each other.
    """
    found: dict[str, StoredTensor] = {}
    twice = []
    for file in list_files(folder):
        for name, tensor in read_header(file)[0].items():
            if name in found:
                twice.append(name)
            found[name] = tensor
    problems = [f"{name} is in two files" for name in twice]
    if (folder / INDEX_FILE).is_file():
        for name, file_name in _read_weight_map(folder).items():
            if name not in found or (found[name].file.name != file_name and name not in twice):
                problems.append(f"{name} is not in {file_name}, where the index says it is")
    if problems:
        raise UserError(f"{folder / INDEX_FILE} and its files disagree: {name_some(problems)}; fetch them again")
    return found


def read_header(file: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Name -> place of every tensor in one file, and the file's metadata.

    Raises:
      UserError: not a safetensors file, shorter than its header says, or its tensors do not lie side by side.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise UserError(
                    f"{file} ({size} bytes) is not a safetensors file: its first 8 bytes announce a header of "
                    f"{length} bytes. A Git LFS pointer looks like this, and so does an interrupted download; "
                    "fetch the file itself"
                )
            header = json.loads(stream.read(length).decode(), object_pairs_hook=_without_duplicates)
        metadata = header.pop("__metadata__", {})
        if not isinstance(metadata, dict):
            raise ValueError("__metadata__ is no object")
        tensors = {name: _parse_entry(file, name, entry, 8 + length) for name, entry in header.items()}
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); make it readable, or fetch it again") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"the header of {file} cannot be read ({error}); fetch the file again") from error
    _check_places(file, tensors, 8 + length, size)
    return tensors, metadata


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Of two tensors of one name, readers differ in which they take."""
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a name stands in it twice")
    return content


def _parse_entry(file: Path, name: str, entry: Any, begin: int) -> StoredTensor:
    """One tensor's place; `begin` is the byte behind the header, from which places are counted.

    Raises:
      ValueError, KeyError, TypeError: it is not what the format asks for.
      UserError: the place does not hold the shape.
    """
    name.encode()  # JSON can spell half of a surrogate pair, which no message could show
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(type(n) is int and 0 <= n < 2**63 for n in numbers):
            raise ValueError(f"{name[:80]!r} has a shape or place that is no list of numbers from 0 on")
    if not isinstance(dtype, str) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"{name[:80]!r} has no dtype, or ends before it begins")
    if (
        len(shape) > MAX_AXES or math.prod(max(size, 1) for size in shape) >= 2**60
    ):  # NumPy refuses this of empty ones too
        raise ValueError(f"{name[:80]!r} has more than {MAX_AXES} axes, or no possible shape")
    dtype.encode()
    start, stop = offsets
    if dtype in DTYPES and math.prod(shape) * DTYPES[dtype].itemsize != stop - start:
        raise UserError(
            f"{file}: {stop - start} bytes are set aside for a {dtype} tensor of shape {shape}, {name[:80]!r}, which "
            f"has {math.prod(shape) * DTYPES[dtype].itemsize}; fetch the file again"
        )
    return StoredTensor(file, dtype, tuple(shape), begin + start, begin + stop)


def _check_places(file: Path, tensors: dict[str, StoredTensor], begin: int, size: int) -> None:
    """As the format asks for, tensors fill the file from the header to its end, none over another."""
    end = max((tensor.stop for tensor in tensors.values()), default=begin)
    if end > size:
        raise UserError(
            f"{file} is cut off: {size} bytes, and its header places tensors up to byte {end}; fetch it again"
        )
    place = begin
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if tensor.start != place:
            where = "on top of another tensor" if tensor.start < place else f"{tensor.start - place} bytes behind it"
            raise UserError(f"{file}: {name[:80]!r} lies {where}, not next to the one before; fetch the file again")
        place = tensor.stop
    if place != size:
        raise UserError(f"{file} has {size - place} bytes that belong to no tensor of its header; fetch it again")


def read_tensor(tensor: StoredTensor) -> np.ndarray:
    """Reads one tensor in the dtype it is stored in, which must be one of DTYPES.

    Raises:
      UserError: the file has become shorter since its header was read.
    """
    array = np.empty(tensor.shape, DTYPES[tensor.dtype])
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        num_read = stream.readinto(array.reshape(-1).view(np.uint8)) if array.size else 0
    if num_read != array.nbytes:
        raise UserError(f"{tensor.file} ended {array.nbytes - num_read} bytes early; fetch the file again")
    return array


def write_bfloat16_file(
    file: Path, shapes: dict[str, tuple[int, ...]], get_tensor: Callable[[str], np.ndarray]
) -> None:
    """Writes one file of bfloat16 tensors, asking for them one by one; returns when it is on the disk."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers 4 refuses a file that does not say this
    offset = 0
    for name, shape in shapes.items():
        stop = offset + num_bytes(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, stop]}
        offset = stop
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # tensors begin at a multiple of 8
    with file.open("wb") as stream:
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        for name, shape in shapes.items():
            tensor = get_tensor(name)
            assert tensor.shape == shape and tensor.dtype == ml_dtypes.bfloat16, (
                name,
                tensor.shape,
                tensor.dtype,
            )
            stream.write(tensor.reshape(-1).view(np.uint8).data)
        stream.flush()
        os.fsync(stream.fileno())


def num_bytes(shape: Iterable[int]) -> int:
    """Bytes of a bfloat16 tensor."""
    return 2 * int(np.prod(tuple(shape)))


def plan_shards(shapes: dict[str, tuple[int, ...]], shard_bytes: int) -> dict[str, list[str]]:
    """File name -> names of its tensors: as few files of at most `shard_bytes` as their order allows.

    A tensor larger than that gets a file of its own.
    """
    shards: list[list[str]] = []
    used = 0
    for name, shape in shapes.items():
        size = num_bytes(shape)
        if not shards or used + size > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    if len(shards) == 1:
        return {SINGLE_FILE: shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": names for i, names in enumerate(shards, 1)}


def make_index(shapes: dict[str, tuple[int, ...]], shards: dict[str, list[str]]) -> dict[str, Any]:
    """The content of model.safetensors.index.json."""
    total_size = sum(map(num_bytes, shapes.values()))
    weight_map = {name: file for file, names in shards.items() for name in names}
    metadata = collections.OrderedDict(total_parameters=total_size // 2, total_size=total_size)
    return {"metadata": metadata, "weight_map": weight_map}
