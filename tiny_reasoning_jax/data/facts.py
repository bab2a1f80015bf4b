"""What the summary says of a finished split: how many examples of which kind, how long, how well they pack."""

import collections
from array import array
from pathlib import Path

import numpy as np

from tiny_reasoning_jax.data.plan import Plan
from tiny_reasoning_jax.data.prepared import PreparedSplit
from tiny_reasoning_jax.data.problems import DIFFICULTIES, stream_problems

_PACKED_STEPS = 8  # packed to tell how full rows get


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


def pack_some(split: PreparedSplit, batch_size: int, seq_len: int, seed: int) -> float:
    """Returns the filled share of rows [batch_size, seq_len] over a few steps of training on all examples alike."""
    plan = Plan(split, curriculum="none", num_steps=1, batch_size=batch_size, seq_len=seq_len, seed=seed)
    place = plan.start()
    plan.next_rows(place)  # the first step fills the look-ahead
    rows = [row for _ in range(_PACKED_STEPS) for row in plan.next_rows(place)]
    return float(sum(plan.positions[row].sum() for row in rows) / (_PACKED_STEPS * batch_size * seq_len))
