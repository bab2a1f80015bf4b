"""pytest tests/train/test_master.py: a master in 16 bits is the master."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from tiny_reasoning_jax.train import master

SPLIT, JOIN = jax.jit(master.split), jax.jit(master.join)
LOW = np.arange(2**16, dtype=np.uint32)


def split(bits):
    """uint32 bits of float32 -> (bfloat16, uint16), as numpy arrays."""
    return tuple(map(np.asarray, SPLIT(jnp.asarray(bits.view(np.float32)))))


def join(params, remainder):
    return np.asarray(JOIN(params, remainder))


def high_halves():
    """Both signs: zeros, denormals, every exponent's ends, odd and even mantissas, the largest, and some at random."""
    ends = [e << 7 | m for e in range(255) for m in (0, 1, 0x40, 0x7E, 0x7F)]
    some = np.random.default_rng(0).integers(0, 0x7F80, 200)
    positive = np.unique(np.concatenate([ends, some])).astype(np.uint32)
    return np.concatenate([positive, positive | 0x8000])


def nearest_away_from_zero(bits):
    """Written down a second time, in exact arithmetic: which of the two bfloat16 around a float32 is nearer."""
    below = bits & np.uint32(0xFFFF0000)  # towards zero
    value = lambda b: b.view(np.float32).astype(np.float64)
    above = below + np.uint32(0x10000)
    infinite = (above & 0x7F800000) == 0x7F800000
    # The bfloat16 after the largest would be 2**128, which is infinity.
    upper = np.where(infinite, np.copysign(2.0**128, value(below)), value(np.where(infinite, below, above)))
    up = np.abs(upper - value(bits)) <= np.abs(value(bits) - value(below))
    return (np.where(up, above, below) >> 16).astype(np.uint16)


def test_every_low_half_comes_back_and_the_parameter_is_the_nearest():
    halves = high_halves()
    assert len(halves) > 2500
    for some in np.array_split(halves, 40):
        bits = (some[:, None] << 16) | LOW
        params, remainder = split(bits)
        assert params.dtype == ml_dtypes.bfloat16 and remainder.dtype == np.uint16
        np.testing.assert_array_equal(join(params, remainder).view(np.uint32), bits)
        np.testing.assert_array_equal(params.view(np.uint16), nearest_away_from_zero(bits))


def test_it_is_jaxs_own_rounding_but_for_ties():
    """And no 16 bits could do for rounding to even: more than 2**16 numbers round to one bfloat16 with an even end."""
    bits = (np.array([0x3F80, 0x3F81, 0xC2A7, 0x0001], np.uint32)[:, None] << 16) | LOW
    ours, to_even = split(bits)[0], _to_even(bits)
    differing = ours.view(np.uint16) != to_even.view(np.uint16)
    assert np.all((bits[differing] & 0xFFFF) == 0x8000)
    around = np.arange(0x3F7F0000, 0x3F820000, dtype=np.uint32)
    assert np.sum(_to_even(around).view(np.uint16) == 0x3F80) == 2**16 + 1
    assert np.sum(split(around)[0].view(np.uint16) == 0x3F80) == 2**16


def _to_even(bits):
    return bits.view(np.float32).astype(ml_dtypes.bfloat16)


@pytest.mark.parametrize("low", [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
@pytest.mark.parametrize("high", [0x7F80, 0x7FC0, 0x7FFF, 0xFF80, 0xFFFF])
def test_what_is_not_finite_stays_so(high, low):
    value = np.array([(high << 16) | low], np.uint32).view(np.float32)
    params, remainder = split(value)
    for got in (params.astype(np.float32), join(params, remainder)):
        assert np.isnan(got) if np.isnan(value) else got == value


def test_zeros_keep_their_sign():
    params, remainder = split(np.array([0.0, -0.0], np.float32))
    np.testing.assert_array_equal(np.signbit(params.astype(np.float32)), [False, True])
    np.testing.assert_array_equal(np.signbit(join(params, remainder)), [False, True])


def test_the_parameters_of_a_compiled_program_are_rounded():
    """XLA may drop float32 -> bfloat16 -> float32; what the model sees must not be the master itself."""
    image = jax.jit(lambda x: master.split(x)[0].astype(jnp.float32))(jnp.float32(1.001))
    assert float(image) == 1.0
