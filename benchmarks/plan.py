"""What every recipe needs on its card, by compiling it: python benchmarks/plan.py [--only NAME] [--early]

Needs JAX's CUDA wheels (pip install -e ".[cuda12]"), no card and no driver; a minute a recipe on two idle cores. Writes
benchmarks/results/plan.json recipe by recipe; with --only the others stay as they are. --early stops each compilation
when XLA has laid out the memory, before it writes machine code: the same figures in a quarter of the time.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ["JAX_PLATFORMS"] = "cpu"

from tiny_reasoning_jax import xla  # noqa: E402

xla.set_environment()  # before jax is imported

import jax  # noqa: E402
from ml_collections import FrozenConfigDict  # noqa: E402

from configs import reason  # noqa: E402
from tiny_reasoning_jax import plan_stage  # noqa: E402
from tiny_reasoning_jax.model.qwen3 import ModelDef  # noqa: E402
from tiny_reasoning_jax.plan import cards, memory  # noqa: E402
from tiny_reasoning_jax.plan.report import Plan  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "plan.json"
# name: (card, variant, other settings of the train section).
ROWS = {
    "80gb": ("h100", "1.7b-80gb", {}),
    "48gb": ("a6000", "1.7b-48gb", {}),
    "24gb": ("rtx4090", "1.7b-24gb", {}),
    "16gb": ("rtx4080", "1.7b-16gb", {}),
    "80gb-32k": ("h100", "1.7b-80gb-32k", {}),
    "24gb-32k": ("rtx4090", "1.7b-24gb", {"batch_size": 8, "accum_steps": 1}),
    "24gb-offload": ("rtx4090", "1.7b-24gb", {"moments": "float32", "offload_optimizer": True, "remat": "most"}),
    "16gb-offload": ("rtx4080", "1.7b-16gb-offload", {}),
    "40gb": ("a100-40", "1.7b-48gb", {"remat": "full"}),
    "l4": ("l4", "1.7b-24gb", {"accum_steps": 16}),
}


def make_config(row: str) -> tuple[str, FrozenConfigDict]:
    """The card of a row, and its configuration with the attention that this card would get."""
    card, variant, changes = ROWS[row]
    config = reason.get_config(variant)
    config.train.update(changes)
    config.plan.gpu, config.train.attention = card, "cudnn" if cards.find(card).capability >= (9, 0) else "triton"
    return card, FrozenConfigDict(config)


def make_model(config: FrozenConfigDict, **shape) -> ModelDef:
    """The model of a recipe, with another `shape` where that is given."""
    spec = dataclasses.replace(plan_stage.find_spec(config), **shape)
    return ModelDef(spec, config.train.compute_dtype, config.train.attention, config.train.remat)


def lower(row: str, program: str, **shape) -> jax.stages.Lowered:
    """A program of a row, ready to be compiled for its card."""
    name, config = make_config(row)
    return memory.lower(program, make_model(config, **shape), config.train, cards.sharding(cards.find(name)))


def store(path: Path, entry: dict) -> None:
    """Puts a row's results into a file, which is read anew each time: several of these commands may be at work."""
    rows = {e["row"]: e for e in json.loads(path.read_text())} if path.exists() else {}
    rows[entry["row"]] = entry
    path.write_text(json.dumps([rows[name] for name in ROWS if name in rows], indent=2) + "\n")


def plan_early(row: str) -> Plan:
    """As plan_stage.run_plan, but a child does the compiling and is stopped when the memory is laid out."""
    name, config = make_config(row)
    model_def, card = make_model(config), cards.find(name)
    began, programs = time.monotonic(), []
    for program in memory.program_names(config.train):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--compile", row, program, folder]
            child = subprocess.Popen(command)
            try:
                # The report is the last of what XLA writes about memory.
                while not list(Path(folder).glob("*memory-usage-report.txt")):
                    if child.poll() is not None:
                        raise SystemExit(f"{' '.join(command)} ended without a memory plan")
                    time.sleep(0.5)
                time.sleep(1)  # until it is whole
            finally:
                child.kill()
                child.wait()
            beside = plan_stage.workspace_bytes(config.train, model_def.spec)
            planned = memory.read_dump(program, Path(folder), model_def, config.train, beside)
            if planned is None:
                raise SystemExit(f"{' '.join(command)} left a memory plan that plan/live.py cannot read")
            programs.append(planned)
            print(f"{row} {program}: {planned.peak / 2**30:.2f} GiB", flush=True)
    joined = memory.join(programs, time.monotonic() - began)
    return Plan(config, model_def.spec, card, cards.usable(card.memory), joined)


def compile_program(row: str, program: str, folder: str) -> None:
    """The child's part."""
    lower(row, program).compile(compiler_options={"xla_gpu_autotune_level": 0, "xla_dump_to": folder})


def main() -> None:
    """Plans the rows and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="*", choices=ROWS, default=list(ROWS))
    parser.add_argument("--early", action="store_true", help="stop each compilation when the memory is laid out")
    parser.add_argument("--compile", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.compile:
        compile_program(*args.compile)
        return
    for row in args.only:
        card, variant, changes = ROWS[row]
        plan = plan_early(row) if args.early else plan_stage.make_plan(make_config(row)[1])
        flags = "".join(f" --config.train.{key}={value}" for key, value in changes.items())
        command = f"python main.py --config configs/reason.py:{variant} --config.stages=plan --config.plan.gpu={card}"
        facts = plan.facts()
        del facts["recipe"]
        entry = {"row": row, "gpu": card, "variant": variant, "command": command + flags, **facts}
        store(RESULTS, entry)
        print(plan, flush=True)


if __name__ == "__main__":
    main()
