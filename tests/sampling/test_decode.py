"""python -m pytest tests/sampling/test_decode.py

Law: decoding with a cache computes what a full forward pass computes, at ragged prompt lengths.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_model import NEVER, V, create_model, full_logits, log_softmax, random_prompts

from tiny_reasoning_jax.model.cache import block_sizes, create_cache, spans, step
from tiny_reasoning_jax.sampling.choose import Sampling
from tiny_reasoning_jax.sampling.decode import LONGEST_STRETCH, Rows, decode, insert, prefill
from tiny_reasoning_jax.sampling.generate import Request, generate

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 0}
SHAPES = {
    "tied, 2:1 heads": {},
    "untied, 4:1 heads": {"N": 4, "K": 1, "tied": False},
    "tied, 1:1 heads, head_dim apart from width": {"N": 3, "K": 3, "H": 10},
}
LENGTHS = (1, 5, 17, 64, 2, 63, 31)
NUM_NEW = 12


def _read(model_def, params, prompts, lengths, num_slots):
    """A cache with these right-padded prompts, the last in its first row: rows must not be mixed up."""
    cache = create_cache(model_def.spec, len(prompts), block_sizes(num_slots), jnp.float32)
    order = np.arange(len(prompts))
    return insert(cache, prefill(model_def, params, prompts), order[::-1].copy(), order, len(prompts)), lengths[::-1]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_cached_logits_equal_those_of_a_full_forward(shape):
    model_def, params = create_model(**shape)
    P, num_new = 512, 40
    lengths = np.array([*LENGTHS, 150, 280, 288, 289, 370])  # within blocks, and over their borders
    rows = np.random.default_rng(1).integers(0, V, (len(lengths), P + num_new))
    full = full_logits(model_def, params, rows)
    prompts = np.where(np.arange(P) < lengths[:, None], rows[:, :P], 7)  # 7: the padding must not matter

    @jax.jit
    def append(cache, tokens, positions):
        model = model_def.bind(params)
        through_cache = lambda blocks, *qkv: step(blocks, *qkv, positions=positions)
        hidden, cache = model(tokens, positions[:, None], kv_cache=cache, through_cache=through_cache)
        return cache, model.logits(hidden)[:, 0]

    cache, lengths = _read(model_def, params, prompts, lengths, rows.shape[1])
    rows, full, at = rows[::-1], full[::-1], np.arange(len(lengths))
    for number in range(num_new):
        positions = lengths + number
        cache, logits = append(cache, rows[at, positions][:, None], positions)
        np.testing.assert_allclose(logits, full[at, positions], atol=1e-4, rtol=0)
    assert full.std() > 1, "logits too flat to tell right from wrong"


def _check_greedy(model_def, params, prompts, num_new, batch_size):
    settings = {"max_new_tokens": num_new, "eos_ids": NEVER, "batch_size": batch_size}
    written = generate(model_def, params, [Request(prompt, 0) for prompt in prompts], **settings, **GREEDY)
    completions = dict(written)
    sequences = [prompt + completions[i].tokens for i, prompt in enumerate(prompts)]
    logps = log_softmax(full_logits(model_def, params, sequences))
    for row, prompt in enumerate(prompts):
        expected = logps[row, len(prompt) - 1 :][:num_new]
        assert completions[row].tokens == expected.argmax(-1).tolist()
        np.testing.assert_allclose(completions[row].logps, expected.max(-1), atol=1e-4, rtol=0)
    assert len({tuple(completion.tokens) for completion in completions.values()}) == len(prompts)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_greedy_tokens_and_logps_equal_those_of_a_full_forward(shape):
    _check_greedy(*create_model(**shape), random_prompts(LENGTHS), NUM_NEW, 3)  # rows are refilled


def test_prompts_longer_than_a_stretch_are_read_whole():
    # With one layer the cache would not depend on attention.
    prompts = random_prompts((LONGEST_STRETCH + 1, LONGEST_STRETCH + 2, 2 * LONGEST_STRETCH, 3))
    _check_greedy(*create_model(num_layers=2), prompts, 6, 4)


def test_sampled_logps_are_those_of_the_model_itself():
    model_def, params = create_model()
    prompts, eos_ids = random_prompts(LENGTHS), [0, 1, 2, 3, 4, 5]
    completions = dict(generate(
        model_def, params, [Request(prompt, 0) for prompt in prompts], max_new_tokens=NUM_NEW, eos_ids=eos_ids,
        batch_size=4, temperature=1.7, top_p=0.9, top_k=30, seed=3,
    ))  # fmt: skip
    sequences = [prompt + completions[i].tokens for i, prompt in enumerate(prompts)]
    logps = log_softmax(full_logits(model_def, params, sequences))
    for row, prompt in enumerate(prompts):
        completion, expected = completions[row], logps[row, len(prompt) - 1 :]
        for number, token in enumerate(completion.tokens):
            assert completion.logps[number] == pytest.approx(expected[number, token], abs=1e-4)
        if completion.stop_reason == "eos":  # the last that was chosen, and one of eos_ids
            num_tokens = len(completion.tokens)
            assert np.abs(expected[num_tokens, eos_ids] - completion.logps[num_tokens]).min() < 1e-4
    assert {completion.stop_reason for completion in completions.values()} == {"eos", "length"}


def _decode(budgets, eos_ids=NEVER, fewest=1, num_steps=8):
    """Continues three prompts of four tokens."""
    model_def, params = create_model()
    B, prompts = len(budgets), np.array(random_prompts([4] * len(budgets)))
    cache, lengths = _read(model_def, params, prompts, np.full(B, 4), 4 + num_steps)
    numbers = np.stack([prompts[::-1, -1], lengths - 1, np.array(budgets), np.zeros(B, int)]).astype(np.int32)
    return decode(
        model_def, params, cache, Rows(*numbers, np.zeros((B, 3), np.uint32)), fewest, jax.random.key(0),
        np.array(eos_ids), num_steps=num_steps, sampling=Sampling(0.0, 1.0, 0),
    )  # fmt: skip


def test_a_row_that_has_ended_stores_nothing_and_the_loop_ends_with_the_last():
    _, free = _decode([8, 8, 0])
    assert free.counts.tolist() == [8, 8, 0]
    # Row 0 ends with its third token; row 1 must not choose that token before its sixth.
    tokens = np.asarray(free.tokens)
    eos_ids = (int(tokens[0, 2]), int(tokens[1, 5]))
    ends = [1 + min(row.tolist().index(eos) for eos in eos_ids if eos in row) for row in tokens[:2]]
    assert ends == [3, 6], "choose another seed for this test"
    cache, written = _decode([8, 8, 0], eos_ids)
    assert written.counts.tolist() == [3, 6, 0]
    stored = np.asarray(cache[1][0].keys).any((1, 2)).sum(1)  # slots in use
    # The prompt's last token is stored by the first step, a chosen one by the step after it, an EOS never.
    assert stored.tolist() == [4 + 2, 4 + 5, 4]
    assert not np.asarray(written.tokens)[:, 6:].any(), "the loop went on after the last row"
    assert _decode([8, 8, 0], eos_ids, fewest=2)[1].counts.tolist() == [3, 3, 0]


def test_a_budget_ends_a_row():
    assert _decode([2, 5, 1])[1].counts.tolist() == [2, 5, 1]
    assert _decode([2, 5, 1], fewest=3)[1].counts.tolist() == [1, 1, 1]
    cache, written = _decode([0, 0, 0])
    assert written.counts.tolist() == [0, 0, 0]


def _lower_decode(sampling, sizes=(288, 96)):
    model_def, params = create_model()
    B = 8
    int_B = jax.ShapeDtypeStruct((B,), jnp.int32)
    rows = Rows(int_B, int_B, int_B, int_B, jax.ShapeDtypeStruct((B, 3), jnp.uint32))
    cache = jax.eval_shape(lambda: create_cache(model_def.spec, B, list(sizes), jnp.float32))
    return decode.lower(
        model_def, params, cache, rows, 1, jax.random.key(0), np.array(NEVER), num_steps=16, sampling=sampling
    )


def test_no_step_copies_the_cache():
    compiled = _lower_decode(Sampling(0.0, 1.0, 0)).compile()
    block = 8 * 2 * 96 * 8  # numbers in the keys of the smallest block
    touched = set()
    for line in compiled.as_text().splitlines():
        if found := re.match(r"\s*(?:ROOT )?%\S+ = f32\[([\d,]+)\]\S* ([\w-]+)\(", line):
            if np.prod([int(size) for size in found[1].split(",")]) >= block:
                touched.add(found[2])
    # A new array of this size comes only from a scatter, which works in place.
    assert touched <= {"parameter", "get-tuple-element", "scatter", "fusion"} and "scatter" in touched, touched
    assert compiled.memory_analysis().alias_size_in_bytes == 2 * 2 * 4 * block * 4, "the cache is not donated"


def test_what_is_switched_off_does_not_sort():
    def sorts(*values):
        return re.search(r"\b(sort|top_k)\b", _lower_decode(Sampling(*values)).as_text())

    assert not sorts(0.0, 0.9, 10) and not sorts(0.7, 1.0, 0)
    assert sorts(0.7, 0.9, 0) and sorts(0.7, 1.0, 10)


def test_blocks_begin_where_they_begin_whatever_is_needed():
    longest = block_sizes(40_000)
    for needed in (1, 288, 289, 384, 385, 1000, 33_000):
        sizes = block_sizes(needed)
        assert sizes == longest[: len(sizes)] and needed <= sum(sizes) <= max(288, 1.5 * needed)
    blocks = create_cache(create_model()[0].spec, 1, block_sizes(400), jnp.float32)[0]
    assert [(start, end) for _, start, end in spans(blocks)] == [(0, 288), (288, 384), (384, 576)]
