"""pytest tests/test_reproducible.py: the same command in two processes gives the same files, to the byte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from small_run import SMALL
from test_run import assert_same_run

ROOT = Path(__file__).parents[1]
# What differs between equal runs by its nature: when it was and how long it took.
TIMES = {"metrics.jsonl", "run.json", "events.jsonl", "report.html", ".lock"}
TIMED_KEYS = {"last_session_seconds"}


def start(parent, **environment):
    parent.mkdir()
    flags = [f"--config.{key}={value}" for key, value in {**SMALL, "workdir": "run", "deterministic": True}.items()]
    command = [sys.executable, ROOT / "main.py", f"--config={ROOT / 'configs/reason.py'}:tiny", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    ended = subprocess.run(command, cwd=parent, env=environment, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, ended.stderr
    return parent / "run"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two processes, with other hashes of strings and other numbers of threads that tokenise."""
    parent = tmp_path_factory.mktemp("reproducible")
    settings = ({"PYTHONHASHSEED": "1", "RAYON_NUM_THREADS": "1"}, {"PYTHONHASHSEED": "2", "RAYON_NUM_THREADS": "3"})
    return [start(parent / str(number), **environment) for number, environment in enumerate(settings)]


def comparable(path):
    """A file's bytes; of results without the times in them."""
    if path.name not in ("results.json", "eval_results.json"):
        return path.read_bytes()
    drop = lambda x: {k: drop(v) for k, v in x.items() if k not in TIMED_KEYS} if isinstance(x, dict) else x
    return json.dumps(drop(json.loads(path.read_text())))


def test_two_processes_give_the_same_parameters_state_and_metrics(runs):
    assert_same_run(*runs, 6)


def test_two_processes_write_the_same_files(runs):
    contents = []
    for run in runs:
        names = {path.relative_to(run) for path in run.rglob("*") if path.is_file()}
        kept = {name for name in names if name.parts[0] not in ("tensorboard", "checkpoints", *TIMES)}
        contents.append({str(name): comparable(run / name) for name in kept})
    assert contents[0].keys() == contents[1].keys()
    assert {"hf/model.safetensors", "eval/samples.jsonl", "data/train/tokens.npy"} & contents[0].keys()
    assert [name for name in contents[0] if contents[0][name] != contents[1][name]] == []
