"""Procedural problems per second on one core, and the number of distinct problems of every family. CPU only.

    python benchmarks/procedural.py --output benchmarks/results/procedural.json
    python benchmarks/procedural.py --spaces [family ...]

The first prints the speed over the whole mix and of the slowest families. The second draws problems until
nothing new turns up, or 100,000 were met, and writes the sizes into tiny_reasoning_jax/data/procedural/spaces.py:
of the families named, or of those whose generator changed since they were counted. A family takes up to some
minutes, most take less than one.
"""

import argparse
import itertools
import json
import os
import platform
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_reasoning_jax.data.procedural import FAMILIES, SPLITS, families, generate, spaces

LEVELS = range(1, 6)

HEADER = '''"""How many distinct problems the families have. Written by `python benchmarks/procedural.py --spaces`.

SPACES has the family and difficulty of every space below 100,000 problems, with its size in the splits test,
validation and train, as met by drawing until ten times as many drafts and 50,000 more brought nothing new, or in two
million drafts. MARKS says which generator was counted.
"""
'''


def count_all(names: list[str]) -> None:
    """Counts the families named and puts the sizes of each into spaces.py."""
    sizes, marks = dict(spaces.SPACES), dict(spaces.MARKS)
    for name in names:
        for level in LEVELS:
            start = time.process_time()
            found = families.count_space(name, level)
            sizes.pop((name, level), None)
            if found is not None:
                sizes[name, level] = found
            text = f"{sum(found):,}" if found else "100,000 or more"
            print(f"{name}-{level}: {text} ({time.process_time() - start:.1f} s)", flush=True)
        marks[name] = families.mark_family(name)
        write_table(sizes, marks)


def write_table(sizes: dict, marks: dict) -> None:
    order = list(FAMILIES)
    lines = [HEADER, "SPACES = {"]
    lines += [f'    ("{name}", {level}): {sizes[name, level]},' for name, level in itertools.product(order, LEVELS)
              if (name, level) in sizes]  # fmt: skip
    lines += ["}", "", "MARKS = {", *(f'    "{name}": "{marks[name]}",' for name in order if name in marks), "}", ""]
    Path(spaces.__file__).write_text("\n".join(lines))


def measure(num_problems: int) -> dict:
    """Returns problems per second of one core: over the mix of every split, and by family from slow to fast."""
    speeds = {}
    for split in SPLITS:
        start = time.process_time()
        made = sum(1 for _ in generate(split, num_problems, seed=1))
        speeds[split] = made / (time.process_time() - start)
    by_family = {}
    for name in FAMILIES:
        start, made = time.process_time(), 0
        for level in LEVELS:
            made += sum(1 for _ in itertools.islice(families.problems_of("train", name, level, 1), 200))
        by_family[name] = made / (time.process_time() - start)
    return {"problems_per_second": speeds, "by_family": dict(sorted(by_family.items(), key=lambda item: item[1]))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--spaces", nargs="*", metavar="family", help="count the spaces of these families; none: of the changed"
    )
    parser.add_argument("--num_problems", type=int, default=20_000, help="problems per split that are timed")
    parser.add_argument("--output", type=Path, help="where to write what is printed, as JSON")
    flags = parser.parse_args()
    if flags.spaces is not None:
        unknown = set(flags.spaces) - set(FAMILIES)
        if unknown:
            parser.error(f"unknown families {sorted(unknown)}; known: {', '.join(FAMILIES)}")
        stale = [name for name in FAMILIES if families.mark_family(name) != spaces.MARKS.get(name)]
        return count_all(flags.spaces or stale)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    found = measure(flags.num_problems)
    for split, speed in found["problems_per_second"].items():
        print(f"{split}: {speed:,.0f} problems/s over {len(FAMILIES)} families x 5 difficulties")
    for name, speed in itertools.islice(found["by_family"].items(), 8):
        print(f"  {name}: {speed:,.0f}")
    facts = {"python": platform.python_version(), "machine": platform.machine(), "num_problems": flags.num_problems}
    if flags.output:
        flags.output.write_text(json.dumps({**facts, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
