"""Does storing Adam's moments in fewer bytes change what is learnt? The tiny recipe, trained with each form.

    python benchmarks/moments.py --seeds 2 --steps 400

The recipe's own settings and data; only the number of steps is smaller, and nothing is probed or evaluated. For each
seed (its own problems, first weights and order) all forms see the same batches, so that their losses are compared step
by step. Written to benchmarks/results/moments.json: the loss curves, each a mean over `curve_every` steps; the final
loss, the mean of the last 50 steps; its ratio to float32's. A bfloat16 or int8 that trains as well has a ratio within
1 % of 1.

What is finished in --folder is not done again.
"""

import argparse
import json
import os
import platform
import shutil
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ is no part of the installed package

import jax
import numpy as np
from ml_collections import FrozenConfigDict

from configs import base, reason
from tiny_reasoning_jax import stages
from tiny_reasoning_jax.train.metrics import load_metrics

FORMS = ("float32", "bfloat16", "int8")
LAST = 50  # steps whose mean loss is the final loss
CURVE_EVERY = 20  # steps


def train(form: str, seed: int, args: argparse.Namespace) -> np.ndarray:
    """Trains one run, or finds it done; returns its loss by step, [steps]."""
    config = reason.get_config("tiny")
    folder = args.folder / f"{form}-steps{args.steps}-seed{seed}"
    config.workdir, config.seed, config.stages = str(folder), seed, "data,train"
    config.train.moments = form
    config.train.num_steps = config.train.validate_every_steps = config.checkpoint.every_steps = args.steps
    config.train.num_probe = 0
    base.validate(config)
    data = args.folder / f"{FORMS[0]}-steps{args.steps}-seed{seed}" / "data"
    if not folder.exists() and data.exists():  # preparing it again would give the same
        folder.mkdir()
        (folder / "config.json").write_text(config.to_json())
        shutil.copytree(data, folder / "data")
    stages.run(FrozenConfigDict(config))
    losses = np.array([line["loss"] for line in load_metrics(folder)])
    if len(losses) < args.steps:
        raise SystemExit(f"{folder} was stopped at step {len(losses)}; the same command goes on from there")
    return losses


def main() -> None:
    """Trains what is missing and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="number of seeds, from 0")
    parser.add_argument("--steps", type=int, default=400, help="optimizer steps of each run")
    parser.add_argument("--folder", type=Path, default=Path("runs/moments"), help="where the runs are kept")
    output = Path(__file__).parent / "results" / "moments.json"
    parser.add_argument("--output", type=Path, default=output)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in range(args.seeds):
        losses = {form: train(form, seed, args) for form in FORMS}
        final = {form: float(curve[-LAST:].mean()) for form, curve in losses.items()}
        for form, curve in losses.items():
            run = {
                "seed": seed,
                "moments": form,
                "final_loss": round(final[form], 5),
                "ratio_to_float32": round(final[form] / final["float32"], 5),
                "curve": [round(float(x), 4) for x in curve.reshape(-1, CURVE_EVERY).mean(axis=1)],
            }
            runs.append(run)
            print(f"seed {seed} {form}: final loss {run['final_loss']:.4f}, {run['ratio_to_float32']:.4f} of float32's")
        results = {
            "command": f"python benchmarks/moments.py --seeds {args.seeds} --steps {args.steps}",
            "device": platform.processor() or platform.machine(),
            "jax": jax.__version__,
            "steps": args.steps,
            "last": LAST,
            "curve_every": CURVE_EVERY,
            "runs": runs,
        }
        args.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
