"""MinHash signatures of problems that lie in a file, made by a process of its own: reading keeps one core busy only.

    python -m tiny_reasoning_jax.data.signing RECORDS SIGNATURES

takes lines "begin end" (bytes of RECORDS, which hold whole problems) and appends their signatures to SIGNATURES. It
ends with its input, so also when whoever started it is killed. A plain command, because a forked copy of a process with
JAX's threads may hang, and multiprocessing would import the whole program again.
"""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from tiny_reasoning_jax.data import duplicates
from tiny_reasoning_jax.data.problems import parse_problem
from tiny_reasoning_jax.errors import is_full_disk

_ROOT = Path(__file__).parents[2]
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ROWS = 1000  # signatures that are put in order at a time


class Signatures:
    """The signatures of some of a file's problems, in the order in which they were asked for."""

    def __init__(self, records: Path):
        self._records, self._path = records, records.with_suffix(".signatures")
        self._process: subprocess.Popen | None = None

    def ask(self, begin: int, end: int) -> None:
        """Asks for the problems in these bytes of the file, which must have been written; does not wait for them."""
        if self._process is None:
            command = [sys.executable, "-m", __name__, self._records.resolve(), self._path.resolve()]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=_ROOT,
                start_new_session=True,  # Ctrl-C is for this process, which ends that one
            )
        try:
            print(begin, end, file=self._process.stdin, flush=True)
        except BrokenPipeError:
            self._finish()
            raise

    def sort(self, order: np.ndarray) -> np.ndarray:
        """Waits for all; returns them in another order, uint32 [n, duplicates.NUM_COLUMNS], on disk as they are.

        Raises:
          OSError: the disk is full.
        """
        self._finish()
        shape = (len(order), duplicates.NUM_COLUMNS)
        read = np.memmap(self._path, duplicates.DTYPE, "r", shape=shape)
        if (order == np.arange(len(order))).all():
            return read
        with self._path.with_suffix(".sorted").open("wb") as file:
            for begin in range(0, len(order), _ROWS):
                file.write(read[order[begin : begin + _ROWS]].tobytes())
        self._path.with_suffix(".sorted").replace(self._path)
        return np.memmap(self._path, duplicates.DTYPE, "r", shape=shape)

    def _finish(self) -> None:
        _, told = self._process.communicate()
        if self._process.returncode in _FULL:
            raise OSError(self._process.returncode, os.strerror(self._process.returncode), self._path)
        if self._process.returncode:
            raise RuntimeError(f"signing {self._records} ended with {self._process.returncode}: {told}")

    def close(self) -> None:
        """Stops what is going on and removes the file."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._path.unlink(missing_ok=True)


def _main(records: str, signatures: str) -> None:
    with open(records, "rb") as source, open(signatures, "wb") as target:
        for line in sys.stdin:
            begin, end = map(int, line.split())
            source.seek(begin)
            problems = [parse_problem(line) for line in source.read(end - begin).splitlines()]
            signed = duplicates.sign([p.prompt for p in problems], [p.answer for p in problems])
            target.write(signed.tobytes())


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which every process of a job may get; this one ends with its input
    try:
        _main(*sys.argv[1:])
    except OSError as error:
        if not is_full_disk(error):
            raise
        sys.exit(error.errno)
