"""pytest tests/model/test_rope.py: the rotation multiplies complex numbers, in both of its forms, and turns back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiny_reasoning_jax.model import rope

B, T, N, H, THETA = 2, 5, 3, 8, 1e4
FORMS = {
    "rotate": rope.rotate,
    "join halves": lambda x, angles: rope._join_halves(x, *angles),
    "reverse halves": lambda x, angles: rope._reverse_halves(x, *angles),
}


def create():
    rng = np.random.default_rng(0)
    positions = rng.integers(0, 30_000, (B, T))
    return positions, rng.standard_normal((2, B, T, N, H))


def turned(x, positions, back=False):
    """In float64: dimensions (i, i + H/2) are a complex number."""
    angles = positions[..., None, None] / THETA ** (np.arange(0, H, 2) / H)
    numbers = (x[..., : H // 2] + 1j * x[..., H // 2 :]) * np.exp((-1j if back else 1j) * angles)
    return np.concatenate([numbers.real, numbers.imag], axis=-1)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_turns_and_its_derivative_turns_back(form, dtype):
    positions, (x, d_out) = create()
    angles = rope.rope_angles(jnp.asarray(positions), H, THETA)
    out, pull = jax.vjp(lambda x: form(x, angles), jnp.asarray(x, dtype))
    (d_x,) = pull(jnp.asarray(d_out, dtype))
    assert out.dtype == d_x.dtype == dtype
    # float32 angles of 30,000 radians are known to 0.002.
    tolerance = {"float32": 1e-2, "bfloat16": 4e-2}[dtype]
    np.testing.assert_allclose(np.float32(out), turned(x, positions), atol=tolerance)
    np.testing.assert_allclose(np.float32(d_x), turned(d_out, positions, back=True), atol=tolerance)


def test_both_forms_agree():
    positions, (x, _) = create()
    angles = rope.rope_angles(jnp.asarray(positions), H, THETA)
    joined, reversed_ = (FORMS[name](jnp.asarray(x, jnp.float32), angles) for name in ("join halves", "reverse halves"))
    np.testing.assert_allclose(joined, reversed_, rtol=0, atol=1e-6)


def test_a_gpu_s_program_joins_nothing_and_keeps_the_angles_alone():
    shape = jax.ShapeDtypeStruct((B, T, N, H), jnp.bfloat16)
    angles = jax.eval_shape(lambda: rope.rope_angles(jnp.zeros((B, T), jnp.int32), H, THETA))
    step = jax.jit(lambda x, angles: jax.vjp(lambda x: rope.rotate(x, angles), x)[1](x))
    text = {p: step.trace(shape, angles).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda")}
    assert "concatenate" in text["cpu"] and "reverse" not in text["cpu"]
    assert "reverse" in text["cuda"] and "concatenate" not in text["cuda"]
    kept = jax.eval_shape(lambda x, angles: jax.vjp(lambda x: rope.rotate(x, angles), x)[1], shape, angles)
    assert sum(leaf.size for leaf in jax.tree.leaves(kept)) == sum(table.size for table in angles)
