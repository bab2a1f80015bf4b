"""pytest tests/plan/test_rungs.py: the rung and the micro-batch that a card gets, and what is said where none fits."""

import pytest
from ml_collections import FrozenConfigDict

from configs import reason
from tiny_reasoning_jax.errors import ShortageError
from tiny_reasoning_jax.model.remat import RUNGS
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.plan import cards, choose
from tiny_reasoning_jax.plan.cards import CARDS, GIB
from tiny_reasoning_jax.plan.memory import Memory

# Qwen3-1.7B with two layers: its arrays, in less time.
QWEN = ModelSpec(151_936, 2048, 6144, 2, 16, 8, 128, 1e6)
H100 = CARDS["h100"]


def make_config(**train):
    config = reason.get_config("1.7b")
    config.train.update({"attention": "triton", **train})
    return FrozenConfigDict(config)


class Compiler:
    """Stands in for the compiler: what the sum on paper says, times what it is wrong by."""

    def __init__(self, wrong_by: float = 1.0):
        self.wrong_by, self.asked = wrong_by, []

    def __call__(self, config) -> Memory:
        (one,) = choose.candidates(QWEN, config, H100)
        self.asked.append((one.rung, one.accum_steps))
        parts = {"parameters": one.state, "activations": int(one.temporaries * self.wrong_by)}
        return Memory(parts, "apply", [], 0, 0, 0, 0.0)


def chosen(usable_gib: float, compiler=None, card=H100, **train):
    compiler = compiler or Compiler()
    found, _ = choose.choose(make_config(**train), QWEN, card, int(usable_gib * GIB), compiler)
    return found and (found.config.train.remat, found.config.train.accum_steps)


@pytest.fixture(scope="module")
def extremes():
    """GiB of the candidate that needs least and of the one that needs most."""
    needs = [c.state + c.temporaries for c in choose.candidates(QWEN, make_config(), H100)]
    return min(needs) / GIB, max(needs) / GIB


def test_with_endless_memory_nothing_is_accumulated_or_recomputed():
    assert chosen(1000) == ("none", 1)


def test_a_step_never_gets_faster_with_less_memory(extremes):
    least, most = extremes
    found = [chosen(least + part * (most - least)) for part in (1, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05, 0)]
    times = [choose.seconds_per_step(QWEN, make_config().train, *one, H100) for one in found]
    assert times == sorted(times) and len(set(times)) > 4
    assert found[0] == ("none", 1)


def test_what_is_set_is_kept():
    assert chosen(1000, remat="some") == ("some", 1)
    assert chosen(1000, accum_steps=8) == ("none", 8)


def test_the_compiler_has_the_last_word(extremes):
    optimist, realist, usable = Compiler(), Compiler(1.5), sum(extremes) / 2
    seconds = lambda compiler: choose.seconds_per_step(QWEN, make_config().train, *chosen(usable, compiler), H100)
    assert seconds(optimist) < seconds(realist)
    assert len(realist.asked) > 1 and len(set(realist.asked)) == len(realist.asked)
    assert len(optimist.asked) <= 3, "few compilations are needed where the sum is right"


def test_rungs_are_ordered_by_memory_and_work():
    train = make_config().train
    bytes_of = [choose.estimate_temporaries(QWEN, train, rung, 4) for rung in RUNGS]
    seconds = [choose.seconds_per_step(QWEN, train, rung, 4, H100) for rung in RUNGS]
    assert bytes_of == sorted(bytes_of, reverse=True) and seconds == sorted(seconds)


@pytest.mark.parametrize("accum_steps, remat", [(0, "auto"), (1, "none"), (16, "full")])
def test_a_refusal_names_settings_that_fit(extremes, accum_steps, remat):
    config, compiler = make_config(accum_steps=accum_steps, remat=remat), Compiler()
    usable = int(0.9 * extremes[0] * GIB)
    found, tried = choose.choose(config, QWEN, H100, usable, compiler)
    assert found is None
    error = choose.refuse(config, QWEN, H100, usable, compiler, tried)
    assert isinstance(error, ShortageError)
    text = str(error)
    assert "GiB" in text and "--config.train.master=remainder16" in text
    flags = dict(
        part.removeprefix("--config.train.").split("=") for part in text.split() if part.startswith("--config")
    )
    changes = {key: int(value) if key == "accum_steps" else value for key, value in flags.items()}
    assert compiler(choose.with_train(config, **changes)).peak <= usable


def test_a_refusal_changes_no_more_than_it_must(extremes):
    config, usable, compiler = make_config(accum_steps=1, remat="none"), int(sum(extremes) / 2 * GIB), Compiler()
    _, tried = choose.choose(config, QWEN, H100, usable, compiler)
    text = str(choose.refuse(config, QWEN, H100, usable, compiler, tried))
    assert "train.remat" in text.partition("what fits")[2] or "accum_steps" in text.partition("what fits")[2]
    assert "remainder16" not in text and "moments=int8" not in text


def test_offloading_is_the_last_remedy_and_never_takes_one_micro_batch():
    least = {}
    for offload in (False, True):
        config = make_config(master="remainder16", moments="int8", offload_optimizer=offload)
        found = choose.candidates(QWEN, config, H100)
        assert (min(c.accum_steps for c in found) == 1) != offload
        least[offload] = min(c.state + c.temporaries for c in found)
    assert least[True] < least[False] - GIB, "what is in the host's memory is not counted as the card's"
    config, compiler = make_config(), Compiler()
    for usable, expected in (((least[False] + GIB // 8), False), ((least[False] - GIB // 2), True)):
        _, tried = choose.choose(config, QWEN, H100, usable, compiler)
        text = str(choose.refuse(config, QWEN, H100, usable, compiler, tried))
        assert ("--config.train.offload_optimizer=True" in text) == expected, text
        assert "--config.train.moments=int8" in text


def test_a_refusal_keeps_what_is_offloaded_as_exact_as_it_was():
    config, compiler = make_config(offload_optimizer=True, remat="none", accum_steps=2), Compiler()
    found = choose.candidates(QWEN, make_config(offload_optimizer=True), H100)
    usable = min(c.state + c.temporaries for c in found) + GIB // 8
    _, tried = choose.choose(config, QWEN, H100, usable, compiler)
    text = str(choose.refuse(config, QWEN, H100, usable, compiler, tried)).partition("what fits")[2]
    assert "train.remat" in text and "accum_steps" in text
    assert "master" not in text and "moments" not in text and "offload" not in text


def test_nothing_fits_a_card_that_is_too_small():
    config, usable, compiler = make_config(), GIB, Compiler()
    found, tried = choose.choose(config, QWEN, H100, usable, compiler)
    assert found is None and not compiler.asked, "what cannot fit on paper is not compiled"
    assert "smaller model" in str(choose.refuse(config, QWEN, H100, usable, compiler, tried))


def test_every_card_has_a_target_and_some_room():
    for name, card in CARDS.items():
        assert card.capability >= (8, 0), "bfloat16 came with Ampere"
        assert 0.85 * card.memory < cards.usable(card.memory) < 0.92 * card.memory, name
        assert card.capability in cards._LIMITS
