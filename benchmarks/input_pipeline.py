"""Speed, waiting, packing efficiency and memory of the input pipeline on one core. CPU only, no network.

    python benchmarks/input_pipeline.py --output benchmarks/results/input_pipeline.json

The data are made here: random tokens of a vocabulary of 151,936, written with SplitWriter and read from the shards as a
run does. "speed" and "waiting": lengths log-normal like GSM8K rendered with Qwen3's tokenizer (mean 200, sigma of the
logarithm 0.36); waiting is the share of its time that a consumer of 60,000 tokens/s spends in next(), after a first
step that fills the look-ahead. The peer is Grain's own BestFitPackIterDataset, fed with the same examples and giving
tokens, targets, mask, segments and positions. "efficiency": log-normal lengths up to 32,768 with the median and sigma
given, those longer than a row dropped; "bound" is what no packing of whole examples can exceed (Martello and Toth's
L2). "memory": resident memory while 1,000,000 examples of 100 tokens on average are written, and while the steps after
them are read, in a process of its own. With --gsm8k FILE, a train.jsonl, and --tokenizer FOLDER, real rows as well.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import tempfile
import threading
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import grain
import numpy as np

from tiny_reasoning_jax.data import chat, sources
from tiny_reasoning_jax.data.pipeline import make_train_iterator
from tiny_reasoning_jax.data.plan import Plan
from tiny_reasoning_jax.data.prepared import PreparedSplit, SplitWriter
from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.data.tokenizer import load_tokenizer

VOCAB_SIZE = 151_936
CONSUMER_TOKENS_PER_SECOND = 60_000
# Name: median, sigma, longest, seq_len, rows. OpenThoughts publishes no lengths; these span what is plausible.
DISTRIBUTIONS = {
    "tiny procedural, 256": (100, 0.4, 256, 256, 8),
    "median 1,500, 4096": (1500, 1.2, 32_768, 4096, 16),
    "median 2,500, 4096": (2500, 1.0, 32_768, 4096, 16),
    "median 4,500, 4096": (4500, 1.0, 32_768, 4096, 16),
    "median 6,000, 4096": (6000, 1.0, 32_768, 4096, 16),
    "median 2,500, 32768": (2500, 1.0, 32_768, 32_768, 16),
    "median 6,000, 32768": (6000, 1.0, 32_768, 32_768, 16),
}


def write_split(folder: Path, lengths: np.ndarray) -> list[dict]:
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, VOCAB_SIZE, 50_000 + int(lengths.max())).tolist()
    writer = SplitWriter(folder)
    for i, length in enumerate(map(int, lengths)):
        start, level = i * 7919 % 50_000, i * 31 % 5 + 1
        prompt_length = int(length * 0.4)
        prompt, completion = tokens[start : start + prompt_length], tokens[start + prompt_length : start + length]
        writer.add(f"generated-{i}", prompt, completion, difficulty=level, source=0, category=0, prompt_hash=i)
    return writer.close()


def draw_lengths(num_examples: int, mean: int, sigma: float, longest: int) -> np.ndarray:
    lengths = np.random.default_rng(0).lognormal(np.log(mean) - sigma**2 / 2, sigma, num_examples)
    return lengths.astype(np.int64).clip(16, longest)


def time_call(function, *args, repeats: int = 20) -> float:
    """Returns the median seconds of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function(*args)
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def make_settings(args: argparse.Namespace, **changes) -> dict:
    settings = {"curriculum": "linear", "num_steps": args.num_steps, "accum_steps": 4, "seed": 0}
    return settings | {"batch_size": args.batch_size, "seq_len": args.seq_len, "prefetch_steps": 0} | changes


def measure_speed(split: PreparedSplit, args: argparse.Namespace, prefetch_steps: int) -> dict[str, float]:
    """Returns speed, efficiency and the cost of saving and restoring the place in the data."""
    settings = make_settings(args, prefetch_steps=prefetch_steps)
    iterator = make_train_iterator(split, **settings)
    next(iterator)  # the first step fills the look-ahead
    rates, num_tokens = [], 0
    for _ in range(10):  # the median of ten stretches: other programs may use the core for a while
        start = time.perf_counter()
        stretch = sum(step.num_tokens for step in itertools.islice(iterator, args.num_steps // 10))
        rates.append(stretch / (time.perf_counter() - start))
        num_tokens += stretch
    state = iterator.get_state()
    iterator.close()
    fresh = make_train_iterator(split, **settings)
    return {
        "tokens_per_second": float(np.median(rates)),
        "efficiency": num_tokens / (10 * (args.num_steps // 10) * args.batch_size * args.seq_len),
        "state_bytes": len(json.dumps(state)),
        "get_state_seconds": time_call(fresh.get_state),
        "set_state_seconds": time_call(fresh.set_state, state),
        "control_seconds": time_call(lambda: make_train_iterator(split, **settings, control=True), repeats=1),
    }


def measure_waiting(split: PreparedSplit, args: argparse.Namespace) -> dict[str, float]:
    """Returns the share of time in next() of a consumer that sleeps as long as training on the step would take."""
    iterator = make_train_iterator(split, **make_settings(args, prefetch_steps=4))
    next(iterator)
    time.sleep(1.0)
    waits, start = [], time.perf_counter()
    for _ in range(args.num_waited_steps):
        asked = time.perf_counter()
        step = next(iterator)
        waits.append(time.perf_counter() - asked)
        time.sleep(step.num_tokens / CONSUMER_TOKENS_PER_SECOND)
    total = time.perf_counter() - start
    iterator.close()
    return {"share_waiting": sum(waits) / total, "median_wait_seconds": float(np.median(waits)), "max": max(waits)}


def measure_peer(split: PreparedSplit, args: argparse.Namespace) -> dict[str, float]:
    """Returns speed and efficiency of Grain's best-fit packing of the same examples, shuffled by Grain."""

    def example(i: int) -> dict[str, np.ndarray]:
        [(_, tokens)] = split.read([i])
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
    rates, num_tokens, stretch_steps = [], 0, max(1, args.num_steps // 100)
    for _ in range(10):
        start = time.perf_counter()
        stretch = sum(int((step["tokens_segment_ids"] > 0).sum()) for step in itertools.islice(iterator, stretch_steps))
        rates.append(stretch / (time.perf_counter() - start))
        num_tokens += stretch
    iterator.close()
    efficiency = num_tokens / (10 * stretch_steps * args.batch_size * args.seq_len)
    return {"tokens_per_second": float(np.median(rates)), "efficiency": efficiency}


def measure_efficiency(split: PreparedSplit, seq_len: int, num_rows: int) -> dict[str, float]:
    """Returns how full rows are from the second of 150 steps on; plans only, tokens are not read."""
    settings = {"curriculum": "linear", "num_steps": 150, "batch_size": num_rows, "seq_len": seq_len, "seed": 0}
    plan = Plan(split, **settings)
    place, shares, waits, drawn_at = plan.start(), [], [], {}
    for step in range(150):
        rows = plan.next_rows(place)
        shares.append(sum(int(plan.positions[row].sum()) for row in rows) / (num_rows * seq_len))
        waits += [step - drawn_at.pop(example, step) for row in rows for example in row]
        for example in place.pending:
            drawn_at.setdefault(example, step)
    return {
        "kept": len(split),
        "efficiency": float(np.mean(shares[1:])),
        "worst_step": min(shares[1:]),
        "bound": bound_efficiency(plan.positions, seq_len),
        "longest_wait_steps": max(waits),
    }


def bound_efficiency(positions: np.ndarray, seq_len: int) -> float:
    """Returns the share of full rows that no packing of all these whole examples exceeds: Martello and Toth's L2."""
    sizes = np.sort(np.asarray(positions, np.int64))
    sums = np.concatenate([[0], np.cumsum(sizes)])
    half, fewest = np.searchsorted(sizes, seq_len / 2, side="right"), 0.0
    for small in range(0, seq_len // 2 + 1, max(1, seq_len // 256)):
        first, last = np.searchsorted(sizes, small), np.searchsorted(sizes, seq_len - small, side="right")
        middle = last - half  # each needs a row of its own, with room left for some that are not larger than half
        room = middle * seq_len - (sums[last] - sums[half])
        fewest = max(fewest, len(sizes) - half + max(0.0, (sums[half] - sums[first] - room) / seq_len))
    return float(sums[-1] / (fewest * seq_len))


def resident_bytes() -> int:
    """Returns the resident memory of this process that is its own: mapped files are the system's to drop."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


class PeakMemory:
    """Looks every 20 ms at how much resident memory a block adds."""

    def __enter__(self):
        self._start = self.added = resident_bytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self):
        while not self._stop.wait(0.02):
            self.added = max(self.added, resident_bytes())

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()
        self.added = max(self.added, resident_bytes()) - self._start


def measure_memory(folder: Path, num_examples: int, num_steps: int) -> dict[str, float]:
    """Returns what writing and reading add to the resident memory at most, and what later steps add to earlier ones."""
    lengths = draw_lengths(num_examples, 100, 0.4, 1024)
    write_split(folder / "warm", lengths[:1000])
    started = time.perf_counter()
    with PeakMemory() as writing:
        shards = write_split(folder / "large", lengths)
    wrote, at = time.perf_counter() - started, []
    settings = {"curriculum": "linear", "num_steps": num_steps, "batch_size": 16, "accum_steps": 4, "seq_len": 4096}
    with PeakMemory() as reading:
        split = PreparedSplit.load(folder / "large")
        iterator = make_train_iterator(split, **settings, seed=0, prefetch_steps=4)
        for _ in range(num_steps):
            next(iterator)
            at.append(resident_bytes())
        iterator.close()
    return {
        "examples": num_examples,
        "tokens": int(lengths.sum()),
        "disk_bytes": sum(shard["bytes"] for shard in shards),
        "written_examples_per_second": num_examples / wrote,
        "writing_adds_bytes": writing.added,
        "reading_adds_bytes": reading.added,
        "growth_from_step_20_bytes": at[-1] - max(at[:20]),
    }


def measure_gsm8k(path: Path, tokenizer_folder: Path, folder: Path) -> dict[str, float]:
    tokenizer = load_tokenizer(tokenizer_folder)
    problems = [problem for problem in sources.read_source(str(path)) if isinstance(problem, Problem)]
    writer = SplitWriter(folder)
    for problem, (prompt, completion) in zip(problems, chat.encode_batch(tokenizer, problems), strict=True):
        level = len(writer.lengths) % 5 + 1
        writer.add(problem.id, prompt, completion, difficulty=level, source=0, category=0, prompt_hash=0)
    writer.close()
    return measure_efficiency(PreparedSplit.load(folder), 4096, 16)


def in_process(function, *args):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def run(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    write_split(folder / "speed", draw_lengths(args.num_examples, args.mean_length, 0.36, args.seq_len))
    split = PreparedSplit.load(folder / "speed")
    results = {
        "prefetch 0": measure_speed(split, args, 0),
        "prefetch 4": measure_speed(split, args, 4),
        "grain best fit": measure_peer(split, args),
        f"consumer of {CONSUMER_TOKENS_PER_SECOND:,} tokens/s": measure_waiting(split, args),
    }
    for name, (median, sigma, longest, seq_len, num_rows) in DISTRIBUTIONS.items():
        lengths = draw_lengths(20_000, median * np.exp(sigma**2 / 2), sigma, longest)
        write_split(folder / name, lengths[lengths <= seq_len])
        results[name] = measure_efficiency(PreparedSplit.load(folder / name), seq_len, num_rows)
    if args.gsm8k:
        results["gsm8k, 4096"] = measure_gsm8k(args.gsm8k, args.tokenizer, folder / "gsm8k")
    results["memory"] = in_process(measure_memory, folder, args.num_memory_examples, 200)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-examples", type=int, default=200_000)
    parser.add_argument("--mean-length", type=int, default=200, help="tokens")
    parser.add_argument("--seq-len", type=int, default=4096, help="tokens in a row")
    parser.add_argument("--batch-size", type=int, default=16, help="rows in a step")
    parser.add_argument("--num-steps", type=int, default=300, help="measured steps")
    parser.add_argument("--num-waited-steps", type=int, default=40, help="steps of the slow consumer, 1.1 s each")
    parser.add_argument("--num-memory-examples", type=int, default=1_000_000)
    parser.add_argument("--gsm8k", type=Path, help="train.jsonl of GSM8K")
    parser.add_argument("--tokenizer", type=Path, help="folder of the tokenizer for --gsm8k")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    if bool(args.gsm8k) != bool(args.tokenizer):
        parser.error("--gsm8k and --tokenizer go together")
    num_cores = os.cpu_count()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        num_cores = 1

    with tempfile.TemporaryDirectory() as folder:
        results = run(args, Path(folder))
    ratio = results["prefetch 0"]["tokens_per_second"] / results["grain best fit"]["tokens_per_second"]
    for name, figures in results.items():
        texts = [f"{key} {value:,.0f}" if abs(value) > 99 else f"{key} {value:.4g}" for key, value in figures.items()]
        print(f"{name:>14}: {'  '.join(texts)}")
    print(f"{ratio:.1f} times the tokens per second of Grain's own packing, on {num_cores} core(s)")
    if args.output:
        settings = {k: v for k, v in vars(args).items() if k not in ("output", "gsm8k", "tokenizer")}
        machine = {"machine": platform.machine(), "python": platform.python_version(), "cores": num_cores}
        versions = {"numpy": np.__version__, "grain": grain.__version__}
        report = {"settings": settings, **machine, **versions, "results": results, "ratio": ratio}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
