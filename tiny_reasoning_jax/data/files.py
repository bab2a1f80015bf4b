"""Records out of files, a bounded piece at a time: JSON lines, JSON, Parquet; the first two also as .gz.

A JSON line stands alone: one that is damaged or too large costs itself. A JSON array and a Parquet file are one piece;
where they are damaged everything behind is lost, so that is the user's to decide, and an error.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tiny_reasoning_jax.data.problems import Dropped
from tiny_reasoning_jax.errors import UserError

MAX_RECORD_BYTES = 64 << 20  # a longer record is refused without reading it whole; no reasoning is as long
SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")

Raw = tuple[str, object] | Dropped  # id and decoded record, or why there is none

_PIECE = 1 << 20  # bytes or characters read at a time
_FIRST_LINE = 1 << 20  # bytes; in a .json file a longer first line is not taken for the first of many
_ROWS = 8  # of a Parquet file, decoded at a time: a value that stands there once can be every row's
_SPACE = re.compile(r"[ \t\r\n]*")


class _Damaged(Exception):
    """Says what is wrong in a file; never leaves this module."""


def read_file(path: Path, name: str) -> Iterator[Raw]:
    """Yields the records of one file as ("<name>:<line or row, from 1>", record). An empty file has none.

    Raises:
      UserError: while reading, if the file is damaged so that what is behind cannot be read.
    """
    reader = _read_parquet if path.name.endswith(".parquet") else _read_json
    if ".jsonl" in path.suffixes[-2:]:
        reader = _read_lines
    num_records = 0
    try:
        if path.stat().st_size:
            for raw in reader(path, name):
                num_records += 1
                yield raw
    except (_Damaged, OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{str(path)!r} cannot be read on after {num_records:,} records: {error}. Get the file again, or take it "
            "out; of JSON lines (.jsonl), one record a line, only the damaged lines would be lost"
        ) from error


def _open(path: Path) -> BinaryIO:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


def _read_lines(path: Path, name: str) -> Iterator[Raw]:
    """Reads JSON lines; blank lines are no records."""
    number = 0
    with _open(path) as lines:
        while line := lines.readline(MAX_RECORD_BYTES + 1):
            number += 1
            if len(line) > MAX_RECORD_BYTES:
                while line and not line.endswith(b"\n"):
                    line = lines.readline(_PIECE)
                yield Dropped(f"{name}:{number}", "record too large", detail=f"over {MAX_RECORD_BYTES >> 20} MiB")
            elif not line.isspace():
                try:
                    yield f"{name}:{number}", json.loads(line)
                except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested beyond reason
                    yield Dropped(f"{name}:{number}", "not JSON", detail=str(error)[:100])


def _read_json(path: Path, name: str) -> Iterator[Raw]:
    """Reads [record, ...], {"data": [record, ...]}, one record alone, or JSON lines with the wrong suffix."""
    if _starts_with_a_line(path):
        yield from _read_lines(path, name)
        return
    # An invalid byte becomes half a surrogate pair, which makes its record unusable and no other.
    with _open(path) as file, io.TextIOWrapper(file, "utf-8-sig", "surrogateescape") as text:
        scan = _Scanner(text)
        if scan.peek() == "{":
            fields, has_data = {}, False
            for key in scan.keys():
                if key == "data" and scan.peek() == "[":
                    yield from _number(scan.elements(), name)
                    has_data = True
                else:
                    fields[key] = scan.value()
            if not has_data:
                yield f"{name}:1", fields
        else:
            yield from _number(scan.elements(), name)
        if scan.peek():
            raise _Damaged(f"more text behind the end of its JSON, at {scan.place()}")


def _number(records: Iterator, name: str) -> Iterator[Raw]:
    for number, record in enumerate(records, start=1):
        yield f"{name}:{number}", record


def _starts_with_a_line(path: Path) -> bool:
    """Returns whether the first line is a record by itself, as in JSON lines."""
    with _open(path) as lines:
        line = lines.readline(_FIRST_LINE)
        while line.isspace():
            line = lines.readline(_FIRST_LINE)
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return isinstance(record, dict) and not isinstance(record.get("data"), list)


class _Scanner:
    """Walks through JSON text of any length and holds no more of it than one value and a piece."""

    def __init__(self, text: io.TextIOBase):
        self._text, self._buffer, self._at, self._passed = text, "", 0, 0
        self._decode = json.JSONDecoder().raw_decode

    def place(self) -> str:
        """Says where it stands."""
        return f"character {self._passed + self._at:,}"

    def peek(self) -> str:
        """Returns the next character that is no space, "" at the end."""
        while True:
            self._at = _SPACE.match(self._buffer, self._at).end()
            if self._at < len(self._buffer) or not self._fill(_PIECE):
                return self._buffer[self._at : self._at + 1]

    def value(self) -> object:
        """Returns the next whole value."""
        self.peek()
        while True:
            is_last = False
            try:
                value, end = self._decode(self._buffer, self._at)
            except (ValueError, RecursionError) as error:
                reason, end = getattr(error, "msg", "nested too deeply"), None
            size = len(self._buffer) - self._at
            # At the very end of the buffer a number may go on; a longer one may complete what was none.
            if end is not None and end < len(self._buffer):
                break
            if size <= MAX_RECORD_BYTES:
                is_last = not self._fill(max(_PIECE, size))  # doubled, so that the work stays linear
            if end is None and (is_last or size > MAX_RECORD_BYTES):
                raise _Damaged(f"no JSON value at {self.place()} ({reason}, or longer than any record may be)")
            if is_last:
                break
        self._at = end
        return value

    def elements(self) -> Iterator[object]:
        """Yields the elements of the array that begins here."""
        self._take("[")
        if self.peek() != "]":
            yield self.value()
            while self.peek() == ",":
                self._take(",")
                yield self.value()
        self._take("]")

    def keys(self) -> Iterator[str]:
        """Yields the keys of the object that begins here; whoever asks for the next has taken the value."""
        self._take("{")
        while self.peek() != "}":
            key = self.value()
            self._take(":")
            yield key
            if self.peek() != "}":
                self._take(",")
        self._take("}")

    def _take(self, char: str) -> None:
        found = self.peek()
        if found != char:
            raise _Damaged(f"{found!r} in place of {char!r} at {self.place()}" if found else f"it ends before {char!r}")
        self._at += 1

    def _fill(self, size: int) -> bool:
        more = self._text.read(size)
        self._passed += self._at
        self._buffer, self._at = self._buffer[self._at :] + more, 0
        return bool(more)


def _read_parquet(path: Path, name: str) -> Iterator[Raw]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f'{str(path)!r} needs pyarrow: pip install "tiny_reasoning_jax[hub]", or give the records as JSON lines'
        ) from error
    try:
        # Without these two it holds whole row groups, and most files are a single one.
        bounded = {"pre_buffer": False, "buffer_size": _PIECE}
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True, **bounded) as file:
            first = 1
            for batch in file.iter_batches(batch_size=_ROWS):
                yield from _read_rows(batch, name, first)
                first += batch.num_rows
    # pyarrow lets through what Python raises, where a column's name is no UTF-8 for instance.
    except (pyarrow.ArrowException, ValueError, TypeError, LookupError, OverflowError) as error:
        raise _Damaged(str(error)) from error


def _read_rows(batch, name: str, first: int) -> Iterator[Raw]:
    """Yields the rows of a batch; one by one where they are large, or where one of them is damaged."""
    failed = None
    if batch.nbytes <= MAX_RECORD_BYTES:
        try:
            yield from ((f"{name}:{row}", record) for row, record in enumerate(batch.to_pylist(), start=first))
            return
        except UnicodeDecodeError:
            failed = "invalid characters", "not UTF-8"
        except (
            ValueError,
            OverflowError,
            LookupError,
            RecursionError,
        ) as error:  # a time in the year 60,000, no such zone
            failed = "unreadable value", str(error)[:100]
    if batch.num_rows > 1:
        for index in range(batch.num_rows):
            yield from _read_rows(batch.slice(index, 1), name, first + index)
    else:
        reason, detail = failed or ("record too large", f"over {MAX_RECORD_BYTES >> 20} MiB")
        yield Dropped(f"{name}:{first}", reason, detail=detail)
