"""pytest tests/test_xla.py: how XLA is set up, and what is said where a card cannot be used or is full."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from tiny_reasoning_jax import xla
from tiny_reasoning_jax.errors import UserError

ROOT = Path(__file__).parents[1]


def test_flags_are_set_and_the_users_own_stay(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    monkeypatch.setattr(xla.importlib.metadata, "version", lambda name: "0.10.2")
    xla.set_environment()
    expected = (
        "--xla_disable_hlo_passes=rematerialization,dot-merger "
        "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT"
    )
    assert os.environ["XLA_FLAGS"] == expected
    assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.92"
    monkeypatch.setenv("XLA_FLAGS", "--xla_a=b --xla_disable_hlo_passes=dce --xla_cpu_experimental_ynn_fusion_type=1")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5")
    xla.set_environment()
    assert os.environ["XLA_FLAGS"] == "--xla_a=b --xla_disable_hlo_passes=dce --xla_cpu_experimental_ynn_fusion_type=1"
    assert os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.5"


def test_a_later_xla_gets_no_experimental_flag(monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.setattr(xla.importlib.metadata, "version", lambda name: "0.12.0")
    xla.set_environment()
    assert os.environ["XLA_FLAGS"] == "--xla_disable_hlo_passes=rematerialization,dot-merger"


def test_the_flags_are_ones_that_this_xla_knows():
    """An unknown flag ends the process."""
    code = """
from tiny_reasoning_jax import xla
xla.cuda_wheels = lambda: ["cuda13"]
xla.set_environment(["--config.deterministic"])
import jax
jax.jit(lambda x: x + 1)(1)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


def test_deterministic_operations_are_asked_for_before_jax_starts(monkeypatch, cache_settings):
    monkeypatch.setattr(xla, "cuda_wheels", lambda: ["cuda13"])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for asked, expected in (("", False), ("=true", True), ("=True", True), ("=false", False)):
        monkeypatch.setenv("XLA_FLAGS", "")
        xla.set_environment(["main.py", f"--config.deterministic{asked}"] if asked else ["main.py"])
        assert ("--xla_gpu_deterministic_ops=true" in os.environ["XLA_FLAGS"].split()) == expected
        if expected:
            xla.start(deterministic=True)
        else:
            with pytest.raises(UserError, match="put --config.deterministic=true into the command, or set XLA_FLAGS="):
                xla.start(deterministic=True)
    monkeypatch.setattr(xla, "cuda_wheels", list)  # a CPU's runs are repeated without it
    monkeypatch.setenv("XLA_FLAGS", "")
    xla.set_environment(["--config.deterministic"])
    assert xla.DETERMINISTIC not in os.environ["XLA_FLAGS"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc's malloc that is told")
@pytest.mark.parametrize(("environment", "kept"), [({}, True), ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2"}, False)])
def test_on_a_cpu_memory_that_was_freed_is_used_again(environment, kept):
    """Without it the kernel clears every page of XLA's temporaries in every step."""
    code = """
import resource, threading
from tiny_reasoning_jax import xla
xla.set_environment()
import numpy as np
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.empty(2**27, np.uint8).fill(1)
    counted.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
counted = []
for _ in range(2):
    thread = threading.Thread(target=faults)  # as XLA does
    thread.start()
    thread.join()
print(counted[1])
"""
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"} | {"JAX_PLATFORMS": "cpu"} | environment
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    assert (int(ended.stdout) < 20) == kept


@pytest.fixture
def cache_settings():
    """jax's cache settings, put back afterwards."""
    names = ("jax_compilation_cache_dir", "jax_compilation_cache_max_size")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_what_is_compiled_for_a_card_is_kept(monkeypatch, tmp_path, cache_settings):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    xla.start()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "tiny_reasoning_jax" / "xla")
    jax.config.update("jax_compilation_cache_dir", "/elsewhere")
    xla.start()
    assert jax.config.jax_compilation_cache_dir == "/elsewhere"


def test_a_card_that_cannot_be_used_is_no_reason_to_train_on_the_cpu(monkeypatch):
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(xla, "cuda_wheels", lambda: ["cuda13"])
    monkeypatch.setattr(xla, "driver_version", lambda: "550.54.14")
    with pytest.raises(
        UserError, match=r"driver is 550.54.14, and it takes at least 580 for cuda13.*JAX_PLATFORMS=cpu"
    ):
        xla.start()
    monkeypatch.setattr(xla, "driver_version", lambda: None)
    with pytest.raises(UserError, match="there is no NVIDIA driver"):
        xla.start()
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # it is what was asked for
    xla.start()
    assert jax.config.jax_compilation_cache_dir is None  # a CPU's code is compiled anew
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(xla, "cuda_wheels", list)
    xla.start()


def test_a_full_device_is_told_with_what_to_change(tmp_path):
    """The error is XLA's own: 2**47 bytes on the CPU."""
    code = """
import runpy, sys
import jax.numpy as jnp
from tiny_reasoning_jax import stages
stages.run = lambda config: jnp.zeros(2**45).block_until_ready()
sys.argv = ["main.py", "--config", "configs/reason.py:tiny"]
runpy.run_path("main.py", run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 3
    assert "error: the device ran out of memory" in ended.stderr and "train.remat=full" in ended.stderr
    assert "Traceback" not in ended.stderr
