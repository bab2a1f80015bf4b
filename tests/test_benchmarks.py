"""pytest tests/test_benchmarks.py: what a benchmark has measured stays when the rest hangs, dies or is not there."""

import argparse
import json
import re
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
# A contender whose steps take a second each; as its settings say it hangs or dies in its third turn.
CONTENDER = """
import json, sys, time
settings = json.loads(sys.argv[2])
for number, line in enumerate(sys.stdin):
    if number == 2 and "hangs" in settings["trl"]:
        time.sleep(1000)
    if number == 2 and "dies" in settings["trl"]:
        sys.exit("no memory")
    print(json.dumps({"seconds": 1.0, "losses": [2.0] * int(line), "peak_bytes": 8, "facts": {}}), flush=True)
"""
TALKER = "import time; print('{\"a\": 1}'); print('{\"a\": 2}', flush=True); print('{\"a\": 3', end='', flush=True); "


@pytest.fixture(autouse=True)
def _path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.mark.parametrize(
    ("ends", "message"),
    [("time.sleep(1000)", "killed: still running after 1 s"), ("raise ValueError('full')", "ValueError: full")],
)
def test_the_last_whole_line_is_kept_of_a_measurement_that_hangs_or_fails(tmp_path, ends, message):
    import processes

    result = processes.run([sys.executable, "-c", TALKER + ends], seconds=1, folder=tmp_path)
    assert result["a"] == 2 and message in result["error"]


def test_a_measurement_that_ends_well_has_no_error(tmp_path):
    import processes

    assert processes.run([sys.executable, "-c", TALKER], seconds=60, folder=tmp_path) == {"a": 2}


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Races made-up contenders, told apart by SFTConfig's entries, as on a card; returns what was written each time."""
    import packed
    import peers
    import race

    program = tmp_path / "contender.py"
    program.write_text(CONTENDER)
    monkeypatch.setattr(race, "PROGRAM", program)

    def run(contenders: dict[str, dict], seconds: float = 1000, contender_seconds: float = 100) -> list[dict]:
        told = {
            name: ({"kind": "ours" if name == "ours" else "trl", "trl": trl}, "") for name, trl in contenders.items()
        }
        monkeypatch.setattr(peers, "CARD", told)
        args = argparse.Namespace(
            contenders=list(contenders), repeats=1, num_steps=8, turn_steps=2, num_warm_turns=1, cpu=True, cores=1,
            peer_python=sys.executable, ends=time.monotonic() + seconds, seconds=seconds,
            contender_seconds=contender_seconds,
        )  # fmt: skip
        written = []
        write = lambda result, curves: written.append({**result, **peers.compare_curves(curves)})
        peers.run_card(tmp_path, packed.make_config("tiny"), [100] * 8, args, write)
        return written

    return run


def test_a_contender_that_hangs_is_killed_and_the_others_go_on(run):
    *_, result = written = run({"trl_liger": {"hangs": 1}, "ours": {}}, contender_seconds=2)
    hung, ours = result["contenders"]["trl_liger"], result["contenders"]["ours"]
    assert "killed" in hung["error"] and hung["tokens_per_second"] == 200 and hung["turns_measured"] == 1
    assert ours["tokens_per_second"] == 200 and ours["turns_measured"] == 3 and "error" not in ours
    assert result["ours_to"]["trl_liger"]["tokens_per_second"] == 1
    assert result["largest_loss_difference_from_ours"]["trl_liger"] == {"steps 1-1": 0, "steps 2-4": 0}
    assert len(written) == 3 + 4  # after every turn, and the one that was not finished


def test_a_contender_that_dies_says_why(run):
    *_, result = run({"ours": {"dies": 1}, "trl": {}})
    assert result["contenders"]["ours"]["error"].endswith("code 1: no memory")
    assert result["contenders"]["trl"]["turns_measured"] == 3


def test_without_ours_there_are_figures_and_no_ratios(run):
    *_, result = run({"trl": {}})
    assert result["contenders"]["trl"]["tokens_per_second"] == 200
    assert result["ours_to"] == {} and result.keys() == {"contenders", "ours_to"}


def test_a_contender_for_which_no_time_is_left_is_not_begun(run):
    (result,) = run({"ours": {}}, seconds=5)
    assert result["contenders"]["ours"]["error"].startswith("not begun: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num-steps", "4"], "--num-steps=4 are 2 turns of --turn-steps=2, .* at least --num-steps=6"),
        (["--turn-steps", "7"], "--num-steps=14 are 2 turns of --turn-steps=7, .* at least --num-steps=21"),
        (["--cpu", "--search-turns", "1"], "--search-turns=1 must be from 2"),
        (["--cpu", "--num-steps", "60"], "--search-turns=5 must be from 2, .* to 4"),
    ],
)
def test_a_race_of_warm_turns_alone_is_refused_before_it_begins(monkeypatch, capsys, tmp_path, arguments, message):
    import peers

    output = ["--output", str(tmp_path / "result.json")]
    monkeypatch.setattr(sys, "argv", ["peers.py", *arguments, *output])
    with pytest.raises(SystemExit):
        peers.parse()
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))


def test_the_head_of_untrained_tokens_counts_by_convention_alone():
    import numpy as np
    import step_parts

    from tiny_reasoning_jax.data.batch import Batch
    from tiny_reasoning_jax.model.spec import ModelSpec
    from tiny_reasoning_jax.plan import flops

    spec = ModelSpec(vocab_size=1000, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2,
                     num_key_value_heads=1, head_dim=4, rope_theta=1e4, tie_word_embeddings=True)  # fmt: skip
    segment_ids = np.array([[[1, 1, 1, 1, 2, 2, 0, 0]]])
    trained = np.array([[[0, 1, 1, 0, 0, 1, 0, 0]]], bool)
    empty = np.zeros((1, 1, 8), np.int32)
    found = step_parts.rates(spec, [Batch(empty, empty, trained, segment_ids, empty, empty)], step_seconds=2.0)
    per_token = flops.training_flops_per_token(spec, (16 + 4) / 2 / 6)
    assert found["tokens_per_second"] == 3 and found["trained_share"] == 0.5
    assert found["flops"] == pytest.approx(3 * per_token)
    assert found["computed_flops"] == pytest.approx(3 * (per_token - 3 * 0.5 * 2 * 8 * 1000))
    assert json.dumps(found)
