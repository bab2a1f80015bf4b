"""What a Qwen3 checkpoint looks like: the shape of the model, read from any Hugging Face config.json.

Only dense Qwen3 is supported. Anything in a config that we would silently compute differently is refused by name.
"""

import contextlib
import dataclasses
import math
from typing import Any

from tiny_reasoning_jax.errors import UserError

# No dense Qwen3 comes near (the largest: 64 layers, 25,600 wide inside, 151,936 entries). What is beyond is a damaged
# or hostile file, and is refused before anything is counted out or allocated.
MAX_LAYERS, MAX_SIZE, MAX_VOCAB = 1000, 2**20, 2**24


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
            largest = {"num_hidden_layers": MAX_LAYERS, "vocab_size": MAX_VOCAB}.get(field.name, MAX_SIZE)
            largest = math.inf if field.name == "max_position_embeddings" else largest
            if not isinstance(value, bool) and not value > 0:
                raise UserError(f"model {field.name}={value} must be above 0")
            if isinstance(value, float) and not math.isfinite(value):
                raise UserError(f"model {field.name}={value} must be a finite number")
            if type(value) is int and value > largest:
                raise UserError(f"model {field.name}={value} is too large: up to {largest} is read; mend config.json")
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
            f"model_type={_show(config.get('model_type'))} is not supported; only dense Qwen3 (model_type 'qwen3') is"
        )
    _refuse_unsupported(config)
    required = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim",
    )  # fmt: skip
    missing = [key for key in required if config.get(key) is None]
    if missing:
        raise UserError(f"config.json lacks {', '.join(missing)}; take the file that came with the weights")
    tied = config.get("tie_word_embeddings")
    if not isinstance(tied, bool | None):
        raise UserError(f"config.json: tie_word_embeddings={_show(tied)} must be true or false")
    return ModelSpec(
        **{key: _integer(config, key) for key in required},
        rope_theta=_rope_theta(config),
        # transformers leaves a key out when it has the architecture's default; these are Qwen3's.
        rms_norm_eps=_number(config.get("rms_norm_eps", 1e-6), "rms_norm_eps"),
        tie_word_embeddings=bool(tied),
        max_position_embeddings=_integer(config, "max_position_embeddings", 32_768),
    )


def _integer(config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if type(value) is not int:
        raise UserError(f"config.json: {key}={_show(value)} must be a whole number; take the file of the weights")
    return value


def _number(value: Any, key: str) -> float:
    with contextlib.suppress(OverflowError):  # of a whole number too large for any float: refused like the others
        if type(value) in (int, float):
            return float(value)
    raise UserError(f"config.json: {key}={_show(value)} must be a number; take the file that came with the weights")


def _show(value: Any) -> str:
    """A value of a foreign file for a message, short whatever it is."""
    return f"a JSON {type(value).__name__}" if isinstance(value, list | dict) else f"{value!r:.80}"


def _object(config: dict[str, Any], key: str) -> dict[str, Any]:
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise UserError(
            f"config.json: {key}={_show(value)} must be an object; take the file that came with the weights"
        )
    return value


def _rope_theta(config: dict[str, Any]) -> float:
    """Theta from transformers 5's `rope_parameters` or 4's `rope_theta`; when both are there they must agree."""
    values = [config.get("rope_theta"), _object(config, "rope_parameters").get("rope_theta")]
    known = {_number(value, "rope_theta") for value in values if value is not None}
    if len(known) != 1:
        raise UserError(
            f"rope_theta is {'given twice and differs' if known else 'missing'} in config.json (rope_theta={values[0]},"
            f" rope_parameters.rope_theta={values[1]}); it must be known, a guess would ruin long contexts"
        )
    return known.pop()


def _refuse_unsupported(config: dict[str, Any]) -> None:
    problems = []
    for key in ("rope_scaling", "rope_parameters"):
        rope = _object(config, key)
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            problems.append(f"{key} of type {_show(kind)}")
    layer_types = config.get("layer_types") or ["full_attention"]
    others = [_show(kind) for kind in layer_types if kind != "full_attention"] if isinstance(layer_types, list) else []
    if config.get("use_sliding_window") or others or not isinstance(layer_types, list):
        problems.append(f"sliding window attention (layer_types {', '.join(sorted(set(others))[:5]) or 'unknown'})")
    if config.get("attention_bias"):
        problems.append("attention_bias=true")
    if config.get("hidden_act", "silu") != "silu":
        problems.append(f"hidden_act={_show(config['hidden_act'])}")
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


def _qwen3(width: int, mlp: int, layers: int, heads: int, tied: bool, longest: int) -> ModelSpec:
    return ModelSpec(151_936, width, mlp, layers, heads, 8, 128, 1e6, 1e-6, tied, longest)


# Shapes of the published models, so that a run can be planned without a network. Source: their config.json.
PUBLISHED = {
    "Qwen/Qwen3-0.6B": _qwen3(1024, 3072, 28, 16, True, 40_960),
    "Qwen/Qwen3-0.6B-Base": _qwen3(1024, 3072, 28, 16, True, 32_768),
    "Qwen/Qwen3-1.7B": _qwen3(2048, 6144, 28, 16, True, 40_960),
    "Qwen/Qwen3-1.7B-Base": _qwen3(2048, 6144, 28, 16, True, 32_768),
    "Qwen/Qwen3-4B": _qwen3(2560, 9728, 36, 32, True, 40_960),
    "Qwen/Qwen3-4B-Base": _qwen3(2560, 9728, 36, 32, True, 32_768),
}
