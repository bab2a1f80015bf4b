"""The value of an expression: exact where it is rational, 100 digits where it is not, at fixed points where it varies.

Two expressions are equal if their values are, at every one of a few points at which both have one. Where only + - * /
and whole powers occur, all of this is exact, and two different rational functions of degree d agree at one point with a
chance below d / 2^20, at three with one below d^3 / 2^60. Else two values count as equal if they differ by less than
1e-80 of the largest number that cancels out in them: expressions that are different but that close are called equal.
"""

import math
import random
import threading
from fractions import Fraction
from functools import lru_cache, reduce

import mpmath

from tiny_reasoning_jax.answers.expression import read

_DIGITS = 100
_TOLERANCE_DIGITS = 80
# Where a variable is at each point that is tried, and how many points must give values.
_RANGES = ((1, 4), (-4, -1), (8, 40), (0, 1), (-1, 1), (100, 400), (-40, 40), (2, 8))
_NUM_POINTS = 3
_MAX_BITS = 24_000  # of an exact number
_MAX_EXPONENT = 10**6
_MAX_FACTORIAL = 2400
_MAX_ROOT = 1000
_MAX_ROOT_BITS = 4000
_POLE = 10**50  # tan 90 degree comes out as a number

_mp = mpmath.MPContext()
_mp.dps = _DIGITS
_TOLERANCE = _mp.mpf(10) ** -_TOLERANCE_DIGITS
_CONSTANTS = {"pi": +_mp.pi, "e": +_mp.e, "i": _mp.mpc(0, 1), "degree": _mp.pi / 180}
_RATIONAL = frozenset(("number", "variable", "negative", "sum", "product", "over", "power"))
_LOCK = threading.Lock()  # a context of mpmath changes its precision while it works


class Undefined(Exception):
    """The expression has no value at this point, or none that is worth the work."""


def same_value(found: str, gold: str) -> bool | None:
    """Whether two clean expressions have the same value; None where that cannot be told."""
    sampled = _sample_together(found, gold)
    return None if sampled is None else all(_is_zero(*_subtract(one, other)) for one, other in sampled)


def same_equation(found: tuple[str, str], gold: tuple[str, str]) -> bool | None:
    """Whether two equations, given by their sides, say the same: one is the other times a number that is not 0.

    So 2x - y + 3 = 0 is y = 2x + 3; but x^2 = 4 is not x = 2, and y / x = 2 is not y = 2x, which has one point more.
    None where that cannot be told.
    """
    sampled = _sample_together(*found, *gold)
    if sampled is None:
        return None
    pairs = [(_subtract(a, b), _subtract(c, d)) for a, b, c, d in sampled]
    if any(_is_zero(*one) or _is_zero(*other) for one, other in pairs):
        return None  # an identity, or a point that happens to solve it
    ratios = [_divide(one, other) for one, other in pairs]
    return all(_is_zero(*_subtract(ratio, ratios[0])) for ratio in ratios)


def _sample_together(*texts: str) -> list[list[tuple]] | None:
    """The values of several clean expressions at the first points at which all have one; None if these are too few."""
    is_rational = all(map(_is_rational, texts))
    num_points, num_tries = (_NUM_POINTS, len(_RANGES)) if any(map(variables, texts)) else (1, 1)
    points = []
    for index in range(num_tries):
        sampled = [_sample(text, index, is_rational) for text in texts]
        if None not in sampled:
            points.append(sampled)
        if len(points) == num_points:
            return points
    return None


def exact_value(text: str) -> Fraction | None:
    """Returns the value of a clean expression without variables if it is rational and was found exactly."""
    sampled = None if variables(text) else _sample(text, 0, True)
    return sampled[0] if sampled and isinstance(sampled[0], Fraction) else None


@lru_cache(maxsize=4096)
def variables(text: str) -> set[str]:
    """The names of the variables in a clean expression; none where it is no expression."""
    tree = read(text)
    return set() if tree is None else _variables(tree)


def _variables(tree: tuple) -> set[str]:
    return {node[1] for node in _walk(tree) if node[0] == "variable"}


@lru_cache(maxsize=4096)
def _is_rational(text: str) -> bool:
    """Whether an expression is a rational function: only + - * / and whole powers of variables and numbers."""
    tree = read(text)
    return tree is not None and all(
        node[0] in _RATIONAL and (node[0] != "power" or node[2][0] == "number" and node[2][1].denominator == 1)
        for node in _walk(tree)
    )


def _walk(tree: tuple):
    yield tree
    for part in tree[1:]:
        if isinstance(part, tuple):
            for node in part if part and isinstance(part[0], tuple) else (part,):
                yield from _walk(node)


@lru_cache(maxsize=8192)
def _sample(text: str, index: int, is_rational: bool) -> tuple | None:
    """The (value, size) of an expression at one point, None where it has none."""
    tree = read(text)
    if tree is None:
        return None
    coordinate = _whole_coordinate if is_rational else _coordinate
    point = {name: coordinate(name, index) for name in variables(text)}
    with _LOCK:
        try:
            return _Evaluation(point).value(tree)
        except (Undefined, ArithmeticError, ValueError, mpmath.libmp.NoConvergence):
            return None


def _coordinate(name: str, index: int) -> Fraction:
    """Of another size and sign at each try, as roots and logarithms may have values in one place only."""
    rng = random.Random(f"{name}/{index}")
    low, high = _RANGES[index]
    return Fraction(rng.randrange(low * 2**20, high * 2**20) | 1, 2**20)


def _whole_coordinate(name: str, index: int) -> Fraction:
    """A whole number, with which exact arithmetic is fast."""
    return Fraction(random.Random(f"{name}/{index}").randrange(2**20, 2**22))


def _subtract(one: tuple, other: tuple) -> tuple:
    (a, a_size), (b, b_size) = one, other
    if a_size is b_size is None:
        return a - b, None
    return _inexact(a) - _inexact(b), max(_size(*one), _size(*other))


def _divide(top: tuple, bottom: tuple) -> tuple:
    if _is_zero(*bottom):
        raise Undefined
    (a, a_size), (b, b_size) = top, bottom
    if a_size is b_size is None:
        return a / b, None
    below = _inexact(b)
    return _inexact(a) / below, _size(*top) * _size(*bottom) / abs(below) ** 2


def _is_zero(value, size) -> bool:
    return value == 0 if size is None else abs(value) <= size * _TOLERANCE


def _size(value, size):
    return abs(_inexact(value)) if size is None else size


def _inexact(value):
    return _mp.mpf(value.numerator) / value.denominator if isinstance(value, Fraction) else value


class _Evaluation:
    """The value of a tree at one point."""

    def __init__(self, point: dict[str, Fraction]):
        self._point = point

    def value(self, tree: tuple) -> tuple:
        """Returns (Fraction, None), which is exact, or (mpf or mpc, size).

        The size is that of the value, or of what cancelled out on the way to it, if that was larger.

        Raises:
          Undefined, ArithmeticError, ValueError: there is no value.
        """
        kind, *parts = tree
        value, size = getattr(self, f"_{kind}")(*parts)
        if size is None:
            _bound(value)
        elif not _mp.isfinite(value):
            raise Undefined
        return value, size

    def _exact(self, tree: tuple) -> Fraction:
        value, size = self.value(tree)
        if size is not None:
            raise Undefined
        return value

    def _number(self, value):
        return value, None

    def _variable(self, name):
        return self._point[name], None

    def _constant(self, name):
        return _CONSTANTS[name], abs(_CONSTANTS[name])

    def _negative(self, tree):
        value, size = self.value(tree)
        return -value, size

    def _sum(self, trees):
        pairs = [self.value(tree) for tree in trees]
        if all(size is None for _, size in pairs):
            return reduce(lambda total, pair: _bound(total + pair[0]), pairs, Fraction(0)), None
        return sum((_inexact(value) for value, _ in pairs), _mp.mpf(0)), max(_size(*pair) for pair in pairs)

    def _product(self, trees):
        pairs = [self.value(tree) for tree in trees]
        if all(size is None for _, size in pairs):
            return reduce(lambda product, pair: _bound(product * pair[0]), pairs, Fraction(1)), None
        return math.prod(_inexact(value) for value, _ in pairs), math.prod(_size(*pair) for pair in pairs)

    def _over(self, top, bottom, is_bar):
        return _divide(self.value(top), self.value(bottom))

    def _power(self, base, exponent):
        (base, base_size), (exponent, exponent_size) = self.value(base), self.value(exponent)
        if abs(exponent) > _MAX_EXPONENT:
            raise Undefined
        if base is _CONSTANTS["e"]:
            power = _mp.exp(_inexact(exponent))
        elif exponent_size is None and exponent.denominator < _MAX_ROOT:
            power = self._whole_power(self._take_root(exponent.denominator, base), exponent.numerator)
        elif isinstance(base, _mp.mpc) or isinstance(exponent, _mp.mpc) or base <= 0:
            raise Undefined
        else:
            power = _inexact(base) ** _inexact(exponent)
        return power, _grow(base, base_size, power)

    def _whole_power(self, base, exponent: int):
        if base == 0 and exponent <= 0:
            raise Undefined
        if isinstance(base, Fraction):
            bits = max(base.numerator.bit_length(), base.denominator.bit_length())
            if bits * abs(exponent) <= _MAX_BITS or abs(base) == 1:
                return base**exponent
        return _inexact(base) ** exponent

    def _root(self, degree, tree):
        degree, (value, size) = self._exact(degree), self.value(tree)
        if degree.denominator != 1 or not 2 <= degree < _MAX_ROOT:
            raise Undefined
        root = self._take_root(int(degree), value)
        return root, _grow(value, size, root)

    def _take_root(self, degree: int, value):
        """The real root where there is one; of a negative number an imaginary one, unless a variable is involved."""
        if degree == 1:
            return value
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
        (base, _), (value, size) = self.value(base), self.value(tree)
        if isinstance(base, _mp.mpc) or isinstance(value, _mp.mpc) or base <= 0 or base == 1 or value <= 0:
            raise Undefined
        log = _mp.log(_inexact(value)) / _mp.log(_inexact(base))
        return log, 1 + _grow(value, size, log)

    def _factorial(self, tree):
        return Fraction(math.factorial(self._small(tree))), None

    def _choose(self, n, k):
        return Fraction(math.comb(self._small(n), self._small(k))), None

    def _small(self, tree) -> int:
        value = self._exact(tree)
        if value.denominator != 1 or not 0 <= value <= _MAX_FACTORIAL:
            raise Undefined
        return int(value)

    def _function(self, name, tree):
        value, size = self.value(tree)
        if name == "abs":
            return abs(value), size
        if name in ("floor", "ceil"):
            value = self._exact(tree)
            return Fraction(math.floor(value) if name == "floor" else math.ceil(value)), None
        if abs(value) > _MAX_EXPONENT or name in ("arcsin", "arccos") and not abs(value) <= 1:
            raise Undefined
        result = getattr(_mp, name.replace("arc", "a"))(_inexact(value))
        if abs(result) > _POLE and name not in ("exp", "sinh", "cosh"):
            raise Undefined
        return result, 1 + _grow(value, size, result)


def _bound(value: Fraction) -> Fraction:
    """Stops where an exact number grows too long; after every step, as a product of many would cost minutes."""
    if value.numerator.bit_length() + value.denominator.bit_length() > _MAX_BITS:
        raise Undefined
    return value


def _grow(value, size, result):
    """The size of a result that is as uncertain, in relation to itself, as the value that it was made from."""
    if isinstance(result, Fraction):
        return None
    return abs(result) * _size(value, size) / abs(_inexact(value)) if value != 0 else _size(value, size)


def _exact_root(number: int, degree: int) -> int | None:
    """The whole root of a whole number, None where it has none or is too long to try."""
    if number.bit_length() > _MAX_ROOT_BITS:
        return None
    root = math.isqrt(number) if degree == 2 else round(number ** (1 / degree)) if number.bit_length() < 50 else None
    return root if root is not None and root**degree == number else None
