"""Hugging Face -> ours: `python -m convert.from_hf --source <folder or hub id> --output DIR`.

Reads sharded or single safetensors of a dense Qwen3 tensor by tensor, so that memory stays near one copy of
the model, and writes a checkpoint that training, evaluation and convert.to_hf open. Nothing is skipped in
silence: a tensor that is unknown, missing or of the wrong shape stops it, all of them named at once.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_dtypes
import numpy as np

from convert import hf_folder, mapping, tensor_files
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model import store
from tiny_reasoning_jax.model.spec import ModelSpec, parse_hf_config

logger = logging.getLogger(__name__)
Tensors = dict[str, tensor_files.StoredTensor]


class Loaded(NamedTuple):
    """A model as it came from a Hugging Face folder.

    Attributes:
      spec: its shape.
      params: our flat dict, bfloat16 jax arrays on the default device.
      hf_config: config.json as it is.
      generation_config: generation_config.json as it is, None when there is none.
    """

    spec: ModelSpec
    params: dict[str, jax.Array]
    hf_config: dict[str, Any]
    generation_config: dict[str, Any] | None


def load_hf(source: str | Path, on_tensor: hf_folder.OnTensor | None = None) -> Loaded:
    """Loads a Hugging Face Qwen3.

    bfloat16 weights stay as they are, bit for bit; float32 and float16 are rounded to bfloat16, and that is
    logged.

    Args:
      source: a folder, or a hub id, which is downloaded.
      on_tensor: called after every tensor with the bytes done and the bytes in all.

    Raises:
      UserError: it cannot be found or fetched, is not a dense Qwen3, or its tensors are not those of its
        config.json.
    """
    folder = hf_folder.find_source(source)
    hf_config = hf_folder.read_config(folder)
    generation_config = hf_folder.read_generation_config(folder)
    spec = parse_hf_config(hf_config)
    params, done = {}, 0
    for entry, tensor in open_tensors(folder, spec):
        array = entry.from_hf(read_bfloat16(tensor))
        # Waiting keeps one tensor on the host at a time; without it the copies to the device queue up.
        params[entry.name] = jax.device_put(array).block_until_ready()
        done += array.nbytes
        if on_tensor is not None:
            on_tensor(done, 2 * spec.num_parameters)
    return Loaded(spec, params, hf_config, generation_config)


def open_tensors(folder: Path, spec: ModelSpec) -> list[tuple[mapping.Entry, tensor_files.StoredTensor]]:
    """Every parameter with the tensor it comes from, after checking that the files hold exactly these.

    Raises:
      UserError: naming every unknown, missing, misshaped or quantized tensor; or a head that should be tied
        and is not.
    """
    found = tensor_files.list_tensors(folder)
    entries = mapping.make_entries(spec)
    wanted = {entry.hf_name: entry for entry in entries}
    redundant_head = spec.tie_word_embeddings and mapping.HEAD in found
    head_shape = (spec.vocab_size, spec.hidden_size)
    problems = []
    for name, tensor in found.items():
        if name not in wanted and not (redundant_head and name == mapping.HEAD):
            problems.append(f"unknown {name} {list(tensor.shape)}")
            continue
        expected = wanted[name].hf_shape if name in wanted else head_shape
        if tensor.shape != expected:
            problems.append(f"{name} has shape {list(tensor.shape)}, config.json makes it {list(expected)}")
        if tensor.dtype not in tensor_files.DTYPES:
            problems.append(f"{name} is stored as {tensor.dtype}, not as one of {', '.join(tensor_files.DTYPES)}")
    problems += [f"missing {name} {list(entry.hf_shape)}" for name, entry in wanted.items() if name not in found]
    if problems:
        raise UserError(
            f"the tensors in {str(folder)!r} are not those of the Qwen3 that its config.json describes "
            f"({len(problems)} differ): {tensor_files.name_some(problems)}. Take config.json and weights from the same "
            "place"
        )
    if redundant_head:
        _check_tied_head(found)
    rounded = [name for name in wanted if found[name].dtype != "BF16"]
    if rounded:
        dtypes = ", ".join(sorted({found[name].dtype for name in rounded}))
        logger.warning("%d of %d tensors are %s and are rounded to BF16", len(rounded), len(wanted), dtypes)
    return [(entry, found[entry.hf_name]) for entry in entries]


def read_bfloat16(tensor: tensor_files.StoredTensor) -> np.ndarray:
    """One tensor as bfloat16; byte-equal if it is stored so, rounded to nearest even otherwise."""
    return tensor_files.read_tensor(tensor).astype(ml_dtypes.bfloat16, copy=False)


def _check_tied_head(found: Tensors) -> None:
    """Official tied checkpoints store the head too; it must equal the embedding, and is not kept."""
    embedding, head = (read_bfloat16(found[name]) for name in (mapping.EMBEDDING, mapping.HEAD))
    rows_per_block = max(1, 2**24 // embedding.shape[1])
    different = 0
    for start in range(0, len(embedding), rows_per_block):
        block = slice(start, start + rows_per_block)
        different += int((embedding[block].view(np.uint16) != head[block].view(np.uint16)).any(axis=1).sum())
    if different:
        raise UserError(
            f"config.json says tie_word_embeddings=true, but {mapping.HEAD} differs from {mapping.EMBEDDING} "
            f"in {different} of {len(embedding)} rows. If the head is right, set tie_word_embeddings to "
            "false in config.json; if it is a stale copy, remove it from the safetensors file"
        )


def convert(source: str | Path, output: str | Path, on_tensor: hf_folder.OnTensor | None = None) -> Path:
    """Converts a Hugging Face model to a checkpoint folder at step 0; returns the folder of the step.

    Raises:
      UserError: what load_hf raises; or the output is not empty, or does not fit on the disk.
    """
    folder = hf_folder.find_source(source)
    spec = parse_hf_config(hf_folder.read_config(folder))
    hf_folder.special_token_ids(folder)  # a model without its tokenizer is of no use: found out before the long part
    with hf_folder.new_folder(output, 2 * spec.num_parameters) as partial:
        loaded = load_hf(folder, on_tensor)
        meta = {
            "step": 0,
            "model_config": loaded.hf_config,
            "generation_config": loaded.generation_config,
            "base_model": str(source),
        }
        store.save_params(partial, 0, loaded.params, meta, folder)
    return Path(output) / "0"


def run_command(command: Callable[[], int]) -> int:
    """The exit code of a command: what it returns, or 2 with the message of a user's mistake."""
    try:
        return command()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m convert.from_hf", description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, help="folder with config.json and *.safetensors, or a hub id")
    parser.add_argument("--output", required=True, metavar="DIR", help="checkpoint folder to make")
    args = parser.parse_args(argv)

    def command() -> int:
        step_folder = convert(args.source, args.output, hf_folder.show_progress("read"))
        print(f"wrote {step_folder}")
        return 0

    return run_command(command)


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")  # copying needs no accelerator, and must not take its memory
    sys.exit(main())
