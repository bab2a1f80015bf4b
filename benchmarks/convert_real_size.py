"""Memory and time of the converter at real size, and proof that no byte changes on the way.

    python benchmarks/convert_real_size.py --folder /tmp/real_size [--tokenizer FOLDER] [--check]

Makes a Hugging Face folder of random weights with the shape of Qwen3-1.7B as it is published (two shards, an
index, the redundant head of the tied model in the second), converts it to a checkpoint and back in processes
of their own, and prints their peak memory as a multiple of the model's bytes. Needs 12 GB of disk, which it
frees again. Exit code 1 if a byte differs or a peak is above 1.5 times the model.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from convert import mapping, tensor_files
from tiny_reasoning_jax.data.tokenizer import train_tokenizer
from tiny_reasoning_jax.model.spec import ModelSpec, hf_config

MAX_MULTIPLE = 1.5
BLOCK = 2**24  # numbers drawn, or bytes read, at a time


def make_spec(num_layers: int) -> ModelSpec:
    """Qwen3-1.7B, with fewer layers for a quick trial."""
    return ModelSpec(
        vocab_size=151_936,
        hidden_size=2048,
        intermediate_size=6144,
        num_hidden_layers=num_layers,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        rope_theta=1e6,
    )


def make_folder(folder: Path, spec: ModelSpec, tokenizer: Path | None) -> None:
    """Writes the model tensor by tensor; the same numbers every time."""
    folder.mkdir(parents=True)
    shapes = {entry.hf_name: entry.hf_shape for entry in mapping.make_entries(spec)}
    names = list(shapes)
    shapes[mapping.HEAD] = shapes[mapping.EMBEDDING]
    half = len(names) // 2
    shards = {
        "model-00001-of-00002.safetensors": names[:half],
        "model-00002-of-00002.safetensors": names[half:] + [mapping.HEAD],
    }
    for file, members in shards.items():
        tensor_files.write_bfloat16_file(
            folder / file, {name: shapes[name] for name in members}, lambda name: draw(name, shapes[name])
        )
    index = tensor_files.make_index(shapes, shards)
    (folder / tensor_files.INDEX_FILE).write_text(json.dumps(index))
    config = hf_config(spec) | {"bos_token_id": 151_643, "eos_token_id": 151_645}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    if tokenizer is None:
        train_tokenizer(["What is 17 + 25? 42."] * 20, 300, folder)
    else:
        for file in tokenizer.iterdir():
            shutil.copyfile(file, folder / file.name)


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random bfloat16 weights; the head's are the embedding's, norms lie around 1."""
    rng = np.random.default_rng(zlib.crc32(name.replace(mapping.HEAD, mapping.EMBEDDING).encode()))
    out = np.empty(int(np.prod(shape)), ml_dtypes.bfloat16)
    for start in range(0, out.size, BLOCK):
        block = rng.standard_normal(min(BLOCK, out.size - start), np.float32)
        out[start : start + BLOCK] = 1 + 0.1 * block if "norm" in name else 0.02 * block
    return out.reshape(shape)


def measure(*command: str) -> tuple[float, int, int]:
    """Runs a Python command; returns seconds, peak resident bytes and exit code.

    A child counts what its parent held when it was started, so this process must stay small.
    """
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, *command])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return time.monotonic() - began, usage.ru_maxrss * 1024, process.returncode


def hash_tensors(folder: Path) -> dict[str, str]:
    """Name -> hash of dtype, shape and bytes."""
    hashes = {}
    for name, tensor in tensor_files.list_tensors(folder).items():
        digest = hashlib.sha256(f"{tensor.dtype} {tensor.shape}".encode())
        with tensor.file.open("rb") as stream:
            stream.seek(tensor.start)
            for start in range(tensor.start, tensor.stop, BLOCK):
                digest.update(stream.read(min(BLOCK, tensor.stop - start)))
        hashes[name] = digest.hexdigest()
    return hashes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to work (made, and removed at the end)")
    parser.add_argument("--tokenizer", type=Path, help="folder of a Qwen3 tokenizer; without, one is trained")
    parser.add_argument("--check", action="store_true", help="also run convert.check, which computes logits")
    parser.add_argument("--num-layers", type=int, default=28, help="28 as published; fewer for a quick trial")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)  # how this program calls itself
    args = parser.parse_args()
    if args.make:
        make_folder(args.folder, make_spec(args.num_layers), args.tokenizer)
        return 0
    work = args.folder or Path(tempfile.gettempdir()) / "convert_real_size"
    work.mkdir(parents=True)
    try:
        results = run(work, args)
    finally:
        shutil.rmtree(work)
    if args.output:
        machine = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
        }
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(machine | results, indent=2) + "\n")
    return 0 if results["passed"] else 1


def run(work: Path, args) -> dict[str, Any]:
    """Makes the folder, measures the commands, compares the bytes; prints and returns the figures."""
    spec = make_spec(args.num_layers)
    model_bytes = 2 * spec.num_parameters
    source, checkpoint, output = (str(work / name) for name in ("source", "checkpoint", "hf"))
    print(f"Qwen3-1.7B with {args.num_layers} layers: {spec.num_parameters:,} parameters, {model_bytes:,} bytes")
    tokenizer = ["--tokenizer", str(args.tokenizer)] if args.tokenizer else []
    make = [__file__, "--make", "--folder", source, "--num-layers", str(args.num_layers), *tokenizer]
    subprocess.run([sys.executable, *make], check=True)
    commands = {
        "from_hf": ["convert.from_hf", "--source", source, "--output", checkpoint],
        "to_hf": ["convert.to_hf", "--checkpoint", checkpoint, "--output", output],
    }
    if args.check:
        commands["check"] = ["convert.check", "--source", source, "--checkpoint", checkpoint]
    results: dict[str, Any] = {"num_layers": args.num_layers, "model_bytes": model_bytes}
    passed = True
    for name, command in commands.items():
        seconds, peak, code = measure("-m", *command)
        multiple = peak / model_bytes
        print(f"{name}: exit code {code}, {seconds:.0f} s, peak {peak / 1e9:.2f} GB, {multiple:.2f} x the model")
        results[name] = {"seconds": round(seconds), "peak_bytes": peak, "multiple": round(multiple, 2)}
        passed &= code == 0 and (name == "check" or multiple <= MAX_MULTIPLE)
    before, after = hash_tensors(Path(source)), hash_tensors(Path(output))
    del before[mapping.HEAD]  # redundant, and not written again
    equal = sum(before[name] == after.get(name) for name in before)
    print(f"{equal} of {len(before)} tensors byte-equal after from_hf and to_hf")
    return results | {"tensors": len(before), "byte_equal": equal, "passed": passed and before == after}


if __name__ == "__main__":
    sys.exit(main())
