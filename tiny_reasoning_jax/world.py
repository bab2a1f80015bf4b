"""What the numbers of a run come from besides its configuration: data, weights, code, libraries and machine.

Every checkpoint stores it as meta["world"], flat, by name; a session that goes on compares it with its own. See the
table in workdir.py for what may change and how.
"""

import ast
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax
from ml_collections import FrozenConfigDict

from tiny_reasoning_jax import checksums
from tiny_reasoning_jax.device import device_name
from tiny_reasoning_jax.errors import DamagedError
from tiny_reasoning_jax.model.qwen3 import ModelDef

# The modules that a step's numbers come from; loops, readers and checks around them may be rewritten.
_CODE = (
    "data/batch.py", "data/curriculum.py", "data/packing.py", "data/pipeline.py", "data/plan.py", "model/qwen3.py",
    "model/remat.py", "model/rope.py", "model/rows.py", "model/attention/__init__.py", "model/attention/cudnn.py",
    "model/attention/plain.py", "model/attention/triton.py", "model/attention/triton_kernels.py",
    "model/attention/triton_tiles.py", "train/losses.py", "train/master.py", "train/moments.py", "train/offload.py",
    "train/optimizer.py", "train/spikes.py", "train/step.py",
)  # fmt: skip
# And those that an adaptive curriculum's pass rates come from.
_PROBE_CODE = (
    "answers/__init__.py", "answers/compare.py", "answers/expression.py", "answers/find.py", "answers/latex.py",
    "answers/quantities.py", "answers/slow.py", "answers/structure.py", "answers/values.py", "answers/words.py",
    "answers/worker.py", "eval/evaluate.py", "eval/grade.py", "eval/judge.py", "model/cache.py", "sampling/batch.py",
    "sampling/choose.py", "sampling/decode.py", "sampling/generate.py", "sampling/plan.py",
)  # fmt: skip
_PACKAGES = ("jax", "jaxlib", "numpy", "optax")
_WEIGHTS = ("config.json", "*.safetensors", "*.safetensors.index.json")


def describe(config: FrozenConfigDict, data: Path, source: Path | None, model_def: ModelDef) -> dict[str, Any]:
    """What this session would compute with; reads the whole of the weights' folder.

    Args:
      config: of the run, settled: no "auto" left in train.remat, no 0 in train.accum_steps.
      data: the prepared data, whose checksums have been checked.
      source: the folder of the weights that the run began with; None for a random model.
      model_def: the model, for how it attends.

    Raises:
      DamagedError: a file of the hub's cache does not have the checksum that it is named by.
    """
    contents = {
        f"content of data/{part}": checksums.content(data, part) for part in ("train", "validation", "tokenizer")
    }
    on_cpu, adaptive = jax.default_backend() == "cpu", config.data.curriculum == "adaptive"
    return {
        **contents,
        "content of model.source": None if source is None else _hash_weights(source),
        "train.accum_steps": config.train.accum_steps,
        "train.remat": config.train.remat,
        "train.offload_optimizer": config.train.offload_optimizer,
        "attention": model_def.attention,
        # XLA divides a CPU's work, and so the order of sums, by its cores.
        "device": f"{device_name()}, {platform.machine()}" + f", {os.cpu_count()} cores" * on_cpu,
        "platform": jax.devices()[0].client.platform_version,  # of a GPU: the versions of CUDA and its driver
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "jax_default_matmul_precision": jax.config.jax_default_matmul_precision,
        "jax_enable_x64": jax.config.jax_enable_x64,
        "code": hash_code(Path(__file__).parent, _CODE),
        "code of the probe": hash_code(Path(__file__).parent, _PROBE_CODE) if adaptive else "",
    }


def is_fixed(name: str) -> bool:
    """Whether a name of `describe` must never change within a run."""
    return name.startswith("content of ")


@functools.cache
def hash_code(package: Path, names: tuple[str, ...]) -> str:
    """A checksum of the statements in these modules of a package: comments, docstrings and layout do not count.

    Renaming a variable does count, although it gives the same numbers: what a program computes cannot be told from its
    text, and a false alarm costs one flag.
    """
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\n{_statements((package / name).read_text())}\n".encode())
    return digest.hexdigest()[:16]


def _statements(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body[0].value.value = ""
    return ast.unparse(tree)


def _hash_weights(source: Path) -> str:
    names = [path.name for pattern in _WEIGHTS for path in source.glob(pattern)]
    sums = checksums.hash_files(source, names)
    for name, found in sums.items():
        # The hub's cache keeps large files as blobs/<their SHA-256>, with links to them.
        blob = (source / name).resolve()
        if blob.parent.name == "blobs" and len(blob.name) == len(found) and blob.name != found:
            raise DamagedError(
                f"{source / name} has the SHA-256 {found[:12]}..., the hub gave it as {blob.name[:12]}...; delete "
                f"{blob}, and it is fetched again"
            )
    return hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:16]
