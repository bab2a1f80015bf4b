"""Run: pytest tests/eval/test_results.py. The files that keep an evaluation, and what is computed for them."""

import pytest

from tiny_reasoning_jax.eval import results
from tiny_reasoning_jax.eval.results import load_results, load_samples, write_results

FACTS = {"model": "m", "seconds": 1.0}


def make_samples(verdicts, first=0, task="toy", **changes):
    """One sample of each problem."""
    return [
        {"task": task, "id": f"id-{first + i}", "sample": 0, "seed": 3, "category": "algebra", "difficulty": 1,
         "prompt": "?", "completion": "line\u2028two\n\u00e9", "extracted": None, "how": None, "answer": "7",
         "verdict": verdict, "truncated": False, "unclosed": False, "num_tokens": 3, "logp": -1.5, "detail": "",
         "grader": "1", **changes}
        for i, verdict in enumerate(verdicts)
    ]  # fmt: skip


def test_results_of_all_models_stand_side_by_side(tmp_path):
    assert load_results(tmp_path) == {} and load_samples(tmp_path) == []
    before = make_samples(["wrong", "wrong", "unparsed", "correct"])
    write_results(tmp_path, "before", {"model": "base", "seconds": 1.5}, {"toy": before})
    found = load_results(tmp_path)
    assert found.keys() == {"before"}
    assert found["before"]["model"] == "base" and found["before"]["seconds"] == 1.5
    assert found["before"]["tasks"]["toy"]["correct"] == 1
    other = make_samples(["correct"])
    write_results(tmp_path, "model", {"model": "another", "seconds": 2.5}, {"toy": other})
    assert "comparison" not in load_results(tmp_path)
    after = make_samples(["correct", "correct", "correct", "wrong"])
    write_results(tmp_path, "after", {"model": "trained", "seconds": 2.5}, {"toy": after})
    found = load_results(tmp_path)
    assert found["after"]["tasks"]["toy"]["by_difficulty"]["1"]["accuracy"] == 0.75
    assert found["comparison"]["toy"]["n"] == 4 and found["comparison"]["toy"]["difference"] == 0.5
    assert found["model"]["model"] == "another"
    by_model = {"before": before, "after": after, "model": other}
    assert load_samples(tmp_path) == [{"model": name, **s} for name, samples in by_model.items() for s in samples]
    assert sorted(path.name for path in (tmp_path / "eval").iterdir()) == ["results.json", "samples.jsonl"]


def test_a_second_evaluation_replaces_the_first_and_pairs_by_task_and_problem(tmp_path):
    for verdicts in (["wrong"] * 3, ["correct", "wrong"]):
        write_results(tmp_path, "after", FACTS, {"toy": make_samples(verdicts)})
    assert len(load_samples(tmp_path)) == 2
    # Problem 1 is the only one that both have answered; its place in the lists differs.
    both = {
        "toy": make_samples(["correct", "wrong"], first=1),
        "other": make_samples(["correct"], first=1, task="other"),
    }
    write_results(tmp_path, "before", FACTS, both)
    comparison = load_results(tmp_path)["comparison"]
    assert comparison.keys() == {"toy"} and comparison["toy"]["n"] == 1 and comparison["toy"]["difference"] == -1
    assert [sample["model"] for sample in load_samples(tmp_path)] == ["before"] * 3 + ["after"] * 2
    write_results(tmp_path, "before", FACTS, {"toy": make_samples(["wrong"], first=9)})
    assert load_results(tmp_path)["comparison"] == {}


def test_a_killed_write_leaves_the_old_files(tmp_path, monkeypatch):
    old = make_samples(["correct"])
    write_results(tmp_path, "before", FACTS, {"toy": old})

    def dumps(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(results.json, "dumps", dumps)
    with pytest.raises(KeyboardInterrupt):
        write_results(tmp_path, "before", FACTS, {"toy": make_samples(["wrong"])})
    monkeypatch.undo()
    assert load_samples(tmp_path) == [{"model": "before", **old[0]}]
    assert load_results(tmp_path)["before"]["tasks"]["toy"]["correct"] == 1
