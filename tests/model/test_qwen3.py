"""pytest tests/model/test_qwen3.py: parameters and their names."""

import jax
import pytest

from tiny_reasoning_jax.model.qwen3 import ModelDef
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
