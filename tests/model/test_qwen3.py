"""pytest tests/model/test_qwen3.py: parameters and their names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.jaxprs import equations
from tiny_reasoning_jax.model.qwen3 import Layer, ModelDef, RMSNorm, _look_up, _swiglu, project
from tiny_reasoning_jax.model.spec import ModelSpec


def spec(tied):
    return ModelSpec(50, 16, 24, 2, 4, 2, 8, 1e4, tie_word_embeddings=tied)


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_names_its_axes(tied):
    model_def = ModelDef(spec(tied))
    shapes, axes = model_def.shapes(), model_def.logical_axes()
    assert shapes.keys() == axes.keys()
    for name, shape in shapes.items():
        assert len(axes[name]) == len(shape.shape) and all(isinstance(axis, str) for axis in axes[name]), name
    assert sum(shape.size for shape in shapes.values()) == spec(tied).num_parameters


def test_a_tied_embedding_is_one_parameter():
    model_def = ModelDef(spec(True))
    params = model_def.create_params(0)
    assert "lm_head" not in params
    assert model_def.bind(params).head is params["embed"]
    untied = ModelDef(spec(False)).create_params(0)
    assert ModelDef(spec(False)).bind(untied).head is untied["lm_head"]


def test_the_seed_decides_the_weights():
    model_def = ModelDef(spec(True))
    same, again, other = (model_def.create_params(seed) for seed in (3, 3, 4))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), same, again)))
    assert not (same["embed"] == other["embed"]).all()


def test_the_embeddings_gradient_is_summed_in_float32():
    """Of 1000 tokens with one id in bfloat16: a sum in bfloat16 stops growing at 256."""
    table = jnp.ones((3, 2), jnp.float32)
    (rows, head), back = jax.vjp(lambda table: _look_up(table, jnp.ones((1, 1000), int), jnp.dtype("bfloat16")), table)
    (gradient,) = back((jnp.ones_like(rows), jnp.full_like(head, 0.5)))
    assert rows.dtype == jnp.bfloat16 and gradient.dtype == jnp.float32
    np.testing.assert_array_equal(gradient, [[0.5, 0.5], [1000.5, 1000.5], [0.5, 0.5]])  # with the head's share


def test_no_float32_image_of_the_embedding_is_looked_up():
    """Training differentiates at float32 images of bfloat16 parameters; rows taken from one would hold it in memory."""
    look_up = lambda table: _look_up(table.astype(jnp.float32), jnp.ones((1, 4), int), jnp.dtype("bfloat16"))
    jaxpr = jax.make_jaxpr(look_up)(jax.ShapeDtypeStruct((50, 2), jnp.bfloat16)).jaxpr
    (gather,) = [e for e in equations(jaxpr) if e.primitive.name == "gather"]
    assert gather.invars[0].aval.dtype == jnp.bfloat16


def test_a_norms_gradient_is_summed_in_float32_and_its_result_is_that_of_bfloat16():
    rng = np.random.default_rng(0)
    x, scale = (jnp.asarray(rng.normal(size=size), jnp.bfloat16) for size in ((64, 32), 32))

    def scaled(x, scale):
        norm = RMSNorm(32, 1e-6, "embed")
        norm.scale = nnx.Param(scale)
        return norm(x)

    unscaled = scaled(x, jnp.ones(32, jnp.bfloat16))
    np.testing.assert_array_equal(scaled(x, scale), unscaled * scale)
    sums = [
        e
        for e in equations(jax.make_jaxpr(jax.grad(lambda *a: scaled(*a).sum(), (0, 1)))(x, scale).jaxpr)
        if e.primitive.name == "reduce_sum"
    ]
    assert sums and all(e.invars[0].aval.dtype == jnp.float32 for e in sums)


def test_the_gate_s_derivative_is_jax_s_own():
    gate, up, d_out = (4 * jax.random.normal(jax.random.key(i), (6, 32)) for i in range(3))
    ours, pull = jax.vjp(_swiglu, gate, up)
    theirs, pull_theirs = jax.vjp(lambda gate, up: jax.nn.silu(gate) * up, gate, up)
    np.testing.assert_array_equal(ours, theirs)
    for one, other in zip(pull(d_out), pull_theirs(d_out), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tokens", [4, 256])  # few: one product after the other; many: on a CPU one of them all
def test_products_that_share_their_input_are_those_of_each_matrix(tokens):
    draw = lambda i, *shape: jax.random.normal(jax.random.key(i), shape)
    x, matrices = draw(0, 2, tokens, 16), (draw(1, 16, 4, 8), draw(2, 16, 2, 8), draw(3, 16, 5))
    out, pull = jax.vjp(jax.jit(project), x, *matrices)
    d_out = tuple(draw(9, *y.shape) for y in out)
    exact = lambda *arrays: [np.asarray(array, np.float64) for array in arrays]
    x64, *matrices64 = exact(x, *matrices)
    for y, matrix in zip(out, matrices64, strict=True):
        np.testing.assert_allclose(y, np.tensordot(x64, matrix, 1), rtol=1e-4, atol=1e-5)
    d_x, *d_matrices = pull(d_out)
    shared = zip(exact(*d_out), matrices64, strict=True)
    d_x64 = sum(np.tensordot(d, m, [range(2, d.ndim), range(1, m.ndim)]) for d, m in shared)
    np.testing.assert_allclose(d_x, d_x64, rtol=1e-4, atol=1e-4)
    for d_matrix, d in zip(d_matrices, exact(*d_out), strict=True):
        np.testing.assert_allclose(d_matrix, np.tensordot(x64, d, [[0, 1], [0, 1]]), rtol=1e-4, atol=1e-3)
    assert jax.jit(project).lower(x, *matrices).as_text().count("dot_general") == (3 if tokens == 4 else 1)


@pytest.mark.parametrize("rung", ["none", "full"])
def test_a_layer_has_all_its_gradients_before_the_layer_below_begins(rung):
    """Its weights' and its input's leave through one barrier: else what those products read waits for them."""
    model_def = ModelDef(spec(True), remat=rung)
    loss = lambda params: jnp.sum(model_def.bind(params)(jnp.ones((1, 4), int), jnp.ones((1, 4), int))[0])
    jaxpr = jax.make_jaxpr(jax.grad(loss))(model_def.shapes()).jaxpr
    barriers = [e for e in equations(jaxpr) if e.primitive.name == "optimization_barrier"]
    shapes = [sorted(v.aval.shape for v in e.outvars) for e in barriers]
    one_layer = [shape.shape for name, shape in model_def.shapes().items() if name.startswith("layers.0.")]
    assert shapes.count(sorted([(1, 4, 16), *one_layer])) == 2


@pytest.mark.parametrize("rung", ["none", "some"])
def test_layers_are_traced_once_for_all(monkeypatch, rung):
    """Twenty-eight times would be ten seconds of every start of Qwen3-1.7B."""
    model_def = ModelDef(ModelSpec(50, 40, 24, 5, 4, 2, 8, 1e4), remat=rung)
    traced, call = [], Layer.__call__
    monkeypatch.setattr(Layer, "__call__", lambda *args: traced.append(1) or call(*args))
    loss = lambda params: jnp.sum(model_def.bind(params)(jnp.ones((1, 4), int), jnp.ones((1, 4), int))[0])
    jax.make_jaxpr(jax.grad(loss))(model_def.shapes())
    assert len(traced) == 1
