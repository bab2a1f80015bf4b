"""What a Qwen3 checkpoint looks like: the shape of the model, read from any Hugging Face config.json.

Only dense Qwen3 is supported. Anything in a config that we would silently compute differently is refused by name.
"""

import dataclasses
from typing import Any

from tiny_reasoning_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ModelSpec:
    """Shape of a dense Qwen3; field names are those of Hugging Face's config.json.

    Attributes:
      vocab_size: rows of the embedding V (may exceed the tokenizer's entries).
      hidden_size: width D.
      intermediate_size: MLP width F.
      num_hidden_layers: L.
      num_attention_heads: query heads N.
      num_key_value_heads: key/value heads K; divides N.
      head_dim: H; independent of D / N.
      rope_theta: base of the rotary wavelengths.
      rms_norm_eps: added to the mean square in every RMSNorm.
      tie_word_embeddings: True if the head is the embedding itself.
      max_position_embeddings: longest sequence the weights were trained for, tokens.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    max_position_embeddings: int = 40_960

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, bool) and value <= 0:
                raise UserError(f"model {field.name}={value} must be above 0")
        if self.num_attention_heads % self.num_key_value_heads:
            raise UserError(
                f"num_attention_heads={self.num_attention_heads} is not divisible by "
                f"num_key_value_heads={self.num_key_value_heads}; each key/value head serves the same number of queries"
            )
        if self.head_dim % 2:
            raise UserError(f"head_dim={self.head_dim} is odd; rotary embedding turns pairs, choose an even number")

    @property
    def num_parameters(self) -> int:
        """Parameters, a tied embedding counted once."""
        attention = 2 * self.hidden_size * self.head_dim * (self.num_attention_heads + self.num_key_value_heads)
        layer = attention + 3 * self.hidden_size * self.intermediate_size + 2 * self.hidden_size + 2 * self.head_dim
        embeddings = (1 if self.tie_word_embeddings else 2) * self.vocab_size * self.hidden_size
        return self.num_hidden_layers * layer + embeddings + self.hidden_size


def parse_hf_config(config: dict[str, Any]) -> ModelSpec:
    """Reads the parsed config.json of a Hugging Face Qwen3, written by transformers 4.51 or later, 5.x included.

    Raises:
      UserError: not a Qwen3, a missing key, or a feature that this model does not compute.
    """
    if config.get("model_type") != "qwen3":
        raise UserError(
            f"model_type={config.get('model_type')!r} is not supported; only dense Qwen3 (model_type 'qwen3') is"
        )
    _refuse_unsupported(config)
    required = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim",
    )  # fmt: skip
    missing = [key for key in required if config.get(key) is None]
    if missing:
        raise UserError(f"config.json lacks {', '.join(missing)}; take the file that came with the weights")
    return ModelSpec(
        **{key: int(config[key]) for key in required},
        rope_theta=_rope_theta(config),
        # transformers leaves a key out when it has the architecture's default; these are Qwen3's.
        rms_norm_eps=float(config.get("rms_norm_eps", 1e-6)),
        tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
        max_position_embeddings=int(config.get("max_position_embeddings", 32_768)),
    )


def _rope_theta(config: dict[str, Any]) -> float:
    """Theta from transformers 5's `rope_parameters` or 4's `rope_theta`; when both are there they must agree."""
    values = [config.get("rope_theta"), (config.get("rope_parameters") or {}).get("rope_theta")]
    known = {float(value) for value in values if value is not None}
    if len(known) != 1:
        raise UserError(
            f"rope_theta is {'given twice and differs' if known else 'missing'} in config.json (rope_theta={values[0]},"
            f" rope_parameters.rope_theta={values[1]}); it must be known, a guess would ruin long contexts"
        )
    return known.pop()


def _refuse_unsupported(config: dict[str, Any]) -> None:
    problems = []
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key) or {}
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            problems.append(f"{key} of type {kind!r}")
    layer_types = set(config.get("layer_types") or ["full_attention"])
    if config.get("use_sliding_window") or layer_types != {"full_attention"}:
        problems.append(f"sliding window attention (layer_types {sorted(layer_types)})")
    if config.get("attention_bias"):
        problems.append("attention_bias=true")
    if config.get("hidden_act", "silu") != "silu":
        problems.append(f"hidden_act={config['hidden_act']!r}")
    if config.get("quantization_config"):
        problems.append("quantized weights")
    if problems:
        raise UserError(f"this checkpoint uses {'; '.join(problems)}, which is not supported: use plain Qwen3 weights")


def hf_config(spec: ModelSpec) -> dict[str, Any]:
    """The config.json entries that describe `spec`, readable by transformers 4.51 to 5.x, vLLM and llama.cpp.

    Theta is written both ways: a reader that misses it falls back to 10,000 without a word. The data type likewise.
    """
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        **dataclasses.asdict(spec),
        "rope_parameters": {"rope_theta": spec.rope_theta, "rope_type": "default"},
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "max_window_layers": spec.num_hidden_layers,
        "layer_types": ["full_attention"] * spec.num_hidden_layers,
        "initializer_range": 0.02,
        "use_cache": True,
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }
