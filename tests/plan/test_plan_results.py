"""pytest tests/plan/test_plan_results.py: the checked-in memory table keeps what it promises, and is still true."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from configs import reason
from tiny_reasoning_jax.model.spec import PUBLISHED
from tiny_reasoning_jax.plan import cards, choose
from tiny_reasoning_jax.xla import FLAGS, cuda_wheels

ROOT = Path(__file__).parents[2]
TABLE = {row["row"]: row for row in json.loads((ROOT / "benchmarks" / "results" / "plan.json").read_text())}
# Most GiB that a recipe may take, and what it must at least do for it.
LIMITS = {
    "80gb": (70, {"tokens": 4 * 4096, "remat": "none", "moments": "float32", "accumulated": True}),
    "48gb": (43, {"tokens": 4 * 4096}),
    "24gb": (21, {"tokens": 2 * 4096, "master": "remainder16", "accumulated": True}),
    "24gb-32k": (21, {"tokens": 8 * 4096}),
    "16gb": (14.2, {"tokens": 4096, "moments": "int8"}),
    "16gb-offload": (14.2, {"tokens": 4096, "moments": "int8", "accumulated": True, "offload_optimizer": True}),
    "80gb-32k": (72, {"tokens": 32_768, "seq_len": 32_768}),
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_table_keeps_its_limits(name):
    (limit, wanted), row = LIMITS[name], TABLE[name]
    settings = {**row["settings"], "tokens": row["tokens_per_micro_step"]}
    settings["accumulated"] = settings["accum_steps"] > 1 and row["parts_gib"]["accumulator"] > 6
    assert {key: settings[key] for key in wanted} == wanted
    assert row["peak_gib"] <= min(limit, row["usable_gib"])


@pytest.mark.parametrize("row", TABLE.values(), ids=list(TABLE))
def test_a_row_is_whole(row):
    assert sum(row["parts_gib"].values()) == pytest.approx(row["peak_gib"], abs=0.02)
    assert row["hidden_remat"] == 0
    assert row["usable_gib"] == pytest.approx(cards.usable(cards.CARDS[row["gpu"]].memory) / cards.GIB, abs=0.01)
    assert row["parts_gib"]["parameters"] == pytest.approx(2 * row["num_parameters"] / cards.GIB, abs=0.001)


@pytest.mark.parametrize("row", TABLE.values(), ids=list(TABLE))
def test_the_sum_on_paper_is_near(row):
    """What train.remat="auto" orders and leaves out candidates by."""
    config = reason.get_config(row["variant"])
    config.train.update(row["settings"])
    paper = choose.estimate_temporaries(
        PUBLISHED[row["model"]], config.train, config.train.remat, config.train.accum_steps
    )
    state = sum(row["parts_gib"][name] for name in ("parameters", "master", "moments", "accumulator"))
    assert paper / cards.GIB + state == pytest.approx(row["peak_gib"], rel=0.15)


@pytest.mark.skipif(not cuda_wheels(), reason="needs JAX's CUDA wheels")
@pytest.mark.parametrize("row", ["16gb", "16gb-offload"])
def test_a_row_compiled_again_is_the_same(row):
    module = importlib.util.spec_from_file_location("plan_benchmark", ROOT / "benchmarks" / "plan.py")
    module.loader.exec_module(benchmark := importlib.util.module_from_spec(module))
    memory = benchmark.plan_early(row).memory
    assert memory.peak / cards.GIB == pytest.approx(TABLE[row]["peak_gib"], rel=0.02)
    assert memory.host / cards.GIB == pytest.approx(TABLE[row]["host_gib"], abs=0.001)


@pytest.mark.skipif(not cuda_wheels(), reason="needs JAX's CUDA wheels")
def test_xla_joins_no_products():
    """The name of the pass that would is right: an unknown one is ignored without a word."""
    place = cards.sharding(cards.CARDS["rtx4080"])
    shaped = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place)
    lowered = jax.jit(lambda x, a, b: (x @ a, x @ b)).lower(shaped(512, 256), shaped(256, 128), shaped(256, 128))
    options = lambda passes: {"xla_gpu_autotune_level": 0, "xla_disable_hlo_passes": passes}
    count = lambda passes: lowered.compile(options(passes)).as_text().count(" dot(")
    assert (count(FLAGS["--xla_disable_hlo_passes"]), count("rematerialization")) == (2, 1)
