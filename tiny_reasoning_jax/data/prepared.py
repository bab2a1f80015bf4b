"""The prepared form of a split: tokens in ArrayRecord shards, everything that planning needs in index arrays.

    tokens-00000.array_record ...   one record an example, in order, 40 to 80 MB a shard
    lengths.npy ...                 the index: one array for each attribute of `PreparedSplit`, memory-mapped
    shards.json                     name, examples, bytes and sha256 of each shard

A record is the id's length in bytes (uint32), the id (UTF-8), and the tokens (int32); integers are little-endian. The
tokens are the rendered prompt, then the completion, which ends with the end-of-turn token. Size costs no memory: 21
bytes an example while writing, the shards' own index (8 bytes an example) while reading. ArrayRecord is Grain's format,
so `grain.sources.ArrayRecordDataSource` reads the shards too; one record at a time it takes up to 15 times as
long as seeking here, and its batches need threads. Refused: a folder whose shards and index disagree.
"""

import bisect
import errno
import hashlib
import itertools
import json
import os
import threading
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from tiny_reasoning_jax.errors import DamagedError

# A group is what has to be read for one record. Measured on GSM8K and on traces of 6,600 tokens: zstd:1 takes 0.6 and
# 0.3 of the disk and still reads more than 10 million tokens/s on one core; uncompressed reads 3 to 5 times faster.
_WRITER_OPTIONS = "group_size:1,zstd:1"
# No read-ahead: the order is random. No parallelism: without threads a reader survives a fork.
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_READ_BUFFER = 32_768
_SHARD_BYTES = 128_000_000  # before compression
_ID_BYTES = 4

# The index arrays.
_INDEX = {
    "lengths": np.int32,
    "prompt_lengths": np.int32,
    "difficulty": np.int8,
    "source": np.int16,
    "category": np.int16,
    "prompt_hash": np.uint64,
}


class SplitWriter:
    """Writes a split, example after example; the folder is whole once `close` has returned.

    As a context manager it closes at the end of the block, and leaves a half-written folder if the block fails.

    Attributes:
      lengths, prompt_lengths: tokens of each example so far, and how many of them are its prompt's.
      difficulties: array("b"), an entry for each example so far; may be changed or replaced until `close`.
      shards: of each finished shard {"file": name, "examples": int, "bytes": int, "sha256": hex digits}.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.lengths, self.prompt_lengths, self.difficulties = array("i"), array("i"), array("b")
        self._sources, self._categories, self._prompt_hashes = array("h"), array("h"), array("Q")
        self.shards: list[dict] = []
        self._shard: ArrayRecordWriter | None = None
        self._shard_bytes = self._shard_examples = 0

    def add(
        self,
        example_id: str,
        prompt: Sequence[int],
        completion: Sequence[int],
        *,
        difficulty: int,
        source: int,
        category: int,
        prompt_hash: int,
    ) -> None:
        """Appends an example.

        Args:
          example_id: the problem's id.
          prompt: token ids of the rendered prompt.
          completion: token ids that are trained, at least one; the last is the end of turn.
          difficulty: 1 to 5, or anything else that will be replaced in `difficulties`.
          source: index of its source.
          category: index of its category.
          prompt_hash: 64 bits that are equal for equal prompts.

        Raises:
          OSError: the shard cannot be written, for instance because the disk is full.
        """
        assert len(completion), "an example without completion trains nothing"
        name = example_id.encode()
        tokens = np.asarray(array("i", [*prompt, *completion]), "<i4").tobytes()  # array takes a list twice as fast
        record = len(name).to_bytes(_ID_BYTES, "little") + name + tokens
        if self._shard is None:
            self._shard = ArrayRecordWriter(str(self._shard_path()), _WRITER_OPTIONS)
        try:
            self._shard.write(record)
        except RuntimeError as error:
            raise _as_os_error(error, self._shard_path()) from error
        if not self._shard.ok():  # the error of an earlier record, which `close` raises
            self._close_shard()
        self._shard_bytes += len(record)
        self._shard_examples += 1
        self.lengths.append(len(prompt) + len(completion))
        self.prompt_lengths.append(len(prompt))
        self.difficulties.append(difficulty)
        self._sources.append(source)
        self._categories.append(category)
        self._prompt_hashes.append(prompt_hash)
        if self._shard_bytes >= _SHARD_BYTES:
            self._close_shard()

    def close(self) -> list[dict]:
        """Finishes the files and returns `shards`.

        Raises:
          OSError: a file cannot be written, for instance because the disk is full.
        """
        if self._shard is not None:
            self._close_shard()
        columns = (self.lengths, self.prompt_lengths, self.difficulties)
        columns += (self._sources, self._categories, self._prompt_hashes)
        for (name, dtype), column in zip(_INDEX.items(), columns, strict=True):
            np.save(self._folder / f"{name}.npy", np.frombuffer(column, dtype))
        (self._folder / "shards.json").write_text(json.dumps(self.shards, indent=1) + "\n", encoding="utf-8")
        return self.shards

    def _shard_path(self) -> Path:
        return self._folder / f"tokens-{len(self.shards):05d}.array_record"

    def _close_shard(self) -> None:
        path, shard, self._shard = self._shard_path(), self._shard, None
        try:
            shard.close()
        except RuntimeError as error:
            raise _as_os_error(error, path) from error
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        facts = {"file": path.name, "examples": self._shard_examples, "bytes": path.stat().st_size, "sha256": sha256}
        self.shards.append(facts)
        self._shard_bytes = self._shard_examples = 0

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        if error_type is None:
            self.close()


def _as_os_error(error: RuntimeError, path: Path) -> Exception:
    """Returns the OSError that array_record reports as text only, or the error itself if it names none."""
    for code in errno.errorcode:
        if f"failed: {os.strerror(code)};" in str(error):
            return OSError(code, os.strerror(code), str(path))
    return error


class PreparedSplit:
    """Tokenised examples of one split, on disk. Index arrays have an entry for each example.

    Threads may share it; it survives a fork, and pickles as its folder's name.

    Attributes:
      lengths: int32, tokens of the example.
      prompt_lengths: int32, how many of them belong to the prompt and are not trained.
      difficulty: int8, 1 to 5.
      source: int16, index of its source in the data's summary.
      category: int16, index of its category in the data's summary.
      prompt_hash: uint64, equal for equal prompts.
    """

    def __init__(self, folder: Path, index: dict[str, np.ndarray], readers: list[ArrayRecordReader], ends: list[int]):
        self._folder, self._readers, self._ends = folder, readers, ends
        self._lock = threading.Lock()
        self.lengths, self.prompt_lengths = index["lengths"], index["prompt_lengths"]
        self.difficulty, self.source, self.category = index["difficulty"], index["source"], index["category"]
        self.prompt_hash = index["prompt_hash"]

    @classmethod
    def load(cls, folder: Path) -> "PreparedSplit":
        """Opens a split; the tokens stay on disk.

        Raises:
          DamagedError: a file is missing or cut short, or shards and index disagree.
        """
        try:
            shards = json.loads((folder / "shards.json").read_text(encoding="utf-8"))
            ends = list(itertools.accumulate(_check_shard(number, shard) for number, shard in enumerate(shards)))
            mode = "r" if shards else None  # an empty file cannot be mapped
            index = {name: _load_column(folder / f"{name}.npy", mode, dtype) for name, dtype in _INDEX.items()}
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise _damaged(folder, str(error)) from error
        num_examples = ends[-1] if ends else 0
        for name, column in index.items():
            if len(column) != num_examples:
                raise _damaged(folder, f"{name}.npy has {len(column):,} examples, the shards have {num_examples:,}")
        lengths, prompt_lengths = index["lengths"], index["prompt_lengths"]
        if num_examples and (prompt_lengths.min() < 0 or (prompt_lengths > lengths).any()):
            raise _damaged(folder, "an example is shorter than its prompt")
        return cls(folder, index, [_open_shard(folder, shard) for shard in shards], ends)

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, examples: Sequence[int]) -> list[tuple[str, np.ndarray]]:
        """Returns (id, tokens int32 [lengths[i]], read-only) of each example i, in the order asked for.

        Raises:
          DamagedError: a record is damaged, or has another length than the index says.
        """
        found = []
        with self._lock:  # a reader has one place
            for example in examples:
                shard = bisect.bisect_right(self._ends, example)
                reader = self._readers[shard]
                try:
                    reader.seek(int(example) - (self._ends[shard - 1] if shard else 0))
                    record = reader.read()
                    begin = _ID_BYTES + int.from_bytes(record[:_ID_BYTES], "little")
                    name, tokens = record[_ID_BYTES:begin].decode(), np.frombuffer(record, "<i4", offset=begin)
                    if len(tokens) != self.lengths[example]:
                        raise ValueError(f"{len(tokens):,} tokens, the index says {self.lengths[example]:,}")
                except (ValueError, RuntimeError, IndexError) as error:  # RuntimeError: array_record, a false checksum
                    what = f"example {int(example):,} in tokens-{shard:05d}.array_record ({str(error)[:300]})"
                    raise _damaged(self._folder, what) from error
                found.append((name, tokens))
        return found

    def __reduce__(self):
        return PreparedSplit.load, (self._folder,)


def _check_shard(number: int, shard: dict) -> int:
    """Returns a shard's number of examples; raises ValueError where its entry is not one that `SplitWriter` makes."""
    if shard["file"] != f"tokens-{number:05d}.array_record":  # no other name: nothing outside the folder is opened
        raise ValueError(f"shard {number} of shards.json is {str(shard['file'])[:80]!r}")
    if not all(type(shard[key]) is int and shard[key] >= 0 for key in ("examples", "bytes")):
        raise ValueError(f"shard {number} of shards.json has no proper number of examples and bytes")
    return shard["examples"]


def _load_column(path: Path, mode: str | None, dtype: np.dtype) -> np.ndarray:
    try:
        column = np.load(path, mmap_mode=mode, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # NumPy's reader of headers lets through what Python's tokenizer raises
        raise ValueError(f"{path.name} is no array ({error})") from error
    if not isinstance(column, np.ndarray) or column.ndim != 1 or column.dtype != dtype:
        raise ValueError(f"{path.name} is no list of {np.dtype(dtype).name}")
    return np.asarray(column)  # a plain view: indexing an np.memmap costs microseconds more


def _open_shard(folder: Path, shard: dict) -> ArrayRecordReader:
    path = folder / shard["file"]
    there = path.stat().st_size if path.is_file() else 0
    if there != shard["bytes"]:
        raise _damaged(folder, f"{shard['file']} has {there:,} bytes instead of {shard['bytes']:,}")
    reader = ArrayRecordReader(str(path), _READER_OPTIONS, file_reader_buffer_size=_READ_BUFFER)
    if not reader.ok() or reader.num_records() != shard["examples"]:
        raise _damaged(folder, f"{shard['file']} does not have the {shard['examples']:,} examples of shards.json")
    return reader


def _damaged(folder: Path, what: str) -> DamagedError:
    return DamagedError(f"{folder} is damaged: {what}. Delete {folder.parent} and run the data stage again")
