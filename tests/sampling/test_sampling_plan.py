"""python -m pytest tests/sampling/test_sampling_plan.py

Law: the cache is planned before anything is allocated: fewer rows where they do not fit, or a refusal that says what
would.
"""

import itertools
import logging

import jax
import pytest
from random_model import create_model

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.cache import block_sizes, create_cache, slot_bytes
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.sampling import plan
from tiny_reasoning_jax.sampling.generate import Request, generate
from tiny_reasoning_jax.sampling.plan import bucket, plan_rows, prompts_together

QWEN3_1_7B = ModelDef(ModelSpec(151_936, 2048, 6144, 28, 16, 8, 128, 1e6))


def _on_a_device_with(monkeypatch, gib):
    monkeypatch.setattr(plan, "free_memory", lambda device: int(gib * 2**30))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_slot_bytes_are_those_of_the_cache(dtype):
    spec = create_model()[0].spec
    cache = jax.eval_shape(lambda: create_cache(spec, 3, block_sizes(500), dtype))
    allocated = sum(array.size * array.dtype.itemsize for array in jax.tree.leaves(cache))
    assert allocated == 3 * 576 * slot_bytes(spec, dtype)
    assert slot_bytes(QWEN3_1_7B.spec, "bfloat16") == 114_688


def test_rows_are_as_many_as_fit(monkeypatch, caplog):
    _on_a_device_with(monkeypatch, 70)
    with caplog.at_level(logging.WARNING):
        assert plan_rows(QWEN3_1_7B, 64, 512, 1024) == 64
        assert not caplog.messages
        rows = plan_rows(QWEN3_1_7B, 64, 1000, 31_000)  # 32k positions
    assert rows == 16
    assert "max_new_tokens=31,000" in caplog.text and f"{rows} rows" in caplog.text and "batch_size=64" in caplog.text
    cache = rows * sum(block_sizes(32_000)) * 114_688
    assert 0.5 * 70 * 2**30 < cache < 0.95 * 70 * 2**30


def test_a_little_less_memory_is_no_other_compilation(monkeypatch):
    rows = set()
    for gib, longest in itertools.product((69, 69.5, 70, 75), (100, 300, 700)):
        _on_a_device_with(monkeypatch, gib)
        rows.add(plan_rows(QWEN3_1_7B, 256, longest, 4096))
    assert rows == {64, 128}


def test_a_refusal_names_what_fits(monkeypatch):
    _on_a_device_with(monkeypatch, 2)
    with pytest.raises(
        UserError, match=r"a prompt of 200 tokens with max_new_tokens=32,000 .*lower max_new_tokens to ([\d,]+)"
    ) as error:
        plan_rows(QWEN3_1_7B, 64, 200, 32_000)
    fitting = int(str(error.value).split(" to ")[1].split()[0].replace(",", ""))
    assert plan_rows(QWEN3_1_7B, 1, 200, fitting) == 1 and fitting > 5000
    _on_a_device_with(monkeypatch, 0.6)
    with pytest.raises(UserError, match="leave out longer ones"):
        plan_rows(QWEN3_1_7B, 64, 8000, 100)


def test_generate_plans_first(monkeypatch):
    _on_a_device_with(monkeypatch, 0)
    settings = {"max_new_tokens": 9, "eos_ids": (), "batch_size": 4, "temperature": 0.0, "top_p": 1.0, "top_k": 0}
    with pytest.raises(UserError, match="needs 0.00 GiB of cache, and there are 0.00 GiB"):
        generate(*create_model(), [Request([1], 0)], **settings, seed=0)


def test_a_prompt_is_read_in_a_shape_that_depends_on_it_alone():
    assert [bucket(n) for n in (0, 1, 64, 65, 128, 1000, 20_000)] == [64, 64, 64, 128, 128, 1024, 32_768]
    assert [prompts_together(size) for size in (64, 128, 512, 32_768)] == [4, 2, 1, 1]
