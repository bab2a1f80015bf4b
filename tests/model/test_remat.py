"""pytest tests/model/test_remat.py: each rung keeps and recomputes what its table says.

That no rung changes a number is in test_parity.py. Memory is counted in the jaxpr: on CPUs XLA undoes much of it.
"""

import functools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.jaxprs import equations
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model import attention, remat
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec

SPEC = ModelSpec(48, 16, 40, 2, 4, 2, 8, 1e4)
B, T = 2, 32


def kernel_forward(q, k, v, segment_ids):
    """What a flash-attention kernel looks like to differentiation; its "primitive" is erf, found nowhere else."""
    k, v = (jnp.repeat(x, q.shape[2] // k.shape[2], 2) for x in (k, v))
    out = remat.name(jax.lax.erf(q * k) + v, remat.ATTENTION)
    log_sum_exp = remat.name(jnp.sum(q * k, -1).astype(jnp.float32), remat.ATTENTION)
    return out, (q, k, v, out, log_sum_exp)


def kernel_backward(residuals, d_out):
    q, k, v, out, log_sum_exp = residuals
    d_q = d_out * out * log_sum_exp[..., None].astype(q.dtype)
    halves = lambda x: x[:, :, ::2] + x[:, :, 1::2]
    return d_q, halves(d_q * k), halves(d_out * v), None


@jax.custom_vjp
def kernel(q, k, v, segment_ids):
    return kernel_forward(q, k, v, segment_ids)[0]


kernel.defvjp(kernel_forward, kernel_backward)


@pytest.fixture(autouse=True)
def with_kernel(monkeypatch):
    select = attention.select
    monkeypatch.setattr(attention, "select", lambda name: kernel if name == "kernel" else select(name))


def loss(model_def, params, tokens):
    hidden, _ = model_def.bind(params)(tokens, jnp.tile(jnp.arange(T), (B, 1)))
    return jnp.sum(hidden.astype(jnp.float32) ** 2)


@functools.cache
def traced(rung, backend="kernel", dtype="bfloat16"):
    """Equations of the gradient at the float32 image of the parameters, as training takes it."""
    model_def = ModelDef(SPEC, dtype, attention=backend, remat=rung)
    params = {name: jax.ShapeDtypeStruct(shape.shape, jnp.float32) for name, shape in model_def.shapes().items()}
    grad = jax.grad(functools.partial(loss, model_def))
    return tuple(equations(jax.make_jaxpr(grad)(params, jax.ShapeDtypeStruct((B, T), jnp.int32)).jaxpr))


def products(rung, backend="kernel"):
    return Counter(e.outvars[0].aval.shape for e in traced(rung, backend) if e.primitive.name == "dot_general")


def runs(rung, primitive):
    return sum(e.primitive.name == primitive for e in traced(rung))


@pytest.mark.parametrize(
    ("rung", "again"),
    [
        ("most", {}),
        ("some", {(B * T, 40): 2}),
        ("full", {(B * T, 40): 2, (B, T, 4, 8): 1, (B, T, 2, 8): 2, (B, T, 16): 1}),
    ],
)
def test_a_rung_recomputes_the_products_that_it_says(rung, again):
    """gate and up are [B T, F], q [B, T, N, H], k and v [B, T, K, H], o [B, T, D]; 2 layers."""
    more = products(rung) - products("none")
    assert more == Counter({shape: SPEC.num_hidden_layers * count for shape, count in again.items()})
    flops = lambda rung: sum(2 * e.outvars[0].aval.size * contracted(e) for e in traced(rung) if is_product(e))
    expected = remat.recomputed_flops_per_token(SPEC, rung, mean_keys=0.0)  # this kernel has no product
    assert flops(rung) - flops("none") == B * T * expected


def is_product(equation):
    return equation.primitive.name == "dot_general"


def contracted(equation):
    ((axes, _), _), lhs = equation.params["dimension_numbers"], equation.invars[0].aval
    return np.prod([lhs.shape[axis] for axis in axes])


@pytest.mark.parametrize("rung", remat.RUNGS)
def test_only_full_runs_an_attention_kernel_twice(rung):
    assert runs(rung, "erf") == SPEC.num_hidden_layers * (2 if rung == "full" else 1)


@pytest.mark.parametrize("backend", ["reference", "blockwise"])
def test_the_plain_backends_recompute_their_scores_and_no_more(backend):
    """Without a log-sum-exp the softmax's weights, which no rung but none keeps, are needed again."""
    extra = products("most", backend) - products("none", backend)
    # Scores [B, K, G queries, keys]; blockwise cuts a short row in two halves of queries, one of which sees all keys.
    shapes = [(B, 2, T, T // 2), (B, 2, T, T)] if backend == "blockwise" else [(B, 2, 2 * T, T)]
    assert extra == dict.fromkeys(shapes, SPEC.num_hidden_layers)


@pytest.mark.parametrize("rung", ["most", "some", "full"])
def test_what_a_rung_keeps_is_what_the_plan_counts(rung):
    """The operands of a recomputed layer are its parameters, what it keeps, the incoming gradient, the turns."""
    layers = [e for e in traced(rung) if e.primitive.name in ("checkpoint", "remat2", "remat")]
    layers = [e for e in layers if e.params["differentiated"]]
    assert len(layers) == SPEC.num_hidden_layers
    weights = {shape.shape for shape in ModelDef(SPEC).shapes().values()}
    gradient, angles = B * T * SPEC.hidden_size * 2, B * T * SPEC.head_dim * 4
    kept = 0
    for layer in layers:
        operands = {id(v): v.aval for v in layer.invars}
        held = [a for a in operands.values() if a.shape not in weights and a.dtype != jnp.int32]
        assert all(a.dtype == jnp.bfloat16 for a in operands.values() if len(a.shape) > 1 and a.shape in weights)
        kept += sum(a.size * a.dtype.itemsize for a in held) - gradient - angles
    assert kept == B * T * remat.kept_bytes_per_token(SPEC, rung)


def test_an_unknown_rung_is_refused():
    with pytest.raises(UserError, match="train.remat='little'.*none, most, some, full"):
        remat.wrap(lambda x: x, "little")
