"""python -m pytest tests/sampling/test_decode.py

Law: decoding with a cache computes what a full forward pass computes, at ragged prompt lengths.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_model import NEVER, V, create_model, full_logits, log_softmax, random_prompts

from tiny_reasoning_jax.model.cache import create_cache
from tiny_reasoning_jax.sampling.choose import Sampling
from tiny_reasoning_jax.sampling.decode import CHUNK, decode, prefill
from tiny_reasoning_jax.sampling.generate import generate

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 0}
SHAPES = {
    "tied, 2:1 heads": {},
    "untied, 4:1 heads": {"N": 4, "K": 1, "tied": False},
    "tied, 1:1 heads, head_dim apart from width": {"N": 3, "K": 3, "H": 10},
}
LENGTHS = (1, 5, 17, 64, 2, 63, 31)
NUM_NEW = 12


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_cached_logits_equal_those_of_a_full_forward(shape):
    model_def, params = create_model(**shape)
    lengths, P = np.array(LENGTHS), 64
    rows = np.random.default_rng(1).integers(0, V, (len(lengths), P + NUM_NEW))
    full = full_logits(model_def, params, rows)
    prompts = np.where(np.arange(P) < lengths[:, None], rows[:, :P], 7)  # 7: the padding must not matter

    @jax.jit
    def append(cache, tokens, positions):
        model = model_def.bind(params)
        hidden, cache = model(tokens, positions, kv_cache=cache)
        return cache, model.logits(hidden)[:, 0]

    cache, logits = prefill(model_def, params, prompts, lengths, num_slots=P + NUM_NEW)
    at = np.arange(len(lengths))
    np.testing.assert_allclose(logits, full[at, lengths - 1], atol=1e-4, rtol=0)
    for step in range(NUM_NEW):
        positions = lengths + step
        cache, logits = append(cache, rows[at, positions][:, None], positions[:, None])
        np.testing.assert_allclose(logits, full[at, positions], atol=1e-4, rtol=0)
    assert full.std() > 1, "logits too flat to tell right from wrong"


def _check_greedy(model_def, params, prompts, num_new):
    settings = {"max_new_tokens": num_new, "eos_ids": NEVER, "batch_size": len(prompts)}
    completions = generate(model_def, params, prompts, **settings, **GREEDY)
    sequences = [prompt + completion.tokens for prompt, completion in zip(prompts, completions, strict=True)]
    logps = log_softmax(full_logits(model_def, params, sequences))
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        expected = logps[row, len(prompt) - 1 :][:num_new]
        assert completion.tokens == expected.argmax(-1).tolist()
        np.testing.assert_allclose(completion.logps, expected.max(-1), atol=1e-4, rtol=0)
    assert len({tuple(completion.tokens) for completion in completions}) == len(prompts)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_greedy_tokens_and_logps_equal_those_of_a_full_forward(shape):
    _check_greedy(*create_model(**shape), random_prompts(LENGTHS), NUM_NEW)


def test_prompts_longer_than_a_chunk_are_read_whole():
    prompts = random_prompts((CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3))
    _check_greedy(*create_model(num_layers=1), prompts, 6)


def test_sampled_logps_are_those_of_the_model_itself():
    model_def, params = create_model()
    prompts, eos_ids = random_prompts(LENGTHS), [0, 1, 2, 3, 4, 5]
    completions = generate(
        model_def, params, prompts, max_new_tokens=NUM_NEW, eos_ids=eos_ids, batch_size=len(prompts),
        temperature=1.7, top_p=0.9, top_k=30, seed=3,
    )  # fmt: skip
    sequences = [prompt + completion.tokens for prompt, completion in zip(prompts, completions, strict=True)]
    logps = log_softmax(full_logits(model_def, params, sequences))
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        expected = logps[row, len(prompt) - 1 :]
        for step, token in enumerate(completion.tokens):
            assert completion.logps[step] == pytest.approx(expected[step, token], abs=1e-4)
        if completion.stop_reason == "eos":  # the last that was chosen, and one of eos_ids
            num_tokens = len(completion.tokens)
            assert np.abs(expected[num_tokens, eos_ids] - completion.logps[num_tokens]).min() < 1e-4
    assert {completion.stop_reason for completion in completions} == {"eos", "length"}


def _decode(model_def, params, finished, eos_ids, max_new_tokens=8):
    prompts = np.array(random_prompts([4] * len(finished)))
    lengths = np.full(len(finished), 4)
    cache, logits = prefill(model_def, params, prompts, lengths, num_slots=4 + max_new_tokens)
    return decode(
        model_def, params, cache, logits, lengths, np.array(finished), np.arange(len(finished)),
        jax.random.key(0), np.array(eos_ids),
        max_new_tokens=max_new_tokens, sampling=Sampling(0.0, 1.0, 0),
    )  # fmt: skip


def test_a_finished_row_stores_nothing_and_the_loop_ends_with_the_last_row():
    model_def, params = create_model()
    free, _ = _decode(model_def, params, [False, False, True], NEVER)
    assert free.num_tokens.tolist() == [8, 8, 0]
    # Row 0 ends with its third token; row 1 must not choose that token before its sixth.
    tokens = np.asarray(free.tokens)
    eos_ids = (int(tokens[0, 2]), int(tokens[1, 5]))
    ends = [1 + min(row.tolist().index(eos) for eos in eos_ids if eos in row) for row in tokens[:2]]
    assert ends == [3, 6], "choose another seed for this test"
    decoded, cache = _decode(model_def, params, [False, False, True], eos_ids)
    assert decoded.num_tokens.tolist() == [3, 6, 0]
    stored = np.asarray(cache.keys[1]).any((1, 3)).sum(1)  # slots in use
    assert stored.tolist() == [4 + 2, 4 + 5, 4], "a chosen token is stored by the step after it, an EOS never"
    assert not np.asarray(decoded.tokens)[:, 6:].any(), "the loop went on after the last row"


def test_all_rows_finished_is_no_step_at_all():
    decoded, cache = _decode(*create_model(), [True, True, True], NEVER)
    assert decoded.num_tokens.tolist() == [0, 0, 0]
    assert not np.asarray(cache.keys[0])[:, :, 4:].any()


def _lower_decode(sampling):
    model_def, params = create_model()
    B, S = 8, 48
    int_B = jax.ShapeDtypeStruct((B,), jnp.int32)
    return decode.lower(
        model_def, params, jax.eval_shape(lambda: create_cache(model_def.spec, B, S, jnp.float32)),
        jax.ShapeDtypeStruct((B, V), jnp.float32), int_B, jax.ShapeDtypeStruct((B,), bool), int_B,
        jax.random.key(0), np.array(NEVER),
        max_new_tokens=16, sampling=sampling,
    )  # fmt: skip


def test_no_step_copies_the_cache():
    compiled = _lower_decode(Sampling(0.0, 1.0, 0)).compile()
    text = compiled.as_text()
    layer = 8 * 2 * 48 * 8  # numbers in the keys of one layer
    moved = []
    for line in text.splitlines():
        if found := re.match(r"\s*(?:ROOT )?%\S+ = f32\[([\d,]+)\]\S* (copy|transpose|copy-start)\(", line):
            if np.prod([int(size) for size in found[1].split(",")]) >= layer:
                moved.append(line.strip()[:120])
    assert "scatter" in text and not moved
    assert compiled.memory_analysis().alias_size_in_bytes == 2 * 2 * layer * 4, "the cache is not donated"


def test_what_is_switched_off_does_not_sort():
    def sorts(*values):
        return re.search(r"\b(sort|top_k)\b", _lower_decode(Sampling(*values)).as_text())

    assert not sorts(0.0, 0.9, 10) and not sorts(0.7, 1.0, 0)
    assert sorts(0.7, 0.9, 0) and sorts(0.7, 1.0, 10)
