"""Damaged files, by the hundred thousand, for everything that reads files of strangers.

    python benchmarks/fuzz.py --output benchmarks/results/fuzz.json

Every input must be accepted, refused with a message (UserError), or have its bad records dropped with a reason. What is
anything else (another exception, a crash, a hang, memory used up, a file written) is a defect: it is printed with the
number of its input, and the command ends with 1. Input i of a reader is the same in every run of one seed:

    python tests/fuzz/fuzz_worker.py FOLDER "safetensors header" 0 1234 1235
"""

import argparse
import json
import math
import platform
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests" / "fuzz")]

import fuzz_pool  # noqa: E402
from fuzz_readers import READERS  # noqa: E402

COLUMNS = ("accepted", "records dropped", "refused", "other")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=120_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--readers", nargs="*", default=[n for n, r in READERS.items() if r.share], help="the names of those to run"
    )
    parser.add_argument("--output", type=Path)
    parser.add_argument("--keep", action="store_true", help="the rows of other readers that are in the output")
    args = parser.parse_args()
    parts = sum(reader.share for reader in READERS.values())
    rows = {row["reader"]: row for row in json.loads(args.output.read_text())["readers"]} if args.keep else {}
    print(f"{'reader':26}{'inputs':>9}" + "".join(f"{name:>17}" for name in COLUMNS) + "  slowest  peak MB")
    for name in args.readers:
        found = fuzz_pool.fuzz(name, math.ceil(args.inputs * READERS[name].share / parts), args.seed)
        numbers = {column: found.outcomes[column] for column in COLUMNS}
        rows[name] = {"reader": name, "seed": args.seed, "inputs": sum(numbers.values()), **numbers}
        rows[name] |= {"slowest_cpu_s": found.slowest, "peak_mb": found.peak_mb}
        print_row(rows[name])
        for number, what in found.others[:10]:
            print(f"  input {number}: {what}", flush=True)
        total = {column: sum(row[column] for row in rows.values()) for column in ("inputs", *COLUMNS)}
        if args.output:
            facts = {"command": "python benchmarks/fuzz.py", "python": platform.python_version(), "total": total}
            facts["readers"] = [rows[name] for name in READERS if name in rows]
            args.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print_row({"reader": "all", **total})
    return int(total["other"] > 0)


def print_row(row: dict) -> None:
    line = f"{row['reader']:26}{row['inputs']:9,}" + "".join(f"{row[column]:17,}" for column in COLUMNS)
    print(line + (f"{row['slowest_cpu_s']:8.2f}s{row['peak_mb']:9,}" if "peak_mb" in row else ""), flush=True)


if __name__ == "__main__":
    sys.exit(main())
