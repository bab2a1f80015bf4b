"""Speed and memory of the data stage: tokens per second on real problems, and memory while records stream.

    python benchmarks/prepare.py --gsm8k DIR --math FILE --tokenizer DIR --output benchmarks/results/prepare.json
    python benchmarks/prepare.py --tokenizer DIR --num-records 100000,1000000 --output FILE

The first prepares both sets as a run would: read, graded, deduplicated, decontaminated against GSM8K's test problems,
tokenised, written, checked, with the preview. Told twice: for the whole stage, and without the half second that loading
the tokenizer takes whatever the data. The second makes that many records, of GSM8K's form and length, and samples the
resident memory of the process once a second. CPU only, no network.
"""

import argparse
import json
import logging
import os
import platform
import random
import sys
import tempfile
import threading
import time
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parents[1]))

from configs import base
from tiny_reasoning_jax.data import prepare
from tiny_reasoning_jax.data.tokenizer import load_tokenizer

WORDS = (
    "apples boxes children days eggs friends gallons hours invoices jars kilos lamps miles notebooks oranges "
    "pages quarts rows shelves tickets uniforms vans weeks yards buys sells gives loses finds keeps shares counts "
    "packs opens each every half twice more less than before after together left total how many does need"
).split()


def make_config(source: str, tokenizer: str, seq_len: int):
    config = base.get_config()
    config.data.source, config.tokenizer.source, config.train.seq_len = source, tokenizer, seq_len
    return config


def measure_speed(args) -> dict:
    """Prepares the real sets several times and returns the figures of the fastest and of the median run."""
    config = make_config(f"{args.gsm8k / 'train.jsonl'},{args.math}", str(args.tokenizer), 4096)
    load_tokenizer(args.tokenizer)  # importing transformers is not the stage's work
    loading = []
    for _ in range(3):
        began = time.perf_counter()
        load_tokenizer(args.tokenizer)
        loading.append(time.perf_counter() - began)
    runs = []
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            began, cpu = time.perf_counter(), time.process_time()
            summary = prepare.prepare(config, Path(folder), None)
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        tokens = sum(facts["tokens"] for facts in summary["splits"].values())
        figures = {"tokens": tokens, "seconds": seconds, "cpu_seconds": cpu, "tokens_per_second": tokens / seconds}
        figures["tokens_per_second_without_loading"] = tokens / (seconds - min(loading))
        runs.append(figures)
        print("  ".join(f"{name} {value:,.2f}" for name, value in figures.items()), flush=True)
    runs.sort(key=lambda run: run["seconds"])
    kept = {name: facts["kept"] for name, facts in summary["splits"].items()}
    medians = {"fastest": runs[0], "median": runs[len(runs) // 2], "repeats": len(runs)}
    return {"kept": kept, "tokenizer_loading_seconds": min(loading), **medians}


def write_records(path: Path, num_records: int) -> None:
    """Writes distinct records of GSM8K's form: about 45 words of question and four steps."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_records):
            question = " ".join(rng.choices(WORDS, k=40)) + f" {number} and {rng.randint(2, 999)}?"
            steps = [f"{a} {rng.choice(WORDS)} and {b} {rng.choice(WORDS)} make <<{a}+{b}={a + b}>>{a + b}."
                     for a, b in ((rng.randint(1, 999), rng.randint(1, 999)) for _ in range(4))]  # fmt: skip
            last = steps[-1].rpartition(">>")[2].rstrip(".")
            file.write(json.dumps({"question": question, "answer": "\n".join([*steps, f"#### {last}"])}) + "\n")


def _resident_mb() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _prepare_watched(source: str, tokenizer: str, workdir: str, connection) -> None:
    """Runs in a process of its own; sends the memory before, every second, and what was prepared."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    load_tokenizer(tokenizer)
    before, samples, done = _resident_mb(), [], threading.Event()

    def watch():
        while not done.wait(1.0):
            samples.append(_resident_mb())

    thread = threading.Thread(target=watch)
    thread.start()
    began = time.perf_counter()
    summary = prepare.prepare(make_config(source, tokenizer, 4096), Path(workdir), None)
    seconds = time.perf_counter() - began
    done.set()
    thread.join()
    tokens = sum(facts["tokens"] for facts in summary["splits"].values())
    connection.send({"before_mb": before, "samples_mb": samples, "seconds": seconds, "tokens": tokens})


def measure_memory(num_records: int, tokenizer: str, parent: Path | None) -> dict:
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        source = Path(folder) / "records.jsonl"
        write_records(source, num_records)
        here, there = get_context("spawn").Pipe()
        worker = get_context("spawn").Process(
            target=_prepare_watched, args=(str(source), tokenizer, str(Path(folder) / "run"), there)
        )
        worker.start()
        there.close()
        found = here.recv()
        worker.join()
    samples = found.pop("samples_mb")
    quarters = [round(samples[len(samples) * k // 4]) for k in range(4)] + [round(samples[-1])]
    peak = max(samples) - found["before_mb"]
    print(
        f"{num_records:,} records: {found['tokens']:,} tokens in {found['seconds']:.0f} s, "
        f"{found['tokens'] / found['seconds']:,.0f} tokens/s; memory {found['before_mb']:.0f} MB before, "
        f"{peak:.0f} MB more at the peak ({1e6 * peak / num_records:.0f} bytes a record); over time {quarters} MB",
        flush=True,
    )
    return {"records": num_records, **found, "peak_above_mb": peak, "over_time_mb": quarters}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsm8k", type=Path, help="folder with GSM8K's train.jsonl and test.jsonl")
    parser.add_argument("--math", type=Path, help="a JSONL file of MATH")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder of a Qwen3 tokenizer")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--num-records", default="", help="sizes for the memory measurement, separated by commas")
    parser.add_argument("--folder", type=Path, help="where the made records go; 1M of them take 3 GB while they last")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    results = {
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
    }
    if args.gsm8k and args.math:
        results["speed"] = measure_speed(args)
    sizes = [int(size) for size in args.num_records.split(",") if size]
    if sizes:
        results["memory"] = [measure_memory(size, str(args.tokenizer), args.folder) for size in sizes]
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
