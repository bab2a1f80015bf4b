"""Which attention backend trains where.

train.attention="auto" takes the first that can run, in this order:

  device                                  rows up to 512    longer rows
  NVIDIA, Hopper and newer (from 9.0)     reference         cudnn, triton, blockwise
  NVIDIA, Ampere and Ada (8.0 to 8.9)     reference         triton, blockwise
  NVIDIA, older                           reference         blockwise     (float32 only: no bfloat16 units)
  CPU, TPU, other GPUs                    reference         blockwise

The kernels take 16-bit numbers: with train.compute_dtype=float32 rows are blockwise everywhere. What comes first is by
figures of others, for long sequences: on Hopper cuDNN is 1.7 to 2.3 times as fast as FlashAttention
(huggingface/transformers#48163). For rows of many short examples the order may be the other way round: cuDNN then takes
several passes (cudnn.py), Triton skips what no example sees. Not measured on a GPU: benchmarks/train_step.py does.
Where equal runs must be equal to the last bit (config.deterministic) cudnn is passed over.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.attention import cudnn, plain, triton_tiles

NAMES = ("reference", "blockwise", "cudnn", "triton")
KERNELS = ("cudnn", "triton")  # those that must pass self_test.py on the device
SHORT_ROW = 512  # tokens up to which all scores of a row are held at once


class Device(NamedTuple):
    """What decides about kernels.

    Attributes:
      platform: "gpu", "cpu", "tpu", as JAX calls it.
      capability: compute capability of an NVIDIA card; None elsewhere.
    """

    platform: str
    capability: tuple[int, int] | None = None

    def __str__(self):
        name = "CPU" if self.platform == "cpu" else self.platform
        return f"compute capability {self.capability[0]}.{self.capability[1]}" if self.capability else name


def attached() -> Device:
    """The device that JAX computes on."""
    device = jax.local_devices()[0]
    capability = str(getattr(device, "compute_capability", ""))  # "9.0"; "gfx942" on a card of AMD's
    parts = capability.split(".")
    known = device.platform == "gpu" and len(parts) == 2 and all(part.isdecimal() for part in parts)
    return Device(device.platform, (int(parts[0]), int(parts[1])) if known else None)


def candidates(
    asked: str, device: Device, *, seq_len: int, head_dim: int, dtype, deterministic: bool = False
) -> tuple[str, ...]:
    """Backends to take, the best first: all that can run if "auto" is asked for, otherwise the one that is.

    Args:
      asked: train.attention.
      device: where it will run.
      seq_len: tokens of a row.
      head_dim: width H of a head.
      dtype: of queries, keys and values.
      deterministic: whether "auto" passes over a backend whose backward pass need not repeat its last bits.

    Raises:
      UserError: nothing can run, or not what is asked for; or the card has no bfloat16.
    """
    if asked not in ("auto", *NAMES):
        raise UserError(f"train.attention={asked!r} is unknown; choose one of auto, {', '.join(NAMES)}")
    if device.capability and device.capability < (8, 0) and jnp.dtype(dtype) == jnp.bfloat16:
        raise UserError(
            f"this card ({device}) cannot compute in bfloat16, which came with 8.0 (Ampere); take another card, or "
            "--config.train.compute_dtype=float32 --config.train.attention=blockwise, which is much slower"
        )
    reasons = {name: refusal(name, device, seq_len=seq_len, head_dim=head_dim, dtype=dtype) for name in NAMES}
    if asked != "auto":
        if reasons[asked]:
            raise UserError(f"train.attention={asked!r} cannot run: {reasons[asked]}; --config.train.attention=auto "
                            "takes the best that can")  # fmt: skip
        return (asked,)
    order = ("reference",) if seq_len <= SHORT_ROW else ("cudnn", "triton", "blockwise")
    able = tuple(name for name in order if reasons[name] is None and not (deterministic and name == "cudnn"))
    if not able:
        raise UserError(
            f"no attention backend can run rows of train.seq_len={seq_len}: "
            + "; ".join(f"{name}: {reasons[name]}" for name in order)
        )
    return able


def refusal(name: str, device: Device, *, seq_len: int, head_dim: int, dtype) -> str | None:
    """Why a backend cannot run there; None if it can. The arguments are those of `candidates`."""
    if name == "blockwise":
        return plain.refusal(seq_len)
    if name == "cudnn":
        return _too_old(device, (9, 0), "Hopper") or cudnn.refusal(dtype, head_dim)
    if name == "triton":
        if jnp.dtype(dtype).itemsize != 2:
            return f"its kernels train in 16 bits, not in {jnp.dtype(dtype).name}; set train.compute_dtype=bfloat16"
        return _too_old(device, (8, 0), "Ampere") or triton_tiles.refusal(seq_len, head_dim)
    return None


def _too_old(device: Device, oldest: tuple[int, int], generation: str) -> str | None:
    if device.capability is None:
        return f"it needs an NVIDIA card, and here is {device.platform}"
    if device.capability < oldest:
        return f"it needs a card from {generation} on (compute capability {oldest[0]}.{oldest[1]}), this is {device}"
    return None
