"""pytest tests/convert/test_store.py: parameters come back as they were saved, one by one or all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

from tiny_reasoning_jax.model import store

META = {"step": 3, "model_config": {}, "generation_config": None, "base_model": "random"}


@pytest.fixture
def saved(tmp_path, tokenizer_folder):
    keys = jax.random.split(jax.random.key(0), 20)
    params = {f"layers.{i}.attn.q": jax.random.normal(k, (64, 2, 500), jnp.bfloat16) for i, k in enumerate(keys)}
    params["final_norm.scale"] = jnp.ones(64, jnp.bfloat16)
    store.save_params(tmp_path / "run", 3, params, META, tokenizer_folder)
    return tmp_path / "run", params


def test_what_is_saved_comes_back(saved, tokenizer_folder):
    root, params = saved
    opened = store.open_checkpoint(root)
    assert opened.meta == META and opened.step_folder == root / "3"
    assert {n: s.shape for n, s in opened.shapes.items()} == {n: p.shape for n, p in params.items()}
    for file in tokenizer_folder.iterdir():
        assert (opened.tokenizer_folder / file.name).read_bytes() == file.read_bytes()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for kind, restored in (
        (np.ndarray, store.restore_params(opened)),
        (jax.Array, store.restore_params(opened, sharding=sharding)),
    ):
        assert restored.keys() == params.keys()
        for name, array in restored.items():
            assert isinstance(array, kind) and array.dtype == jnp.bfloat16
            np.testing.assert_array_equal(np.asarray(array), np.asarray(params[name]))


def test_one_parameter_is_read_without_the_others(saved):
    root, params = saved
    opened = store.open_checkpoint(root)

    def bytes_read() -> int:
        metrics = tensorstore.experimental_collect_matching_metrics("/tensorstore/kvstore/file/bytes_read")
        return sum(value["value"] for metric in metrics for value in metric["values"])

    before = bytes_read()
    one = store.restore_params(opened, ["layers.4.attn.q"])
    read_for_one = bytes_read() - before
    store.restore_params(opened)
    read_for_all = bytes_read() - before - read_for_one
    assert list(one) == ["layers.4.attn.q"]
    np.testing.assert_array_equal(one["layers.4.attn.q"], np.asarray(params["layers.4.attn.q"]))
    assert params["layers.4.attn.q"].nbytes <= read_for_one < 0.2 * read_for_all
