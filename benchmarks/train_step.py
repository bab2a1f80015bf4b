"""One training step of Qwen3-1.7B on the device at hand, taken apart: what it reaches, and what the device could.

    python benchmarks/train_step.py                                  # a CUDA card; about ten minutes
    python benchmarks/train_step.py --data train.jsonl --tokenizer FOLDER
    python benchmarks/train_step.py --sections ceilings step --seconds 240
    JAX_PLATFORMS=cpu python benchmarks/train_step.py --tiny         # every path of this file, on any machine

Random weights; rows packed by our pipeline, of made-up examples (log-normal lengths, mean --mean-length) or of --data.
Sections, the most important first; each measurement is a process of its own, so that one that fails (its error is kept)
takes no other with it and peak memory is its own. The JSON is written again after every one.

  ceilings    products of our shapes, copying
  step        the 80 GB recipe without recomputation: speed, MFU, peak memory against the plan, the cost of
              accumulating, and the time from the start of the process to the end of the first step, cold and from the
              compile cache
  attention   every backend: self-test, forward, forward with backward, at the recipe's micro-batch
  loss        chunk sizes, and the share of trained tokens
  remat       the same recipe on the other rungs
  long        rows of 16,384 and 32,768 tokens
  cards       the variants of configs/reason.py for cards with 48, 24 and 16 GB
  checkpoint  how long a checkpoint holds up training
  merged      q, k, v and gate, up as one product each
  flags       the recipe under other XLA flags

MFU is model FLOPs (causal, within examples, nothing recomputed; plan/flops.py) over the data sheet's bf16 rate, and
over the best product measured; tokens are real ones, padding left out. A step's time is the median over groups of steps
that are queued without waiting. Not run on a GPU yet.
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

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ is no part of the installed package

import jax
import packed
from absl import logging

from configs import reason
from tiny_reasoning_jax import xla
from tiny_reasoning_jax.model.spec import ModelSpec


def of_variant(variant: str) -> tuple[int, int, int, dict]:
    """A variant of configs/reason.py as an entry of RECIPES."""
    train = reason.get_config(variant).train
    own = {f"train__{key}": train[key] for key in ("master", "moments", "remat", "loss_chunk")}
    return train.batch_size // train.accum_steps, train.seq_len, train.accum_steps, own


# The recipes: rows of a micro-batch, their length, micro-batches, and what else differs from the 1.7b variant.
RECIPES = {
    "80 GB, 4 x 4096, none": (4, 4096, 4, {"train__remat": "none"}),
    "80 GB, 4 x 4096, most": (4, 4096, 4, {"train__remat": "most"}),
    "80 GB, 4 x 4096, some": (4, 4096, 4, {"train__remat": "some"}),
    "80 GB, 4 x 4096, full": (4, 4096, 4, {"train__remat": "full"}),
    "80 GB, 1 x 16384, none": (1, 16_384, 4, {"train__remat": "none"}),
    "80 GB, 1 x 32768": of_variant("1.7b-80gb-32k"),
    "80 GB, 1 x 32768, full": (1, 32_768, 4, {"train__remat": "full"}),
    "48 GB": of_variant("1.7b-48gb"),
    "24 GB": of_variant("1.7b-24gb"),
    "24 GB, 8 x 4096": (8, 4096, 1, of_variant("1.7b-24gb")[3]),
    "16 GB": of_variant("1.7b-16gb"),
}
MAIN = "80 GB, 4 x 4096, none"
CHUNK = reason.get_config("1.7b").train.loss_chunk
FLAGS = {
    "no Triton products": "--xla_gpu_enable_triton_gemm=false",
    "no command buffers": "--xla_gpu_enable_command_buffer=",
    "latency hiding": "--xla_gpu_enable_latency_hiding_scheduler=true",
    "XLA may recompute": "--xla_disable_hlo_passes=dot-merger",
    "XLA may join products": "--xla_disable_hlo_passes=rematerialization",
    "cuBLASLt": "--xla_gpu_enable_cublaslt=true",
}
SECTIONS = ("ceilings", "step", "attention", "loss", "remat", "long", "cards", "checkpoint", "merged", "flags")
LEAST_SECONDS = 20  # of what is left of --seconds, for a measurement to be begun


class Bench:
    """Runs measurements one after the other and keeps their results."""

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.args, self.folder = args, folder
        self.began = time.monotonic()
        self.split = None
        self.results: dict = {section: {} for section in args.sections}
        self.environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")}
        self.scale = 32 if args.tiny else 1  # --tiny: rows so many times shorter
        shape = packed.make_config("tiny").model.random if args.tiny else packed.QWEN3_1_7B
        self.spec = {"vocab_size": 768 if args.tiny else packed.VOCAB_SIZE, **shape}
        self.dtype = "float32" if args.tiny else "bfloat16"
        self.chunk = CHUNK // self.scale

    def config(self, name: str):
        """A recipe, in the scale of this run."""
        rows, seq_len, accum_steps, own = RECIPES[name]
        config = packed.make_config(
            "tiny" if self.args.tiny else "1.7b",
            workdir=str(self.folder / "run"), train__seq_len=seq_len // self.scale, train__accum_steps=accum_steps,
            train__batch_size=rows * accum_steps, train__attention=self.args.attention,
            **{"train__loss_chunk": CHUNK, **own},
        )  # fmt: skip
        config.train.loss_chunk //= self.scale
        return config

    def steps(self, name: str) -> str:
        """File of a recipe's batches."""
        config = self.config(name)
        train = config.train
        path = self.folder / f"steps-{train.batch_size}-{train.accum_steps}-{train.seq_len}.npz"
        if path.exists():
            return str(path)
        if self.args.data:
            split = self.split = self.split or packed.prepare(self._data_config(config), None)
        else:
            split = packed.prepare(config, self.args.mean_length // self.scale, self.spec["vocab_size"])
        packed.save_steps(path, packed.take_steps(config, split, 8))
        return str(path)

    def _data_config(self, config):
        """Rows of every length are packed of the same examples: those that fit into 4096 tokens."""
        config.train.seq_len = 4096 // self.scale
        config.update(data={"source": str(self.args.data)}, tokenizer={"source": str(self.args.tokenizer)})
        return config

    def measure(self, section: str, name: str, part: str, arguments: dict, flags: str = "") -> dict | None:
        """Runs one measurement in a process of its own; keeps what it says, or why it failed."""
        left = self.args.seconds - (time.monotonic() - self.began)
        if left < LEAST_SECONDS:
            self._keep(section, name, {"skipped": f"--seconds={self.args.seconds} were used up"})
            return None
        environment = dict(self.environment)
        # In place of a flag of that name: of one that takes a list XLA would join the two.
        replaced = flags.partition("=")[0]
        others = [flag for flag in environment["XLA_FLAGS"].split() if flag.partition("=")[0] != replaced]
        environment["XLA_FLAGS"] = " ".join([*others, flags]).strip()
        common = {"spec": self.spec, "dtype": self.dtype, "started": time.time()}
        command = [sys.executable, str(Path(__file__).with_name("step_parts.py")), part, json.dumps(common | arguments)]
        began = time.monotonic()
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=left)
            lines = done.stdout.strip().splitlines()
            result = json.loads(lines[-1]) if done.returncode == 0 else {"error": done.stderr.strip()[-1500:]}
        except subprocess.TimeoutExpired:
            result = {"error": f"still running after the {left:.0f} s that were left"}
        self._keep(section, name, result | {"measured_in_seconds": time.monotonic() - began})
        return result

    def _keep(self, section: str, name: str, result: dict) -> None:
        self.results[section][name] = result
        self.args.output.write_text(json.dumps(self.facts(), indent=2) + "\n")
        print(f"{section}, {name}: {_short(result)}", flush=True)

    def facts(self) -> dict:
        """All that is known so far, MFU filled in where a ceiling is known."""
        ceilings = self.results.get("ceilings", {}).get("products and copy", {})
        for results in self.results.values():
            for result in results.values():
                for name, key in (("mfu", "datasheet_bf16_flops"), ("share_of_best_product", "flops")):
                    if "flops_per_token" in result and ceilings.get(key):
                        result[name] = result["flops"] / ceilings[key]
        settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(self.args).items() if k != "output"}
        return {"machine": platform.machine(), "python": platform.python_version(), "settings": settings,
                "parameters": ModelSpec(**self.spec).num_parameters, "results": self.results}  # fmt: skip

    def train(self, section: str, name: str, *, called: str | None = None, flags: str = "", groups: int | None = None,
              micro: bool = False, plan: bool = False) -> None:  # fmt: skip
        """Measures a recipe; `called` is its name in the results."""
        arguments = {"steps": self.steps(name), "config": json.loads(self.config(name).to_json()), "warm_steps": 5,
                     "group_steps": 2, "groups": groups or self.args.groups, "micro": micro, "plan": plan}  # fmt: skip
        self.measure(section, called or name, "training", arguments, flags)

    def run(self, section: str) -> None:
        """Measures all of a section."""
        main = {"steps": self.steps(MAIN), "config": json.loads(self.config(MAIN).to_json())}
        tokens = 16_384 // self.scale
        if section == "ceilings":
            shape = {"tokens": tokens, "chunk": self.chunk, "copy_bytes": 2**31 // self.scale}
            self.measure(section, "products and copy", "ceilings", shape)
        elif section == "step":
            self.train(section, MAIN, micro=True, plan=True)
            self.train(section, MAIN, called="again, from the compile cache", groups=1)
        elif section == "attention":
            self.measure(section, "packed micro-batch", "attention_paths", main)
        elif section == "loss":
            chunks = [size // self.scale for size in (1024, 2048, 4096, 8192)]
            self.measure(section, "chunks", "loss_paths", {**main, "chunks": chunks})
        elif section in ("remat", "long", "cards"):
            begins = {"remat": "80 GB, 4", "long": "80 GB, 1", "cards": ("48", "24", "16")}[section]
            for name in RECIPES:
                if name.startswith(begins) and name != MAIN:
                    self.train(section, name, groups=3, plan=section == "cards")
        elif section == "checkpoint":
            self.measure(section, MAIN, "checkpoint", {**main, "disk": self.args.disk, "steps_after": 6})
        elif section == "merged":
            self.measure(section, "forward and backward", "merged", {"tokens": tokens})
        elif section == "flags":
            for name, flags in {"as they are": "", **FLAGS}.items():
                self.train(section, MAIN, called=name, flags=flags, groups=3)


def _short(result: dict) -> str:
    if "error" in result:
        return f"FAILED: {result['error'].splitlines()[-1][:300] if result['error'] else 'no message'}"
    wanted = ("skipped", "tokens_per_second", "step_seconds", "mfu", "share_of_best_product", "peak_bytes", "flops",
              "planned_bytes", "first_step_seconds_from_start", "accumulate_overhead", "blocked_seconds")  # fmt: skip
    shown = {key: result[key] for key in wanted if key in result} or result
    return json.dumps(shown)[:600]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--seconds", type=float, default=570, help="for everything; what does not fit is left out")
    parser.add_argument("--groups", type=int, default=10, help="groups of two steps whose median is the step's time")
    parser.add_argument("--tiny", action="store_true", help="the tiny recipe's model in float32, rows 32 times shorter")
    parser.add_argument("--attention", default="auto", help="backend, as train.attention")
    parser.add_argument("--data", type=Path, help="file of problems instead of made-up examples (with --tokenizer)")
    parser.add_argument("--tokenizer", type=Path, help="folder of the tokenizer for --data")
    parser.add_argument("--mean-length", type=int, default=900, help="tokens of a made-up example")
    parser.add_argument("--disk", help="folder for the checkpoint that is timed; default: the temporary folder")
    parser.add_argument("--output", type=Path, help="JSON file; default: benchmarks/results/train_step_<device>.json")
    args = parser.parse_args()
    if bool(args.data) != bool(args.tokenizer):
        parser.error("--data and --tokenizer go together")
    return args


def find_device() -> str:
    """The device's name, asked for in another process: this one must not hold the card."""
    program = "import jax; print(jax.local_devices()[0].device_kind)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def main() -> None:
    args = parse()
    logging.set_verbosity(logging.WARNING)
    xla.set_environment()
    jax.config.update("jax_platforms", "cpu")  # this process itself must not hold the card
    if args.output is None:
        name = "".join(c if c.isalnum() else "_" for c in find_device()).lower() + "_tiny" * args.tiny
        args.output = Path(__file__).parent / "results" / f"train_step_{name}.json"
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.disk) as folder:
        bench = Bench(args, Path(folder))
        for section in args.sections:
            try:
                bench.run(section)
            except Exception as error:  # of preparing it; what was measured must not be lost
                bench._keep(section, "all", {"error": f"{type(error).__name__}: {error}"})
    print(args.output)


if __name__ == "__main__":
    main()
