"""Hugging Face folders as others write them: transformers' config, the safetensors library's files."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers

from tiny_reasoning_jax.data.tokenizer import train_tokenizer

VOCAB = 277  # odd, and more rows than the tokenizer has entries
END_OF_TURN_ID = 267


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = train_tokenizer(["What is 17 + 25? 17 + 25 = 42, so it is 42."] * 20, 270, folder)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == END_OF_TURN_ID
    return folder


def hf_config(**changes) -> transformers.Qwen3Config:
    settings = {
        "vocab_size": VOCAB,
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 10,
        "rope_theta": 12_345.0,  # as transformers 4 says it, and as 5 does
        "rope_parameters": {"rope_theta": 12_345.0, "rope_type": "default"},
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "max_position_embeddings": 512,
        "eos_token_id": END_OF_TURN_ID,
        "dtype": "bfloat16",
    }
    return transformers.Qwen3Config(**(settings | changes))


def random_tensors(config, dtype=torch.bfloat16, seed=0) -> dict[str, torch.Tensor]:
    """Weights of which a wrong layout shows in the logits: layers that outweigh the embedding, norms away
    from 1.

    The head of a tied model is left out.
    """
    torch.manual_seed(seed)
    model = transformers.Qwen3ForCausalLM(config)
    tensors = {name: torch.randn_like(tensor, dtype=torch.float32) for name, tensor in model.state_dict().items()}

    def scale(name, tensor):
        if "norm" in name:
            return 1 + 0.2 * tensor
        return (0.1 if "embed" in name or "lm_head" in name else 0.4) * tensor

    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    return {name: scale(name, tensor).to(dtype) for name, tensor in tensors.items()}


def write_folder(folder: Path, config, tensors, tokenizer_folder: Path, num_shards: int = 1) -> Path:
    """Writes a model folder; with several shards, an index, and the last tensors in the last shard."""
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    generation = {
        "do_sample": True,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
        "eos_token_id": END_OF_TURN_ID,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation))
    for file in tokenizer_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    names = list(tensors)
    if num_shards == 1:
        safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    per_shard = -(-len(names) // num_shards)
    weight_map = {}
    for i in range(num_shards):
        part = names[i * per_shard : (i + 1) * per_shard]
        file = f"model-{i + 1:05}-of-{num_shards:05}.safetensors"
        safetensors.torch.save_file({name: tensors[name] for name in part}, folder / file, {"format": "pt"})
        weight_map |= {name: file for name in part}
    total_size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def read_folder(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a folder, by the safetensors library."""
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= safetensors.torch.load_file(file)
    return tensors


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


class Folders:
    """Makes model folders under one temporary directory."""

    def __init__(self, root: Path, tokenizer_folder: Path):
        self.root, self.tokenizer_folder = root, tokenizer_folder

    def make(self, name="source", *, num_shards=1, dtype=torch.bfloat16, redundant_head=False, edit=None, **changes):
        """A folder; `edit` may change the dict of tensors before it is written."""
        config = hf_config(**changes)
        tensors = random_tensors(config, dtype)
        if redundant_head:
            tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        if edit is not None:
            edit(tensors)
        return write_folder(self.root / name, config, tensors, self.tokenizer_folder, num_shards)


@pytest.fixture
def folders(tmp_path, tokenizer_folder) -> Folders:
    return Folders(tmp_path, tokenizer_folder)
