"""Ours -> Hugging Face: `python -m convert.to_hf --checkpoint DIR --output DIR`.

Writes a folder that transformers 4.51 to 5.x, vLLM, SGLang and llama.cpp read without help. The tokenizer's
files are carried over byte for byte, and what older or newer readers miss is written beside them; what the
source's config.json says is kept. Weights go out tensor by tensor. The folder appears when it is whole, never
before.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from convert import hf_folder, mapping, tensor_files
from convert.card import Card, make_card
from convert.from_hf import run_command
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.foreign import read_json
from tiny_reasoning_jax.model import store
from tiny_reasoning_jax.model.spec import ModelSpec, parse_hf_config

SHARD_BYTES = 2 * 10**9


def export_hf(
    output: str | Path,
    get_param: Callable[[str], Any],
    *,
    hf_config: dict[str, Any],
    generation_config: dict[str, Any] | None,
    tokenizer_folder: str | Path,
    card: Card,
    on_tensor: hf_folder.OnTensor | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes a Hugging Face model folder.

    Args:
      output: the folder to make; may exist if it is empty.
      get_param: our name -> the parameter, bfloat16, as a numpy or jax array. `params.__getitem__` for a
        dict; for a checkpoint, a function that reads one.
      hf_config: the source's config.json, or hf_config(spec) of a new model; keys unknown to us are kept.
      generation_config: the source's generation_config.json; its sampling values are kept.
      tokenizer_folder: where the tokenizer's files lie.
      card: what the model card says; with its results and configuration, which get files of their own.
      on_tensor: called after every tensor with the bytes done and the bytes in all.
      shard_bytes: largest safetensors file; a model beyond it is sharded.

    Raises:
      UserError: the output is not empty, the disk is full, or the tokenizer lacks <|im_end|> or
        <|endoftext|>.
    """
    spec = parse_hf_config(hf_config)
    tokenizer_folder = Path(tokenizer_folder)
    end_ids = find_end_ids(tokenizer_folder)
    with hf_folder.new_folder(output, 2 * spec.num_parameters) as folder:
        _write_json(folder / hf_folder.CONFIG, make_config(hf_config, spec, end_ids))
        _write_json(folder / hf_folder.GENERATION_CONFIG, make_generation_config(generation_config, end_ids))
        store.copy_carried_files(tokenizer_folder, folder)
        _complete_tokenizer(folder)
        if card.eval_results is not None:
            _write_json(folder / "eval_results.json", card.eval_results)
        if card.training_config is not None:
            _write_json(folder / "training_config.json", card.training_config)
        license_file = folder / "LICENSE"
        text = make_card(card, Path(output).absolute().name, license_file if license_file.is_file() else None)
        (folder / "README.md").write_text(text, encoding="utf-8")
        _write_weights(folder, spec, get_param, on_tensor, shard_bytes)


def _write_weights(folder: Path, spec: ModelSpec, get_param, on_tensor, shard_bytes: int) -> None:
    entries = {entry.hf_name: entry for entry in mapping.make_entries(spec)}
    shapes = {name: entry.hf_shape for name, entry in entries.items()}
    done = 0

    def get_tensor(hf_name: str) -> np.ndarray:
        nonlocal done
        entry = entries[hf_name]
        tensor = entry.to_hf(np.asarray(get_param(entry.name)))
        done += tensor.nbytes
        if on_tensor is not None:
            on_tensor(done, 2 * spec.num_parameters)
        return tensor

    shards = tensor_files.plan_shards(shapes, shard_bytes)
    for file_name, names in shards.items():
        tensor_files.write_bfloat16_file(folder / file_name, {name: shapes[name] for name in names}, get_tensor)
    if len(shards) > 1:
        _write_json(folder / tensor_files.INDEX_FILE, tensor_files.make_index(shapes, shards))


def find_end_ids(tokenizer_folder: Path) -> tuple[int, int]:
    """Ids of <|im_end|>, which ends our completions, and <|endoftext|>, which pads.

    Raises:
      UserError: the tokenizer lacks one of them.
    """
    ids = hf_folder.special_token_ids(tokenizer_folder)
    lacking = [token for token in (hf_folder.END_OF_TURN, hf_folder.END_OF_TEXT) if token not in ids]
    if lacking:
        raise UserError(
            f"the tokenizer in {str(tokenizer_folder)!r} lacks {' and '.join(lacking)}, without which no "
            "reader of the export would know where to stop; use a Qwen3 tokenizer"
        )
    return ids[hf_folder.END_OF_TURN], ids[hf_folder.END_OF_TEXT]


def make_config(hf_config: dict[str, Any], spec: ModelSpec, end_ids: tuple[int, int]) -> dict[str, Any]:
    """config.json: the source's, with theta and data type written for old and new readers.

    A reader that does not find theta where it looks falls back to 10,000 without a word (mlx-lm issue 1563).
    """
    config = {
        **hf_config,
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "tie_word_embeddings": spec.tie_word_embeddings,
        "rope_theta": spec.rope_theta,
        "rope_parameters": {
            **(hf_config.get("rope_parameters") or {}),
            "rope_theta": spec.rope_theta,
            "rope_type": "default",
        },
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }
    if config.get("eos_token_id") is None:
        config["eos_token_id"] = end_ids[0]
    return config


def make_generation_config(source: dict[str, Any] | None, end_ids: tuple[int, int]) -> dict[str, Any]:
    """generation_config.json: the source's sampling values, and the ids at which readers stop."""
    return {**(source or {}), "eos_token_id": list(end_ids), "pad_token_id": end_ids[1]}


def _complete_tokenizer(folder: Path) -> None:
    """Adds files that only some readers look for, from tokenizer_config.json; touches none that exists."""
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    template_path, special_path = folder / "chat_template.jinja", folder / "special_tokens_map.json"
    if isinstance(config.get("chat_template"), str) and not template_path.exists():
        template_path.write_bytes(config["chat_template"].encode())
    keys = ("bos_token", "eos_token", "unk_token", "pad_token", "additional_special_tokens")
    special = {key: config[key] for key in keys if config.get(key)}
    if special and not special_path.exists():
        _write_json(special_path, special)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def convert(checkpoint: str | Path, output: str | Path, on_tensor: hf_folder.OnTensor | None = None) -> None:
    """Exports a checkpoint, reading its parameters one by one.

    Raises:
      UserError: no usable checkpoint, no tokenizer beside it, or what export_hf raises.
    """
    opened = store.open_checkpoint(checkpoint)
    if opened.tokenizer_folder is None:
        raise UserError(
            f"checkpoint {opened.step_folder} has no tokenizer beside it "
            f"({opened.step_folder.parent / 'tokenizer'}); copy the tokenizer's files there"
        )
    check_params(opened)
    export_hf(
        output,
        lambda name: store.restore_params(opened, [name])[name],
        hf_config=opened.meta["model_config"],
        generation_config=opened.meta["generation_config"],
        tokenizer_folder=opened.tokenizer_folder,
        card=Card(opened.meta["base_model"], opened.meta["step"], _find_results(opened), opened.meta.get("config")),
        on_tensor=on_tensor,
    )


def _find_results(opened: store.OpenCheckpoint) -> dict[str, Any] | None:
    """The evaluation of a run's checkpoint, if the run lies around it and has evaluated this very step."""
    path = opened.step_folder.parent.parent / "eval" / "results.json"
    results = read_json(path) if path.is_file() else {}
    evaluated = results.get("after", {}).get("settings", {}).get("step")
    return results if evaluated == opened.meta["step"] else None


def check_params(opened: store.OpenCheckpoint) -> None:
    """Checks that a checkpoint holds exactly the parameters of its model_config.

    Raises:
      UserError: naming every parameter that is missing, unknown or misshaped.
    """
    entries = mapping.make_entries(parse_hf_config(opened.meta["model_config"]))
    wanted = {entry.name: entry.shape for entry in entries}
    problems = [f"missing {name}" for name in wanted if name not in opened.shapes]
    for name, array in opened.shapes.items():
        if name not in wanted:
            problems.append(f"unknown {name} {list(array.shape)}")
        elif array.shape != wanted[name] or array.dtype != jax.numpy.bfloat16:
            problems.append(f"{name} is {array.dtype} {list(array.shape)}, not bfloat16 {list(wanted[name])}")
    if problems:
        raise UserError(
            f"the parameters in {opened.step_folder} are not those of the model in its meta ({len(problems)} "
            f"differ): {'; '.join(problems)}; the checkpoint was put together from two models, use another"
        )


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m convert.to_hf", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", required=True, metavar="DIR", help="checkpoint folder (latest step) or DIR/<step>"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="Hugging Face folder to make")
    args = parser.parse_args(argv)

    def command() -> int:
        convert(args.checkpoint, args.output, hf_folder.show_progress("write"))
        print(f"wrote {args.output}")
        return 0

    return run_command(command)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # copying needs no accelerator, and must not take its memory
    sys.exit(main())
