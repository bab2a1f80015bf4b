"""The value of an expression: exact where it is rational, 100 digits where it is not, at fixed points where it varies.

Two expressions are equal if their values are, at every one of a few points at which both have one. Where only + - * /
and whole powers occur, all of this is exact, and two different rational functions of degree d agree at one point with a
chance below d / 2^20, at three with one below d^3 / 2^60. Else two values count as equal if they differ by less than
1e-80 of the largest number on the way to them: expressions that are different but that close are called equal.
"""

import math
import random
import threading
from fractions import Fraction
from functools import lru_cache

import mpmath

from tiny_reasoning_jax.answers.expression import read

_DIGITS = 100
_TOLERANCE_DIGITS = 80
_NUM_TRIES, _NUM_POINTS = 8, 3  # points that are tried, of which so many must give values
_MAX_BITS = 40_000  # of an exact number
_MAX_EXPONENT = 10**6
_MAX_FACTORIAL = 3000
_MAX_ROOT_BITS = 4000
_POLE = 10**50  # tan 90 degree comes out as a number

_mp = mpmath.MPContext()
_mp.dps = _DIGITS
_TOLERANCE = _mp.mpf(10) ** -_TOLERANCE_DIGITS
_CONSTANTS = {"pi": +_mp.pi, "e": +_mp.e, "i": _mp.mpc(0, 1), "degree": _mp.pi / 180}
_LOCK = threading.Lock()  # a context of mpmath changes its precision while it works


class Undefined(Exception):
    """The expression has no value at this point, or none that is worth the work."""


def same_value(found: str, gold: str) -> bool | None:
    """Whether two clean expressions have the same value; None where that cannot be told."""
    pairs = [pair for pair in zip(_sample(found), _sample(gold), strict=True) if None not in pair]
    if len(pairs) < _NUM_POINTS:
        return None
    return all(_close(one, other) for one, other in pairs)


def same_equation(found: tuple[str, str], gold: tuple[str, str]) -> bool | None:
    """Whether two equations, given by their sides, say the same: one is the other times a number that is not 0.

    So 2x - y + 3 = 0 is y = 2x + 3; but x^2 = 4 is not x = 2, and y / x = 2 is not y = 2x, which has one point more.
    None where that cannot be told.
    """
    ratios = []
    samples = (_sample(side) for side in (*found, *gold))
    for point in zip(*samples, strict=True):
        if None in point:
            continue
        (a, size_a), (b, size_b), (c, size_c), (d, size_d) = point
        one, other = _subtract(a, b), _subtract(c, d)
        if _is_zero(one, size_a + size_b) or _is_zero(other, size_c + size_d):
            return None  # an identity, or a point that happens to solve it
        ratios.append(_divide(one, other))
    if len(ratios) < _NUM_POINTS:
        return None
    return all(_close((ratio, abs(ratio)), (ratios[0], abs(ratios[0]))) for ratio in ratios)


def exact_value(text: str) -> Fraction | None:
    """Returns the value of a clean expression without variables if it is rational and was found exactly."""
    sampled = _sample(text)[0]
    return sampled[0] if sampled and isinstance(sampled[0], Fraction) and not variables(text) else None


def variables(text: str) -> set[str]:
    """The names of the variables in a clean expression; none where it is no expression."""
    tree = read(text)
    return set() if tree is None else _variables(tree)


def _variables(tree: tuple) -> set[str]:
    if tree[0] == "variable":
        return {tree[1]}
    found = set()
    for part in tree[1:]:
        if isinstance(part, tuple):
            for node in part if part and isinstance(part[0], tuple) else (part,):
                found |= _variables(node)
    return found


@lru_cache(maxsize=2048)
def _sample(text: str) -> tuple:
    """(value, largest number on the way to it) at each point, None where there is none. One value if nothing varies."""
    tree = read(text)
    if tree is None:
        return (None,) * _NUM_TRIES
    names = sorted(_variables(tree))
    sampled = []
    with _LOCK:
        for index in range(_NUM_TRIES if names else 1):
            evaluation = _Evaluation({name: _coordinate(name, index) for name in names})
            try:
                sampled.append((evaluation.value(tree), evaluation.largest))
            except (Undefined, ValueError, ZeroDivisionError, OverflowError, mpmath.libmp.NoConvergence):
                sampled.append(None)
    return tuple(sampled) if names else tuple(sampled) * _NUM_TRIES


def _coordinate(name: str, index: int) -> Fraction:
    """Positive at the first points, so that roots and logarithms have values; of either sign at the others."""
    rng = random.Random(f"{name}/{index}")
    value = Fraction(rng.randrange(2**20, 2**22) | 1, 2**20)
    return -value if index >= _NUM_POINTS and rng.random() < 0.5 else value


def _subtract(a, b):
    return a - b if isinstance(a, Fraction) and isinstance(b, Fraction) else _inexact(a) - _inexact(b)


def _divide(a, b):
    return a / b if isinstance(a, Fraction) and isinstance(b, Fraction) else _inexact(a) / _inexact(b)


def _is_zero(value, size) -> bool:
    return value == 0 if isinstance(value, Fraction) else abs(value) <= _inexact(size) * _TOLERANCE


def _close(one: tuple, other: tuple) -> bool:
    (a, size_a), (b, size_b) = one, other
    return _is_zero(_subtract(a, b), max(_inexact(size_a), _inexact(size_b)))


def _inexact(value):
    return _mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


class _Evaluation:
    """The value of a tree at one point."""

    def __init__(self, point: dict[str, Fraction]):
        self._point = point
        self.largest = Fraction(0)

    def value(self, tree: tuple):
        """Returns a Fraction, an mpf or an mpc."""
        kind, *parts = tree
        value = getattr(self, f"_{kind}")(*parts)
        if isinstance(value, Fraction):
            if value.numerator.bit_length() + value.denominator.bit_length() > _MAX_BITS:
                raise Undefined
        elif not _mp.isfinite(value):
            raise Undefined
        size = abs(value)
        if _inexact(size) > _inexact(self.largest):
            self.largest = size
        return value

    def _number(self, value):
        return value

    def _variable(self, name):
        return self._point[name]

    def _constant(self, name):
        return _CONSTANTS[name]

    def _negative(self, tree):
        return -self.value(tree)

    def _sum(self, trees):
        values = [self.value(tree) for tree in trees]
        if all(isinstance(value, Fraction) for value in values):
            return sum(values)
        return sum(map(_inexact, values), _mp.mpf(0))

    def _product(self, trees):
        product = Fraction(1)
        for tree in trees:
            value = self.value(tree)
            exact = isinstance(product, Fraction) and isinstance(value, Fraction)
            product = product * value if exact else _inexact(product) * _inexact(value)
        return product

    def _over(self, top, bottom, is_bar):
        return _divide(self.value(top), self.value(bottom))

    def _power(self, base, exponent):
        base, exponent = self.value(base), self.value(exponent)
        if isinstance(exponent, _mp.mpc) or abs(exponent) > _MAX_EXPONENT:
            if base is not _CONSTANTS["e"] or abs(exponent) > _MAX_EXPONENT:
                raise Undefined
            return _mp.exp(exponent)
        if isinstance(exponent, Fraction) and exponent.denominator == 1:
            return self._whole_power(base, int(exponent))
        if isinstance(exponent, Fraction) and exponent.denominator < 1000:
            return self._whole_power(self._take_root(exponent.denominator, base), exponent.numerator)
        if isinstance(base, _mp.mpc) or base <= 0:
            raise Undefined
        return _inexact(base) ** _inexact(exponent)

    def _whole_power(self, base, exponent: int):
        if base == 0 and exponent <= 0:
            raise Undefined
        if isinstance(base, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(exponent) <= _MAX_BITS or abs(base) == 1:
                return base**exponent
        return _inexact(base) ** exponent

    def _root(self, degree, tree):
        degree = self.value(degree)
        if not isinstance(degree, Fraction) or degree.denominator != 1 or not 2 <= degree <= 1000:
            raise Undefined
        return self._take_root(int(degree), self.value(tree))

    def _take_root(self, degree: int, value):
        """The real root where there is one; of a negative number an imaginary one, unless a variable is involved."""
        if isinstance(value, _mp.mpc):
            return _mp.root(value, degree)
        if value < 0:
            if degree % 2:
                return -self._take_root(degree, -value)
            if self._point or degree > 2:
                raise Undefined
            return _CONSTANTS["i"] * _inexact(self._take_root(degree, -value))
        if isinstance(value, Fraction):
            top, bottom = _exact_root(value.numerator, degree), _exact_root(value.denominator, degree)
            if top is not None and bottom is not None:
                return Fraction(top, bottom)
        return _mp.root(_inexact(value), degree)

    def _log(self, base, tree):
        base, value = self.value(base), self.value(tree)
        if isinstance(base, _mp.mpc) or isinstance(value, _mp.mpc) or base <= 0 or base == 1 or value <= 0:
            raise Undefined
        return _mp.log(_inexact(value)) / _mp.log(_inexact(base))

    def _factorial(self, tree):
        number = self._small(tree, _MAX_FACTORIAL)
        return Fraction(math.factorial(number))

    def _choose(self, n, k):
        n, k = self._small(n, _MAX_FACTORIAL), self._small(k, _MAX_FACTORIAL)
        return Fraction(math.comb(n, k))

    def _small(self, tree, limit: int) -> int:
        value = self.value(tree)
        if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= limit:
            raise Undefined
        return int(value)

    def _function(self, name, tree):
        value = self.value(tree)
        if name == "abs":
            return abs(value)
        if name in ("floor", "ceil"):
            if not isinstance(value, Fraction):
                raise Undefined
            return Fraction(value.__floor__() if name == "floor" else value.__ceil__())
        if abs(value) > _MAX_EXPONENT or name in ("arcsin", "arccos") and not abs(value) <= 1:
            raise Undefined
        value = getattr(_mp, name.replace("arc", "a"))(_inexact(value))
        if abs(value) > _POLE and name not in ("exp", "sinh", "cosh"):
            raise Undefined
        return value


def _exact_root(number: int, degree: int) -> int | None:
    """The whole root of a whole number, None where it has none or is too long to try."""
    if number.bit_length() > _MAX_ROOT_BITS:
        return None
    root = math.isqrt(number) if degree == 2 else round(number ** (1 / degree)) if number.bit_length() < 50 else None
    return root if root is not None and root**degree == number else None
