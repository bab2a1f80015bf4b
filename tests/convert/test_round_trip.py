"""pytest tests/convert/test_round_trip.py: law 2. Hugging Face -> ours -> Hugging Face is byte-equal, and
transformers computes from the export what we compute."""

import json
import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from conftest import as_bytes, hf_config, random_tensors, read_folder
from convert import from_hf, mapping, to_hf
from convert.card import Card
from tiny_reasoning_jax.model import store
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import parse_hf_config

SHAPES = {
    "tied 2:1": {},
    "untied 1:1": {"tie_word_embeddings": False, "num_attention_heads": 3, "num_key_value_heads": 3},
    "tied 4:1": {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 6},
}


def test_round_trip_is_byte_equal_at_every_shape(folders):
    for i, changes in enumerate(SHAPES.values()):
        source = folders.make(f"source{i}", num_shards=2, redundant_head=i == 0, **changes)
        checkpoint, output = folders.root / f"checkpoint{i}", folders.root / f"output{i}"
        assert from_hf.main(["--source", str(source), "--output", str(checkpoint)]) == 0
        assert to_hf.main(["--checkpoint", str(checkpoint), "--output", str(output)]) == 0
        before, after = read_folder(source), read_folder(output)
        if i == 0:
            del before["lm_head.weight"]  # the redundant one is not written again
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            assert tensor.dtype == after[name].dtype and tensor.shape == after[name].shape, name
            assert as_bytes(tensor) == as_bytes(after[name]), name


def test_table_covers_every_parameter_and_inverts():
    for changes in SHAPES.values():
        spec = parse_hf_config(hf_config(**changes).to_dict())
        entries = mapping.make_entries(spec)
        assert {e.name: e.shape for e in entries} == {n: s.shape for n, s in ModelDef(spec).shapes().items()}
        reference = {name: tuple(t.shape) for name, t in random_tensors(hf_config(**changes)).items()}
        assert {e.hf_name: e.hf_shape for e in entries} == reference
        for entry in entries:
            tensor = np.random.default_rng(0).standard_normal(entry.hf_shape)
            np.testing.assert_array_equal(entry.to_hf(entry.from_hf(tensor)), tensor)


def greedy(spec, params, prompt: list[int], count: int) -> list[int]:
    """Greedy decoding by a full forward pass a token."""
    model_def = ModelDef(spec, dtype="float32")

    @jax.jit
    def logits(params, tokens, last):
        model = model_def.bind(params)
        hidden, _ = model(tokens, jnp.arange(tokens.shape[1])[None])
        return model.logits(hidden[0, last])

    tokens = np.zeros((1, len(prompt) + count), np.int32)
    tokens[0, : len(prompt)] = prompt
    for i in range(len(prompt), tokens.shape[1]):
        tokens[0, i] = np.argmax(logits(params, tokens, i - 1))
    return tokens[0, len(prompt) :].tolist()


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_decodes_the_export_as_we_do(shape, folders):
    loaded = from_hf.load_hf(folders.make(**SHAPES[shape]))
    output = folders.root / "hf"
    export(output, loaded, folders)
    model = transformers.AutoModelForCausalLM.from_pretrained(output).float()
    tokenizer = transformers.AutoTokenizer.from_pretrained(output)
    prompt = tokenizer("What is 17 + 25?")["input_ids"]
    model.generation_config.eos_token_id = None  # random weights may stop anywhere; 64 tokens are to be compared
    theirs = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=64)[0, len(prompt) :].tolist()
    assert len(set(theirs)) > 3, "the continuation says too little"
    assert greedy(loaded.spec, loaded.params, prompt, 64) == theirs


def export(output: Path, loaded, folders, **kwargs):
    settings = {
        "hf_config": loaded.hf_config,
        "generation_config": loaded.generation_config,
        "tokenizer_folder": folders.tokenizer_folder,
        "card": Card("random"),
    }
    to_hf.export_hf(output, loaded.params.__getitem__, **(settings | kwargs))


def test_live_parameters_export_the_same_files_as_a_checkpoint(folders):
    source = folders.make()
    loaded = from_hf.load_hf(source)
    export(folders.root / "a" / "hf", loaded, folders, card=Card(str(source)))
    from_hf.convert(source, folders.root / "checkpoint")
    to_hf.convert(folders.root / "checkpoint", folders.root / "b" / "hf")
    a, b = ({f.name: f.read_bytes() for f in (folders.root / x / "hf").iterdir()} for x in "ab")
    assert a == b


def test_export_shards_have_an_index_that_transformers_follows(folders):
    loaded = from_hf.load_hf(folders.make())
    export(folders.root / "hf", loaded, folders, shard_bytes=10_000)
    index = json.loads((folders.root / "hf" / "model.safetensors.index.json").read_text())
    files = sorted((folders.root / "hf").glob("*.safetensors"))
    assert len(files) > 2 and files[0].name == f"model-00001-of-{len(files):05}.safetensors"
    assert index["metadata"] == {
        "total_size": 2 * loaded.spec.num_parameters,
        "total_parameters": loaded.spec.num_parameters,
    }
    largest = max(2 * int(np.prod(e.hf_shape)) for e in mapping.make_entries(loaded.spec))
    assert all(file.stat().st_size < max(10_000, largest) + 2000 for file in files)
    model = transformers.AutoModelForCausalLM.from_pretrained(folders.root / "hf")
    for name, tensor in read_folder(folders.root / "hf").items():
        assert as_bytes(model.state_dict()[name].to(torch.bfloat16)) == as_bytes(tensor), name


def test_config_says_theta_and_dtype_for_old_and_new_readers(folders):
    new_style = folders.make("new")
    old_style = folders.make("old")
    config = json.loads((old_style / "config.json").read_text())
    config |= {"rope_theta": config.pop("rope_parameters")["rope_theta"], "torch_dtype": config.pop("dtype")}
    config["a_key_we_do_not_know"] = {"kept": [1, 2]}
    (old_style / "config.json").write_text(json.dumps(config))
    for source in (new_style, old_style):
        loaded = from_hf.load_hf(source)
        output = folders.root / f"{source.name}-out"
        export(output, loaded, folders)
        written = json.loads((output / "config.json").read_text())
        assert written["rope_theta"] == written["rope_parameters"]["rope_theta"] == 12_345.0
        assert written["torch_dtype"] == written["dtype"] == "bfloat16"
        kept = {k: v for k, v in loaded.hf_config.items() if k != "rope_parameters"}
        assert {k: written[k] for k in kept} == kept
        theirs = transformers.AutoConfig.from_pretrained(output)
        assert theirs.rope_parameters["rope_theta"] == 12_345.0 and theirs.head_dim == 10
        assert theirs.tie_word_embeddings is True and str(theirs.dtype).endswith("bfloat16")
        assert parse_hf_config(written) == loaded.spec


def test_generation_config_stops_at_the_end_of_turn_and_keeps_sampling(folders):
    loaded = from_hf.load_hf(folders.make())
    export(folders.root / "hf", loaded, folders)
    written = json.loads((folders.root / "hf" / "generation_config.json").read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders.root / "hf")
    ids = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert written["eos_token_id"] == ids and written["pad_token_id"] == ids[1]
    assert written["temperature"] == 0.6 and written["top_k"] == 20


def test_tokenizer_files_are_carried_and_completed_never_changed(folders):
    source = folders.make()
    for name in ("special_tokens_map.json", "chat_template.jinja"):
        (source / name).unlink()
    (source / "LICENSE").write_text("Apache License\nVersion 2.0, January 2004")
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    from_hf.convert(source, folders.root / "checkpoint")
    to_hf.convert(folders.root / "checkpoint", folders.root / "hf")
    for name in ("tokenizer.json", "tokenizer_config.json", "LICENSE"):
        assert (folders.root / "hf" / name).read_bytes() == before[name]
    config = json.loads(before["tokenizer_config.json"])
    assert (folders.root / "hf" / "chat_template.jinja").read_text() == config["chat_template"]
    special = json.loads((folders.root / "hf" / "special_tokens_map.json").read_text())
    assert special["eos_token"] == "<|im_end|>" and special["pad_token"] == "<|endoftext|>"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_floats_are_rounded_to_bfloat16_and_it_is_said(dtype, folders, caplog):
    source = folders.make(dtype=dtype)
    with caplog.at_level(logging.WARNING):
        loaded = from_hf.load_hf(source)
    assert "rounded to BF16" in caplog.text
    embedding = read_folder(source)["model.embed_tokens.weight"].to(torch.bfloat16)
    assert np.asarray(loaded.params["embed"]).tobytes() == as_bytes(embedding)


def test_checkpoint_of_training_keeps_the_latest_step(folders):
    """Training writes more items beside ours, and steps; the latest is taken unless one is named."""
    loaded = from_hf.load_hf(folders.make())
    meta = {"step": 5, "model_config": loaded.hf_config, "generation_config": None, "base_model": "random"}
    root = folders.root / "checkpoints"
    for step in (5, 20):
        params = {name: array + step for name, array in loaded.params.items()}
        store.save_params(root, step, params, meta | {"step": step}, folders.tokenizer_folder)
    assert store.open_checkpoint(root).meta["step"] == 20
    opened = store.open_checkpoint(root / "5")
    embedding = store.restore_params(opened, ["embed"])["embed"]
    np.testing.assert_array_equal(embedding, np.asarray(loaded.params["embed"] + 5))
