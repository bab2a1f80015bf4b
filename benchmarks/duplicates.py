"""Near-duplicates and decontamination at size: problems per second, and memory that does not grow by more than bytes.

    python benchmarks/duplicates.py --output benchmarks/results/duplicates.json

The prompts are made here: 20 to 80 words, as often as words are, every tenth one an earlier prompt with one or two
words changed and every twentieth a copy. Memory is what the process holds of its own (Linux), sampled while it works:
signatures that the system keeps of a mapped file, and can let go of, are not in it.
"""

import argparse
import json
import os
import platform
import random
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from tiny_reasoning_jax.data.contamination import EvaluationText
from tiny_reasoning_jax.data.duplicates import DTYPE, NUM_COLUMNS, find_near_duplicates, sign

CHUNK = 1000
SIMILARITY = 0.8


class Peak:
    """The most memory of its own that the process held meanwhile, in MB above what it had at the start."""

    def __enter__(self):
        self._start = self._held()
        self.megabytes = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.megabytes = max(self.megabytes, self._held() - self._start)

    def _held(self) -> float:
        text = Path("/proc/self/status").read_text()
        return int(text.split("RssAnon:")[1].split()[0]) / 1024


def make_prompts(num_problems: int, seed: int = 0):
    """Yields lists of CHUNK prompts and answers."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    words[::20] = [str(number) for number in range(1000)]
    weights = list(np.cumsum(1 / np.arange(10, 10 + len(words))))
    recent: list[list[str]] = []
    for _ in range(0, num_problems, CHUNK):
        chunk = []
        for row in range(CHUNK):
            if recent and row % 10 == 3:
                prompt = list(rng.choice(recent))
                for _ in range(rng.randint(1, 2)):
                    prompt[rng.randrange(len(prompt))] = rng.choice(words)
            elif recent and row % 20 == 7:
                prompt = rng.choice(recent)
            else:
                prompt = rng.choices(words, cum_weights=weights, k=rng.randint(20, 80))
            chunk.append(prompt)
        recent = recent[-9 * CHUNK :] + chunk
        yield [" ".join(prompt) for prompt in chunk], ["7"] * CHUNK


def measure(num_problems: int, folder: Path) -> dict[str, float]:
    """Returns speed and memory of both steps."""
    path = folder / f"{num_problems}.signatures"
    seconds = 0.0
    with path.open("wb") as file, Peak() as peak_sign:
        for texts, answers in make_prompts(num_problems):
            start = time.perf_counter()
            file.write(sign(texts, answers).tobytes())
            seconds += time.perf_counter() - start
    signatures = np.memmap(path, DTYPE, "r", shape=(num_problems, NUM_COLUMNS))
    with Peak() as peak_find:
        start = time.perf_counter()
        of, _ = find_near_duplicates(signatures, np.ones(num_problems, bool), SIMILARITY)
        found_seconds = time.perf_counter() - start
    path.unlink()
    return {
        "problems": num_problems,
        "dropped": int((of >= 0).sum()),
        "sign_microseconds": 1e6 * seconds / num_problems,
        "find_microseconds": 1e6 * found_seconds / num_problems,
        "problems_per_second": num_problems / (seconds + found_seconds),
        "sign_peak_mb": peak_sign.megabytes,
        "find_peak_mb": peak_find.megabytes,
        "find_bytes_per_problem": peak_find.megabytes * 2**20 / num_problems,
    }


def measure_contamination(num_tests: int, num_problems: int) -> dict[str, float]:
    """Returns speed and memory of looking prompts up in the text of a test set."""
    with Peak() as peak:
        evaluation = EvaluationText(13)
        for texts, _ in make_prompts(num_tests, seed=1):
            for number, text in enumerate(texts):
                evaluation.add(str(number), text)
    seconds, found = 0.0, 0
    for texts, _ in make_prompts(num_problems):
        start = time.perf_counter()
        found += sum(evaluation.find(text) is not None for text in texts)
        seconds += time.perf_counter() - start
    return {
        "test_problems": num_tests,
        "problems": num_problems,
        "found": found,
        "find_microseconds": 1e6 * seconds / num_problems,
        "kilobytes_per_test_problem": peak.megabytes * 1024 / num_tests,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-problems", type=int, nargs="+", default=[100_000, 1_000_000], help="thousands")
    parser.add_argument("--num-tests", type=int, default=10_000, help="test problems to decontaminate against")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:  # 0.5 GB for a million problems
        results = [measure(number // CHUNK * CHUNK, Path(folder)) for number in args.num_problems]
    results.append(measure_contamination(args.num_tests, 20_000))
    for figures in results:
        print("  ".join(f"{key} {value:,.1f}" for key, value in figures.items()))
    if args.output:
        machine = {"machine": platform.machine(), "python": platform.python_version(), "cores": os.cpu_count()}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({**machine, "numpy": np.__version__, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
