"""Cards as facts: what a compiler must know of one to compile for it, and what it can hold and compute.

Sources. Device limits: XLA's own targets (openxla/xla, xla/backends/gpu/target_config/specs: h100_sxm, h200,
a100_sxm_40, a100_sxm_80, a6000), and for the others CUDA C++ Programming Guide, "Compute Capabilities". Rates: NVIDIA's
data sheets and architecture papers; bf16 is dense with fp32 accumulation (consumer cards run that at half of what is
printed largest). Memory is what CUDA reports, which is less than what is sold: from the same targets; h200 from
PyTorch's messages, its target says more; rtx4090 and rtx3090 from reports (ali-vilab/VGen#104, GaoLii/DSP#10); l4, l40s
and rtx4080 by the rule that these follow: a sixteenth less with ECC, and 2 % less for the driver.
"""

import contextlib
import dataclasses
import importlib.metadata
import os

import jax

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.xla import MEMORY_FRACTION, cuda_wheels

GIB = 2**30
# Of XLA's part of a card, what its buffers cannot use: kernels' workspaces and what fragmentation leaves over.
RESERVED = GIB // 2


@dataclasses.dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
      name: as the driver calls it.
      memory: bytes that CUDA reports.
      bandwidth: of its memory, bytes/s; None where it is not known.
      bf16_flops: dense, fp32 accumulation, FLOP/s; None where it is not known.
      capability: compute capability.
      num_sms: streaming multiprocessors.
      l2_bytes: second-level cache.
      clock_ghz: boost clock.
    """

    name: str
    memory: int
    bandwidth: float | None
    bf16_flops: float | None
    capability: tuple[int, int]
    num_sms: int
    l2_bytes: int
    clock_ghz: float


CARDS = {
    "h100": Card("NVIDIA H100 80GB HBM3", 84_942_979_072, 3.352e12, 989.4e12, (9, 0), 132, 50 << 20, 1.98),
    "h200": Card("NVIDIA H200", int(139.8 * GIB), 4.8e12, 989.4e12, (9, 0), 132, 50 << 20, 1.98),
    "a100-80": Card("NVIDIA A100-SXM4-80GB", 85_100_068_864, 2.039e12, 312e12, (8, 0), 108, 40 << 20, 1.41),
    "a100-40": Card("NVIDIA A100-SXM4-40GB", 42_331_013_120, 1.555e12, 312e12, (8, 0), 108, 40 << 20, 1.41),
    "l40s": Card("NVIDIA L40S", int(44.1 * GIB), 0.864e12, 362e12, (8, 9), 142, 96 << 20, 2.52),
    "a6000": Card("NVIDIA RTX A6000", 51_041_271_808, 0.768e12, 154.8e12, (8, 6), 84, 6 << 20, 1.8),
    "rtx4090": Card("NVIDIA GeForce RTX 4090", int(23.64 * GIB), 1.008e12, 165.2e12, (8, 9), 128, 72 << 20, 2.52),
    "rtx3090": Card("NVIDIA GeForce RTX 3090", int(23.69 * GIB), 0.936e12, 71.2e12, (8, 6), 82, 6 << 20, 1.695),
    "l4": Card("NVIDIA L4", int(22.05 * GIB), 0.3e12, 121e12, (8, 9), 58, 48 << 20, 2.04),
    "rtx4080": Card("NVIDIA GeForce RTX 4080", int(15.68 * GIB), 0.717e12, 97.5e12, (8, 9), 76, 64 << 20, 2.505),
}

# Per compute capability: shared memory of an SM and of a block, bytes; threads of an SM; fp32 units of an SM.
_LIMITS = {
    (8, 0): (167_936, 166_912, 2048, 64),
    (8, 6): (102_400, 101_376, 1536, 128),
    (8, 9): (102_400, 101_376, 1536, 128),
    (9, 0): (233_472, 232_448, 2048, 128),
}
# Per compute capability, all that a kernel is made for: a card that Pallas knows by its name.
_KNOWN_TO_PALLAS = {(8, 0): "NVIDIA A100", (8, 6): "NVIDIA A10", (8, 9): "NVIDIA L4", (9, 0): "NVIDIA H100"}
# The packages that bring CUDA's runtime and cuDNN with each of jax's extras.
_LIBRARIES = {
    "cuda12": ("nvidia-cuda-runtime-cu12", "nvidia-cudnn-cu12"),
    "cuda13": ("nvidia-cuda-runtime", "nvidia-cudnn-cu13"),
}

_TARGET = """
gpu_device_info {{
  threads_per_block_limit: 1024  threads_per_warp: 32
  shared_memory_per_block: 49152  shared_memory_per_core: {shared}  shared_memory_per_block_optin: {shared_optin}
  threads_per_core_limit: {threads}  core_count: {card.num_sms}  fpus_per_core: {fpus}
  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535  block_dim_limit_z: 65535
  thread_dim_limit_x: 1024  thread_dim_limit_y: 1024  thread_dim_limit_z: 64
  memory_bandwidth: {bandwidth}  l2_cache_size: {card.l2_bytes}  clock_rate_ghz: {card.clock_ghz}
  device_memory_size: {card.memory}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
runtime_version {{ major: {cuda[0]} minor: {cuda[1]} patch: {cuda[2]} }}
dnn_version_info {{ major: {cudnn[0]} minor: {cudnn[1]} patch: {cudnn[2]} }}
device_description_str: "{card.name}"
"""


def find(name: str) -> Card:
    """The card called `name` in CARDS.

    Raises:
      UserError: there is none.
    """
    if name not in CARDS:
        raise UserError(f"plan.gpu={name!r} is not known; choose one of {', '.join(CARDS)}, or attached")
    return CARDS[name]


def usable(memory: int) -> int:
    """Bytes that a program's buffers may take of a card with `memory` bytes: the one rule for what fits."""
    fraction = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", MEMORY_FRACTION))
    return int(fraction * memory) - RESERVED


def target_text(card: Card, wheels: str) -> str:
    """XLA's description of a card (text of stream_executor.GpuTargetConfigProto), with the libraries of `wheels`."""
    shared, shared_optin, threads, fpus = _LIMITS[card.capability]
    cuda, cudnn = ([int(n) for n in importlib.metadata.version(p).split(".")[:3]] for p in _LIBRARIES[wheels])
    major, minor = card.capability
    return _TARGET.format(
        card=card, bandwidth=int(card.bandwidth), shared=shared, shared_optin=shared_optin, threads=threads, fpus=fpus,
        major=major, minor=minor, cuda=cuda, cudnn=cudnn,
    )  # fmt: skip


def sharding(card: Card) -> jax.sharding.Sharding:
    """Where to lower for a card that is not here: a device that only the compiler knows.

    Raises:
      UserError: JAX's CUDA wheels, which bring the compiler, are not installed.
    """
    from jax.experimental import topologies  # loads plugins, which nobody else needs

    wheels = cuda_wheels()
    if not wheels:
        raise UserError(
            f"to plan for {card.name}, JAX's compiler for NVIDIA cards must be here; no card or driver is needed. "
            'Install it (5 GB): pip install -e ".[cuda12]", or ".[cuda13]"'
        )
    # The plugin looks for a card of at least some age at its start; compiling needs none.
    os.environ["JAX_SKIP_CUDA_CONSTRAINTS_CHECK"] = "1"
    topology = topologies.get_topology_desc(
        "gpu", platform="cuda", target_config=target_text(card, wheels[-1]), topology="1x1x1"
    )
    return _Place(topology.devices[0])


class _Place(jax.sharding.SingleDeviceSharding):
    """On a device that only the compiler knows. By JAX's count it has no memories, so JAX drops which one is meant."""

    def __init__(self, device: jax.Device, kind: str | None = None):
        super().__init__(device)
        self._kind = kind

    @property
    def memory_kind(self) -> str | None:
        return self._kind

    def with_memory_kind(self, kind: str) -> "_Place":
        (device,) = self.device_set
        return _Place(device, kind)


def as_if_here(place: jax.sharding.Sharding) -> contextlib.AbstractContextManager:
    """While this is entered, Pallas makes kernels for the card of `place`; since jax 0.11 it asks which one is here."""
    (device,) = place.device_set
    kind = _KNOWN_TO_PALLAS[tuple(int(part) for part in device.compute_capability.split("."))]
    known = jax.sharding.AbstractDevice(device_kind=kind, num_cores=None, platform="gpu")
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=known))


def describe_attached(device: jax.Device, memory: int) -> Card:
    """The card that is attached, with the rates of the one in CARDS that has its name, if any."""
    capability = tuple(int(part) for part in str(device.compute_capability).split("."))
    for card in CARDS.values():
        if card.name == device.device_kind:
            return dataclasses.replace(card, memory=memory)
    return Card(device.device_kind, memory, None, None, capability, device.core_count, 0, 0.0)
