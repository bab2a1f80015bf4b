"""What the machine has to compute on."""

import os

import jax


def device_memory(device: jax.Device) -> int | None:
    """Bytes of an accelerator's memory; None where its allocator does not tell.

    On a GPU XLA reports the part that it may use, XLA_PYTHON_CLIENT_MEM_FRACTION of the whole.
    """
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is None or device.platform != "gpu":
        return limit
    return int(limit / float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75")))


def host_memory() -> int:
    """Bytes of this machine's own memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def device_name() -> str:
    """The accelerator, or the CPU, in words."""
    device = jax.devices()[0]
    return f"{device.platform}: {device.device_kind}"


def free_memory(device: jax.Device) -> int | None:
    """Bytes that this process may still allocate on an accelerator; None where its allocator does not tell."""
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
