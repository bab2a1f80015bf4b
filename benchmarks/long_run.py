"""Does a long run stay as it began? Memory, open files, threads and step time over 40,000 steps of real training.

    python benchmarks/long_run.py --output benchmarks/results/long_run.json

main.py trains a very small model, with a validation, a probe and a checkpoint about every 500 steps, and is watched
from outside, through /proc. A leak is a slope: Theil and Sen's robust line is fitted to each of the series, the first
tenth of the steps left out, and its slope must stay below a bound that was set beforehand (BOUNDS). So must the bytes
that a step adds to metrics.jsonl and to TensorBoard's files: both grow with every step, and nothing else does. The
command ends with 1 if a bound is broken. Beside the JSON it draws the series, as PNG.

In 20,000 steps a pool that gets one thread more, once, looks like a leak of a thread: TensorStore's does, now and then.

Time: 40,000 steps take 3 to 20 minutes on two CPU cores. Step times are only worth something on an idle machine;
processor time, which is measured too, does not mind what else runs there.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import matplotlib
import numpy as np
from scipy import stats

ROOT = Path(__file__).parents[1]
SETTINGS = {
    "stages": "data,train", "data.num_problems": 2000, "data.num_validation": 64, "data.num_test": 60,
    "tokenizer.vocab_size": 400, "model.random.hidden_size": 32, "model.random.intermediate_size": 64,
    "model.random.num_hidden_layers": 1, "model.random.num_attention_heads": 2, "model.random.num_key_value_heads": 1,
    "model.random.head_dim": 16, "train.batch_size": 1, "train.accum_steps": 1, "train.seq_len": 256,
    "train.validate_every_steps": 500, "train.num_probe": 5, "checkpoint.every_steps": 500, "eval.batch_size": 5,
    "eval.max_new_tokens": 8,
}  # fmt: skip
# By series: its unit, and how much of it 1,000 steps may add. Of times, the part of their median.
BOUNDS = {
    "memory": ("MB resident", 0.5),
    "open_files": ("files", 0.02),
    "threads": ("threads", 0.02),
    "step_time": ("ms", 0.01),
    "processor_time": ("ms", 0.01),
}
BYTES_PER_STEP = {"metrics.jsonl": 1024, "tensorboard": 2048}
WARM_UP = 0.1  # part of the steps that the slopes leave out: compiling, first checkpoints, allocators that fill up
SECONDS_BETWEEN_SAMPLES = 0.5
KEPT = 200  # samples in the results
TICKS_PER_SECOND, PAGE_BYTES = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")


def last_step(metrics: Path) -> int:
    """The step of the newest whole line; 0 before the first."""
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4 * BYTES_PER_STEP["metrics.jsonl"]))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return 0
    return json.loads(lines[-1])["step"] if lines else 0


def sample(pid: int, workdir: Path) -> dict[str, float]:
    """What the process has and where it stands."""
    proc = Path("/proc") / str(pid)
    ticks = (proc / "stat").read_text().rpartition(")")[2].split()
    return {
        "step": last_step(workdir / "metrics.jsonl"),
        "memory": int((proc / "statm").read_text().split()[1]) * PAGE_BYTES / 1e6,
        "open_files": len(os.listdir(proc / "fd")),
        "threads": len(os.listdir(proc / "task")),
        "processor_seconds": (int(ticks[11]) + int(ticks[12])) / TICKS_PER_SECOND,
        "checkpoints": sum(path.name.isdecimal() for path in (workdir / "checkpoints").glob("*")),
    }


def watch(workdir: Path, steps: int) -> list[dict[str, float]]:
    """Trains, and returns the samples of the time in which steps were done."""
    settings = {**SETTINGS, "train.num_steps": steps, "workdir": workdir}
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "main.py", "--config=configs/reason.py:tiny", *flags]
    samples = []
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        while process.poll() is None:
            try:
                samples.append(sample(process.pid, workdir))
            except (FileNotFoundError, ProcessLookupError):  # it has just ended, or just removes a checkpoint
                continue
            time.sleep(SECONDS_BETWEEN_SAMPLES)
    if process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}")
    return [one for one in samples if 0 < one["step"] < steps]


def find_series(samples: list[dict[str, float]], metrics: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(steps, values) of each series; times of a step are medians of 100 and means of a fiftieth of the run."""
    steps = np.array([one["step"] for one in samples])
    series = {key: (steps, np.array([one[key] for one in samples])) for key in ("memory", "open_files", "threads")}
    seconds = np.array([json.loads(line)["seconds"] for line in metrics.read_text().splitlines()])
    taken = np.diff(seconds)[: (len(seconds) - 1) // 100 * 100].reshape(-1, 100)
    series["step_time"] = (np.arange(len(taken)) * 100 + 50, np.median(taken, axis=1) * 1e3)
    marks = np.linspace(steps[0], steps[-1], 51)
    spent = np.interp(marks, steps, [one["processor_seconds"] for one in samples])
    series["processor_time"] = ((marks[1:] + marks[:-1]) / 2, np.diff(spent) / np.diff(marks) * 1e3)
    return series


def fit(key: str, at: np.ndarray, values: np.ndarray, after: float) -> dict:
    """The slope of one series per 1,000 steps, and whether it keeps its bound."""
    unit, bound = BOUNDS[key]
    at, values = at[at >= after], values[at >= after]
    median = float(np.median(values))
    bound = bound * median if unit == "ms" else bound
    slope, _, low, high = (float(x) * 1000 for x in stats.theilslopes(values, at))
    return {
        "unit": unit,
        "median": round(median, 3),
        "least": round(float(values.min()), 3),
        "most": round(float(values.max()), 3),
        "slope_per_1000_steps": round(slope, 5),
        "slope_95": [round(low, 5), round(high, 5)],
        "bound_per_1000_steps": round(bound, 5),
        "kept": slope <= bound,
    }


def plot(series: dict[str, tuple[np.ndarray, np.ndarray]], after: float, path: Path) -> None:
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(series), 1, figsize=(9, 2 * len(series)), sharex=True, layout="constrained")
    for axis, (key, (at, values)) in zip(axes, series.items(), strict=True):
        axis.plot(at, values, linewidth=0.8)
        used = at >= after
        slope, start, *_ = stats.theilslopes(values[used], at[used])
        axis.plot(at[used], start + slope * at[used], color="black", linestyle="--", linewidth=1)
        axis.set_title(f"{key.replace('_', ' ')}, {BOUNDS[key][0]}: {slope * 1000:+.3g} per 1,000 steps", fontsize=10)
        top = np.percentile(values[used], 99) * 1.25  # one pause would flatten the rest
        axis.set_ylim(0, max(top, 1e-9))
    axes[-1].set_xlabel("step (dashed: the fitted line, over the steps that it is fitted to)")
    figure.savefig(path, dpi=120)


def main() -> int:
    """Runs, fits and writes; 1 if a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40_000)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(folder) / "run"
        samples = watch(workdir, args.steps)
        series = find_series(samples, workdir / "metrics.jsonl")
        size = lambda path: sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")))
        sizes = {name: size(workdir / name) / args.steps for name in BYTES_PER_STEP}
        events = size(workdir / "events.jsonl")
    rows = {key: fit(key, *of, WARM_UP * args.steps) for key, of in series.items()}
    files = {
        name: {"bytes_per_step": round(sizes[name], 1), "bound": bound, "kept": sizes[name] <= bound}
        for name, bound in BYTES_PER_STEP.items()
    }
    for key, row in rows.items():
        print(f"{key:15} median {row['median']:9,} {row['unit']:12} slope {row['slope_per_1000_steps']:+.5f} per 1,000 "
              f"steps, bound {row['bound_per_1000_steps']:.5f}{'' if row['kept'] else '  BROKEN'}")  # fmt: skip
    for name, row in files.items():
        told = "" if row["kept"] else "  BROKEN"
        print(f"{name:15} {row['bytes_per_step']:,} bytes a step, bound {row['bound']:,}{told}")
    if args.output:
        results = {
            "command": f"python benchmarks/long_run.py --steps {args.steps}",
            "device": platform.processor() or platform.machine(),
            "jax": jax.__version__,
            "steps": args.steps,
            "settings": SETTINGS,
            "series": rows,
            "files": files,
            "bytes_of_events.jsonl": events,
            "most_checkpoints_on_disk": max(one["checkpoints"] for one in samples),
            "samples": samples[:: -(-len(samples) // KEPT)],
        }
        args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        plot(series, WARM_UP * args.steps, args.output.with_suffix(".png"))
    return int(not all(row["kept"] for row in (*rows.values(), *files.values())))


if __name__ == "__main__":
    sys.exit(main())
