"""Kills a small run by the hundred and fills its disk up, and compares what becomes of it with a run left alone.

    python benchmarks/faults.py --output benchmarks/results/faults.json       # 200 kills, then the disk; root for that
    python benchmarks/faults.py --only kills --kills 50 --seed 7

Kills: SIGKILL to the process group, drawn from --seed: at chosen moments (CATEGORIES) and at any moment of a process's
life. A chain is one run that is killed, started again, and so on, until a last start ends by itself; then its
parameters, master and moments (every array of every checkpoint that is kept), the place in the data, metrics, prepared
data, grades, samples, results and exported files must equal those of the reference, which was never killed and compiled
all its programs; the others take them from JAX's compilation cache, for speed. After each kill the steps that metrics
tell of and that no checkpoint holds are counted; there may be no more than checkpoint.every_steps of them.

Disk: a tmpfs of its own for every case is filled up to the last byte at one moment. The process must end with exit code
3 and a message that names a path, without a traceback; what checkpoint there is must restore; with the space back the
same command must end as the reference. The command ends with 1 if anything did not.
"""

import argparse
import functools
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JAX_PLATFORMS", "cpu")
ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import jax  # noqa: E402

import same_run  # noqa: E402
from faulty_run import NO_FAULT, Ended, Fault, Runner, fill  # noqa: E402
from small_run import SMALL  # noqa: E402
from tiny_reasoning_jax import events  # noqa: E402
from tiny_reasoning_jax.data.curriculum import difficulty_weights  # noqa: E402
from tiny_reasoning_jax.data.plan import Plan  # noqa: E402
from tiny_reasoning_jax.data.prepared import PreparedSplit  # noqa: E402
from tiny_reasoning_jax.model.store import committed_steps  # noqa: E402
from tiny_reasoning_jax.train.checkpoint import cadence, find_damage  # noqa: E402

STEPS, ACCUM = 24, 4
SETTINGS = {
    **SMALL, "stages": "data,grade,train,eval,export", "data.num_problems": 120, "train.num_steps": STEPS,
    "train.accum_steps": ACCUM, "train.validate_every_steps": 4,
    "grade.num_problems": 20, "grade.num_samples": 2,
}  # fmt: skip
# An adaptive curriculum acts 16 steps after it has asked the model, so that of 24 the last ones follow it. Training
# waits for every save where few steps may be lost; of 10, one may be taken while a save is written.
RECIPES = {
    "staged": {"data.curriculum": "staged", "checkpoint.every_steps": 3},
    "adaptive": {"data.curriculum": "adaptive", "train.num_probe": 5, "checkpoint.every_steps": 10},
}
# Enough lines of metrics between two checkpoints that they need a new page of the disk.
DISK = {"data.curriculum": "staged", "checkpoint.every_steps": 12}
TRAINING = (
    "between two accumulations", "during an asynchronous save", "at the last step of an epoch", "inside packing",
    "across a curriculum change", "during validation", "at a line of metrics",
)  # fmt: skip
# In the order of a run's life; how many of each a chain has.
CATEGORIES = {
    "data": 1, "grading": 1, **dict.fromkeys(TRAINING, 1), "evaluation": 2, "export": 2, "report": 1,
}  # fmt: skip
ANY = "any moment"


def make_flags(changes: dict[str, Any]) -> list[str]:
    settings = {**SETTINGS, **changes}
    return [f"--config={ROOT}/configs/reason.py:tiny", *(f"--config.{k}={v}" for k, v in settings.items())]


class Reference:
    """A run that was never killed: what it came to, and at which of its steps something of interest happens."""

    def __init__(self, runner: Runner, folder: Path, changes: dict[str, Any]):
        self.flags, self.every_steps = make_flags(changes), changes["checkpoint.every_steps"]
        ended = runner.run(folder / "reference" / "0", flags=self.flags, with_cache=False)
        assert ended.status == 0, ended.output
        self.workdir = folder / "reference" / "0" / "run"
        cached = runner.run(folder / "reference" / "1", flags=self.flags)  # fills the cache
        assert cached.status == 0, cached.output
        # About what a run takes that finds its programs there; a busy machine does not count.
        self.seconds = 0.4 * cached.cpu_seconds
        self.facts = same_run.describe(self.workdir)
        differing = same_run.differences(self.facts, folder / "reference" / "1" / "run")
        assert not differing, f"two runs that nobody disturbed differ: {differing}"
        self._find_steps(changes["data.curriculum"])

    def _find_steps(self, curriculum: str) -> None:
        """Which steps are saved, draw the last example of an epoch, and are the first of another mixture."""
        every, _ = cadence(self.every_steps)
        self.save_steps = [*range(every, STEPS, every), STEPS]
        split = PreparedSplit.load(self.workdir / "data" / "train")
        plan = Plan(
            split, curriculum="linear" if curriculum == "adaptive" else curriculum, num_steps=STEPS,
            batch_size=SETTINGS["train.batch_size"], seq_len=SETTINGS["train.seq_len"], seed=0,
        )  # fmt: skip
        if curriculum == "adaptive":  # what was observed there decides; its cursors are in the checkpoints only
            self.changes = [17, 21]
        else:
            weights = [difficulty_weights(curriculum, s / STEPS, plan.counts, ()) > 0 for s in range(STEPS)]
            self.changes = [s + 1 for s in range(1, STEPS) if (weights[s] != weights[s - 1]).any()]
        place, sizes = plan.start(), [max(len(pool.members), 1) for pool in plan._pools]
        epochs = [[0] * len(sizes)]
        for _ in range(STEPS):
            plan.next_rows(place)
            epochs.append([cursor // size for cursor, size in zip(place.cursors, sizes, strict=True)])
        self.epoch_ends = [s for s in range(1, STEPS + 1) if epochs[s] != epochs[s - 1]]


def draw_fault(category: str, step: int, rng: random.Random) -> Fault:
    """A random moment of a category; `step` is where in the training, for those in it."""
    when = rng.choice(["before", "after"])
    any_of = lambda *faults: rng.choice(faults)
    if category == "data":
        return any_of(Fault("tokenise", rng.randint(1, 2), when), Fault("replace", 1, when, file="data"))
    if category == "grading":
        return any_of(
            Fault("judged", rng.randint(1, 40), when), Fault("replace", rng.randint(1, 2), when, file="grades.json")
        )
    if category == "between two accumulations":
        return Fault("micro-step", rng.randint(1, ACCUM - 1), step=step)
    if category == "during an asynchronous save":
        return any_of(
            Fault("save", 1, "after", step, delay=rng.uniform(0.001, 0.15)), Fault("checksums", 1, when, step)
        )
    if category == "inside packing":
        return Fault(rng.choice(["pack", "read rows"]), rng.randint(1, 6), when)
    if category == "during validation":
        return Fault("validation", 1, when, step)
    if category == "at a line of metrics":
        return Fault("metrics line", 1, rng.choice(["before", "torn", "after"]), step)
    if category in ("at the last step of an epoch", "across a curriculum change"):
        return any_of(Fault("micro-step", rng.randint(1, ACCUM - 1), step=step), Fault("step", 1, when, step))
    if category == "evaluation":
        name = rng.choice(["samples.jsonl", "results.json"])
        written = Fault("completion", rng.randint(1, 10), rng.choice(["before", "torn", "after"]))
        return any_of(written, written, Fault("replace", 1, when, file=name))
    if category == "export":
        name = rng.choice(["hf", "export.json"])
        return any_of(Fault("export tensor", rng.randint(1, 13), when), Fault("replace", 1, when, file=name))
    return Fault("report", 1, when)


def draw_step(category: str, reference: Reference, rng: random.Random) -> int:
    some = {
        "at the last step of an epoch": reference.epoch_ends,
        "across a curriculum change": reference.changes,
        "during an asynchronous save": reference.save_steps,
        "during validation": range(4, STEPS + 1, 4),
    }
    return rng.choice(some.get(category, range(1, STEPS + 1)))


def draw_chain(number: int, reference: Reference, rng: random.Random) -> list[tuple[str, Fault, float]]:
    """(category, fault, seconds until the kill where it is any moment) of every kill, in the order of a run's life."""
    if number % 4 == 3:
        return [(ANY, NO_FAULT, rng.uniform(0.2, reference.seconds)) for _ in range(12)]
    # What the data thread does is counted from where a process begins, and so these steps decide their order only.
    drawn = [(draw_step(category, reference, rng), category) for category in TRAINING]
    order = [(c, 0) for c in ("data", "grading")] + [(c, s) for s, c in sorted(drawn)]
    order += [(c, 0) for c in ("evaluation", "evaluation", "export", "export", "report")]
    chain = [(category, draw_fault(category, step, rng), 0.0) for category, step in order]
    for _ in range(2):
        chain.insert(rng.randint(0, len(chain)), (ANY, NO_FAULT, rng.uniform(0.2, reference.seconds)))
    return chain


def look(workdir: Path, tally: dict[str, Any]) -> tuple[int, int]:
    """What a kill has cost; returns the step that the next session must go on from, and how many are lost."""
    folder = workdir / "checkpoints"
    committed = max(committed_steps(folder), default=0) if folder.is_dir() else 0
    lines = (workdir / "metrics.jsonl").read_text().split("\n")[:-1] if (workdir / "metrics.jsonl").exists() else []
    lost = max((json.loads(line)["step"] for line in lines), default=0) - committed
    begun = max((e["step"] for e in events.load_events(workdir) if e["event"] == "save"), default=0)
    name = "most_lost_steps_while_a_save_was_written" if begun > committed else "most_lost_steps"
    tally[name] = max(tally[name], lost)
    return committed, lost


def new_row() -> dict[str, Any]:
    return dict.fromkeys(
        ("kills", "not_reached", "mismatches", "most_lost_steps", "most_lost_steps_while_a_save_was_written"), 0
    )


def run_chain(runner: Runner, reference: Reference, folder: Path, chain, rows) -> tuple[int, int, list[str]]:
    """Kills one run until it ends; returns kills, starts and what is wrong with it."""
    workdir, wrong, killed_in, expected, starts = folder / "run", [], [], 0, 0
    for category, fault, kill_after in [*chain, ("", NO_FAULT, 0.0)]:
        told = len(events.load_events(workdir))
        ended = runner.run(folder, fault, kill_after=kill_after, flags=reference.flags)
        starts += 1
        resumed = [e["step"] for e in events.load_events(workdir)[told:] if e["event"] == "resume"]
        if resumed and resumed != [expected]:
            wrong.append(f"went on from {resumed}, the newest checkpoint was of step {expected}")
        if ended.status == -9:
            rows[category]["kills"] += 1
            killed_in.append(category)
            expected, lost = look(workdir, rows[category])
            if lost > reference.every_steps:
                wrong.append(f"a kill ({category}) lost {lost} steps, checkpoint.every_steps={reference.every_steps}")
            continue
        if category:
            rows[category]["not_reached"] += 1  # the run was at its end before
        if ended.status:
            wrong.append(f"after a kill {killed_in[-1:]} it ended with {ended.status}: {ended.output[-1500:]}")
        break
    wrong += same_run.differences(reference.facts, workdir)
    if wrong:
        for category in set(killed_in):
            rows[category]["mismatches"] += 1
    return len(killed_in), starts, wrong


def run_kills(runner: Runner, root: Path, num_kills: int, seed: int, write) -> dict[str, Any]:
    """Kills until there are enough; calls write(facts) after every chain."""
    rng, began = random.Random(seed), time.monotonic()
    references: dict[str, Reference] = {}
    facts: dict[str, Any] = {
        "seed": seed, "num_steps": STEPS, "kills": 0, "starts": 0, "chains": 0,
        "every_steps": {name: changes["checkpoint.every_steps"] for name, changes in RECIPES.items()},
        "chains_that_differ": [], "categories": {name: new_row() for name in (*CATEGORIES, ANY)},
    }  # fmt: skip
    while facts["kills"] < num_kills:
        number = facts["chains"]
        name = list(RECIPES)[number % len(RECIPES)]
        if name not in references:
            references[name] = reference = Reference(runner, root / name, RECIPES[name])
            print(
                f"{name}: epochs end at steps {reference.epoch_ends}, the mixture changes at {reference.changes}",
                flush=True,
            )
        reference, folder = references[name], root / f"chain-{number}"
        chain = draw_chain(number // len(RECIPES), reference, rng)[: num_kills - facts["kills"]]
        killed, started, wrong = run_chain(runner, reference, folder, chain, facts["categories"])
        facts |= {"kills": facts["kills"] + killed, "starts": facts["starts"] + started, "chains": number + 1}
        rate = facts["kills"] / (time.monotonic() - began)
        print(
            f"chain {number + 1} ({name}): {killed} kills, {'DIFFERS' if wrong else 'as never killed'}; "
            f"{facts['kills']} of {num_kills} kills, {60 * rate:.1f} a minute, "
            f"{(num_kills - facts['kills']) / max(rate, 1e-9) / 60:.0f} min left",
            flush=True,
        )
        if wrong:
            facts["chains_that_differ"].append(
                {"chain": number + 1, "recipe": name, "kills": chain, "wrong": wrong[:9]}
            )
            print("\n".join(wrong[:9]), flush=True)
        else:
            subprocess.run(["rm", "-rf", str(folder)], check=True)
        write(facts)
    return facts


# --- the disk -----------------------------------------------------------------------------------------

DISK_BYTES = 96 * 2**20
GOOD = "refused; with space again as never stopped"
# What the disk is filled up at.
MOMENTS = {
    "before the start": None,
    "data preparation, examples tokenised": Fault("tokenise"),
    "data preparation, before the folder gets its name": Fault("replace", file="data"),
    "grading, an answer judged": Fault("judged", 5),
    "before the first checkpoint": Fault("save"),
    "before the second checkpoint": Fault("save", 2),
    "while the second checkpoint is written": Fault("save has room", 2, "after"),
    "before the checksums of the second checkpoint": Fault("checksums", 2),
    "a line of metrics after the first checkpoint": Fault("metrics line", step=14),
    "an event, of the second checkpoint": Fault("event", 3),
    "evaluation, a completion written down": Fault("completion", 3),
    "evaluation, before its samples are replaced": Fault("replace", file="samples.jsonl"),
    "evaluation, before its results are replaced": Fault("replace", file="results.json"),
    "export, before a tensor": Fault("export tensor", 1),
    "export, before export.json is replaced": Fault("replace", file="export.json"),
    "before the report": Fault("report"),
}


class Disk:
    """A small file system in memory; a context manager that gives its folder. Needs root."""

    def __init__(self, where: Path):
        self.folder = where

    def __enter__(self) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(self.folder)]
        subprocess.run(mount, check=True, capture_output=True, text=True)
        return self.folder

    def __exit__(self, *_) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)


def check_full(ended: Ended, disk: Path) -> list[str]:
    """What is wrong with the way a process ended on a full disk."""
    wrong = [] if ended.status == 3 else [f"exit code {ended.status}"]
    wrong += ["a traceback"] if "Traceback" in ended.output else []
    message = find_message(ended)
    wrong += [] if str(disk) in message or "run/" in message or "run " in message else ["no path in the message"]
    workdir = disk / "run"
    steps = committed_steps(workdir / "checkpoints") if (workdir / "checkpoints").is_dir() else []
    return wrong + [
        f"step {step}: {damage}" for step in steps for damage in find_damage(workdir / "checkpoints" / str(step))
    ]


def find_message(ended: Ended) -> str:
    lines = ended.output.strip().splitlines()
    return next((line for line in reversed(lines) if line.startswith("error:")), lines[-1] if lines else "")


def run_disk(runner: Runner, root: Path, only: list[str] | None, write) -> dict[str, Any]:
    """Fills the disk at every moment; calls write(facts) after each."""
    reference, cases = Reference(runner, root / "disk", DISK), []
    for number, (moment, fault) in enumerate(MOMENTS.items()):
        if only and moment not in only:
            continue
        with Disk(root / f"disk-{number}") as disk:
            ballast, log = disk / "ballast", root / f"disk-{number}.log"
            if fault is None:
                fill(ballast)
                ended = runner.run(disk, flags=reference.flags, log=log)
            else:
                ended = runner.run(disk, fault._replace(ballast=str(ballast)), flags=reference.flags, log=log)
            was_full = ballast.exists()
            wrong = check_full(ended, disk) if was_full else ["the moment did not come"]
            ballast.unlink(missing_ok=True)
            again = runner.run(disk, flags=reference.flags, log=log.with_suffix(".again"))
            if again.status:
                wrong.append(f"with space again it ended with {again.status}: {again.output[-800:]}")
            else:
                wrong += same_run.differences(reference.facts, disk / "run")
        outcome = "; ".join(wrong) or GOOD
        message = find_message(ended).replace(str(root), "...")
        cases.append({"moment": moment, "exit_code": ended.status, "message": message[:200], "outcome": outcome})
        print(
            f"disk {number + 1} of {len(MOMENTS)}: {moment}: exit code {ended.status}, {outcome}\n    {message[:200]}",
            flush=True,
        )
        facts = {"bytes": DISK_BYTES, "cases": cases, "wrong": sum(case["outcome"] != GOOD for case in cases)}
        write(facts)
    return facts


def print_kills(facts: dict[str, Any]) -> None:
    print(f"{'moment':32}{'kills':>7}{'mismatches':>12}{'lost':>6}{'lost, save on its way':>23}")
    for name, row in facts["categories"].items():
        print(f"{name:32}{row['kills']:7}{row['mismatches']:12}{row['most_lost_steps']:6}"
              f"{row['most_lost_steps_while_a_save_was_written']:23}")  # fmt: skip
    print(f"{facts['kills']} kills, {facts['starts']} starts, {facts['chains']} chains, "
          f"{len(facts['chains_that_differ'])} that differ", flush=True)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--only", choices=("kills", "disk"))
    parser.add_argument("--seed", type=int, help="of the moments; default: a new one")
    parser.add_argument("--moments", nargs="*", help="of the disk, those to try; default: all")
    parser.add_argument("--output", type=Path, help="what it holds of the other part is kept")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    facts = json.loads(args.output.read_text()) if args.output and args.output.exists() else {}
    facts |= {"command": "python benchmarks/faults.py", "python": platform.python_version(), "jax": jax.__version__}
    bad = 0

    def write(part: str, found: dict[str, Any]) -> None:
        facts[part] = found
        if args.output:
            args.output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")

    shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shm) as root, Runner([], Path(root) / "cache") as runner:
        if args.only != "disk":
            found = run_kills(runner, Path(root), args.kills, seed, functools.partial(write, "kills"))
            print_kills(found)
            bad += len(found["chains_that_differ"])
        if args.only != "kills":
            bad += run_disk(runner, Path(root), args.moments, functools.partial(write, "disk"))["wrong"]
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
