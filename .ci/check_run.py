"""Checks what the README promises of the main job: `python .ci/check_run.py WORKDIR` after it has run."""

import json
import subprocess
import sys
from pathlib import Path

FILES = (
    "config.json", "metrics.jsonl", "run.json", "report.html", "data/summary.json", "data/preview.html",
    "eval/results.json", "eval/samples.jsonl", "hf/config.json", "hf/generation_config.json",
    "hf/model.safetensors", "hf/tokenizer.json", "hf/README.md",
)  # fmt: skip
COMMAND = [sys.executable, "main.py", "--config", "configs/reason.py"]


def main(workdir: Path) -> None:
    """Raises AssertionError at the first promise that is not kept."""
    missing = [name for name in FILES if not (workdir / name).is_file()]
    assert not missing, f"missing under {workdir}: {missing}"
    results = json.loads((workdir / "eval" / "results.json").read_text())
    before, after = (results[label]["tasks"]["procedural"]["by_difficulty"] for label in ("before", "after"))
    for level in "12345":
        print(f"difficulty {level}: {before[level]['accuracy']:.1%} {before[level]['ci95']} -> "
              f"{after[level]['accuracy']:.1%} {after[level]['ci95']}")  # fmt: skip
        assert after[level]["ci95"][0] > before[level]["ci95"][1], f"difficulty {level} is not clearly above untrained"
    assert after["1"]["accuracy"] >= 0.6, "difficulty 1 is below 60 %"

    sessions = (".lock", "events.jsonl")  # which tell that somebody came and went
    files = lambda: (path for path in workdir.rglob("*") if path.is_file() and path.name not in sessions)
    times = {path: path.stat().st_mtime_ns for path in files()}
    again = subprocess.run(COMMAND, capture_output=True, text=True, check=True)
    assert "finished" in again.stdout, again.stdout
    assert times == {path: path.stat().st_mtime_ns for path in files()}
    print("a second run of the same command changed nothing")

    wrong = subprocess.run([*COMMAND, "--config.train.num_stepz=3"], capture_output=True, text=True)
    assert wrong.returncode == 2 and "num_steps" in wrong.stderr and "Traceback" not in wrong.stderr, wrong.stderr
    print("a mistyped key is refused by name")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
