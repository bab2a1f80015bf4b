"""What the summary says of a finished split: how many examples of which kind, how long, how well they pack."""

import collections
from array import array
from pathlib import Path

import numpy as np

from tiny_reasoning_jax.data import packing
from tiny_reasoning_jax.data.prepared import PreparedSplit
from tiny_reasoning_jax.data.problems import DIFFICULTIES, stream_problems

_PACKING_ROWS = 64  # rows that are packed to tell how full they get


def describe_split(split: PreparedSplit, categories: list[str]) -> dict:
    """Returns a prepared split's part of the summary; lengths in tokens."""
    grades = np.zeros((len(categories), 1 + len(DIFFICULTIES)), np.int64)
    np.add.at(grades, (np.asarray(split.category), np.asarray(split.difficulty)), 1)
    trained = int(split.lengths.sum(dtype=np.int64) - split.prompt_lengths.sum(dtype=np.int64))
    by_category = {
        name: {str(level): int(num) for level, num in enumerate(row) if num}
        for name, row in sorted(zip(categories, grades, strict=True))
        if row.any()
    }
    return _state_lengths(np.asarray(split.lengths)) | {"trained_tokens": trained, "by_category": by_category}


def describe_test(path: Path, lengths: array) -> dict:
    """Returns the test set's part of the summary; `lengths` are those of its prompts, in tokens."""
    by_category: dict[str, collections.Counter] = {}
    for problem in stream_problems(path):
        by_category.setdefault(problem.category, collections.Counter())[str(problem.difficulty)] += 1
    graded = {name: dict(sorted(by_category[name].items())) for name in sorted(by_category)}
    return _state_lengths(np.asarray(lengths)) | {"by_category": graded}


def _state_lengths(lengths: np.ndarray) -> dict:
    """Returns the facts about lengths; the histogram's bins double in width."""
    values = lengths if len(lengths) else np.zeros(1, np.int64)
    marks = np.percentile(values, (50, 90, 99, 100), method="higher").astype(int).tolist()
    edges = [0, 32]
    while edges[-1] <= marks[-1]:
        edges.append(2 * edges[-1])
    return {
        "kept": len(lengths),
        "tokens": int(values.sum(dtype=np.int64)),
        "length": {
            "mean": round(float(values.mean()), 1),
            **dict(zip(("p50", "p90", "p99", "max"), marks, strict=True)),
        },
        "length_histogram": {"edges": edges, "counts": np.histogram(lengths, edges)[0].tolist()},
    }


def pack_some(split: PreparedSplit, seq_len: int, seed: int) -> float:
    """Returns how full rows of seq_len get, packed from examples in random order as training packs them."""
    lengths = np.asarray(split.lengths, np.int64) - 1
    order = np.random.default_rng(seed).permutation(len(lengths))
    window = order[: 1 + int(np.searchsorted(np.cumsum(lengths[order]), _PACKING_ROWS * seq_len))]
    rows, _ = packing.pack_rows(lengths[window].tolist(), num_rows=_PACKING_ROWS, seq_len=seq_len)
    return float(sum(lengths[window[i]] for row in rows for i in row) / (max(len(rows), 1) * seq_len))
