"""Milliseconds a program in the sandbox, over reference solutions of HumanEval and MBPP with their tests.

    python benchmarks/sandbox.py --humaneval FILE --mbpp FILE --output benchmarks/results/sandbox.json

On one core, where two workers can gain only what they wait, and on all; beside it what a new Python process for each
program would cost, without any protection. Processor time is of all processes together. On a shared machine the wall
clock says as much about the neighbours: the load at the start is noted.
"""

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import time
from pathlib import Path

from tiny_reasoning_jax.data.sources import read_source
from tiny_reasoning_jax.eval.judge import find_program
from tiny_reasoning_jax.eval.sandbox import Sandbox


def read_jobs(sources: list[str], count: int) -> list[tuple[str, str]]:
    """Returns (program, tests) of `count` problems drawn from all."""
    problems = [problem for source in sources for problem in read_source(source)]
    return [
        (find_program(problem.answer, problem.tests), problem.tests)
        for problem in random.Random(0).sample(problems, count)
    ]


def measure(run, jobs: list[tuple[str, str]]) -> dict[str, float]:
    """Returns milliseconds a program of `run(jobs)`, which gives the number that passed; its start and end included."""
    before, start = cpu_seconds(), time.perf_counter()
    passed = run(jobs)
    wall, cpu = time.perf_counter() - start, cpu_seconds() - before
    return {
        "programs": len(jobs),
        "passed": passed,
        "wall_ms": round(1e3 * wall / len(jobs), 2),
        "cpu_ms": round(1e3 * cpu / len(jobs), 2),
    }


def cpu_seconds() -> float:
    """Processor time of this process and of all that it started and that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def run_sandbox(jobs: list[tuple[str, str]], num_workers: int) -> int:
    with Sandbox(num_workers=num_workers) as sandbox:
        return sum(outcome.passed for outcome in sandbox.judge_all(jobs))


def run_processes(jobs: list[tuple[str, str]]) -> int:
    """A new Python for each program, with its tests in the same namespace, nothing held back."""
    runs = (subprocess.run([sys.executable, "-S", "-c", f"{p}\n{t}"], capture_output=True) for p, t in jobs)
    return sum(done.returncode == 0 for done in runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--humaneval", required=True, help="HumanEval.jsonl.gz")
    parser.add_argument("--mbpp", required=True, help="mbpp.jsonl")
    parser.add_argument("--num-programs", type=int, default=500)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    jobs = read_jobs([args.humaneval, args.mbpp], args.num_programs)
    cores = os.sched_getaffinity(0)
    results = []
    for used in ({min(cores)}, cores):
        os.sched_setaffinity(0, used)
        for num_workers in (1, 2):
            load = os.getloadavg()[0]
            figures = measure(lambda jobs, num_workers=num_workers: run_sandbox(jobs, num_workers), jobs)
            results.append({"cores": len(used), "workers": num_workers, "load": round(load, 1), **figures})
    results.append({"cores": len(cores), "processes": "new, unprotected", **measure(run_processes, jobs[:100])})
    for figures in results:
        print("  ".join(f"{key} {value}" for key, value in figures.items()))
    if args.output:
        machine = {
            "machine": platform.machine(),
            "kernel": ".".join(platform.release().split(".")[:2]),
            "python": platform.python_version(),
        }
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({**machine, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
