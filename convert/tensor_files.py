"""Safetensors files, one tensor at a time: an 8-byte length, a JSON header, and the tensors' bytes one after
the other.

Read and written with plain file calls instead of a memory map, so that a process never holds more than the
tensor at hand. It refuses truncated files and data types that are not plain floats.
"""

import collections
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from tiny_reasoning_jax.errors import UserError

DTYPES = {"BF16": np.dtype(ml_dtypes.bfloat16), "F16": np.dtype(np.float16), "F32": np.dtype(np.float32)}
SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
MAX_HEADER_BYTES = 100 * 2**20  # the format's own limit


class StoredTensor(NamedTuple):
    """Where a tensor lies: bytes start..stop of a file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_json(path: Path) -> dict[str, Any]:
    """Parses a JSON file.

    Raises:
      UserError: missing or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; give the folder that holds a whole Hugging Face model") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}); fetch the file again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a JSON {type(content).__name__}, an object was expected; fetch the file again")
    return content


def list_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder: those its index names, or the single file.

    Raises:
      UserError: there are none, or some of them are missing.
    """
    if (folder / INDEX_FILE).is_file():
        weight_map = read_json(folder / INDEX_FILE).get("weight_map") or {}
        files = [folder / name for name in sorted(set(weight_map.values()))]
        missing = [file.name for file in files if not file.is_file()]
        if missing or not files:
            raise UserError(
                f"{folder / INDEX_FILE} names {len(files)} files, of which {', '.join(missing) or 'all'} are "
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
        weight_map = read_json(folder / INDEX_FILE)["weight_map"]
        for name, file_name in weight_map.items():
            if name not in found or (found[name].file.name != file_name and name not in twice):
                problems.append(f"{name} is not in {file_name}, where the index says it is")
    if problems:
        raise UserError(f"{folder / INDEX_FILE} and its files disagree: {'; '.join(problems)}; fetch them again")
    return found


def read_header(file: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Name -> place of every tensor in one file, and the file's metadata.

    Raises:
      UserError: not a safetensors file, or shorter than its header says.
    """
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise UserError(
                f"{file} ({size} bytes) is not a safetensors file: its first 8 bytes announce a header of "
                f"{length} bytes. A Git LFS pointer looks like this, and so does an interrupted download; "
                "fetch the file itself"
            )
        try:
            header = json.loads(stream.read(length))
            metadata = header.pop("__metadata__", {})
            tensors = {
                name: StoredTensor(
                    file,
                    entry["dtype"],
                    tuple(entry["shape"]),
                    8 + length + entry["data_offsets"][0],
                    8 + length + entry["data_offsets"][1],
                )
                for name, entry in header.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"the header of {file} cannot be read ({error}); fetch the file again") from error
    end = max((tensor.stop for tensor in tensors.values()), default=0)
    if end > size:
        raise UserError(
            f"{file} is cut off: {size} bytes, and its header places tensors up to byte {end}; fetch it again"
        )
    return tensors, metadata


def read_tensor(tensor: StoredTensor) -> np.ndarray:
    """Reads one tensor in the dtype it is stored in, which must be one of DTYPES.

    Raises:
      UserError: its place in the file does not hold its shape.
    """
    array = np.empty(tensor.shape, DTYPES[tensor.dtype])
    if array.nbytes != tensor.stop - tensor.start:
        raise UserError(
            f"{tensor.file}: {tensor.stop - tensor.start} bytes are set aside for a {tensor.dtype} tensor of "
            f"shape {list(tensor.shape)}, which has {array.nbytes}; fetch the file again"
        )
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
