"""Completions on disk as they come, so that an evaluation that is stopped or killed asks for none a second time.

The first line holds the settings: everything that decides what a model writes, but not how it is judged. Each other
line is one completion, found again by its prompt's token ids and the number of the sample.

Settings are never mixed: a file is named after its own, so that those of earlier evaluations stay and are used again
when their settings come back. Deleting them costs no more than asking again.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tiny_reasoning_jax.errors import UserError


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

    def __init__(self, folder: Path, label: str, settings: dict[str, Any]):
        """Opens the file of these settings, or begins it: journal-<label>-<hash of the settings>.jsonl.

        Args:
          folder: where it lies; exists.
          label: whose completions they are.
          settings: JSON; two evaluations with equal ones may use each other's completions.

        Raises:
          UserError: the file was changed by hand.
        """
        content = json.dumps({"settings": settings}, sort_keys=True)
        self.path = folder / f"journal-{label}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.jsonl"
        self._kept: dict[str, Written] = {}
        if not self._read(json.loads(content)):
            self.path.write_text(content + "\n", encoding="utf-8")
        self._file = self.path.open("a", encoding="utf-8")

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

    def _read(self, begins_with: dict[str, Any]) -> bool:
        """Reads what is there; False where the file is to be begun."""
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        if lines and not lines[-1].endswith(b"\n"):
            os.truncate(self.path, sum(map(len, lines[:-1])))  # the process was killed while it wrote this line
            lines.pop()
        if not lines:
            return False
        try:
            first, *kept = [json.loads(line) for line in lines]
            self._kept = {line.pop("key"): Written(**line) for line in kept}
            if first != begins_with:
                raise ValueError("other settings")
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.path} was changed since it was written ({error}); delete it") from error
        return True
