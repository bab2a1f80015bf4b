"""The prepared form of a split: token arrays on disk, read through memory maps so that size costs no memory.

Every example is one run of tokens: the rendered prompt, then the completion, which ends with the end-of-turn token.
"""

import dataclasses
from pathlib import Path

import numpy as np

_ARRAYS = ("tokens", "offsets", "prompt_lengths", "difficulty")


@dataclasses.dataclass(frozen=True)
class PreparedSplit:
    """Tokenised examples of one split.

    Attributes:
      tokens: int32 [total], all examples one after the other.
      offsets: int64 [num_examples + 1]; example i is tokens[offsets[i]:offsets[i + 1]].
      prompt_lengths: int32 [num_examples], tokens of the example that belong to the prompt and are not trained.
      difficulty: int8 [num_examples], 1 to 5.
      ids: the problems' ids, in the same order.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    prompt_lengths: np.ndarray
    difficulty: np.ndarray
    ids: list[str]

    def __len__(self) -> int:
        return len(self.ids)

    def save(self, folder: Path) -> None:
        """Writes the split into `folder` (created)."""
        folder.mkdir(parents=True, exist_ok=True)
        for name in _ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        (folder / "ids.txt").write_text("".join(f"{i}\n" for i in self.ids), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> "PreparedSplit":
        """Opens a saved split; the tokens stay on disk."""
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        return cls(**arrays, ids=(folder / "ids.txt").read_text(encoding="utf-8").splitlines())
