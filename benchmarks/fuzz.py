"""Damaged files, by the hundred thousand, for everything that reads files of strangers.

    python benchmarks/fuzz.py --output benchmarks/results/fuzz.json

Every input must be accepted, refused with a message (UserError), or have its bad records dropped with a reason. What is
anything else (another exception, a crash, a hang, memory used up, a file written) is a defect: it is printed with the
number of its input, and the command ends with 1. Input i of a reader is the same in every run of one seed:

    python tests/fuzz/fuzz_worker.py FOLDER "safetensors header" 0 1234 1235
"""

import argparse
import json
import platform
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests" / "fuzz")]

import fuzz_pool  # noqa: E402
from fuzz_readers import READERS  # noqa: E402

COLUMNS = ("accepted", "records dropped", "refused", "other")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=120_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1, help="at work at once")
    parser.add_argument(
        "--readers", nargs="*", default=[n for n, r in READERS.items() if r.share], help="the names of those to run"
    )
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    readers = [READERS[name] for name in args.readers]
    parts = sum(reader.share for reader in readers)
    start = time.perf_counter()
    print(f"{'reader':26}{'inputs':>9}" + "".join(f"{name:>17}" for name in COLUMNS) + "  slowest  peak MB")
    rows, failed = [], False
    with ThreadPoolExecutor(args.processes) as pool:
        counts = [-(-args.inputs * reader.share // parts) for reader in readers]
        jobs = [
            pool.submit(fuzz_pool.fuzz, reader.name, n, args.seed) for reader, n in zip(readers, counts, strict=True)
        ]
        for job, count in zip(jobs, counts, strict=True):
            found = job.result()
            numbers = {name: found.outcomes[name] for name in COLUMNS}
            assert sum(numbers.values()) == count, (found.reader, numbers, count)
            print(
                f"{found.reader:26}{count:9,}" + "".join(f"{n:17,}" for n in numbers.values())
                + f"{found.slowest:8.2f}s{found.peak_mb:9,}", flush=True,
            )  # fmt: skip
            rows.append({"reader": found.reader, "inputs": count, **numbers})
            rows[-1] |= {
                "different_messages": len(found.messages),
                "slowest_cpu_s": found.slowest,
                "peak_mb": found.peak_mb,
            }
            for number, what in found.others[:10]:
                failed = True
                print(f"  input {number}: {what}", flush=True)
    total = {name: sum(row[name] for row in rows) for name in ("inputs", *COLUMNS)}
    print(f"{'all':26}{total['inputs']:9,}" + "".join(f"{total[name]:17,}" for name in COLUMNS))
    if args.output:
        facts = {
            "command": "python benchmarks/fuzz.py",
            "seed": args.seed,
            "seconds": round(time.perf_counter() - start),
        }
        facts |= {"python": platform.python_version(), "processes": args.processes, "total": total, "readers": rows}
        args.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
