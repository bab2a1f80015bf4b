"""THE table: which Hugging Face tensor is which parameter of ours, and how the axes lie. Both directions come
from it.

Letters: V vocabulary, D width, F MLP width, N query heads, K key/value heads, H head width. Hugging Face
stores projections as [out, in] with heads and head width merged ("NH D"); we keep [in, heads, head width]
("DNH").
"""

import dataclasses

import numpy as np

from tiny_reasoning_jax.model.spec import ModelSpec

# Hugging Face name, its axes | our name, our axes
TABLE = (
    ("model.embed_tokens.weight", "V D", "embed", "VD"),
    ("model.layers.{i}.input_layernorm.weight", "D", "layers.{i}.attn_norm.scale", "D"),
    ("model.layers.{i}.self_attn.q_proj.weight", "NH D", "layers.{i}.attn.q", "DNH"),
    ("model.layers.{i}.self_attn.k_proj.weight", "KH D", "layers.{i}.attn.k", "DKH"),
    ("model.layers.{i}.self_attn.v_proj.weight", "KH D", "layers.{i}.attn.v", "DKH"),
    ("model.layers.{i}.self_attn.o_proj.weight", "D NH", "layers.{i}.attn.o", "NHD"),
    ("model.layers.{i}.self_attn.q_norm.weight", "H", "layers.{i}.attn.q_norm.scale", "H"),
    ("model.layers.{i}.self_attn.k_norm.weight", "H", "layers.{i}.attn.k_norm.scale", "H"),
    ("model.layers.{i}.post_attention_layernorm.weight", "D", "layers.{i}.mlp_norm.scale", "D"),
    ("model.layers.{i}.mlp.gate_proj.weight", "F D", "layers.{i}.mlp.gate", "DF"),
    ("model.layers.{i}.mlp.up_proj.weight", "F D", "layers.{i}.mlp.up", "DF"),
    ("model.layers.{i}.mlp.down_proj.weight", "D F", "layers.{i}.mlp.down", "FD"),
    ("model.norm.weight", "D", "final_norm.scale", "D"),
    ("lm_head.weight", "V D", "lm_head", "VD"),
)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@dataclasses.dataclass(frozen=True)
class Entry:
    """One parameter: a row of the table with its layer number and sizes filled in.

    Attributes:
      hf_name: name in the safetensors files.
      hf_split: shape of the Hugging Face tensor with merged axes split.
      hf_shape: its shape as stored.
      name: our name.
      order: for each of our axes, its place among the split Hugging Face axes.
    """

    hf_name: str
    hf_split: tuple[int, ...]
    hf_shape: tuple[int, ...]
    name: str
    order: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Our shape."""
        return tuple(self.hf_split[axis] for axis in self.order)

    def from_hf(self, tensor: np.ndarray) -> np.ndarray:
        """A Hugging Face tensor in our layout; a view of it."""
        return tensor.reshape(self.hf_split).transpose(self.order)

    def to_hf(self, param: np.ndarray) -> np.ndarray:
        """Our parameter in Hugging Face's layout, contiguous."""
        return np.ascontiguousarray(param.transpose(np.argsort(self.order))).reshape(self.hf_shape)


def make_entries(spec: ModelSpec) -> list[Entry]:
    """Every parameter of a model in forward order; a tied head is the embedding and has no entry."""
    first, *per_layer, norm, head = TABLE
    numbered = [(0, first)]
    numbered += [(i, row) for i in range(spec.num_hidden_layers) for row in per_layer]
    numbered += [(0, norm)] if spec.tie_word_embeddings else [(0, norm), (0, head)]
    return [_make_entry(row, i, spec) for i, row in numbered]


def _make_entry(row: tuple[str, str, str, str], layer: int, spec: ModelSpec) -> Entry:
    hf_name, hf_axes, name, axes = row
    size = {
        "V": spec.vocab_size,
        "D": spec.hidden_size,
        "F": spec.intermediate_size,
        "N": spec.num_attention_heads,
        "K": spec.num_key_value_heads,
        "H": spec.head_dim,
    }
    split = hf_axes.replace(" ", "")
    return Entry(
        hf_name=hf_name.format(i=layer),
        hf_split=tuple(size[axis] for axis in split),
        hf_shape=tuple(int(np.prod([size[axis] for axis in group])) for group in hf_axes.split()),
        name=name.format(i=layer),
        order=tuple(split.index(axis) for axis in axes),
    )
