"""pytest tests/train/test_moments.py: Adam's moments in fewer bytes stay Adam's."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import reason
from configs.base import validate
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.train import moments

B1, B2 = 0.9, 0.95
ADAMW = optax.adamw(1.0, b1=B1, b2=B2, weight_decay=0.0)
SMALL = ("bfloat16", "int8")


def forms():
    return {form: moments.stored_as(form, ADAMW) for form in ("float32", *SMALL)}


def run(form, gradients):
    """Updates [steps, *shape] of one leaf, and the last state, for gradients [steps, *shape]."""
    optimizer = forms()[form]
    params = {"w": jnp.zeros(gradients.shape[1:])}

    def step(state, gradient):
        updates, state = optimizer.update({"w": gradient}, state, params)
        return state, updates["w"]

    state, updates = jax.jit(lambda g: jax.lax.scan(step, optimizer.init(params), g))(jnp.asarray(gradients))
    return np.asarray(updates), state


def decoded(form, m, v, step):
    """m and v as they come back after being stored at `step`."""
    encode = {"bfloat16": moments._encode_bfloat16, "int8": moments._encode_int8}[form]
    decode = {"bfloat16": moments._decode_bfloat16, "int8": moments._decode_int8}[form]
    return decode(*encode(m, v, moments._hash(m.shape, 0, jnp.int32(step))))


def some_moments(shape=(64, 256), octaves=6):
    """m within what Adam can reach, v over 2 * `octaves` octaves."""
    rng = np.random.default_rng(0)
    root = np.exp2(rng.uniform(-octaves, 0, shape)) * 1e-4
    return jnp.float32(root * rng.uniform(-1.1, 1.1, shape)), jnp.float32(root**2)


@pytest.mark.parametrize("form", SMALL)
def test_storing_is_right_on_average(form):
    """Over many steps the mean of what comes back is what was stored: rounding that favours a side would not be."""
    m, v = some_moments()
    num = 2000
    add = lambda total, step: (jax.tree.map(jnp.add, total, decoded(form, m, v, step)), None)
    total, _ = jax.jit(lambda: jax.lax.scan(add, (jnp.zeros_like(m), jnp.zeros_like(v)), jnp.arange(num)))()
    root, within = np.sqrt(v), {"bfloat16": 2**-7, "int8": 2**-3}[form]  # the coarsest step of v, relative
    # A mean of 2000 errs by a step / 2 / sqrt(2000), five times that in the worst of 16384 elements.
    worst = 5 / 2 / math.sqrt(num)
    assert np.max(np.abs(total[1] / num / v - 1)) < worst * within
    step_of_m = moments.MAX_RATIO / 127 if form == "int8" else within
    assert np.max(np.abs(total[0] / num - m) / root) < worst * step_of_m * 1.3
    # And over the elements nothing leans to a side: a hundredth of a step.
    assert abs(np.mean(total[1] / num / v - 1)) < 0.01 * within
    assert abs(np.mean((total[0] / num - m) / root)) < 0.01 * step_of_m


@pytest.mark.parametrize("form", SMALL)
def test_what_a_form_can_hold_it_holds_exactly(form):
    m, v = decoded(form, *some_moments(), 1)
    again = decoded(form, m, v, 2)
    np.testing.assert_array_equal(v, again[1])
    # int8's m is a quotient of floats away from its code, which may lie a hair below.
    np.testing.assert_allclose(m, again[0], rtol=0, atol=0 if form == "bfloat16" else 1.1 * moments.MAX_RATIO / 127e4)


def test_the_random_bits_are_the_same_in_every_process():
    bits = moments._hash((2, 2), 3, jnp.int32(7))
    np.testing.assert_array_equal(bits, jax.jit(lambda: moments._hash((2, 2), 3, jnp.int32(7)))())
    # lowbias32(place + (1024 * step + leaf) * 0x9E3779B9), computed in Python's integers.
    assert [f"{int(x):08x}" for x in bits.ravel()] == ["a1caad82", "6077e5f2", "26bb1ce2", "5736718e"]
    # Uniform in each of its 32 bits, and another leaf or step has other ones.
    many = np.asarray(moments._hash((400, 1000), 0, jnp.int32(1)))
    for other in (moments._hash((400, 1000), 1, jnp.int32(1)), moments._hash((400, 1000), 0, jnp.int32(2))):
        for bit in range(32):
            ones = (many >> bit) & 1
            assert abs(np.mean(ones) - 0.5) < 0.004
            assert abs(np.mean(ones == (np.asarray(other) >> bit) & 1) - 0.5) < 0.004


@pytest.mark.parametrize("b1, b2", [(0.9, 0.95), (0.9, 0.99), (0.5, 0.8), (0.0, 0.5)])
def test_max_ratio_is_the_largest_that_gradients_can_make(b1, b2):
    """Approached by gradients that grow by b2 / b1 a step, passed by none of many."""
    m = v = 0.0
    for k in range(400):
        g = 1e-30 * ((b2 / b1) ** k if b1 else float(k == 399))
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    assert m / math.sqrt(v) == pytest.approx(moments.max_ratio(b1, b2), rel=1e-3)
    g = np.random.default_rng(0).standard_cauchy((300, 1000))
    m = v = np.zeros(1000)
    for row in g:
        m, v = b1 * m + (1 - b1) * row, b2 * v + (1 - b2) * row**2
        assert np.max(np.abs(m) / np.sqrt(v)) <= moments.max_ratio(b1, b2) * (1 + 1e-9)
    assert moments.max_ratio(0.99, 0.95) == math.inf


def wild_gradients(steps=60):
    """Neighbours 30 octaves apart, zeros, rows that come and go, sudden spikes, numbers near float32's smallest."""
    rng = np.random.default_rng(1)
    g = rng.standard_normal((steps, 16, 128)) * np.exp2(rng.uniform(-30, 0, (16, 128)))
    g[:, 0] = 0
    g[:, 1, ::2] = 0
    g[10:, 2] = 0
    g[:, 3] *= (rng.random(steps) < 0.1)[:, None]
    g[30, 4] *= 2**20
    g[:, 5] *= 1e-30
    g[::3, 6] = 0
    g[:, 7] = np.exp2(np.arange(steps) * math.log2(B2 / B1))[:, None] * 1e-3  # drives m / sqrt(v) to its bound
    return np.float32(g)


@pytest.mark.parametrize("form", SMALL)
def test_no_update_explodes(form):
    """An element whose v was rounded away would take a step of m / eps."""
    g = wild_gradients()
    updates, _ = run(form, g)
    assert np.all(np.isfinite(updates))
    # Adam's own bound, with the bias corrections of the first steps, and a step of rounding more.
    assert np.max(np.abs(updates)) < 1.5 * moments.max_ratio(B1, B2)
    exact, _ = run("float32", g)
    assert np.max(np.abs(exact)) < 1.5 * moments.max_ratio(B1, B2)
    assert not np.any(updates[:, 0]) and not np.any(updates[:, 1, ::2])  # where no gradient ever was, nothing moves


@pytest.mark.parametrize("form", SMALL)
@pytest.mark.parametrize("to", [0.3, 0.9, 3.0])
def test_the_second_moment_follows_the_gradient(form, to):
    """After 100 steps of gradients of size 1, sizes of `to`: rounding to nearest would stall on the way down."""
    sign = np.random.default_rng(2).choice([-1.0, 1.0], (300, 32, 128))
    g = np.float32(sign * np.where(np.arange(300) < 100, 1, to)[:, None, None])
    g[:, :, 0] *= 4  # a largest element in every block, so that the others are not the scale itself
    exact, stored = run("float32", g)[0], run(form, g)[0]
    size = lambda updates: np.sqrt(np.mean(updates[-100:, :, 1:] ** 2))
    assert size(stored) == pytest.approx(size(exact), rel=0.02)


@pytest.mark.parametrize("form, most", [("float32", 8.0), ("bfloat16", 4.0), ("int8", 2.04)])
def test_bytes_a_parameter(form, most):
    params = {"w": jnp.zeros((256, 8, 64)), "scale": jnp.ones(256)}
    state = forms()[form].init(params)
    leaves = lambda name: jax.tree.leaves((state[0].mu[name], state[0].nu[name]))
    assert sum(x.nbytes for x in leaves("w")) <= most * params["w"].size
    if form == "int8":
        assert {x.dtype for x in leaves("scale")} == {jnp.dtype("float32")}


def test_leaves_that_blocks_do_not_divide_are_float32(form="int8"):
    g = np.float32(np.random.default_rng(3).standard_normal((5, 3, 50)))
    np.testing.assert_array_equal(run(form, g)[0], run("float32", g)[0])


def test_the_state_begins_as_zeros_of_the_stored_form():
    for form, optimizer in forms().items():
        params = {"w": jnp.ones((2, 128))}
        begun = optimizer.init(params)
        after = jax.eval_shape(lambda p, o=optimizer: o.update(p, o.init(p), p)[1], params)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), begun) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
        assert not any(np.any(x) for x in jax.tree.leaves(begun)), form


def test_decays_that_int8_cannot_hold_are_refused():
    config = reason.get_config("tiny")
    config.train.moments = "int8"
    validate(config)
    config.train.b2 = 0.999
    with pytest.raises(UserError, match=r"reach 7.27.*bfloat16"):
        validate(config)
    config.train.moments = "bfloat16"
    validate(config)
    config.train.moments = "int4"
    with pytest.raises(UserError, match="int4"):
        validate(config)
