"""What a finished run leaves behind, made up: samples, results, metrics and facts."""

import json

import numpy as np

from tiny_reasoning_jax.eval.statistics import compare, summarize

CATEGORIES = ("arithmetic", "algebra", "geometry", "probability", "logic", "code")
SETTINGS = {
    "eval": {
        "protocol": "chat", "thinking": True, "instruction": "",
        "temperature": 0.6, "top_p": 0.95, "top_k": 20, "max_new_tokens": 512,
        "num_samples": 1, "tasks": "gsm8k=/home/someone/gsm8k",
    },
    "seed": 0,
}  # fmt: skip
RATES = {"before": (0.10, 0.02), "after": (1.1, 0.12), "model": (0.9, 0.1)}  # at difficulty 0, less by difficulty


def make_samples(rng, model, task="procedural", n=480, k=1):
    """k samples of n problems, spread over categories and difficulties; some cut off, some weak."""
    samples, (high, slope) = [], RATES[model]
    for number in range(n):
        category, difficulty = CATEGORIES[number % 6], number // 6 % 5 + 1
        left, right = np.random.default_rng(number).integers(10, 10 ** (difficulty + 1), size=2)
        for sample in range(k):
            is_right = rng.random() < high - slope * difficulty - 0.04 * (number % 6)
            verdict = "correct" if is_right else "wrong" if rng.random() < 0.8 else "unparsed"
            steps = difficulty * int(rng.integers(2, 9))
            given = {"correct": left + right, "wrong": left + right + rng.integers(1, 4), "unparsed": None}[verdict]
            how = None if given is None else "last number" if rng.random() < 0.1 else "boxed"
            lines = [f"Add the digits of place {place}: carry {place % 2}." for place in range(steps)]
            answer = f"So {given}" if how == "last number" else f"\\boxed{{{given}}}"
            end = "" if given is None else f"\n</think>\n\n{answer}"
            samples.append({
                "model": model, "task": task, "id": f"{task}-{category}-{number:04d}", "sample": sample, "seed": 0,
                "category": category, "difficulty": difficulty,
                "prompt": f"<|im_start|>user\nA farmer has {left} hens & buys {right}. How many now?<|im_end|>\n",
                "completion": "<think>\n" + "\n".join(lines) + end, "extracted": None if given is None else str(given),
                "how": how, "answer": str(left + right), "verdict": verdict,
                "truncated": given is None and number % 3 > 0, "unclosed": given is None,
                "num_tokens": 14 * steps + 12, "logp": -0.3 * steps, "detail": "",
                "grader": "2",
            })  # fmt: skip
    return samples


def make_results(samples):
    """results.json from all samples, as the eval stage writes it."""
    results, by_task = {}, {}
    for sample in samples:
        by_task.setdefault(sample["model"], {}).setdefault(sample["task"], []).append(sample)
    for step, (model, tasks) in enumerate(by_task.items()):
        summaries = {task: summarize(part) for task, part in tasks.items()}
        settings = SETTINGS | {"step": 600 * step}
        results[model] = {"model": f"step {600 * step}", "settings": settings, "seconds": 31.0, "tasks": summaries}
    if {"before", "after"} <= by_task.keys():
        pairs = {task: (part, by_task["after"][task]) for task, part in by_task["before"].items()}
        results["comparison"] = {task: compare(*pair) for task, pair in pairs.items()}
    return results


def make_metrics(rng, num_steps=600):
    """Lines of metrics.jsonl."""
    rows = []
    for step in range(1, num_steps + 1):
        loss = 0.35 + 5.6 * np.exp(-step / 60) + rng.normal(0, 0.05)
        rate = 3e-3 * min(1, step / 30) * (0.55 + 0.45 * np.cos(np.pi * step / num_steps))
        row = {
            "step": step, "loss": loss, "tokens": 8192 * step, "trained_tokens": 5000 * step,
            "grad_norm": abs(rng.normal(0.6, 0.1)) + 3 * np.exp(-step / 20), "learning_rate": rate,
            "tokens_per_second": rng.normal(14_000, 300), "data_wait_seconds": 0.002, "seconds": 0.6 * step,
        }  # fmt: skip
        if step % 50 == 0:
            row["validation_loss"] = loss + 0.04
        rows.append(row)
    return rows


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def read_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def write_eval(workdir, samples):
    """Writes eval/samples.jsonl and the results.json that belongs to it."""
    (workdir / "eval").mkdir(parents=True, exist_ok=True)
    write_lines(workdir / "eval" / "samples.jsonl", samples)
    (workdir / "eval" / "results.json").write_text(json.dumps(make_results(samples)), encoding="utf-8")


def make_workdir(path, models=("before", "after"), tasks=("procedural",), n=480, k=1):
    """Writes what a finished run leaves behind."""
    rng = np.random.default_rng(0)
    samples = [sample for model in models for task in tasks for sample in make_samples(rng, model, task, n, k)]
    write_eval(path, samples)
    splits = {}
    for number, split in enumerate(("train", "validation", "test")):
        splits[split] = {
            "kept": 100_000 // 50**number, "tokens": 14_325_000 // 50**number,
            "length": {"mean": 143.3, "p50": 128, "p90": 260, "p99": 402, "max": 511},
            "by_category": {category: dict.fromkeys("12345", 3333 // 50**number) for category in CATEGORIES},
            "dropped": {} if number else {"longer than seq_len": 12, "duplicate": 3417},
        }  # fmt: skip
    summary = {"fingerprint": {"seed": 0, "data.source": "procedural"}, "vocab_size": 768, "splits": splits}
    config = {"workdir": "runs/x", "seed": 0, "stages": ["data"], "train": {"num_steps": 600, "b1": 0.9}}
    run = {
        "device": "TFRT_CPU_0 (cpu)", "num_parameters": 827_392, "train_seconds": 361.4, "tokens": 4_915_200,
        "eval_seconds": 55.5, "versions": {"python": "3.12.3", "jax": "0.10.2", "flax": "0.12.0"},
    }  # fmt: skip
    write_lines(path / "metrics.jsonl", make_metrics(rng))
    (path / "data").mkdir()
    for name, value in {"data/summary": summary, "config": config, "run": run}.items():
        (path / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    return path
