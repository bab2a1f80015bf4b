"""pytest tests/plan/test_flops.py: FLOPs against the published table of Qwen3-1.7B, and against the traced model."""

import math

import jax
import jax.numpy as jnp
import pytest

from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import PUBLISHED, ModelSpec
from tiny_reasoning_jax.plan import flops

QWEN = PUBLISHED["Qwen/Qwen3-1.7B"]


# GFLOP a token, worked out by hand for rows of one segment.
@pytest.mark.parametrize(
    "seq_len, attention, training",
    [(2048, 0.235, 11.03), (4096, 0.470, 11.73), (8192, 0.940, 13.14), (16384, 1.879, 15.96), (32768, 3.758, 21.60)],
)
def test_the_table_of_qwen3_1_7b(seq_len, attention, training):
    forward = flops.forward_flops_per_token(QWEN, seq_len / 2)
    assert forward.linear / 1e9 == pytest.approx(2.819, abs=5e-4)
    assert forward.head / 1e9 == pytest.approx(0.622, abs=5e-4)
    assert forward.attention / 1e9 == pytest.approx(attention, abs=6e-4)
    assert flops.training_flops_per_token(QWEN, seq_len / 2) / 1e9 == pytest.approx(training, abs=6e-3)


def test_half_of_an_h100():
    per_token = flops.training_flops_per_token(QWEN, 2048)
    assert flops.utilisation(42_167, per_token, 989.4e12) == pytest.approx(0.5, abs=1e-4)


def count_products(jaxpr) -> int:
    """FLOPs of all matrix products of a jaxpr, those of the functions that it calls included."""
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracting, _), _ = eqn.params["dimension_numbers"]
            left = eqn.invars[0].aval.shape
            total += 2 * math.prod(eqn.outvars[0].aval.shape) * math.prod(left[i] for i in contracting)
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            total += count_products(inner) if hasattr(inner, "eqns") else 0
    return total


@pytest.mark.parametrize("heads, width", [((4, 2), 48), ((4, 4), 64), ((6, 1), 32)])
def test_the_count_is_that_of_the_traced_model(heads, width):
    spec = ModelSpec(256, width, 80, 3, *heads, 16, 1e4)
    model_def, T = ModelDef(spec, dtype="float32", attention="reference"), 24
    ids = jax.ShapeDtypeStruct((1, T), jnp.int32)
    run = lambda params, ids: (model := model_def.bind(params)).logits(model(ids, ids, ids)[0])
    counted = count_products(jax.make_jaxpr(run)(model_def.shapes(), ids).jaxpr)
    # The reference computes all T keys of every token, and masks half of them.
    assert counted == T * sum(flops.forward_flops_per_token(spec, T))


def test_packed_rows_cost_less():
    assert flops.mean_keys([4096]) == 2048
    assert flops.mean_keys([1024] * 4) == 512
    assert flops.mean_keys([3072, 1024]) == (3072**2 + 1024**2) / 2 / 4096
