"""Our training step against transformers, TRL and TRL with Liger: the same weights, packed batches and optimizer.

    python benchmarks/peers.py --cpu                     # two cores, float32, the tiny recipe; needs torch
    python benchmarks/peers.py                           # one CUDA card, Qwen3-1.7B; needs trl and liger-kernel
    python benchmarks/peers.py --peer-python ~/trl/bin/python --data train.jsonl --tokenizer FOLDER --model FOLDER

Every contender is a process of its own (contenders.py), so that its peak memory is its own: resident on a CPU,
allocated on a card. All see the same rows, packed by our pipeline, with packed examples kept apart, and start from one
Hugging Face folder. A turn is --turn-steps steps, timed from handing over the first to the end of the last on the
device; tokens are real ones, padding left out. The first turns count as warm-up (one on a CPU, four on a card). On a
CPU all contenders are alive and take turns, in an order that rotates; on a card one is alive at a time and the whole
race is run --repeats times, in an order that rotates. Figures are medians over turns; ratio is ours to theirs.

--cpu: "torch" is a plain loop around transformers' Qwen3, in the fastest of several configurations, which are measured
first; "torch.compile" is the same loop compiled. Ours computes with the bfloat16 image of its float32 master. "torch,
rounded" is the same loop over the same image, not timed: its losses differ from ours only by the rounding of float32,
and show that the two train alike. "trl" among the --contenders tries this file's use of TRL without a card.

On a card: what each holds is in CARD below. TRL's defaults train bfloat16 weights with bfloat16 moments and no master,
in 8 bytes a parameter; "trl_liger_master" holds what ours holds. The TRL paths were run on a CPU with trl 1.16. Liger,
FlashAttention and everything on a card: not run on a GPU yet.
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # configs/ is no part of the installed package

import jax
import numpy as np
import packed
from absl import logging
from curves import compare_curves  # benchmarks/curves.py
from ml_collections import ConfigDict

from convert.card import Card
from convert.to_hf import export_hf
from tiny_reasoning_jax.data.batch import StepBatch
from tiny_reasoning_jax.data.tokenizer import train_tokenizer
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec, hf_config
from tiny_reasoning_jax.train.optimizer import make_schedule

RESULTS = Path(__file__).parent / "results"
# Configurations of the plain loop that are tried on a CPU.
TORCH = {
    name: {"kind": "torch", "attention": "sdpa", "trained_only": True, "compile": False, "rounded": False,
           "adamw": {"fused": True}, **changes}
    for name, changes in {
        "sdpa, fused AdamW": {},
        "sdpa, foreach AdamW": {"adamw": {"foreach": True}},
        "eager attention, fused AdamW": {"attention": "eager"},
        "sdpa, fused AdamW, logits of all positions": {"trained_only": False},
        "sdpa, fused AdamW, torch.compile": {"compile": True, "trained_only": False},
    }.items()
}  # fmt: skip
COMPILED = "sdpa, fused AdamW, torch.compile"
TRL = {"kind": "trl", "flash": False, "model": {}, "trl": {}}
LIGER = {"use_liger_kernel": True, "gradient_checkpointing": False, "optim": "adamw_torch_fused"}
# Contenders on a card, and what they hold for each parameter.
CARD = {
    "ours": ({"kind": "ours"}, "bfloat16 weights, float32 master and moments"),
    "ours_small": (
        {"kind": "ours", "changes": {"train.master": "remainder16", "train.moments": "bfloat16"}},
        "bfloat16 weights, the rest of an exact float32 master in 16 bits, bfloat16 moments",
    ),
    "trl": (TRL, "SFTTrainer's defaults: bfloat16 weights and moments, no master; activations recomputed; sdpa"),
    "trl_liger": (
        {**TRL, "flash": True, "trl": LIGER},
        "bfloat16 weights and moments, no master; Liger's kernels, FlashAttention where installed, no recomputing",
    ),
    "trl_liger_master": (
        {**TRL, "flash": True, "model": {"dtype": "float32"}, "trl": LIGER},
        "as trl_liger, but float32 weights and moments under bfloat16 autocast",
    ),
}


class Contender:
    """A process that does steps when it is told to."""

    def __init__(self, folder: Path, settings: dict, python: str):
        command = [python, str(Path(__file__).with_name("contenders.py")), str(folder), json.dumps(settings)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, **pipes)

    def turn(self, num_steps: int) -> dict:
        """Returns seconds, losses and peak bytes of that many steps."""
        with contextlib.suppress(BrokenPipeError):  # it has ended, which the next line tells
            self._process.stdin.write(f"{num_steps}\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the contender ended with code {self._process.wait()}; its message is above")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


class Record:
    """The turns of one contender in one race."""

    def __init__(self, num_warm_turns: int):
        self.turns, self.error, self.num_warm_turns = [], None, num_warm_turns

    def summary(self, step_tokens: list[int], num_steps: int) -> dict:
        """Rates of the turns after the warm ones, the spread of the middle half, and peak memory."""
        if self.error:
            return {"error": self.error}
        rates = self.rates(step_tokens, num_steps)
        low, median, high = np.percentile(rates, [25, 50, 75])
        peaks = {key: max(turn[key] for turn in self.turns) for key in self.turns[0] if key.startswith("peak")}
        return {"tokens_per_second": median, "tokens_per_second_quartiles": [low, high],
                "first_turn_seconds": self.turns[0]["seconds"], **peaks}  # fmt: skip

    def rates(self, step_tokens: list[int], num_steps: int) -> np.ndarray:
        """Tokens per second of every turn after the warm ones."""
        tokens = np.array(step_tokens).reshape(-1, num_steps).sum(1)[: len(self.turns)]
        return (tokens / [turn["seconds"] for turn in self.turns])[self.num_warm_turns :]

    @property
    def losses(self) -> list[float]:
        """Of every step."""
        return [loss for turn in self.turns for loss in turn["losses"]]


def race(folder: Path, contenders: dict[str, dict], args, *, num_turns: int, together: bool, first: int = 0):
    """Returns {name: Record}. `together`: all processes live at once and take turns; otherwise one after the other."""
    names = list(contenders)
    rotated = lambda by: names[by % len(names) :] + names[: by % len(names)]
    records = {name: Record(args.num_warm_turns) for name in names}
    python = {name: sys.executable if contenders[name]["kind"] == "ours" else args.peer_python for name in names}
    create = lambda name: Contender(folder, contenders[name], python[name])
    if together:
        alive = {name: create(name) for name in names}
        for number in range(num_turns):
            for name in rotated(number):
                records[name].turns.append(alive[name].turn(args.turn_steps))
        for contender in alive.values():
            contender.close()
        return records
    for name in rotated(first):
        contender = create(name)
        try:
            for _ in range(num_turns):
                records[name].turns.append(contender.turn(args.turn_steps))
        except RuntimeError as error:
            records[name].error = str(error)
        contender.close()
    return records


def make_model(config: ConfigDict, folder: Path, vocab_size: int) -> None:
    """Writes the recipe's first weights as a Hugging Face folder."""
    spec = ModelSpec(vocab_size=vocab_size, **config.model.random)
    tokenizer = Path(config.workdir) / "data" / "tokenizer"
    if not tokenizer.exists():
        tokenizer.mkdir(parents=True)
        train_tokenizer(["no text"], 400, tokenizer)  # nothing reads it; SFTTrainer wants one
    params = ModelDef(spec).create_params(config.seed)
    export_hf(
        folder, params.__getitem__, hf_config=hf_config(spec), generation_config=None, tokenizer_folder=tokenizer,
        card=Card("random"),
    )  # fmt: skip


def settings_of(config: ConfigDict, contender: dict, args) -> dict:
    """What the process of a contender is told."""
    own = config.copy_and_resolve_references()
    own.update_from_flattened_dict(contender.get("changes", {}))
    rates = make_schedule(config.train)(np.arange(1, args.num_steps + 1))
    common = {"config": json.loads(own.to_json()), "rates": np.asarray(rates).tolist()}
    return {**common, "device": "cpu" if args.cpu else "cuda", "cores": args.cores, **contender}


def versions(python: str) -> dict[str, str]:
    """Of what takes part, as `python` finds it."""
    names = ["jax", "optax", "flax", "torch", "transformers", "trl", "liger-kernel", "flash-attn", "accelerate"]
    program = (
        "import importlib.metadata as m, json, sys\nfound = {'python': sys.version.split()[0]}\n"
        f"for name in {names}:\n    try: found[name] = m.version(name)\n    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    return json.loads(subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout)


def vector_units(python: str) -> str:
    """The widest that torch finds on this CPU, such as "AVX512": the ratio depends on it more than on anything else."""
    program = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def run_cpu(folder: Path, config: ConfigDict, step_tokens: list[int], args) -> dict:
    """Searches for torch's best configuration, then races it against ours."""
    told = lambda contender: settings_of(config, contender, args)
    searched = TORCH if args.torch is None else {args.torch: TORCH[args.torch]}
    tried = race(folder, {n: told(c) for n, c in searched.items()}, args, num_turns=args.search_turns, together=True)
    rates = {name: record.summary(step_tokens, args.turn_steps)["tokens_per_second"] for name, record in tried.items()}
    eager = [name for name in rates if not TORCH[name]["compile"]]
    best = max(eager or rates, key=rates.get)
    print("\n".join(f"torch, {name}: {rate:,.0f} tokens/s" for name, rate in rates.items()), flush=True)
    contenders = {"ours": told({"kind": "ours"}), "torch": told(TORCH[best])}
    if COMPILED in searched and best != COMPILED:
        contenders["torch.compile"] = told(TORCH[COMPILED])
    if "trl" in args.contenders:
        trl = {**TRL, "model": {"dtype": "float32"}, "trl": {"bf16": False, "gradient_checkpointing": False}}
        contenders["trl"] = told(trl)
    num_turns = args.num_steps // args.turn_steps
    records = race(folder, contenders, args, num_turns=num_turns, together=True)
    rounded = {"torch, rounded": told({**TORCH["sdpa, fused AdamW"], "rounded": True})}
    untimed = race(folder, rounded, args, num_turns=num_turns, together=False)
    result = summarize(records, step_tokens, args)
    result["vector_units"] = vector_units(args.peer_python)
    result |= {"torch_configurations_tokens_per_second": rates, "torch_configuration": best}
    curves = {name: record.losses for name, record in {**records, **untimed}.items()}
    return result | compare_curves(curves, args.output.with_suffix(".png"))


def run_card(folder: Path, config: ConfigDict, step_tokens: list[int], args) -> dict:
    """Races all that are asked for, one alive at a time, several times over."""
    settings = {name: settings_of(config, CARD[name][0], args) for name in args.contenders}
    num_turns, merged = args.num_steps // args.turn_steps, {}
    for repeat in range(args.repeats):
        records = race(folder, settings, args, num_turns=num_turns, together=False, first=repeat)
        for name, record in records.items():
            merged.setdefault(name, []).append(record)
    result = summarize({name: records[0] for name, records in merged.items()}, step_tokens, args)
    for name, records in merged.items():
        result["contenders"][name]["holds"] = CARD[name][1]
        rates = [record.summary(step_tokens, args.turn_steps).get("tokens_per_second") for record in records]
        result["contenders"][name]["tokens_per_second_of_repeats"] = rates
    curves = {name: of_name[0].losses for name, of_name in merged.items() if not of_name[0].error}
    return result | compare_curves(curves, args.output.with_suffix(".png"))


def summarize(records: dict[str, Record], step_tokens: list[int], args) -> dict:
    contenders = {name: record.summary(step_tokens, args.turn_steps) for name, record in records.items()}
    ratios, ours = {}, records["ours"]
    for name, record in records.items():
        if name == "ours" or record.error or ours.error:
            continue
        by_turn = ours.rates(step_tokens, args.turn_steps) / record.rates(step_tokens, args.turn_steps)
        low, median, high = np.percentile(by_turn, [25, 50, 75])
        ratios[name] = {"tokens_per_second": median, "quartiles": [low, high],
                        "least_and_most": [by_turn.min(), by_turn.max()],
                        "peak_bytes": contenders["ours"]["peak_bytes"] / contenders[name]["peak_bytes"]}  # fmt: skip
    return {"contenders": contenders, "ours_to": ratios}


def prepare(args, folder: Path) -> tuple[ConfigDict, list[StepBatch]]:
    """Configuration and batches; writes model/ and steps.npz into `folder`."""
    changes = {"workdir": str(args.folder or folder / "run")}
    if not args.cpu:
        changes |= {"train__remat": args.remat, "train__accum_steps": args.accum_steps}
    if args.data:
        changes |= {"data__source": str(args.data), "tokenizer__source": str(args.tokenizer)}
    config = packed.make_config("tiny" if args.cpu else args.recipe, **changes)
    split = packed.prepare(config, None if args.cpu or args.data else args.mean_length)
    steps = packed.take_steps(config, split, args.num_steps)
    packed.save_steps(folder / "steps.npz", steps)
    if args.model:
        (folder / "model").symlink_to(args.model.absolute())
    else:
        vocab_size = -(-config.tokenizer.vocab_size // 128) * 128 if args.cpu else packed.VOCAB_SIZE
        make_model(config, folder / "model", vocab_size)
    return config, steps


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="the tiny recipe in float32 against a plain torch loop")
    parser.add_argument("--contenders", nargs="+", choices=CARD, help="default: all on a card; ours on a CPU")
    parser.add_argument("--recipe", default="1.7b", help="variant of configs/reason.py on a card")
    parser.add_argument("--remat", default="none", help="our rung of recomputation on a card")
    parser.add_argument("--accum-steps", type=int, default=4, help="micro-batches on a card, everybody's")
    parser.add_argument("--num-steps", type=int, help="optimizer steps, the first turn among them (default 300 or 70)")
    parser.add_argument("--turn-steps", type=int, help="steps of a turn (default 15 or 5)")
    parser.add_argument("--repeats", type=int, default=1, help="races on a card")
    parser.add_argument("--search-turns", type=int, default=5, help="turns for each of torch's configurations")
    parser.add_argument("--torch", choices=TORCH, help="torch's configuration on a CPU instead of searching")
    parser.add_argument("--cores", type=int, default=2, help="of the CPU")
    parser.add_argument("--model", type=Path, help="Hugging Face folder of the weights instead of random ones")
    parser.add_argument("--data", type=Path, help="file of problems instead of made-up examples (with --tokenizer)")
    parser.add_argument("--tokenizer", type=Path, help="folder of the tokenizer for --data")
    parser.add_argument("--mean-length", type=int, default=900, help="tokens of a made-up example")
    parser.add_argument("--folder", type=Path, help="where to keep the prepared data")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter that has torch (and trl)")
    parser.add_argument("--output", type=Path, help="JSON file; the plot goes beside it")
    args = parser.parse_args()
    if bool(args.data) != bool(args.tokenizer):
        parser.error("--data and --tokenizer go together")
    args.contenders = args.contenders or (["ours"] if args.cpu else list(CARD))
    args.num_steps, args.turn_steps = (
        args.num_steps or (300 if args.cpu else 70),
        args.turn_steps or (15 if args.cpu else 5),
    )
    args.num_warm_turns = 1 if args.cpu else 4
    args.num_steps -= args.num_steps % args.turn_steps
    if args.cpu and args.search_turns * args.turn_steps > args.num_steps:
        parser.error(f"the search takes {args.search_turns} turns of {args.turn_steps} steps, --num-steps has fewer")
    args.output = args.output or RESULTS / ("peers_cpu.json" if args.cpu else "peers.json")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    return args


def require_peers(args) -> None:
    """Ends with what to install if a contender cannot run."""
    needed = ["torch", "transformers"]
    if any(name.startswith("trl") for name in args.contenders):
        needed += ["trl"] + ["liger-kernel"] * any("liger" in name for name in args.contenders)
    missing = [name for name in needed if name not in versions(args.peer_python)]
    if missing:
        sys.exit(
            f"{args.peer_python} lacks {', '.join(missing)}, which are no dependencies of this project: "
            f"python -m venv peers && peers/bin/pip install {' '.join(needed)} datasets, then give "
            f"--peer-python peers/bin/python (flash-attn makes TRL faster where it can be built)"
        )


def main() -> None:
    args, load = parse(), os.getloadavg()[0]
    logging.set_verbosity(logging.WARNING)
    jax.config.update("jax_platforms", "cpu")  # this process itself must not hold the card
    require_peers(args)
    if args.cpu:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
        os.environ["JAX_PLATFORMS"] = "cpu"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config, steps = prepare(args, folder)
        step_tokens = [step.num_tokens for step in steps]
        jax.clear_caches()
        result = (run_cpu if args.cpu else run_card)(folder, config, step_tokens, args)
    facts = {
        "machine": platform.machine(),
        "cores": args.cores if args.cpu else os.cpu_count(),
        "load_average_before": load,  # of other work, which slows both
        "versions": versions(sys.executable),
        "versions_of_peers": versions(args.peer_python),
        "settings": {
            "recipe": "tiny" if args.cpu else args.recipe,
            **{key: config.train[key] for key in ("batch_size", "accum_steps", "seq_len", "compute_dtype", "remat")},
            "num_steps": args.num_steps,
            "turn_steps": args.turn_steps,
            "tokens_per_step": float(np.mean(step_tokens)),
            "padding": 1 - np.mean(step_tokens) / (config.train.batch_size * config.train.seq_len),
        },
        **result,
    }
    args.output.write_text(json.dumps(facts, indent=2) + "\n")
    for name, figures in result["contenders"].items():
        print(f"{name}: {json.dumps(figures)}")
    print(f"ours to theirs: {json.dumps(result['ours_to'], indent=2)}")


if __name__ == "__main__":
    main()
