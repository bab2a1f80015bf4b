"""python -m pytest tests/sampling/test_generate.py

Laws: what a request is continued with, to the last bit, depends on the request and the seed, not on what else is
asked for, in which order, or when it begins; EOS and the length limit end each row by itself; a bounded number of
compilations serves all lengths.
"""

import dataclasses
import threading

import numpy as np
import pytest
from random_model import NEVER, create_model, random_prompts

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.sampling import batch as batch_module
from tiny_reasoning_jax.sampling import generate as generate_module
from tiny_reasoning_jax.sampling.batch import STOP_EVERY
from tiny_reasoning_jax.sampling.generate import Request, generate

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "seed": 0}
SAMPLED = {"temperature": 1.2, "top_p": 0.95, "top_k": 50, "seed": 5}
LENGTHS = (3, 60, 1, 12, 64, 8, 30)


@pytest.fixture(scope="module")
def model():
    return create_model(num_layers=1)


def _ask(prompts, sample=0):
    return [Request(prompt, sample) for prompt in prompts]


def _generate(model, requests, **changes):
    """The completions in the order of the requests."""
    settings = {"max_new_tokens": 12, "eos_ids": NEVER, "batch_size": 4, **GREEDY, **changes}
    written = list(generate(*model, requests, **settings))
    assert sorted(index for index, _ in written) == list(range(len(requests))), "each request once"
    return [completion for _, completion in sorted(written, key=lambda one: one[0])]


def _tokens(completions):
    return [completion.tokens for completion in completions]


@pytest.mark.parametrize("batch_size", [3, 16])  # one batch, and two side by side
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tokens_and_logps_do_not_depend_on_the_other_requests(dtype, batch_size):
    model_def, params = create_model()
    model = dataclasses.replace(model_def, dtype=dtype), params
    # The blocks of the cache end at 288, 384, 576: the longest reach the third, and some enter another.
    lengths = (1, 5, 17, 64, 65, 66, 100, 270, 280, 287, 288, 370, 500)
    requests = [Request(prompt, sample) for prompt in random_prompts(lengths) for sample in range(2)]
    settings = {**SAMPLED, "max_new_tokens": 30, "eos_ids": (1, 2, 3), "batch_size": batch_size}
    together = _generate(model, requests, **settings)
    assert {completion.stop_reason for completion in together} == {"eos", "length"}

    order = np.random.default_rng(0).permutation(len(requests))
    shuffled = _generate(model, [requests[i] for i in order], **settings)
    assert [together[i] for i in order] == shuffled
    short = [i for i, request in enumerate(requests) if len(request.prompt) < 100]
    assert [together[i] for i in short] == _generate(model, [requests[i] for i in short], **settings)
    for i in (0, 11, 19):
        assert [together[i]] == _generate(model, [requests[i]], **settings)


def test_the_seed_and_the_sample_decide_the_draws(model):
    (prompt,) = random_prompts((9,))
    requests = [Request(prompt, sample) for sample in range(4)]
    first = _tokens(_generate(model, requests, **SAMPLED))
    assert len({tuple(tokens) for tokens in first}) == 4
    assert first != _tokens(_generate(model, requests, **{**SAMPLED, "seed": 6}))
    assert first[2] == _tokens(_generate(model, [Request(prompt, 7), Request(prompt, 2)], **SAMPLED))[1]
    assert len({tuple(tokens) for tokens in _tokens(_generate(model, requests))}) == 1  # greedy
    same = _generate(model, [requests[0]] * 3, **SAMPLED)
    assert same[0] == same[1] == same[2] and same[0].tokens == first[0]


def test_prompts_and_tokens_draw_apart(model):
    model_def, params = model
    flat = model_def, {name: 0 * value for name, value in params.items()}  # every token is as likely as every other
    rows = _tokens(_generate(flat, _ask(random_prompts((9, 9, 9))), **SAMPLED))
    assert all(len(set(row)) > 6 for row in rows)
    assert len({tuple(row) for row in rows}) == 3


def test_top_k_1_is_greedy(model):
    requests = _ask(random_prompts(LENGTHS))
    assert _tokens(_generate(model, requests, temperature=2.0, top_k=1)) == _tokens(_generate(model, requests))


def test_eos_ends_each_row_by_itself(model):
    requests = _ask(random_prompts(LENGTHS))
    free = _generate(model, requests)
    assert all(c.stop_reason == "length" and len(c.tokens) == len(c.logps) == 12 for c in free)
    eos_ids = (free[0].tokens[4], free[1].tokens[0])
    stopped = _generate(model, requests, eos_ids=eos_ids)
    for long, short in zip(free, stopped, strict=True):
        ends = [i for i, token in enumerate(long.tokens) if token in eos_ids]
        num_tokens = ends[0] if ends else 12
        assert short.tokens == long.tokens[:num_tokens]
        assert short.logps == long.logps[: num_tokens + bool(ends)]
        assert short.stop_reason == ("eos" if ends else "length")
    assert stopped[1].tokens == [] and len({len(c.tokens) for c in stopped}) > 2


def test_an_eos_at_the_length_limit_is_not_a_truncation(model):
    requests = _ask(random_prompts(LENGTHS))
    free = _generate(model, requests)
    index = next(i for i, completion in enumerate(free) if completion.tokens[-1] not in completion.tokens[:-1])
    last = free[index].tokens[-1]
    ended = _generate(model, requests, eos_ids=(last, last))[index]
    assert ended.stop_reason == "eos" and ended.tokens == free[index].tokens[:-1] and len(ended.logps) == 12


def test_one_new_token_and_no_requests(model):
    requests = _ask(random_prompts(LENGTHS))
    whole, first = _generate(model, requests), _generate(model, requests, max_new_tokens=1)
    assert _tokens(first) == [completion.tokens[:1] for completion in whole]
    assert [completion.stop_reason for completion in first] == ["length"] * len(LENGTHS)
    assert _generate(model, []) == []


def test_rows_longer_than_a_call_of_decode_go_on_where_they_were(model, monkeypatch):
    requests = _ask(random_prompts(LENGTHS))
    settings = {**SAMPLED, "max_new_tokens": 2 * batch_module.NUM_STEPS + 9, "batch_size": 7}
    in_three_calls = _generate(model, requests, **settings)
    assert {len(completion.tokens) for completion in in_three_calls} == {settings["max_new_tokens"]}
    monkeypatch.setattr(batch_module, "NUM_STEPS", settings["max_new_tokens"])
    assert _tokens(_generate(model, requests, **settings)) == _tokens(in_three_calls)


@pytest.mark.parametrize("batch_size", [3, 16])
def test_should_stop_is_asked_at_fixed_places(model, batch_size):
    requests = _ask(random_prompts(LENGTHS)) * 2
    free = _generate(model, requests, max_new_tokens=96, batch_size=batch_size)
    asked = set()

    def should_stop(tokens):
        asked.add(len(tokens))
        return len(set(tokens)) > 25

    stopped = _generate(model, requests, max_new_tokens=96, batch_size=batch_size, should_stop=should_stop)
    for long, short in zip(free, stopped, strict=True):
        places = [end for end in range(STOP_EVERY, 96, STOP_EVERY) if len(set(long.tokens[:end])) > 25]
        end = places[0] if places else 96
        assert short.tokens == long.tokens[:end] and short.logps == long.logps[:end]
        assert short.stop_reason == ("stop" if places else "length")
    assert asked <= {32, 64} and {completion.stop_reason for completion in stopped} == {"stop", "length"}


def test_samples_of_a_prompt_share_its_reading_and_ended_rows_are_refilled(model, monkeypatch):
    read, steps = [], []

    def prefill(model_def, params, tokens):
        read.append(int(tokens.any(1).sum()))
        return batch_module_prefill(model_def, params, tokens)

    def decode(*args, **kwargs):
        cache, written = batch_module_decode(*args, **kwargs)
        steps.append(int(written.counts.max()))
        return cache, written

    batch_module_prefill, batch_module_decode = batch_module.prefill, batch_module.decode
    monkeypatch.setattr(batch_module, "prefill", prefill)
    monkeypatch.setattr(batch_module, "decode", decode)
    prompts = random_prompts((20,) * 12)
    requests = [Request(prompt, sample) for prompt in prompts for sample in range(3)]
    completions = _generate(model, requests, **SAMPLED, max_new_tokens=60, eos_ids=(1, 2, 3, 4), batch_size=4)
    assert sum(read) == 12, "each prompt is read once"
    lengths = [len(completion.logps) for completion in completions]
    batches = [max(lengths[start : start + 4]) for start in range(0, 36, 4)]
    assert sum(lengths) / 4 <= sum(steps) < 0.75 * sum(batches), "rows wait for the longest of their batch"


def test_a_bounded_number_of_compilations_serves_all_lengths_and_fillings(monkeypatch):
    model_def, params = create_model(N=2, K=2, num_layers=1)  # shapes of this test alone
    num_traces = 0
    bind = ModelDef.bind

    def counting(self, params):
        nonlocal num_traces
        num_traces += 1
        return bind(self, params)

    monkeypatch.setattr(ModelDef, "bind", counting)
    settings = {"batch_size": 5, "max_new_tokens": 3}
    _generate((model_def, params), _ask(random_prompts(range(1, 121, 7))), **settings)
    assert num_traces == 2 + 1  # reading 64 and 128 tokens; one size of the cache
    others = {name: value + 0.01 for name, value in params.items()}
    for lengths in (range(2, 128, 9), (5,), (100, 3, 3, 3)):
        _generate((model_def, others), _ask(random_prompts(lengths, seed=1)), **settings, seed=8)
    assert num_traces == 2 + 1
    inserted = batch_module.insert._cache_size()
    _generate((model_def, params), _ask(random_prompts(range(1, 1000, 37))), **settings)
    # Up to 1024 tokens three more sizes of prompts, and of the cache 384, 576, 768 and 1152 slots at most.
    assert num_traces <= 5 + 5 and batch_module.insert._cache_size() - inserted <= 3 * 2


def test_an_error_in_one_batch_ends_the_others(model, monkeypatch):
    threads, decode = [], batch_module.decode

    def failing(*args, **kwargs):
        threads.append(threading.get_ident())
        if threads[-1] != threads[0]:
            raise RuntimeError("the second batch fails")
        return decode(*args, **kwargs)

    monkeypatch.setattr(batch_module, "decode", failing)
    monkeypatch.setattr(generate_module.os, "cpu_count", lambda: 2)
    with pytest.raises(RuntimeError, match="the second batch fails"):
        _generate(model, _ask(random_prompts((9,) * 1000)), batch_size=16)
    assert len(threads) < 30  # for all it takes 125


def test_a_model_of_nans_is_no_model_that_knows_nothing(model):
    model_def, params = model
    broken = {name: value * float("nan") if name == "final_norm.scale" else value for name, value in params.items()}
    assert any(value is not params[name] for name, value in broken.items())
    with pytest.raises(UserError, match="log-probabilities that are no numbers .nan.*NaN or infinity"):
        _generate((model_def, broken), _ask(random_prompts((9, 3))))


@pytest.mark.parametrize("batch_size", [4, 16])
def test_who_has_enough_may_leave(model, monkeypatch, batch_size):
    calls, asked, decode, before = [], [], batch_module.decode, threading.active_count()
    monkeypatch.setattr(batch_module, "decode", lambda *args, **kwargs: (calls.append(1), decode(*args, **kwargs))[1])

    def stop_the_first(tokens):
        asked.append(1)
        return len(asked) == 1

    written = generate(
        *model, _ask(random_prompts((9,) * 100)), max_new_tokens=4000, eos_ids=NEVER, batch_size=batch_size, **GREEDY,
        should_stop=stop_the_first,
    )  # fmt: skip
    next(written)
    written.close()
    assert threading.active_count() == before and len(calls) < 10  # a row's 4000 tokens take 63


@pytest.mark.parametrize("batch_size", [4, 16])
def test_given_up_it_ends_after_the_call_of_decode_in_hand(model, batch_size):
    asked, before = [], threading.active_count()
    requests = _ask(random_prompts((9,) * 100))
    settings = {"max_new_tokens": 130, "eos_ids": NEVER, "batch_size": batch_size, **GREEDY}
    written = list(generate(*model, requests, **settings, give_up=lambda: asked.append(1) or len(asked) > 5))
    assert len(asked) <= 5 + 2 and threading.active_count() == before
    whole = dict(generate(*model, requests, **settings, give_up=lambda: False))
    assert 0 < len(written) < len(whole) == 100  # a row's 130 tokens take 3
    assert all(whole[index].tokens == completion.tokens for index, completion in written)


@pytest.mark.parametrize("name", ["max_new_tokens", "batch_size"])
def test_settings_out_of_range_are_refused_before_anything_is_written(model, name):
    settings = {"max_new_tokens": 12, "batch_size": 4, name: 0}
    with pytest.raises(UserError, match=f"{name}=0 must"):
        generate(*model, _ask([[1]]), eos_ids=NEVER, **settings, **GREEDY)
