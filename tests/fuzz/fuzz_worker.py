"""Damages and reads, in a process of its own: `python fuzz_worker.py FOLDER READER SEED START STOP`, from fuzz_pool.

Input i is the same whenever it is asked for. A line of JSON goes out for every input: its number, its outcome, the
seconds of processor time it took. Memory beyond MAX_BYTES is refused by the system; SECONDS are too long.
"""

import json
import logging
import os
import random
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
MAX_BYTES = 2 << 30
SECONDS = 30.0  # by the clock: the machine may be busy


class TookTooLong(BaseException):
    """Is no Exception, so that no reader takes it for one."""


def stop_waiting(*_) -> None:
    """The handler of the alarm that `run_one` sets."""
    raise TookTooLong


def find_targets(reader, folder: Path) -> dict[str, bytes]:
    """Path in the folder -> whole content, of the files that get damaged."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if any(str(path).endswith(end) for end in reader.damage) and "hf" not in path.parts
    }


def run_one(reader, folder: Path, targets: dict[str, bytes], rng: random.Random) -> tuple[str, str]:
    """Damages one file, reads the folder, makes it whole again; returns the outcome and what there is to say of it."""
    from tiny_reasoning_jax.errors import UserError

    name = rng.choice(sorted(targets))
    damage = next(damage for end, damage in reader.damage.items() if name.endswith(end))
    damaged = damage(rng, targets[name])
    (folder / name).write_bytes(damaged)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        dropped = reader.read(folder)
        outcome = ("records dropped", "") if dropped else ("accepted", "")
    except UserError as error:
        # Whoever prints it must be able to, and it must be of a size that is read.
        outcome = ("refused", str(error)) if str(error).isprintable() or len(str(error)) < 60_000 else ("other", "long")
    except TookTooLong:
        outcome = ("other", f"took more than {SECONDS} s: {traceback.format_exc(limit=-3)}")
    except BaseException as error:
        outcome = ("other", f"{type(error).__name__}: {str(error)[:300]} {traceback.format_exc(limit=-4)[-900:]}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        (folder / name).write_bytes(targets[name])
    return outcome


def main(root: Path, reader_name: str, seed: str, start: int, stop: int) -> None:
    from fuzz_readers import READERS

    logging.disable()
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the libraries print
    reader = READERS[reader_name]
    signal.signal(signal.SIGALRM, stop_waiting)
    folder = root / "work" / "given"
    folder.mkdir(parents=True)
    os.chdir(root / "work")
    reader.create(folder)
    targets = find_targets(reader, folder)
    assert targets, reader.name
    reader.read(folder)  # what is whole is accepted; and what is imported late is there before memory is counted
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MAX_BYTES,) * 2)
    before = sorted(str(path) for path in root.rglob("*"))
    print("ready", file=output)
    for number in range(start, stop):
        begin = time.process_time()
        outcome, detail = run_one(reader, folder, targets, random.Random(f"{reader_name} {seed} {number}"))
        seconds = round(time.process_time() - begin, 4)
        detail = detail[:2000] if outcome == "other" else detail[:160]
        print(json.dumps([number, outcome, detail, seconds]), file=output)
    after = sorted(str(path) for path in root.rglob("*"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(json.dumps(["end", sorted(set(after) ^ set(before)), peak]), file=output)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
