"""Shared settings of the tests: CPU and checked shapes."""

import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests compile far more than they compute; unoptimised code has the same numerics and half the compile time.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import pytest
from jaxtyping import install_import_hook

install_import_hook("tiny_reasoning_jax.model", "beartype.beartype")
install_import_hook("tiny_reasoning_jax.train", "beartype.beartype")
install_import_hook("tiny_reasoning_jax.sampling", "beartype.beartype")

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Real data and the real tokenizer; the project works without them."""
    if not SHARED.is_dir():
        pytest.skip("no shared data beside this checkout")
    return SHARED
