"""Completions on disk as they come, so that an evaluation that is stopped or killed asks for none a second time.

The first line holds the settings: everything that decides what a model writes, but not how it is judged. Each other
line is one completion, found again by its prompt's token ids and the number of the sample.

It refuses to mix settings: a journal of others is set aside under another name, and said so.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.workdir import flatten

log = logging.getLogger(__name__)


class Written(NamedTuple):
    """What a model wrote.

    Attributes:
      text: special tokens such as <think> as written; without the end of turn, and what a base model wrote on behind
        the end of its answer.
      num_tokens: of the text, and the end of turn not.
      logp: sum of the log-probabilities of the tokens and of the end of turn.
      truncated: there was no end within the longest completion.
    """

    text: str
    num_tokens: int
    logp: float
    truncated: bool


def make_key(prompt: Sequence[int], stops: Sequence[str], sample: int) -> str:
    """Names one completion under given settings: of which prompt, up to which texts, and the how-manieth."""
    digest = hashlib.sha256(json.dumps([list(prompt), list(stops)]).encode()).hexdigest()
    return f"{digest[:24]}-{sample}"


class Journal:
    """Keeps completions in a file. A context manager; what `add` has returned from outlives a kill."""

    def __init__(self, path: Path, settings: dict[str, Any]):
        """Opens the file, or begins it.

        Args:
          path: the file; its folder exists.
          settings: JSON; two evaluations with equal ones may use each other's completions.

        Raises:
          UserError: the file was changed by hand.
        """
        self.path = path
        self._kept: dict[str, Written] = {}
        settings = json.loads(json.dumps(settings))
        if not self._read(settings):
            path.write_text(json.dumps({"settings": settings}) + "\n", encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def get(self, key: str) -> Written | None:
        """Returns a completion that is kept, or None."""
        return self._kept.get(key)

    def add(self, key: str, written: Written) -> None:
        """Writes a completion down."""
        self._kept[key] = written
        self._file.write(json.dumps({"key": key, **written._asdict()}) + "\n")
        self._file.flush()

    def _read(self, settings: dict[str, Any]) -> bool:
        """Reads what is there; False where the file is to be begun."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        if lines and not lines[-1].endswith(b"\n"):
            os.truncate(self.path, sum(map(len, lines[:-1])))  # the process was killed while it wrote this line
            lines.pop()
        if not lines:
            return False
        try:
            was = json.loads(lines[0])["settings"]
            kept = [json.loads(line) for line in lines[1:]] if was == settings else []
            self._kept = {line.pop("key"): Written(**line) for line in kept}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path} was changed since it was written ({error}); delete it") from error
        if was != settings:
            self._set_aside(was, settings)
        return was == settings

    def _set_aside(self, was: dict[str, Any], now: dict[str, Any]) -> None:
        other = self.path.with_name(f"{self.path.stem}.other.jsonl")
        os.replace(self.path, other)
        was, now = flatten(was), flatten(now)
        changes = "; ".join(
            f"{key} was {was.get(key)!r}, is now {now.get(key)!r}"
            for key in sorted(was | now)
            if was.get(key) != now.get(key)
        )
        log.info("eval: completions under other settings (%s) are set aside as %s", changes, other)
