"""One training step of Qwen3-1.7B on the device at hand, taken apart: what it reaches, and what the device could.

    python benchmarks/train_step.py                                  # a CUDA card; at most ten minutes
    python benchmarks/train_step.py --data train.jsonl --tokenizer FOLDER
    python benchmarks/train_step.py --sections ceilings step --seconds 240
    JAX_PLATFORMS=cpu python benchmarks/train_step.py --tiny         # every path of this file, on any machine

Random weights; rows packed by our pipeline, of made-up examples (log-normal lengths, mean --mean-length in rows of
4,096, and as much more as rows are longer, but for the recipes called "short examples") or of --data. Sections, the
most important first; each measurement is a process of its own with a time limit of its own, so that one that fails or
hangs takes no other with it and peak memory is its own. What it said before is kept beside the error. The JSON is
written again after every one.

  ceilings    products of our shapes, copying
  attention   cudnn and triton: self-test, forward, forward with backward, at a typical micro-batch of the recipe (by
              its number of segments) and at the one with the most segments
  step        the 80 GB recipe without recomputation: speed, MFU, peak memory against the plan, the cost of
              accumulating, and the time from the start of the process to the end of the first step, cold and from the
              compile cache
  loss        chunk sizes, and the share of trained tokens
  remat       the same recipe on the other rungs
  cards       the variants of configs/reason.py for cards with 48, 24 and 16 GB, with the attention of those cards;
              the time that an offloaded update takes
  long        rows of 16,384 and 32,768 tokens: long examples, and short ones with cudnn and with triton
  checkpoint  how long a checkpoint holds up training
  plain       attention in plain JAX, as in attention
  merged      q, k, v and gate, up as one product each
  flags       the recipe under other XLA flags

"mfu" is model FLOPs (causal, within examples, nothing recomputed; plan/flops.py) over the data sheet's bf16 rate, by
the usual convention: the output matrix counts for every token. "computed_mfu" counts it for trained tokens alone, the
only ones whose logits the step computes; "share_of_best_product" is the same over the best product measured. Tokens
are real ones, padding left out. A step's time is the median over groups of steps that are queued without waiting. Not
run on a GPU yet.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ is no part of the installed package

import jax
import packed
import processes  # benchmarks/processes.py
from absl import logging

from configs import reason
from tiny_reasoning_jax import xla
from tiny_reasoning_jax.model.attention import BACKENDS
from tiny_reasoning_jax.model.attention.choice import KERNELS
from tiny_reasoning_jax.model.spec import ModelSpec


def of_variant(variant: str, **changes) -> tuple[int, int, int, dict]:
    """A variant of configs/reason.py as an entry of RECIPES, with changes of its own."""
    train = reason.get_config(variant).train
    own = {f"train__{key}": train[key] for key in ("master", "moments", "offload_optimizer", "remat", "loss_chunk")}
    return train.batch_size // train.accum_steps, train.seq_len, train.accum_steps, own | changes


# The recipes: rows of a micro-batch, their length, micro-batches, and what else differs from the 1.7b variant.
RECIPES = {
    "80 GB, 4 x 4096, none": (4, 4096, 4, {"train__remat": "none"}),
    "80 GB, 4 x 4096, most": (4, 4096, 4, {"train__remat": "most"}),
    "80 GB, 4 x 4096, some": (4, 4096, 4, {"train__remat": "some"}),
    "80 GB, 4 x 4096, full": (4, 4096, 4, {"train__remat": "full"}),
    "80 GB, 1 x 16384, none": (1, 16_384, 4, {"train__remat": "none"}),
    "80 GB, 1 x 32768": of_variant("1.7b-80gb-32k"),
    "80 GB, 1 x 32768, full": (1, 32_768, 4, {"train__remat": "full"}),
    "short examples, 1 x 16384, cudnn": (1, 16_384, 4, {"train__remat": "none", "train__attention": "cudnn"}),
    "short examples, 1 x 16384, triton": (1, 16_384, 4, {"train__remat": "none", "train__attention": "triton"}),
    # These cards are older than Hopper, and train with triton.
    "48 GB": of_variant("1.7b-48gb", train__attention="triton"),
    "24 GB": of_variant("1.7b-24gb", train__attention="triton"),
    "24 GB, 8 x 4096": (8, 4096, 1, of_variant("1.7b-24gb", train__attention="triton")[3]),
    "16 GB": of_variant("1.7b-16gb", train__attention="triton"),
    "16 GB, offloaded": of_variant("1.7b-16gb-offload", train__attention="triton"),
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
# Of each measurement of a section: seconds that must be left of --seconds for it to be begun, and those it may take.
SECTIONS = {
    "ceilings": (30, 90), "attention": (30, 90), "step": (90, 280), "loss": (40, 120), "remat": (90, 200),
    "cards": (90, 200), "long": (90, 200), "checkpoint": (90, 150), "plain": (30, 90), "merged": (30, 60),
    "flags": (90, 200),
}  # fmt: skip
ROW = 4096  # tokens of the rows that --mean-length is meant for


class Bench:
    """Runs measurements one after the other and keeps their results."""

    def __init__(self, args: argparse.Namespace, folder: Path, began: float):
        self.args, self.folder, self.began = args, folder, began
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
        changes = {"train__attention": self.args.attention, "train__loss_chunk": CHUNK, **own}
        if self.args.tiny:  # on any machine: no kernel of a card's
            changes["train__attention"] = self.args.attention
        config = packed.make_config(
            "tiny" if self.args.tiny else "1.7b",
            workdir=str(self.folder / "run"), train__seq_len=seq_len // self.scale, train__accum_steps=accum_steps,
            train__batch_size=rows * accum_steps, **changes,
        )  # fmt: skip
        config.train.loss_chunk //= self.scale
        return config

    def steps(self, name: str) -> str:
        """File of a recipe's batches."""
        config = self.config(name)
        train = config.train
        # Long rows of short examples are cudnn's worst case, of many passes, and not what long rows are for.
        longer = 1 if name.startswith("short examples") else max(1, train.seq_len * self.scale // ROW)
        mean_length = self.args.mean_length * longer // self.scale
        path = self.folder / f"steps-{train.batch_size}-{train.accum_steps}-{train.seq_len}-{mean_length}.npz"
        if path.exists():
            return str(path)
        if self.args.data:
            split = self.split = self.split or packed.prepare(self._data_config(config), None)
        else:
            split = packed.prepare(config, mean_length, self.spec["vocab_size"])
        packed.save_steps(path, packed.take_steps(config, split, 8))
        return str(path)

    def _data_config(self, config):
        """Rows of every length are packed of the same examples: those that fit into 4096 tokens."""
        config.train.seq_len = ROW // self.scale
        config.update(data={"source": str(self.args.data)}, tokenizer={"source": str(self.args.tokenizer)})
        return config

    def measure(self, section: str, name: str, part: str, arguments: dict, flags: str = "") -> None:
        """Runs one measurement in a process of its own; keeps what it says, and why it failed if it did."""
        left = self.args.seconds - (time.monotonic() - self.began)
        least, most = SECTIONS[section]
        if left < least:
            skipped = f"{max(0, left):.0f} s were left of --seconds={self.args.seconds:g}, it needs {least}"
            return self._keep(section, name, {"skipped": skipped})
        environment = dict(self.environment)
        # In place of a flag of that name: of one that takes a list XLA would join the two.
        replaced = flags.partition("=")[0]
        others = [flag for flag in environment["XLA_FLAGS"].split() if flag.partition("=")[0] != replaced]
        environment["XLA_FLAGS"] = " ".join([*others, flags]).strip()
        common = {"spec": self.spec, "dtype": self.dtype, "started": time.time()}
        command = [sys.executable, str(Path(__file__).with_name("step_parts.py")), part, json.dumps(common | arguments)]
        began = time.monotonic()
        result = processes.run(command, seconds=min(left, most), folder=self.folder, environment=environment)
        self._keep(section, name, result | {"measured_in_seconds": time.monotonic() - began})

    def _keep(self, section: str, name: str, result: dict) -> None:
        self.results[section][name] = result
        processes.write_json(self.args.output, self.facts())
        print(f"{section}, {name}: {_short(result)}", flush=True)

    def facts(self) -> dict:
        """All that is known so far, steps over the best product where that is known."""
        best = self.results.get("ceilings", {}).get("products and copy", {}).get("flops")
        for results in self.results.values():
            for result in results.values():
                if best and "computed_flops" in result:
                    result["share_of_best_product"] = result["computed_flops"] / best
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
        elif section in ("attention", "plain"):
            for name in BACKENDS:
                if (name in KERNELS) == (section == "attention"):
                    self.measure(section, name, "attention_path", {**main, "backend": name})
        elif section == "loss":
            chunks = [size // self.scale for size in (1024, 2048, 4096, 8192)]
            self.measure(section, "chunks", "loss_paths", {**main, "chunks": chunks})
        elif section in ("remat", "long", "cards"):
            begins = {"remat": "80 GB, 4", "long": ("80 GB, 1", "short"), "cards": ("48", "24", "16")}[section]
            for name in RECIPES:
                if name.startswith(begins) and name != MAIN:
                    self.train(section, name, groups=3, plan=section == "cards", micro="offloaded" in name)
        elif section == "checkpoint":
            self.measure(section, MAIN, "checkpoint", {**main, "disk": str(self.folder), "steps_after": 6})
        elif section == "merged":
            self.measure(section, "forward and backward", "merged", {"tokens": tokens})
        elif section == "flags":
            for name, flags in {"as they are": "", **FLAGS}.items():
                self.train(section, MAIN, called=name, flags=flags, groups=3)


def _short(result: dict) -> str:
    failed = result.get("error")
    wanted = ("skipped", "tokens_per_second", "step_seconds", "mfu", "computed_mfu", "share_of_best_product",
              "peak_bytes", "flops", "planned_bytes", "first_step_seconds_from_start", "accumulate_overhead",
              "blocked_seconds", "attention")  # fmt: skip
    shown = {key: result[key] for key in wanted if key in result} or {k: v for k, v in result.items() if k != "error"}
    text = json.dumps(shown)[:600]
    return f"FAILED: {failed.strip().splitlines()[-1][:300]}; before that {text}" if failed else text


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--seconds", type=float, help="for everything (540, with --tiny 1800); the rest is left out")
    parser.add_argument("--groups", type=int, default=10, help="groups of two steps whose median is the step's time")
    parser.add_argument("--tiny", action="store_true", help="the tiny recipe's model in float32, rows 32 times shorter")
    parser.add_argument("--attention", default="auto", help="backend, as train.attention")
    parser.add_argument("--data", type=Path, help="file of problems instead of made-up examples (with --tokenizer)")
    parser.add_argument("--tokenizer", type=Path, help="folder of the tokenizer for --data")
    parser.add_argument("--mean-length", type=int, default=900, help="tokens of a made-up example, in rows of 4096")
    parser.add_argument("--disk", help="folder for temporary files and the checkpoint that is timed")
    parser.add_argument("--output", type=Path, help="JSON file; default: benchmarks/results/train_step_<device>.json")
    args = parser.parse_args()
    if bool(args.data) != bool(args.tokenizer):
        parser.error("--data and --tokenizer go together")
    args.seconds = args.seconds or (1800 if args.tiny else 540)
    return args


def main() -> None:
    args, began = parse(), time.monotonic()
    logging.set_verbosity(logging.WARNING)
    xla.set_environment()
    jax.config.update("jax_platforms", "cpu")  # this process itself must not hold the card
    if args.output is None:
        name = "".join(c if c.isalnum() else "_" for c in processes.find_device()[1]).lower() + "_tiny" * args.tiny
        args.output = Path(__file__).parent / "results" / f"train_step_{name}.json"
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.disk) as folder:
        bench = Bench(args, Path(folder), began)
        for section in args.sections:
            try:
                bench.run(section)
            except Exception as error:  # of preparing it; what was measured must not be lost
                bench._keep(section, "all", {"error": f"{type(error).__name__}: {error}"})
    print(args.output)


if __name__ == "__main__":
    main()
