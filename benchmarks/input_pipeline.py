"""Packed tokens per second and packing efficiency of the input pipeline on one core. CPU only, no network.

    python benchmarks/input_pipeline.py --output benchmarks/results/input_pipeline.json

The data are made here: random tokens of a vocabulary of 151,936, lengths log-normal like GSM8K rendered with
Qwen3's tokenizer (mean 200, sigma of the logarithm 0.36), saved and read through memory maps as a run does.
The peer is Grain's own BestFitPackIterDataset, fed with the same examples and giving tokens, targets, mask,
segments and positions.
"""

import argparse
import itertools
import json
import os
import platform
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import grain
import numpy as np

from tiny_reasoning_jax.data.pipeline import make_train_iterator
from tiny_reasoning_jax.data.prepared import PreparedSplit

VOCAB_SIZE = 151_936


def make_split(num_examples: int, mean_length: int, seq_len: int) -> PreparedSplit:
    rng = np.random.default_rng(0)
    sigma = 0.36
    lengths = rng.lognormal(np.log(mean_length) - sigma**2 / 2, sigma, num_examples)
    lengths = lengths.astype(np.int64).clip(16, seq_len)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return PreparedSplit(
        tokens=rng.integers(0, VOCAB_SIZE, offsets[-1], dtype=np.int32),
        offsets=offsets,
        prompt_lengths=(lengths * 0.4).astype(np.int32),
        difficulty=rng.integers(1, 6, num_examples, dtype=np.int8),
        ids=[f"gsm8k-like-{i}" for i in range(num_examples)],
    )


def time_call(function, *args, repeats: int = 20) -> float:
    """Returns the median seconds of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*args)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def measure(split: PreparedSplit, args: argparse.Namespace, prefetch_steps: int) -> dict[str, float]:
    """Returns speed, efficiency and the cost of saving and restoring the place in the data."""
    settings = {"curriculum": "linear", "num_steps": args.num_steps, "accum_steps": 4, "seed": 0}
    settings |= {"batch_size": args.batch_size, "seq_len": args.seq_len, "prefetch_steps": prefetch_steps}
    iterator = make_train_iterator(split, **settings)
    next(iterator)  # the first step fills the look-ahead
    start = time.perf_counter()
    num_tokens = sum(step.num_tokens for step in itertools.islice(iterator, args.num_steps))
    seconds = time.perf_counter() - start
    state = iterator.get_state()
    iterator.close()
    fresh = make_train_iterator(split, **settings)
    return {
        "tokens_per_second": num_tokens / seconds,
        "efficiency": num_tokens / (args.num_steps * args.batch_size * args.seq_len),
        "state_bytes": len(json.dumps(state)),
        "get_state_seconds": time_call(fresh.get_state),
        "set_state_seconds": time_call(fresh.set_state, state),
    }


def measure_peer(split: PreparedSplit, args: argparse.Namespace) -> dict[str, float]:
    """Returns speed and efficiency of Grain's best-fit packing of the same examples, shuffled by Grain."""

    def example(i: int) -> dict[str, np.ndarray]:
        tokens = split.tokens[split.offsets[i] : split.offsets[i + 1]]
        loss_mask = np.arange(1, len(tokens)) >= split.prompt_lengths[i]
        return {"tokens": tokens[:-1], "targets": tokens[1:], "loss_mask": loss_mask}

    examples = grain.MapDataset.range(len(split)).shuffle(seed=0).map(example)
    rows = grain.experimental.BestFitPackIterDataset(
        examples.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)),
        length_struct=dict.fromkeys(("tokens", "targets", "loss_mask"), args.seq_len),
        num_packing_bins=args.batch_size,
        meta_features=("targets", "loss_mask"),
    )
    iterator = iter(rows.batch(args.batch_size, drop_remainder=True))
    next(iterator)
    num_steps = max(1, args.num_steps // 10)
    start = time.perf_counter()
    num_tokens = sum(int((step["tokens_segment_ids"] > 0).sum()) for step in itertools.islice(iterator, num_steps))
    seconds = time.perf_counter() - start
    iterator.close()
    return {
        "tokens_per_second": num_tokens / seconds,
        "efficiency": num_tokens / (num_steps * args.batch_size * args.seq_len),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-examples", type=int, default=200_000)
    parser.add_argument("--mean-length", type=int, default=200, help="tokens")
    parser.add_argument("--seq-len", type=int, default=4096, help="tokens in a row")
    parser.add_argument("--batch-size", type=int, default=16, help="rows in a step")
    parser.add_argument("--num-steps", type=int, default=300, help="measured steps")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    num_cores = os.cpu_count()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        num_cores = 1

    with tempfile.TemporaryDirectory() as folder:
        make_split(args.num_examples, args.mean_length, args.seq_len).save(Path(folder))
        split = PreparedSplit.load(Path(folder))
        results = {
            "prefetch 0": measure(split, args, 0),
            "prefetch 4": measure(split, args, 4),
            "grain best fit": measure_peer(split, args),
        }
    ratio = results["prefetch 0"]["tokens_per_second"] / results["grain best fit"]["tokens_per_second"]
    for name, figures in results.items():
        texts = [f"{key} {value:,.0f}" if value > 99 else f"{key} {value:.4g}" for key, value in figures.items()]
        print(f"{name:>14}: {'  '.join(texts)}")
    print(f"{ratio:.1f} times the tokens per second of Grain's own packing, on {num_cores} core(s)")
    if args.output:
        settings = {key: value for key, value in vars(args).items() if key != "output"}
        machine = {"machine": platform.machine(), "python": platform.python_version(), "cores": num_cores}
        versions = {"numpy": np.__version__, "grain": grain.__version__}
        report = {"settings": settings, **machine, **versions, "results": results, "ratio": ratio}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
