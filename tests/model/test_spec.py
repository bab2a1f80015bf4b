"""pytest tests/model/test_spec.py: a config.json of any age gives the same spec, or is refused by name."""

import pytest

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec, hf_config, parse_hf_config

# Qwen3-1.7B's config.json, key by key, as transformers 4 wrote it.
QWEN3_1_7B = {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "initializer_range": 0.02,
    "intermediate_size": 6144,
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.0",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
SPEC_1_7B = ModelSpec(
    vocab_size=151_936,
    hidden_size=2048,
    intermediate_size=6144,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    rope_theta=1e6,
)


def changed(**changes):
    """The config with keys changed; a value of None removes the key."""
    merged = QWEN3_1_7B | changes
    return {key: value for key, value in merged.items() if value is not None}


def test_old_new_and_our_own_config_give_the_same_spec():
    new_rope = {"rope_theta": 1000000, "rope_type": "default"}
    new_style = changed(rope_theta=None, rope_parameters=new_rope, torch_dtype=None, dtype="bfloat16")
    new_style["layer_types"] = ["full_attention"] * 28
    for config in (QWEN3_1_7B, new_style, changed(rope_parameters=new_rope), hf_config(SPEC_1_7B)):
        assert parse_hf_config(config) == SPEC_1_7B


def test_parameter_count_is_that_of_the_published_model():
    assert SPEC_1_7B.num_parameters == 1_720_574_976


@pytest.mark.parametrize("tied", [True, False])
def test_parameter_count_agrees_with_the_model(tied):
    spec = ModelSpec(101, 24, 40, 3, 6, 2, 10, 1e4, tie_word_embeddings=tied)
    shapes = ModelDef(spec).shapes()
    assert sum(shape.size for shape in shapes.values()) == spec.num_parameters
    assert ("lm_head" in shapes) is not tied


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen3_moe"}, "model_type='qwen3_moe'"),
        ({"use_sliding_window": True}, "sliding window"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding window"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_scaling of type 'yarn'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling of type 'linear'"),
        (
            {"rope_parameters": {"rope_theta": 1e6, "rope_type": "dynamic"}},
            "rope_parameters of type 'dynamic'",
        ),
        ({"attention_bias": True}, "attention_bias"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"rope_theta": None}, "rope_theta is missing"),
        ({"rope_parameters": {"rope_theta": 5e6, "rope_type": "default"}}, "given twice and differs"),
        ({"head_dim": None, "hidden_size": None}, "lacks hidden_size, head_dim"),
        ({"head_dim": 127}, "head_dim=127 is odd"),
        ({"num_key_value_heads": 5}, "num_key_value_heads=5"),
        ({"intermediate_size": 0}, "intermediate_size=0 must be above 0"),
    ],
)
def test_what_we_do_not_compute_is_refused_by_name(change, message):
    with pytest.raises(UserError, match=message):
        parse_hf_config(changed(**change))


def test_every_unsupported_feature_is_named_at_once():
    with pytest.raises(UserError, match="sliding window.*attention_bias.*quantized"):
        parse_hf_config(changed(use_sliding_window=True, attention_bias=True, quantization_config={"bits": 8}))
