"""python -m pytest tests/sampling/test_generate.py

Laws: what a prompt is continued with depends on the prompt, its place in the list and the seed, not on its
batch; EOS and the length limit end each row by itself; a bounded number of compilations serves all lengths.
"""

import numpy as np
import pytest
from random_model import NEVER, create_model, random_prompts

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.sampling import decode as decode_module
from tiny_reasoning_jax.sampling import generate as generate_module
from tiny_reasoning_jax.sampling.generate import generate

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 0}
SAMPLED = {"temperature": 1.2, "top_p": 0.95, "top_k": 50, "seed": 5}
LENGTHS = (3, 60, 1, 12, 64, 8, 30)


@pytest.fixture(scope="module")
def model():
    return create_model(num_layers=1)


def _generate(model, prompts, **changes):
    settings = {"max_new_tokens": 12, "eos_ids": NEVER, "batch_size": 4, **GREEDY, **changes}
    return generate(*model, prompts, **settings)


def _tokens(completions):
    return [completion.tokens for completion in completions]


@pytest.mark.parametrize("settings", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_completions_do_not_depend_on_the_batch(model, settings):
    prompts = random_prompts(LENGTHS)
    together = _generate(model, prompts, batch_size=100, **settings)
    apart = _generate(model, prompts, batch_size=4, **settings)
    assert _tokens(apart) == _tokens(together)
    for one, other in zip(apart, together, strict=True):
        np.testing.assert_allclose(one.logps, other.logps, atol=1e-4)
    # With longer prompts between them the rest are batched anew and padded to another length.
    longer = [prompt if len(prompt) < 20 else prompt * 2 for prompt in prompts]
    changed = _generate(model, longer, batch_size=4, **settings)
    same = [i for i in range(len(prompts)) if longer[i] == prompts[i]]
    assert len(same) == 4
    assert [changed[i].tokens for i in same] == [together[i].tokens for i in same]


def test_the_seed_decides_the_draws_and_equal_prompts_draw_apart(model):
    prompts = random_prompts((9,)) * 4
    first = _tokens(_generate(model, prompts, **SAMPLED))
    assert first == _tokens(_generate(model, prompts, **SAMPLED))
    assert first != _tokens(_generate(model, prompts, **{**SAMPLED, "seed": 6}))
    assert len({tuple(tokens) for tokens in first}) == 4
    assert len({tuple(tokens) for tokens in _tokens(_generate(model, prompts))}) == 1  # greedy
    model_def, params = model
    flat = {name: 0 * value for name, value in params.items()}  # every token is as likely as every other
    assert all(len(set(row)) > 6 for row in _tokens(_generate((model_def, flat), prompts, **SAMPLED)))


def test_top_k_1_is_greedy(model):
    prompts = random_prompts(LENGTHS)
    assert _tokens(_generate(model, prompts, temperature=2.0, top_k=1)) == _tokens(_generate(model, prompts))


def test_eos_ends_each_row_by_itself(model):
    prompts = random_prompts(LENGTHS)
    free = _generate(model, prompts)
    assert all(c.stop_reason == "length" and len(c.tokens) == len(c.logps) == 12 for c in free)
    eos_ids = (free[0].tokens[4], free[1].tokens[0])
    stopped = _generate(model, prompts, eos_ids=eos_ids)
    for long, short in zip(free, stopped, strict=True):
        ends = [i for i, token in enumerate(long.tokens) if token in eos_ids]
        num_tokens = ends[0] if ends else 12
        assert short.tokens == long.tokens[:num_tokens]
        assert short.stop_reason == ("eos" if ends else "length")
        np.testing.assert_allclose(short.logps, long.logps[: num_tokens + bool(ends)], atol=1e-5)
    assert stopped[1].tokens == [] and len({len(c.tokens) for c in stopped}) > 2


def test_an_eos_at_the_length_limit_is_not_a_truncation(model):
    prompts = random_prompts((6,)) * 4
    last = _generate(model, prompts)[0].tokens[-1]
    assert _generate(model, prompts, eos_ids=(last, last))[0].stop_reason == "eos"


def test_batches_are_filled_and_reported_and_no_prompts_are_no_work(model, monkeypatch):
    batches, finished = [], []

    def decode(*args, **kwargs):
        finished.append(args[5].tolist())
        return decode_module.decode(*args, **kwargs)

    monkeypatch.setattr(generate_module, "decode", decode)
    completions = _generate(model, random_prompts(LENGTHS), on_batch=batches.append)
    assert [len(batch) for batch in batches] == [4, 3]
    assert sorted(finished) == [[False] * 4, [False] * 3 + [True]]
    assert {id(c) for batch in batches for c in batch} == {id(c) for c in completions}
    assert _generate(model, []) == []


def test_two_compilations_for_each_power_of_two_whatever_the_prompts(monkeypatch):
    model_def, params = create_model(num_layers=1)
    num_traces = 0
    bind = ModelDef.bind

    def counting(self, params):
        nonlocal num_traces
        num_traces += 1
        return bind(self, params)

    monkeypatch.setattr(ModelDef, "bind", counting)
    settings = {"batch_size": 5, "max_new_tokens": 3}  # shapes of this test alone
    _generate((model_def, params), random_prompts(range(1, 121, 7)), **settings)
    assert num_traces == 2 * 2  # prefill and decode, for 64 and for 128 slots
    others = {name: value + 0.01 for name, value in params.items()}
    _generate((model_def, others), random_prompts(range(2, 128, 9), seed=1), **settings, **{"seed": 8})
    assert num_traces == 2 * 2


@pytest.mark.parametrize("name", ["max_new_tokens", "batch_size"])
def test_settings_out_of_range_are_refused(model, name):
    with pytest.raises(UserError, match=f"{name}=0 must"):
        _generate(model, [[1]], **{name: 0})
