"""How often each difficulty is drawn, as a pure function of how far the run is.

This room knows nothing of steps, examples or random numbers: it turns a name, a fraction and five counts into
five weights.
"""

import numpy as np

from tiny_reasoning_jax.data.problems import DIFFICULTIES
from tiny_reasoning_jax.errors import UserError

# At the start of "linear" each level is half as frequent, against its share of the data, as the level below
# it. A tilt of the data's own shares, and not a fixed mixture, so that a level with few examples is not
# repeated until it is memorised.
_EASY_FIRST = 0.5 ** np.arange(len(DIFFICULTIES))


def _linear(progress: float, shares: np.ndarray) -> np.ndarray:
    start = shares * _EASY_FIRST
    return (1.0 - progress) * start / start.sum() + progress * shares


def _none(progress: float, shares: np.ndarray) -> np.ndarray:
    del progress
    return shares


_CURRICULA = {"linear": _linear, "none": _none}


def difficulty_weights(curriculum: str, progress: float, counts: np.ndarray) -> np.ndarray:
    """Returns float64 [5], the probability of drawing an example of each difficulty; it sums to 1.

    "linear" starts with the easy levels frequent and the hard ones rare and moves, linearly, to the data's
    own shares; "none" is the data's own shares all along, so that every example is as likely as any other. A
    level that has examples is never 0, a level that has none is always 0.

    Args:
      curriculum: "linear" or "none".
      progress: how much of the run is done, 0 to 1; what lies outside counts as the nearer end.
      counts: [5], examples of each difficulty; at least one must not be 0.

    Raises:
      UserError: the curriculum is unknown.
    """
    if curriculum not in _CURRICULA:
        known = ", ".join(sorted(_CURRICULA))
        raise UserError(f"data.curriculum={curriculum!r} is unknown; choose one of: {known}")
    counts = np.asarray(counts, np.float64)
    assert counts.shape == (len(DIFFICULTIES),) and counts.min() >= 0 and counts.sum() > 0, counts
    weights = _CURRICULA[curriculum](min(max(progress, 0.0), 1.0), counts / counts.sum())
    return weights / weights.sum()
