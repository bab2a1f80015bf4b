"""How often each difficulty is drawn, as a pure function of how far the run is and of what it has recorded.

This room knows nothing of steps, examples, models or random numbers: it turns a name, a fraction, five counts and
the pass rates seen so far into five weights. It refuses unknown names.

Every schedule but "staged" is a tilt of the data's own shares, shares * ratio ** (level - 1), and not a fixed mixture:
a level with few examples is then not repeated until it is memorised, and none is ever left out.
"""

from collections.abc import Sequence

import numpy as np

from tiny_reasoning_jax.data.problems import DIFFICULTIES
from tiny_reasoning_jax.errors import UserError

# "linear" starts with each level half as frequent, against its share of the data, as the level below it; "anneal"
# goes from a quarter to four times, and a part of its draws stays with the data's own shares, easy levels included.
_LINEAR_RATIO, _ANNEAL_RATIO, _ANNEAL_FLOOR = 0.5, 4.0, 0.2

# "adaptive" counts its tilt in half octaves: ratio = 2 ** (tilt / 2). It begins where "linear" does and cannot leave
# a quarter to four times. A step is this large because a run asks its model only a few times.
_FIRST_TILT, _HARDEST_TILT = -2, 4
PASS_RATE_BAND = (0.2, 0.8)  # "adaptive" is content with a pass rate of the mixture between these


def _tilted(shares: np.ndarray, ratio: float) -> np.ndarray:
    weights = shares * ratio ** np.arange(len(DIFFICULTIES))
    return weights / weights.sum()


def _none(progress: float, shares: np.ndarray, observed: np.ndarray) -> np.ndarray:
    return shares


def _linear(progress: float, shares: np.ndarray, observed: np.ndarray) -> np.ndarray:
    return (1.0 - progress) * _tilted(shares, _LINEAR_RATIO) + progress * shares


def _staged(progress: float, shares: np.ndarray, observed: np.ndarray) -> np.ndarray:
    present = np.flatnonzero(shares)
    stage = min(int(progress * len(present)), len(present) - 1)
    return np.where(np.arange(len(DIFFICULTIES)) <= present[stage], shares, 0.0)


def _anneal(progress: float, shares: np.ndarray, observed: np.ndarray) -> np.ndarray:
    ratio = _ANNEAL_RATIO ** -np.cos(np.pi * progress)
    return (1.0 - _ANNEAL_FLOOR) * _tilted(shares, ratio) + _ANNEAL_FLOOR * shares


def _adaptive(progress: float, shares: np.ndarray, observed: np.ndarray) -> np.ndarray:
    easiest, hardest = PASS_RATE_BAND
    tilt = _FIRST_TILT
    for pass_rates in observed:
        weights = np.where(np.isnan(pass_rates), 0.0, _tilted(shares, 2.0 ** (tilt / 2)))
        if not weights.any():
            continue  # nothing of what is trained on was asked
        # Rounded, so that the last bit of a sum does not decide at the edge of the band.
        pass_rate = round(float((weights / weights.sum()) @ np.nan_to_num(pass_rates)), 9)
        tilt += int(pass_rate > hardest) - int(pass_rate < easiest)
        tilt = min(max(tilt, -_HARDEST_TILT), _HARDEST_TILT)
    return _tilted(shares, 2.0 ** (tilt / 2))


_CURRICULA = {"none": _none, "linear": _linear, "staged": _staged, "anneal": _anneal, "adaptive": _adaptive}
CURRICULA = tuple(_CURRICULA)


def difficulty_weights(
    curriculum: str, progress: float, counts: np.ndarray, observed: Sequence[Sequence[float]] = ()
) -> np.ndarray:
    """Returns float64 [5], the probability of drawing an example of each difficulty; it sums to 1.

    - "none": the data's own shares all along, so that every example is as likely as any other.
    - "linear": starts with the easy levels frequent and the hard ones rare and moves, linearly, to the data's own
      shares. Easy first and then the whole distribution is curriculum learning as Bengio et al. (ICML 2009) define it.
    - "staged": of k levels with examples, the first k-th of the run draws from the lowest, the second from the two
      lowest and so on, each in the data's own shares; the last k-th draws from all. An example is used once training
      has come as far as its difficulty: the competence of Platanios et al. (NAACL 2019), growing in k jumps.
    - "anneal": moves smoothly (a cosine of the progress in the logarithm of the tilt) from mostly easy to mostly hard;
      a fifth of the draws keeps the data's own shares, so that no level falls below a fifth of its share. Stepping
      through the levels while looking back and forward at all of them did best among the fixed schedules that Collier
      and Beel (AICS 2018) compare.
    - "adaptive": starts easy first; after each observation one step harder if the model passes more than 0.8 of the
      mixture that it then trains on, one step easier if less than 0.2. Moving the difficulty so that the model's
      success stays near a target is the idea of AdaRFT (Shi et al., arXiv 2504.05520), which steers reinforcement
      learning by the mean reward; here a band replaces the target, and the tilt the target difficulty.

    A level that has no examples is always 0; one that has is 0 only in "staged", before its stage.

    Args:
      curriculum: one of the names above.
      progress: how much of the run is done, 0 to 1; what lies outside counts as the nearer end.
      counts: [5], examples of each difficulty; at least one must not be 0.
      observed: [..., 5], the model's pass rates, oldest first, NaN where a difficulty was not asked. Only "adaptive"
        looks at it.

    Raises:
      UserError: the curriculum is unknown.
    """
    if curriculum not in _CURRICULA:
        raise UserError(f"data.curriculum={curriculum!r} is unknown; choose one of: {', '.join(CURRICULA)}")
    counts = np.asarray(counts, np.float64)
    assert counts.shape == (len(DIFFICULTIES),) and counts.min() >= 0 and counts.sum() > 0, counts
    pass_rates = np.asarray(observed, np.float64).reshape(-1, len(DIFFICULTIES))
    weights = _CURRICULA[curriculum](min(max(progress, 0.0), 1.0), counts / counts.sum(), pass_rates)
    return weights / weights.sum()
