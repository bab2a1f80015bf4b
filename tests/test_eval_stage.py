"""pytest tests/test_eval_stage.py: evaluating models of any origin on tasks of any kind, through whole runs."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from small_run import make_config
from tiny_reasoning_jax import eval_stage, stages
from tiny_reasoning_jax import workdir as rundir
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval import evaluate, judge
from tiny_reasoning_jax.eval.results import load_results, load_samples
from tiny_reasoning_jax.sampling.generate import Completion

ROOT = Path(__file__).parents[1]
SAMPLED = {"eval__num_samples": 2, "eval__temperature": 1.0}


def write(path, records) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def gsm8k(count, start=0):
    return [
        {"question": f"What is {i} plus {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i}"}
        for i in range(start, start + count)
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A small run, trained and exported."""
    workdir = tmp_path_factory.mktemp("run") / "whole"
    stages.run(make_config(workdir, stages="data,train,export"))
    return workdir


@pytest.fixture(scope="module")
def sums(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sums") / "gsm8k.jsonl", gsm8k(12))


def run(workdir, finished, tasks, model="hf", **changes):
    """Evaluates the finished run's model in a workdir of its own."""
    changes = {"eval__model": str(finished / model), "eval__tasks": tasks, "stages": "eval", **changes}
    stages.run(make_config(workdir, **changes))
    return load_results(workdir)["model"], load_samples(workdir)


def test_every_kind_of_task_in_one_evaluation_of_a_folder_without_data(finished, shared_data, tmp_path, capsys):
    program = write(tmp_path / "mine.jsonl", [{"prompt": "Write f that gives 1.", "tests": "assert f() == 1"}])
    files = {"gsm8k": "gsm8k/test.jsonl", "math": "math/test.jsonl", "mbpp": "mbpp/mbpp.jsonl",
             "humaneval": "humaneval/HumanEval.jsonl.gz"}  # fmt: skip
    tasks = ",".join([*(f"{name}={shared_data / path}" for name, path in files.items()), "procedural", program])
    model, samples = run(tmp_path / "w", finished, tasks, **SAMPLED, eval__num_problems=4)
    assert list(model["tasks"]) == ["gsm8k", "math", "mbpp", "humaneval", "procedural", "mine"]
    for name, summary in model["tasks"].items():
        assert (summary["n"], summary["num_samples"]) == ((1 if name == "mine" else 4), 2)
        assert summary["pass_at"].keys() == {"1", "2"}
    assert len(samples) == 2 * (5 * 4 + 1) and {sample["model"] for sample in samples} == {"model"}
    assert [sample["sample"] for sample in samples] == [0, 1] * 21
    told = capsys.readouterr().out
    assert "eval model: humaneval 0.0% correct (mean over 2 samples of 4 problems, 95 % interval" in told
    assert not (tmp_path / "w" / "data").exists() and (tmp_path / "w" / "report.html").exists()
    base = write(tmp_path / "base.jsonl", gsm8k(2))
    few_shot, samples = run(tmp_path / "b", finished, f"gsm8k={base}", eval__protocol="few-shot")
    assert few_shot["tasks"]["gsm8k"]["n"] == 2 and samples[0]["prompt"].startswith("Q: A baker")


def test_one_model_has_one_result_in_whatever_form_it_is_given(finished, sums, tmp_path):
    found = {
        model: run(tmp_path / (model or "whole"), finished, f"gsm8k={sums}", model, **SAMPLED)
        for model in ("hf", "checkpoints", "")
    }
    assert found["hf"][1] == found["checkpoints"][1] == found[""][1]
    assert found["hf"][0]["tasks"] == found["checkpoints"][0]["tasks"]
    assert found[""][0]["model"] == f"{finished / ''} at step 6"
    shutil.copytree(finished, tmp_path / "own")
    stages.run(make_config(tmp_path / "own", eval__tasks=f"gsm8k={sums}", stages="eval", **SAMPLED))
    after = [sample for sample in load_samples(tmp_path / "own") if sample["model"] == "after"]
    assert [{**sample, "model": "model"} for sample in after] == found["hf"][1]


def test_another_model_stands_beside_the_runs_own_and_disturbs_nothing(finished, sums, tmp_path, capsys):
    workdir = tmp_path / "own"
    shutil.copytree(finished, workdir)
    own = {"stages": "eval", "eval__num_problems": 3}
    stages.run(make_config(workdir, **own))
    before = load_results(workdir)
    run(workdir, finished, "procedural", eval__num_problems=2)
    results = load_results(workdir)
    assert {key: results[key] for key in before} == before and results["model"]["tasks"]["procedural"]["n"] == 2
    times = {path: path.stat().st_mtime_ns for path in (workdir / "eval").iterdir()}
    capsys.readouterr()
    stages.run(make_config(workdir, **own))
    run(workdir, finished, "procedural", eval__num_problems=2)
    assert capsys.readouterr().out.count("nothing to do") == 2
    assert times == {path: path.stat().st_mtime_ns for path in (workdir / "eval").iterdir()}
    stages.run(make_config(workdir, stages="export"))
    exported = json.loads((workdir / "hf" / "eval_results.json").read_text())
    assert set(exported) >= {"before", "after"} and "model" not in exported


def test_a_file_that_has_changed_is_evaluated_again(finished, tmp_path):
    path = tmp_path / "mine.jsonl"
    for count in (2, 3):
        model, _ = run(tmp_path / "w", finished, write(path, gsm8k(count)))
        assert model["tasks"]["mine"]["n"] == count


KILLED = """
import os, signal, sys
sys.path[:0] = {paths!r}
from small_run import make_config
from tiny_reasoning_jax import stages
from tiny_reasoning_jax.eval import journal

add, count = journal.Journal.add, []

def dying(self, key, written):
    add(self, key, written)
    count.append(1)
    if len(count) == {after}:
        os.kill(os.getpid(), signal.SIGKILL)

journal.Journal.add = dying
stages.run(make_config({workdir!r}, **{changes!r}))
"""


def test_killed_and_started_again_it_ends_in_the_same_files_and_asks_nothing_twice(
    finished, sums, tmp_path, monkeypatch
):
    tasks = f"gsm8k={sums},procedural"
    run(tmp_path / "whole", finished, tasks, **SAMPLED)
    changes = {"eval__model": str(finished / "hf"), "eval__tasks": tasks, "stages": "eval", **SAMPLED}
    workdir, paths = tmp_path / "killed", [str(ROOT), str(ROOT / "tests")]
    for after in (9, 14):
        script = KILLED.format(paths=paths, after=after, workdir=str(workdir), changes=changes)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not (workdir / "eval" / "results.json").exists()
    real, asked = evaluate.generate, []

    def counting(model_def, params, requests, **settings):
        asked.append(len(requests))
        return real(model_def, params, requests, **settings)

    monkeypatch.setattr(evaluate, "generate", counting)
    run(workdir, finished, tasks, **SAMPLED)
    assert sum(asked) == 2 * (10 + 10) - 9 - 14
    for name in ("samples.jsonl", "results.json"):
        killed, whole = ((folder / "eval" / name).read_text() for folder in (workdir, tmp_path / "whole"))
        if name == "results.json":
            killed, whole = ({**json.loads(text)["model"], "last_session_seconds": 0} for text in (killed, whole))
        assert killed == whole


@pytest.fixture
def asked(monkeypatch):
    """Lets `generate` write nothing, and returns how many requests each call had."""
    counts = []

    def generate(model_def, params, requests, **settings):
        counts.append(len(requests))
        return ((index, Completion([], [], "length")) for index in range(len(requests)))

    monkeypatch.setattr(evaluate, "generate", generate)
    return counts


def test_completions_are_used_again_while_nothing_changes_that_decides_them(
    finished, sums, tmp_path, asked, monkeypatch
):
    model, workdir, settings = tmp_path / "hf", tmp_path / "w", {"eval__num_problems": 2, "eval__temperature": 0.5}
    shutil.copytree(finished / "hf", model)
    monkeypatch.setattr(rundir, "IDENTITY", ())  # two seeds in one folder

    def count(**changes):
        # Without the results the journal alone spares the questions.
        (workdir / "eval" / "results.json").unlink(missing_ok=True)
        asked.clear()
        run(workdir, finished, f"gsm8k={sums}", **{"eval__model": str(model), **settings, **changes})
        return sum(asked)

    assert (count(), count()) == (2, 0)
    others = {"eval__unsafe_code": True, "eval__batch_size": 4, "train__attention": "blockwise"}
    assert {key: count(**{key: value}) for key, value in others.items()} == dict.fromkeys(others, 0)
    deciding = {
        "eval__temperature": 0.6, "eval__max_new_tokens": 7, "eval__top_p": 0.9, "eval__top_k": 5, "seed": 3,
        "train__compute_dtype": "bfloat16", "eval__model": str(finished / "checkpoints" / "4"),
    }  # fmt: skip
    assert {key: count(**{key: value}) for key, value in deciding.items()} == dict.fromkeys(deciding, 2)
    assert count() == 0, "the first settings again"
    path = model / "config.json"
    was = path.read_text()
    path.write_text(json.dumps({**json.loads(was), "rms_norm_eps": 1e-4}))
    assert count() == 2, "weights that are computed otherwise"
    path.write_text(was)
    tokenizer = model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    assert count() == 2, "another tokenizer"


def test_another_way_of_computing_is_evaluated_again(finished, sums, tmp_path, asked):
    for dtype in ("float32", "bfloat16", "bfloat16"):
        run(tmp_path / "w", finished, f"gsm8k={sums}", train__compute_dtype=dtype)
    assert asked == [10, 10]


# --- what is refused, and when --------------------------------------------------------------------


@pytest.fixture
def never_asked(monkeypatch):
    def generate(*_, **__):
        raise AssertionError("the model was asked")

    monkeypatch.setattr(evaluate, "generate", generate)


def test_unknown_tasks_and_missing_files_are_refused_before_anything_is_written(finished, tmp_path, never_asked):
    for tasks, message in (("gsm9k", "names 'gsm9k', which is no task"), ("math=/nowhere.jsonl", "does not exist")):
        with pytest.raises(UserError, match=message):
            run(tmp_path / "w", finished, tasks)
        with pytest.raises(UserError, match=message):  # before a whole training as well
            stages.run(make_config(tmp_path / "w", eval__tasks=tasks))
    assert not (tmp_path / "w").exists()


def test_another_tasks_problems_are_not_evaluated_under_its_name(finished, sums, shared_data, tmp_path, never_asked):
    for name, why in (("mbpp", "missing field"), ("math", "missing field 'problem'")):
        with pytest.raises(UserError, match=f"holds no problem for {name}; the first of 2 records: {why}"):
            run(tmp_path / "w", finished, f"{name}={write(tmp_path / 'two.jsonl', gsm8k(2))}")


def test_records_that_cannot_be_asked_are_counted_where_the_results_are(finished, tmp_path, capsys):
    half = write(tmp_path / "half.jsonl", [*gsm8k(2), {"question": "How many?", "answer": "No idea.\nReally."}])
    run(tmp_path / "w", finished, half)
    assert "1 of 3 records" in capsys.readouterr().out
    assert load_results(tmp_path / "w")["model"]["unusable_records"] == {"half": 1}
    assert "1 records of half could not be asked" in (tmp_path / "w" / "report.html").read_text()
    run(tmp_path / "w", finished, half, eval__num_problems=1)
    assert "eval model: replaces the results of" in capsys.readouterr().out


def test_a_prompt_that_is_longer_than_the_model_is_refused(finished, sums, tmp_path, never_asked):
    long = write(tmp_path / "long.jsonl", [{"question": "word " * 20_000, "answer": "#### 1"}])
    with pytest.raises(UserError, match="the prompt of problem long.jsonl:1 has .* tokens.*positions"):
        run(tmp_path / "w", finished, f"gsm8k={sums},{long}")


def test_a_folder_that_holds_no_model_is_refused(tmp_path, sums, never_asked):
    (tmp_path / "empty").mkdir()
    for model, message in ((tmp_path / "none", "does not exist"), (tmp_path / "empty", "config.json")):
        with pytest.raises(UserError, match=message):
            stages.run(make_config(tmp_path / "w", eval__model=str(model), eval__tasks=f"gsm8k={sums}", stages="eval"))
    assert not (tmp_path / "w").exists()


def test_the_runs_own_test_problems_need_its_data(finished, tmp_path, never_asked):
    with pytest.raises(UserError, match="run the data stage first"):
        run(tmp_path / "w", finished, "test")


def test_a_missing_sandbox_is_told_before_anything_else(finished, shared_data, tmp_path, monkeypatch, never_asked):
    def missing():
        raise UserError("this kernel has no Landlock")

    monkeypatch.setattr(eval_stage, "require_sandbox", missing)
    monkeypatch.setattr(judge, "require_sandbox", missing)
    mbpp = shared_data / "mbpp" / "mbpp.jsonl"
    with pytest.raises(UserError, match="no Landlock"):
        stages.run(make_config(tmp_path / "w", eval__tasks=f"mbpp={mbpp}"))
    assert not (tmp_path / "w").exists()
    # A file whose records have tests, and a test set of programs, are known once they are read: still before training.
    program = write(tmp_path / "mine.jsonl", [{"prompt": "Write f that gives 1.", "tests": "assert f() == 1"}])
    with pytest.raises(UserError, match="1 of 1 problems of mine ask for a program"):
        run(tmp_path / "w", finished, program)
    source = write(tmp_path / "train.jsonl", gsm8k(60))
    for changes in ({"data__test_source": program}, {"eval__tasks": f"test,{program}"}):
        workdir = tmp_path / "-".join(changes)
        with pytest.raises(UserError, match="1 of 1 problems of mine ask for a program.*no Landlock"):
            stages.run(make_config(workdir, data__source=source, **changes))
        assert (workdir / "data").exists() and not (workdir / "checkpoints").exists()


def test_training_data_are_searched_for_every_task_and_otherwise_it_is_said(tmp_path, capsys):
    bench = write(tmp_path / "bench.jsonl", gsm8k(3))
    settings = {"data__source": write(tmp_path / "own" / "train.jsonl", gsm8k(80)), "data__near_duplicates": 1.0}
    stages.run(make_config(tmp_path / "w", eval__tasks=f"test,{bench}", **settings))
    summary = json.loads((tmp_path / "w" / "data" / "summary.json").read_text())
    assert summary["contaminated"]["training_problems_of_bench"] > 0
    results = load_results(tmp_path / "w")
    assert results["after"]["not_decontaminated"] == [] and list(results["after"]["tasks"]) == ["own", "bench"]
    capsys.readouterr()
    other = write(tmp_path / "other.jsonl", gsm8k(3))
    stages.run(make_config(tmp_path / "w", eval__tasks=f"{bench},{other}", stages="eval", **settings))
    assert load_results(tmp_path / "w")["after"]["not_decontaminated"] == ["other"]
    assert capsys.readouterr().out.count("were not searched for problems of other") == 1
