"""Our training step against transformers, TRL and TRL with Liger: the same weights, packed batches and optimizer.

    python benchmarks/peers.py --cpu                     # two cores, float32, the tiny recipe; needs torch
    python benchmarks/peers.py                           # one CUDA card, Qwen3-1.7B; needs trl and liger-kernel
    python benchmarks/peers.py --peer-python ~/trl/bin/python --data train.jsonl --tokenizer FOLDER --model FOLDER

Every contender is a process of its own (contenders.py), so that its peak memory is its own: resident on a CPU,
allocated on a card. All see the same rows, packed by our pipeline, with packed examples kept apart, and start from one
Hugging Face folder. A turn is --turn-steps steps, timed from handing over the first to the end of the last on the
device; tokens are real ones, padding left out. The first turns count as warm-up (one on a CPU, two on a card). On a
CPU all contenders are alive and take turns, in an order that rotates; on a card one is alive at a time and the whole
race is run --repeats times, in an order that rotates. Figures are medians over turns; ratio is ours to theirs. A
contender that dies, or whose turns take longer than --contender-seconds, its start included, is ended and keeps its
turns and its error; one for which too little of --seconds is left is not begun. The JSON is written again after every
turn.

--cpu: "torch" is a plain loop around transformers' Qwen3, in the fastest of several configurations, which are measured
first; "torch.compile" is the same loop compiled. Ours computes with the bfloat16 image of its float32 master. "torch,
rounded" is the same loop over the same image, not timed: its losses differ from ours only by the rounding of float32,
and show that the two train alike. "trl" among the --contenders tries this file's use of TRL without a card.

On a card: what each holds is in CARD below; dtype and attention stand with its figures as it found them. TRL 1.16
loads float32 weights unless told otherwise and trains them under bfloat16 autocast, in 16 bytes a parameter, gradients
included; "trl_liger" has bfloat16 weights, in 8. Liger is its layer kernels alone: SFTTrainer leaves Liger's loss out
and brings an output matrix of its own that works in chunks. Without the package flash-attn there is no FlashAttention,
and TRL's rate is not the best it can reach: sdpa computes all pairs of tokens of a row and masks those of other
examples; "trl_liger_flex", which skips them, then runs beside it. The TRL paths were run on a CPU with trl 1.16.
FlashAttention, flex_attention and everything on a card: not run on a GPU yet.
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
import jax.numpy as jnp
import numpy as np
import packed
import processes
from absl import logging
from curves import compare_curves, plot
from ml_collections import ConfigDict
from race import Record, race, summarize

from convert.card import Card
from convert.to_hf import export_hf
from tiny_reasoning_jax.data.batch import StepBatch
from tiny_reasoning_jax.data.tokenizer import train_tokenizer
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
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
BFLOAT16 = {"dtype": "bfloat16"}
_LIGER_HOLDS = "bfloat16 weights, gradients and moments, no master: 8 bytes a parameter; Liger's layer kernels"
# Contenders on a card, the most important first, and what they hold for each parameter.
CARD = {
    "ours": ({"kind": "ours"}, "bfloat16 weights, float32 master and moments"),
    "trl_liger": (
        {**TRL, "flash": True, "model": BFLOAT16, "trl": LIGER},
        f"{_LIGER_HOLDS}; FlashAttention where installed, otherwise sdpa; nothing recomputed",
    ),
    "trl_liger_flex": (
        {**TRL, "model": {**BFLOAT16, "attn_implementation": "flex_attention"}, "trl": LIGER},
        f"{_LIGER_HOLDS}; flex_attention; nothing recomputed",
    ),
    "trl": (
        TRL,
        "SFTTrainer's defaults: float32 weights, gradients and moments under bfloat16 autocast, 16 bytes a parameter; "
        "sdpa; activations recomputed",
    ),
    "trl_liger_float32": (
        {**TRL, "flash": True, "trl": LIGER},
        "as trl_liger, but float32 weights, gradients and moments under bfloat16 autocast: 16 bytes a parameter",
    ),
    "ours_small": (
        {"kind": "ours", "changes": {"train.master": "remainder16", "train.moments": "bfloat16"}},
        "bfloat16 weights, the rest of an exact float32 master in 16 bits, bfloat16 moments",
    ),
}
NO_FLASH = "not installed: without it TRL attends with sdpa, which computes all pairs of a row, or with flex_attention"


def random_params(model_def: ModelDef) -> Params:
    """Weights of the size of Qwen3's first ones, in seconds: create_params takes a minute for 1.7B on a CPU's core."""
    rng = np.random.default_rng(0)
    make = lambda shape: np.ones(shape) if len(shape) == 1 else 0.035 * (2 * rng.random(shape, np.float32) - 1)
    return {name: jnp.asarray(make(leaf.shape), jnp.bfloat16) for name, leaf in model_def.shapes().items()}


def make_model(config: ConfigDict, folder: Path, vocab_size: int, on_card: bool) -> None:
    """Writes first weights as a Hugging Face folder: on a CPU the recipe's own."""
    spec = ModelSpec(vocab_size=vocab_size, **config.model.random)
    tokenizer = Path(config.workdir) / "data" / "tokenizer"
    if not tokenizer.exists():
        tokenizer.mkdir(parents=True)
        train_tokenizer(["no text"], 400, tokenizer)  # nothing reads it; SFTTrainer wants one
    params = random_params(ModelDef(spec)) if on_card else ModelDef(spec).create_params(config.seed)
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
    names = ["jax", "optax", "flax", "torch", "transformers", "trl", "liger-kernel", "flash-attn", "accelerate",
             "datasets"]  # fmt: skip
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


def run_cpu(folder: Path, config: ConfigDict, step_tokens: list[int], args, write) -> None:
    """Searches for torch's best configuration, then races it against ours."""
    told = lambda contender: settings_of(config, contender, args)
    create = lambda names: {name: Record(args.num_warm_turns) for name in names}
    searched = TORCH if args.torch is None else {args.torch: TORCH[args.torch]}
    tried, told_search = create(searched), {name: told(contender) for name, contender in searched.items()}
    race(folder, told_search, tried, args, num_turns=args.search_turns, together=True)
    found = summarize(tried, step_tokens, args.turn_steps)["contenders"]
    rates = {name: figures.get("tokens_per_second") for name, figures in found.items()}
    for name, figures in found.items():
        print(f"torch, {name}: {figures.get('error') or format(rates[name], ',.0f') + ' tokens/s'}", flush=True)
    done = [name for name in rates if rates[name]]
    if not done:
        sys.exit("none of torch's configurations has run")
    best = max([name for name in done if not TORCH[name]["compile"]] or done, key=rates.get)
    contenders = {"ours": told({"kind": "ours"}), "torch": told(TORCH[best])}
    if COMPILED in searched and best != COMPILED:
        contenders["torch.compile"] = told(TORCH[COMPILED])
    if "trl" in args.contenders:
        trl = {**TRL, "trl": {"bf16": False, "gradient_checkpointing": False}}
        contenders["trl"] = told(trl)
    untimed = {"torch, rounded": told({**TORCH["sdpa, fused AdamW"], "rounded": True})}
    records, not_timed = create(contenders), create(untimed)
    about = {"vector_units": vector_units(args.peer_python),
             "torch_configurations_tokens_per_second": rates, "torch_configuration": best}  # fmt: skip
    known = lambda: {**summarize(records, step_tokens, args.turn_steps), **about}
    curves = lambda: {name: record.losses for name, record in {**records, **not_timed}.items() if record.losses}
    num_turns, keep = args.num_steps // args.turn_steps, lambda: write(known(), curves())
    race(folder, contenders, records, args, num_turns=num_turns, together=True, keep=keep)
    race(folder, untimed, not_timed, args, num_turns=num_turns, together=False, keep=keep)


def run_card(folder: Path, config: ConfigDict, step_tokens: list[int], args, write) -> None:
    """Races all that are asked for, one alive at a time, several times over."""
    settings = {name: settings_of(config, CARD[name][0], args) for name in args.contenders}
    races: list[dict[str, Record]] = []

    def keep() -> None:
        result = summarize(races[0], step_tokens, args.turn_steps)
        for name, figures in result["contenders"].items():
            summaries = [records[name].summary(step_tokens, args.turn_steps) for records in races]
            figures["holds"] = CARD[name][1]
            figures["tokens_per_second_of_repeats"] = [each.get("tokens_per_second") for each in summaries]
        write(result, {name: record.losses for name, record in races[0].items() if record.losses})

    for repeat in range(args.repeats):
        races.append({name: Record(args.num_warm_turns) for name in settings})
        num_turns = args.num_steps // args.turn_steps
        race(folder, settings, races[-1], args, num_turns=num_turns, together=False, first=repeat, keep=keep)


def prepare(args, folder: Path) -> tuple[ConfigDict, list[StepBatch]]:
    """Configuration and batches; writes model/ and steps.npz into `folder`."""
    changes = {"workdir": str(args.folder or folder / "run"), "train__attention": args.attention}
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
        make_model(config, folder / "model", vocab_size, on_card=not args.cpu)
    return config, steps


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="the tiny recipe in float32 against a plain torch loop")
    parser.add_argument("--contenders", nargs="+", choices=CARD, help="default: most on a card; ours on a CPU")
    parser.add_argument("--recipe", default="1.7b", help="variant of configs/reason.py on a card")
    parser.add_argument("--remat", default="none", help="our rung of recomputation on a card")
    parser.add_argument("--attention", default="auto", help="our backend, as train.attention")
    parser.add_argument("--accum-steps", type=int, default=4, help="micro-batches on a card, everybody's")
    parser.add_argument("--num-steps", type=int, help="optimizer steps, the first turn among them (default 300 or 14)")
    parser.add_argument("--turn-steps", type=int, help="steps of a turn (default 15 or 2)")
    parser.add_argument("--seconds", type=float, help="for everything (default 3600 or 540)")
    parser.add_argument("--contender-seconds", type=float, help="for all turns of one (default 600 or 200)")
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
    args.num_steps = args.num_steps or (300 if args.cpu else 14)
    args.turn_steps = args.turn_steps or (15 if args.cpu else 2)
    args.seconds = args.seconds or (3600 if args.cpu else 540)
    args.contender_seconds = args.contender_seconds or (600 if args.cpu else 200)
    args.num_warm_turns = 1 if args.cpu else 2
    check_turns(parser, args)
    args.num_steps -= args.num_steps % args.turn_steps
    args.output = args.output or RESULTS / ("peers_cpu.json" if args.cpu else "peers.json")
    args.output.parent.mkdir(parents=True, exist_ok=True)
    return args


def check_turns(parser: argparse.ArgumentParser, args) -> None:
    """Refuses a race in which nobody has a turn that counts, before it is run."""
    least = args.num_warm_turns + 1
    num_turns = args.num_steps // args.turn_steps
    if num_turns < least:
        parser.error(
            f"--num-steps={args.num_steps} are {num_turns} turns of --turn-steps={args.turn_steps}, and the first "
            f"{args.num_warm_turns} only warm up; take at least --num-steps={least * args.turn_steps}"
        )
    if args.cpu and not least <= args.search_turns <= num_turns:
        parser.error(
            f"--search-turns={args.search_turns} must be from {least}, of which the first {args.num_warm_turns} only "
            f"warm up, to {num_turns}, the turns of --turn-steps={args.turn_steps} in --num-steps={args.num_steps}"
        )


def choose_contenders(args, found: dict[str, str]) -> None:
    """Settles args.contenders by the versions found; ends with what to install if one of them cannot run."""
    if args.contenders is None:
        flash = {"trl_liger_flex"} if "flash-attn" in found else set()
        args.contenders = ["ours"] if args.cpu else [name for name in CARD if name not in {"ours_small"} | flash]
    needed = ["torch", "transformers"] if args.cpu else []
    if any(name.startswith("trl") for name in args.contenders):
        needed = ["torch", "transformers", "trl", "datasets"]
        needed += ["liger-kernel"] * any("liger" in name for name in args.contenders)
    missing = [name for name in needed if name not in found]
    if missing:
        sys.exit(
            f"{args.peer_python} lacks {', '.join(missing)}, which are no dependencies of this project: "
            f"python -m venv peers && peers/bin/pip install {' '.join(needed)}, then give "
            f"--peer-python peers/bin/python (flash-attn makes TRL faster where it can be built)"
        )


def describe(config: ConfigDict, step_tokens: list[int], args, of_peers: dict[str, str], load: float) -> dict:
    """All of a result that is known before anybody runs."""
    return {
        "machine": platform.machine(),
        "cores": args.cores if args.cpu else os.cpu_count(),
        "load_average_before": load,  # of other work, which slows both
        "versions": versions(sys.executable),
        "versions_of_peers": of_peers,
        **({} if args.cpu else {"flash_attention": of_peers.get("flash-attn", NO_FLASH)}),
        "settings": {
            "recipe": "tiny" if args.cpu else args.recipe,
            **{key: config.train[key] for key in ("batch_size", "accum_steps", "seq_len", "compute_dtype", "remat")},
            "num_steps": args.num_steps,
            "turn_steps": args.turn_steps,
            "seconds": args.seconds,
            "contender_seconds": args.contender_seconds,
            "tokens_per_step": float(np.mean(step_tokens)),
            "padding": 1 - np.mean(step_tokens) / (config.train.batch_size * config.train.seq_len),
        },
    }


def main() -> None:
    began = time.monotonic()
    args, load = parse(), os.getloadavg()[0]
    args.ends = began + args.seconds
    logging.set_verbosity(logging.WARNING)
    jax.config.update("jax_platforms", "cpu")  # this process itself must not hold the card
    of_peers = versions(args.peer_python)
    choose_contenders(args, of_peers)
    if args.cpu:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
        os.environ["JAX_PLATFORMS"] = "cpu"
    result, curves = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config, steps = prepare(args, folder)
        step_tokens = [step.num_tokens for step in steps]
        jax.clear_caches()
        facts = describe(config, step_tokens, args, of_peers, load)

        def write(new_result: dict, new_curves: dict[str, list[float]]) -> None:
            result.update(new_result)
            curves.update(new_curves)
            processes.write_json(args.output, {**facts, **result, **compare_curves(curves)})

        (run_cpu if args.cpu else run_card)(folder, config, step_tokens, args, write)
    for name, figures in result["contenders"].items():
        print(f"{name}: {json.dumps(figures)}")
    print(f"ours to theirs: {json.dumps(result['ours_to'], indent=2)}")
    if "ours" in curves:
        plot(curves, args.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
