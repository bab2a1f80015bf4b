"""Does the order of difficulties matter? Each schedule against its control, on the tiny model.

    python benchmarks/curriculum.py --seeds 3

A control trains on the examples that its schedule would draw, in random order (data.control): the same tokens,
shuffled. "adaptive" has none, because what it draws depends on the model; it is compared with "none", as many tokens of
other examples. For each seed (its own problems, first weights and order) the schedule and its control start from the
same weights and answer the same test problems, greedily.

Printed for each difficulty: both accuracies over all seeds with Wilson intervals; the difference, paired by seed and
problem, with two 95 % intervals. The first is for training again with new seeds: Student's t of the seeds' differences,
each of which holds the noise of its own training and of its own problems. With three seeds it is wide, and rightly so.
A hierarchical bootstrap over seeds and problems is narrower, but in simulations of three seeds it held the truth in 98
to 87 of 100 experiments, the less often the more seeds differ; Student's t held it in 95. The second interval is for
these very models: a paired bootstrap over the problems. A star marks a difference with both off zero: three seeds can
agree by luck, and these models may differ where the next would not.

Time, estimated for two idle CPU cores: 2300 steps take 7 to 8 minutes, data, probes and evaluation 2. Three schedules
with their controls and three seeds are 18 runs: about 3 hours. What is finished is not done again, and a stopped run
goes on: give the same command. Every run's folder holds its report.html, with the mixture that it really trained on.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ is no part of the installed package

import jax
import numpy as np
from absl import logging
from ml_collections import FrozenConfigDict
from scipy import stats

from configs import base, reason
from tiny_reasoning_jax import run as rooms
from tiny_reasoning_jax import stages
from tiny_reasoning_jax.data.problems import DIFFICULTIES, stream_problems
from tiny_reasoning_jax.data.tokenizer import load_tokenizer
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval import evaluate, tasks
from tiny_reasoning_jax.eval.report import write_report
from tiny_reasoning_jax.eval.results import load_results, load_samples, write_results
from tiny_reasoning_jax.eval.statistics import paired_difference, wilson_interval
from tiny_reasoning_jax.train.metrics import load_metrics

ROOT = Path(__file__).parents[1]
CONTROLLED = ("linear", "staged", "anneal")
GROUPS = (*map(str, DIFFICULTIES), "all")


class Arm(NamedTuple):
    """One way of drawing the training examples."""

    curriculum: str
    control: bool

    @property
    def name(self) -> str:
        """Part of its folders' names."""
        return self.curriculum + "-control" * self.control


def control_of(schedule: str) -> Arm:
    return Arm(schedule, True) if schedule in CONTROLLED else Arm("none", False)


def make_config(arm: Arm, seed: int, args: argparse.Namespace) -> FrozenConfigDict:
    """The tiny recipe of one run; a changed --steps is another folder, so that no run goes on under another plan."""
    config = reason.get_config("tiny")
    config.workdir = str(args.folder / f"{arm.name}-steps{args.steps}-seed{seed}")
    config.stages = "data,train"
    config.seed = seed
    config.data.curriculum, config.data.control = arm.curriculum, arm.control
    config.train.num_steps = args.steps
    config.train.warmup_steps = min(config.train.warmup_steps, args.steps // 2)
    config.train.num_probe = args.probe
    config.train.validate_every_steps = max(1, args.steps // 10)
    config.eval.num_problems = args.eval_problems
    base.validate(config)
    return FrozenConfigDict(config)


def train_and_evaluate(config: FrozenConfigDict) -> None:
    """Does what is left to do of one run: data, training, and the trained model's answers.

    Raises:
      SystemExit: training was told to stop.
    """
    workdir, step = Path(config.workdir), config.train.num_steps
    settings = {"eval": json.loads(config.eval.to_json()), "seed": config.seed, "step": step}
    if load_results(workdir).get("after", {}).get("settings") == settings:
        return
    stages.run(config)
    metrics = load_metrics(workdir)
    if not metrics or metrics[-1]["step"] < step:
        raise SystemExit("stopped; the same command goes on from here")
    began = time.monotonic()
    spec, params = rooms.load_checkpoint(workdir / "checkpoints" / str(step))
    problems = evaluate.select_problems(
        list(stream_problems(workdir / "data" / "test.jsonl")), config.eval.num_problems
    )
    [task] = [one.task for one in tasks.choose(config.eval.tasks, rooms.task_name(config.data))]
    model_def, tokenizer = rooms.make_model_def(config, spec), load_tokenizer(workdir / "data" / "tokenizer")
    questions = evaluate.pose(task, problems, tokenizer, config.eval, model_def)
    samples = evaluate.evaluate(model_def, params, questions, tokenizer, config.eval, task=task, seed=config.seed)
    facts = {"model": f"step {step}", "settings": settings, "seconds": time.monotonic() - began}
    write_results(workdir, "after", facts, {task.name: samples})
    write_report(workdir)
    jax.clear_caches()


def load_solved(config: FrozenConfigDict) -> dict[str, dict[str, bool]]:
    """{"1".."5" and "all": {problem id: solved}} of a finished run."""
    solved = {group: {} for group in GROUPS}
    for sample in load_samples(Path(config.workdir)):
        for group in (str(sample["difficulty"]), "all"):
            solved[group][sample["id"]] = sample["verdict"] == "correct"
    return solved


def load_training(config: FrozenConfigDict) -> dict:
    """Tokens of a finished run, and their share by difficulty over the whole of it."""
    metrics = load_metrics(Path(config.workdir))
    tokens = np.array([line["tokens"] for line in metrics])
    mixture = np.array([[line[f"mixture_{level}"] for level in DIFFICULTIES] for line in metrics])
    return {
        "tokens": int(tokens.sum()),
        "trained_tokens": sum(line["trained_tokens"] for line in metrics),
        "mixture": (tokens @ mixture / tokens.sum()).tolist(),
        "seconds": metrics[-1]["seconds"],
    }


def seed_interval(differences: np.ndarray) -> list[float] | None:
    """95 % interval of the mean by Student's t; None of a single seed, which says nothing about others."""
    if len(differences) < 2:
        return None
    half = stats.t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    return [float(differences.mean() - half), float(differences.mean() + half)]


def compare(scheduled: list[dict], controls: list[dict]) -> Iterator[dict]:
    """Yields a row for each difficulty and for all; lists by seed of what `load_solved` returns."""
    for group in GROUPS:
        pairs = []
        for ours, theirs in zip(scheduled, controls, strict=True):
            assert ours[group].keys() == theirs[group].keys(), "schedule and control answered other problems"
            names = sorted(ours[group])
            pairs.append(([ours[group][name] for name in names], [theirs[group][name] for name in names]))
        if not all(ours for ours, _ in pairs):
            continue  # so few problems that a seed has none of this difficulty
        differences = np.array([np.mean(ours) - np.mean(theirs) for ours, theirs in pairs])
        row = {"group": group, "difference": float(differences.mean()), "seed_ci95": seed_interval(differences)}
        for who, side in (("schedule", 0), ("control", 1)):
            solved = sum((pair[side] for pair in pairs), [])
            row[who] = {"n": len(solved), "correct": sum(solved), "ci95": wilson_interval(sum(solved), len(solved))}
        pooled = paired_difference(*(sum((pair[side] for pair in pairs), []) for side in (1, 0)))
        yield row | {"these_models_ci95": pooled["ci95"], "by_seed": differences.tolist()}


def print_comparison(schedule: str, rows: list[dict], training: dict[str, list[dict]], seeds: int) -> None:
    control = control_of(schedule)
    what = "the same examples shuffled" if control.control else "every example alike, not the same examples"
    print(f"\n{schedule} against {control.name} ({what}), {seeds} seeds")
    for who, name in (("schedule", schedule), ("control", control.name)):
        tokens = ", ".join(f"{facts['tokens']:,}" for facts in training[who])
        shares = " ".join(f"{100 * x:.1f}" for x in np.mean([facts["mixture"] for facts in training[who]], axis=0))
        print(f"  {name}: tokens by seed {tokens}; {shares} % of difficulty 1 to 5")
    print(f"{'difficulty':>10} {'n':>6}   {'schedule, %':<19}{'control, %':<19}{'points':>6}   "
          f"{'with new seeds':<17}these models")  # fmt: skip
    for row in rows:
        cells = [
            f"{100 * cell['correct'] / cell['n']:5.1f} ({100 * cell['ci95'][0]:.1f}-{100 * cell['ci95'][1]:.1f})"
            for cell in (row["schedule"], row["control"])
        ]
        ends = [
            f"{100 * ci[0]:+.1f} to {100 * ci[1]:+.1f}" if ci else "one seed"
            for ci in (row["seed_ci95"], row["these_models_ci95"])
        ]
        intervals = [ci for ci in (row["seed_ci95"], row["these_models_ci95"]) if ci]
        star = " *" * (len(intervals) == 2 and all(low > 0 or high < 0 for low, high in intervals))
        print(f"{row['group']:>10} {row['schedule']['n']:6,}   {cells[0]:<19}{cells[1]:<19}"
              f"{100 * row['difference']:+6.1f}   {ends[0]:<17}{ends[1]}{star}")  # fmt: skip


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on")
    parser.add_argument("--steps", type=int, default=reason.get_config("tiny").train.num_steps, help="of every run")
    parser.add_argument("--schedules", default=",".join(CONTROLLED), help=f"of {','.join(CONTROLLED)},adaptive")
    parser.add_argument("--eval-problems", type=int, default=1200, help="test problems of each seed")
    parser.add_argument(
        "--probe", type=int, default=100, help="validation problems asked ten times in training; 0: none"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "curriculum", help="where the runs are kept")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "curriculum.json")
    args = parser.parse_args()
    args.schedules = args.schedules.split(",")
    unknown = set(args.schedules) - {*CONTROLLED, "adaptive"}
    if unknown or args.seeds < 1 or args.steps < 1:
        parser.error(f"unknown schedules {sorted(unknown)}, or --seeds={args.seeds} or --steps={args.steps} below 1")
    return args


def main() -> None:
    args = parse_arguments()
    logging.set_verbosity(logging.WARNING)  # Orbax tells of every file it renames
    arms = list(dict.fromkeys(arm for name in args.schedules for arm in (Arm(name, False), control_of(name))))
    runs = {(arm, seed): make_config(arm, seed, args) for seed in range(args.seeds) for arm in arms}
    began = time.monotonic()
    for number, ((arm, seed), config) in enumerate(runs.items()):
        spent = time.monotonic() - began
        left = f", {spent / number * (len(runs) - number) / 60:.0f} minutes left" if number else ""
        print(f"=== run {number + 1} of {len(runs)}: {arm.name}, seed {seed}{left}", flush=True)
        train_and_evaluate(config)
    results = {}
    for schedule in args.schedules:
        pair = {"schedule": Arm(schedule, False), "control": control_of(schedule)}
        solved = {who: [load_solved(runs[arm, seed]) for seed in range(args.seeds)] for who, arm in pair.items()}
        training = {who: [load_training(runs[arm, seed]) for seed in range(args.seeds)] for who, arm in pair.items()}
        rows = list(compare(solved["schedule"], solved["control"]))
        print_comparison(schedule, rows, training, args.seeds)
        results[schedule] = {"control": pair["control"].name, "rows": rows, "training": training}
    num_rows = sum(len(result["rows"]) for result in results.values())
    print(
        f"\n*: both intervals are off zero. Of {num_rows} intervals at 95 %, {num_rows / 20:.1f} are by chance alone."
    )
    facts = {
        "settings": {"seeds": args.seeds, "steps": args.steps, "eval_problems": args.eval_problems},
        "machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(),
        "jax": jax.__version__, "results": results,
    }  # fmt: skip
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
