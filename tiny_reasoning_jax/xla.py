"""How XLA is set up for this program, in one place: the environment before jax is imported, the compile cache after.

The accelerator's driver is looked at here too: where a card cannot be used JAX falls back to the CPU with a warning,
and a day of training on the CPU is not what was asked for.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import re
from collections.abc import Sequence
from pathlib import Path

from tiny_reasoning_jax.errors import UserError

# XLA's flags and why; a flag that stands in the user's XLA_FLAGS keeps the user's value.
FLAGS = {
    # rematerialization: near the card's limit XLA recomputes activations on its own, without a word. That is decided by
    # train.remat, and the plan must show what a rung of it really takes.
    # dot-merger: XLA joins products that share an operand and are small, such as those for q, k and v of 8k tokens; it
    # copies their weights together, and results and gradients apart. Without it a layer of the 24 GB recipe moves 8 %
    # less between the card's memory and its kernels: python benchmarks/traffic.py --rows 24gb, and the same with
    # XLA_FLAGS=--xla_disable_hlo_passes=rematerialization. Time was not measured on a GPU.
    "--xla_disable_hlo_passes": "rematerialization,dot-merger",
}
# Flags that later versions may drop, and an unknown flag ends the process: set with the jaxlib versions that have them.
EXPERIMENTAL = {
    # YNNPACK on CPUs for matrix products alone: 5 to 12 % of the tiny recipe's step. With the rest of what it offers,
    # the default, the step is slower than with the compiler's own fusions.
    "--xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT",
}
EXPERIMENTAL_IN = ("0.10.", "0.11.")
# With config.deterministic, on a GPU. Without it XLA adds up scattered values, the embedding's gradient among them, by
# atomic additions in any order, and takes the kernels that it has timed as the fastest, which need not be the same each
# time. It includes --xla_gpu_exclude_nondeterministic_ops (openxla/xla#12520).
DETERMINISTIC = "--xla_gpu_deterministic_ops"
# glibc's malloc.h: what malloc is told on a CPU, and its number there.
MALLOPT = {"M_MMAP_THRESHOLD": (-3, 2**30), "M_TRIM_THRESHOLD": (-1, 2**30), "M_ARENA_MAX": (-8, 1)}
# Part of a card that XLA takes at the start; it is three quarters unless told otherwise. The rest is for the CUDA
# context and the libraries' own workspaces.
MEMORY_FRACTION = 0.92
CACHE_BYTES = 10 * 2**30  # of what has not been used for longest, the rest is deleted
# CUDA's minor-version compatibility: oldest Linux driver of each major version.
# Source: CUDA Compatibility guide, docs.nvidia.com/deploy/cuda-compatibility.
OLDEST_DRIVER = {"cuda12": 525, "cuda13": 580}


def set_environment(arguments: Sequence[str] = ()) -> None:
    """Sets what XLA reads once, when jax is imported; what the user has set stays.

    Args:
      arguments: of the command, in which --config.deterministic counts: the configuration is read with jax's help.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", str(MEMORY_FRACTION))
    theirs = os.environ.get("XLA_FLAGS", "")
    known = importlib.metadata.version("jaxlib").startswith(EXPERIMENTAL_IN)
    flags = FLAGS | EXPERIMENTAL if known else FLAGS
    if any(re.fullmatch(r"--?config\.deterministic(=(true|t|1))?", a, re.I) for a in arguments) and cuda_wheels():
        flags = flags | {DETERMINISTIC: "true"}
    ours = [f"{flag}={value}" for flag, value in flags.items() if flag not in theirs]
    os.environ["XLA_FLAGS"] = " ".join([theirs, *ours]).strip()
    if "cpu" in os.environ.get("JAX_PLATFORMS", "") or not cuda_wheels():
        _keep_freed_memory()


def start(deterministic: bool = False) -> None:
    """Looks at the accelerator, and keeps what is compiled for it, so that the same command starts in seconds again.

    The cache also holds which kernels were timed as the fastest: a run that goes on computes with the kernels that it
    began with. On a CPU there is none: its code is compiled for the very processor, and a home folder may be shared.

    Raises:
      UserError: JAX's CUDA wheels are here and no card can be used; or XLA was not told of `deterministic` in time.
    """
    import jax  # after set_environment

    if jax.default_backend() == "cpu":
        _refuse_unusable_card()
        return
    flags = os.environ.get("XLA_FLAGS", "")
    if deterministic and not re.search(rf"{DETERMINISTIC}(=(true|1))?(\s|$)", flags):
        raise UserError(
            f"deterministic=True, and XLA_FLAGS={flags!r} were read without it: put --config.deterministic=true into "
            f"the command, or set XLA_FLAGS='{DETERMINISTIC}=true'"
        )
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder()))
        jax.config.update("jax_compilation_cache_max_size", CACHE_BYTES)


def cache_folder() -> Path:
    """Where compiled programs are kept; JAX_COMPILATION_CACHE_DIR says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tiny_reasoning_jax" / "xla"


def cuda_wheels() -> list[str]:
    """Those of jax's CUDA plugins that are installed: "cuda12", "cuda13"."""
    return [name for name in OLDEST_DRIVER if importlib.util.find_spec(f"jax_{name}_plugin")]


def driver_version() -> str | None:
    """Version of the NVIDIA driver that runs here; None without one."""
    path = Path("/sys/module/nvidia/version")
    return path.read_text().strip() if path.exists() else None


def is_full_device(error: Exception) -> bool:
    """Whether it is XLA's, about an allocation that failed."""
    import jax

    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def explain_out_of_memory(error: Exception) -> str:
    """What to do about an allocation that failed on the device: nothing saved is lost by it."""
    return (
        f"the device ran out of memory ({str(error).splitlines()[0][:300]}). See that no other process uses it "
        f"(nvidia-smi); in training take --config.train.remat=full, smaller micro-batches by a larger "
        f"--config.train.accum_steps, --config.train.moments=int8 or offload_optimizer=true; in evaluation a smaller "
        f"--config.eval.batch_size. What is saved is whole: the same command goes on from it"
    )


def _keep_freed_memory() -> None:
    """Tells glibc's malloc to hold on to what is freed, up to 1 GiB in a piece; other C libraries are left alone.

    XLA allocates a CPU program's temporaries for every run. malloc takes pieces of that size from the kernel and gives
    them back, and the kernel clears every page anew: 37,000 page faults in each step of the tiny recipe, and a tenth of
    its time. One arena, because those of threads cannot hold a piece of over 64 MiB; it must be set before threads run.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or "GLIBC_TUNABLES" in os.environ:
        return
    for setting, value in MALLOPT.values():
        mallopt(setting, value)


def _refuse_unusable_card() -> None:
    wheels, driver = cuda_wheels(), driver_version()
    if not wheels or "cpu" in os.environ.get("JAX_PLATFORMS", ""):
        return
    needed = " or ".join(f"{OLDEST_DRIVER[name]} for {name}" for name in wheels)
    found = f"the NVIDIA driver is {driver}" if driver else "there is no NVIDIA driver"
    raise UserError(
        f"jax's {' and '.join(wheels)} wheels are installed, but no card can be used: {found}, and it takes at least "
        f"{needed}. Look at nvidia-smi and at jax's warning above, update the driver (or install the wheels that suit "
        f'it, pip install -e ".[cuda12]"), or set JAX_PLATFORMS=cpu to work on the CPU'
    )
