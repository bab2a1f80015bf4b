"""Contenders of peers.py as processes that take turns: what they measured is kept when one of them hangs or dies."""

import contextlib
import json
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import processes  # benchmarks/processes.py

PROGRAM = Path(__file__).with_name("contenders.py")
LEAST_SECONDS = 60  # that must be left of --seconds for a contender to be begun: it starts and compiles first


class Contender:
    """A process that does steps when it is told to."""

    def __init__(self, folder: Path, name: str, settings: dict, python: str, seconds: float):
        """Starts it; all its turns together may take so many seconds, the first with what is left of the start."""
        command = [python, str(PROGRAM), str(folder), json.dumps(settings)]
        self._errors, self._left = folder / f"{name}.log", seconds
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(command, stderr=errors, **pipes)

    def turn(self, num_steps: int, ends: float) -> dict:
        """Returns seconds, losses and peak bytes of that many steps.

        Raises:
          RuntimeError: it has ended, or has been killed because its time is over, or `ends` (monotonic) has come.
        """
        began = time.monotonic()
        limit = max(0.0, min(self._left, ends - began))
        with contextlib.suppress(BrokenPipeError):  # it has ended, which the next line tells
            self._process.stdin.write(f"{num_steps}\n")
            self._process.stdin.flush()
        # An answer is one line, so nothing of it waits in the reader's buffer.
        if not select.select([self._process.stdout], [], [], limit)[0]:
            self._process.kill()
            raise RuntimeError(f"killed: {num_steps} steps were not done in {limit:.0f} s, and no more are left to it")
        self._left -= time.monotonic() - began
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(processes.explain_end(self._process.wait(), self._errors))
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Record:
    """The turns of one contender in one race."""

    def __init__(self, num_warm_turns: int):
        self.turns, self.error, self.num_warm_turns = [], None, num_warm_turns

    def summary(self, step_tokens: list[int], turn_steps: int) -> dict:
        """Rates of the turns after the warm ones, the spread of the middle half, peak memory; what went wrong."""
        found = {"error": self.error} if self.error else {}
        if self.turns:
            peaks = {key: max(turn[key] for turn in self.turns) for key in self.turns[0] if key.startswith("peak")}
            found |= {**self.turns[0]["facts"], "first_turn_seconds": self.turns[0]["seconds"], **peaks}
        if self.is_measured:
            rates = self.rates(step_tokens, turn_steps)
            low, median, high = np.percentile(rates, [25, 50, 75])
            found |= {"tokens_per_second": median, "tokens_per_second_quartiles": [low, high],
                      "turns_measured": len(rates)}  # fmt: skip
        return found

    @property
    def is_measured(self) -> bool:
        """Whether there are turns after the warm ones."""
        return len(self.turns) > self.num_warm_turns

    def rates(self, step_tokens: list[int], turn_steps: int) -> np.ndarray:
        """Tokens per second of every turn after the warm ones."""
        tokens = np.array(step_tokens).reshape(-1, turn_steps).sum(1)[: len(self.turns)]
        return (tokens / [turn["seconds"] for turn in self.turns])[self.num_warm_turns :]

    @property
    def losses(self) -> list[float]:
        """Of every step."""
        return [loss for turn in self.turns for loss in turn["losses"]]


def race(
    folder: Path, contenders: dict[str, dict], records: dict[str, Record], args, *, num_turns: int, together: bool,
    first: int = 0, keep: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Fills the records.

    Args:
      folder: model/ and steps.npz.
      contenders: what each is told.
      records: of each of them.
      args: of the command: turn_steps, peer_python, ends (on the monotonic clock), contender_seconds.
      num_turns: of each contender.
      together: all processes live at once and take turns, in an order that rotates; otherwise one after the other.
      first: who begins then.
      keep: called after every turn.
    """
    names = list(contenders)
    rotated = lambda by: names[by % len(names) :] + names[: by % len(names)]

    def create(name: str) -> Contender:
        python = sys.executable if contenders[name]["kind"] == "ours" else args.peer_python
        return Contender(folder, name, contenders[name], python, args.contender_seconds)

    def take_turn(name: str, contender: Contender) -> None:
        try:
            records[name].turns.append(contender.turn(args.turn_steps, args.ends))
        except RuntimeError as error:
            records[name].error = str(error)
        keep()

    if together:
        alive = {name: create(name) for name in names}
        for number in range(num_turns):
            for name in rotated(number):
                if records[name].error is None:
                    take_turn(name, alive[name])
        for contender in alive.values():
            contender.close()
        return
    for name in rotated(first):
        left = args.ends - time.monotonic()
        if left < LEAST_SECONDS:
            records[name].error = f"not begun: {max(0, left):.0f} s were left of --seconds={args.seconds:g}"
            keep()
            continue
        contender = create(name)
        while records[name].error is None and len(records[name].turns) < num_turns:
            take_turn(name, contender)
        contender.close()


def summarize(records: dict[str, Record], step_tokens: list[int], turn_steps: int) -> dict:
    """Figures of each contender, and ours to theirs; no ratios without ours."""
    contenders = {name: record.summary(step_tokens, turn_steps) for name, record in records.items()}
    measured = {name: record.rates(step_tokens, turn_steps) for name, record in records.items() if record.is_measured}
    ratios, ours = {}, measured.pop("ours", None)
    if ours is not None:
        for name, theirs in measured.items():
            both = min(len(ours), len(theirs))
            by_turn = ours[:both] / theirs[:both]
            low, median, high = np.percentile(by_turn, [25, 50, 75])
            ratios[name] = {
                "tokens_per_second": median, "quartiles": [low, high], "least_and_most": [by_turn.min(), by_turn.max()],
                "peak_bytes": contenders["ours"]["peak_bytes"] / contenders[name]["peak_bytes"],
            }  # fmt: skip
    return {"contenders": contenders, "ours_to": ratios}
