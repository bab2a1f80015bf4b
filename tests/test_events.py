"""pytest tests/test_events.py: what happened to a run, in order, and with which exit code it ended."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest

from small_run import SMALL, make_config
from test_run import stop_after
from tiny_reasoning_jax import events, stages
from tiny_reasoning_jax import workdir as rundir
from tiny_reasoning_jax.errors import OtherRunError, UserError

ROOT = Path(__file__).parents[1]


def told(workdir):
    """(event, step) of every event."""
    return [(e["event"], e.get("step")) for e in events.load_events(workdir)]


def test_a_run_tells_of_starts_saves_signals_and_resumes(tmp_path, monkeypatch):
    config = make_config(tmp_path / "w", stages="data,train")
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert not stages.run(config)
    assert stages.run(config)
    first = [("start", None), ("save", 2), ("signal", None), ("save", 3), ("end", None)]
    second = [("start", None), ("resume", 3), ("save", 4), ("save", 6), ("end", None)]
    assert told(tmp_path / "w") == first + second
    everything = events.load_events(tmp_path / "w")
    assert everything[2]["name"] == "SIGTERM" and everything[0]["pid"] == os.getpid()
    assert [e["finished"] for e in everything if e["event"] == "end"] == [False, True]


def test_a_refusal_is_kept_with_its_exit_code(tmp_path):
    with pytest.raises(UserError, match="run the data stage first") as caught:
        stages.run(make_config(tmp_path / "w", stages="train"))
    refusal = events.load_events(tmp_path / "w")[-1]
    assert refusal["event"] == "refusal" and refusal["exit_code"] == 2 and refusal["message"] == str(caught.value)


@pytest.mark.parametrize(
    "error", [jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), OSError(errno.ENOSPC, "No space left")]
)
def test_a_full_device_and_a_full_disk_are_refusals_and_a_defect_is_none(tmp_path, monkeypatch, error):
    def end(this):
        raise error

    monkeypatch.setitem(stages.STAGES, "data", end)
    with pytest.raises(type(error)):
        stages.run(make_config(tmp_path / "w", stages="data"))
    refusal = events.load_events(tmp_path / "w")[-1]
    assert refusal["event"] == "refusal" and refusal["exit_code"] == 3 and refusal["message"] == str(error)
    error = type(error)("INTERNAL: no such thing")
    with pytest.raises(type(error)):
        stages.run(make_config(tmp_path / "w", stages="data"))
    assert events.load_events(tmp_path / "w")[-1]["event"] == "start"


def test_half_a_line_of_a_killed_process_harms_no_other(tmp_path):
    events.record(tmp_path, "start")
    whole = (tmp_path / events.FILE).read_bytes()
    (tmp_path / events.FILE).write_bytes(whole + whole[:20])
    events.record(tmp_path, "end")
    assert told(tmp_path) == [("start", None), ("end", None)]
    assert events.load_events(tmp_path / "nowhere") == []


def test_the_lock_names_its_owner_and_goes_with_it(tmp_path):
    """A real process holds it, and is killed."""
    workdir = tmp_path / "w"
    code = f"""
import time
from pathlib import Path
from tiny_reasoning_jax import workdir
with workdir.locked(Path({str(workdir)!r})):
    print("locked", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "locked\n"
        with pytest.raises(OtherRunError, match=f"pid {owner.pid} on "), rundir.locked(workdir):
            pass
        owner.kill()
    with rundir.locked(workdir):
        assert (workdir / rundir.LOCK).read_text().startswith(f"pid {os.getpid()} on ")


def start_main(workdir, *flags):
    settings = [f"--config.{key}={value}" for key, value in SMALL.items()]
    command = [sys.executable, "main.py", "--config=configs/reason.py:tiny", f"--config.workdir={workdir}", *settings]
    return subprocess.Popen([*command, *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_the_exit_code_says_that_a_stopped_run_is_saved(tmp_path):
    with start_main(tmp_path / "w", "--config.train.num_steps=100000", "--config.stages=data,train") as process:
        until, lines = time.monotonic() + 120, tmp_path / "w" / "metrics.jsonl"
        while not (lines.exists() and lines.stat().st_size) and time.monotonic() < until:  # a step is done
            time.sleep(0.2)
        process.terminate()
        output = process.stdout.read()
    assert process.returncode == 75, output
    assert "which is saved" in output
    again = start_main(tmp_path / "w", "--config.train.seq_len=64")
    assert "belongs to another run" in again.communicate()[0] and again.returncode == 5
