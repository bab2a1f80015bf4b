"""Asks math-verify about answers that our own grammar cannot read: sums, integrals, limits, sets of numbers.

It works in a process of its own, started when it is first needed, because it hangs on some inputs (towers of powers)
and does not work in threads. A question may take `LIMIT_SECONDS` of processor time, on a busy machine as on an idle
one, so that a verdict does not depend on what else is running; then it ends, and the next question starts another one.
A crash or a timeout means "not equal" and is counted, never raised.

A plain command and not multiprocessing: a forked copy of a process with JAX's threads may hang. The process ends with
its input, and by its own alarm where a question hangs and nobody is left to kill it.
"""

import json
import logging
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import lru_cache
from pathlib import Path

from tiny_reasoning_jax.answers.expression import read
from tiny_reasoning_jax.answers.latex import clean

log = logging.getLogger(__name__)

LIMIT_SECONDS = 2.0  # of processor time for one question; most take 0.02 to 0.5
WAIT_SECONDS = 60.0  # at most, for a process that does not even get that much
START_SECONDS = 60.0  # sympy is large, and the machine may be busy
MAX_CHARS = 300
counts: Counter[str] = Counter()  # "asked", "equal", and of those that were not: "timeout", "crash"

_ROOT = Path(__file__).parents[2]
# What it knows beyond our own grammar. It reads more, but guesses there: x mod 5 is x to it, 12:00 divides by 0.
_BEYOND = frozenset(
    "int iint oint sum prod lim setminus cap mathbb notin subset subseteq partial lnot land lor".split()
)
_TOKEN = re.compile(r"\\([A-Za-z]+)|([A-Za-z]+)|([:;…%&\"'`~!?])|[^\x00-\x7f≤≥≠∪∈∅±]")
_KNOWN = frozenset(
    "frac sqrt pi infty to sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp binom theta "
    "alpha beta gamma delta lambda mu phi omega left right cdot times".split()
)


def same(found: str, answer: str) -> bool:
    """Returns whether math-verify holds a final answer for the reference answer; False where it should not be asked."""
    texts = clean(found), clean(answer)
    if max(len(found), len(answer)) > MAX_CHARS or not all(map(_is_formula, texts)):
        return False
    if not any(read(text) is None and _BEYOND & _commands(text) for text in texts):
        return False
    return ask(found, answer)


def _commands(text: str) -> set[str]:
    return {match[1] for match in _TOKEN.finditer(text) if match[1]}


def _is_formula(text: str) -> bool:
    """Whether a clean text holds nothing but mathematics that math-verify reads as it is meant: no words above all."""
    for command, letters, sign in _TOKEN.findall(text):
        if command and command not in _KNOWN | _BEYOND or len(letters) > 3 or sign or not (command or letters):
            return False
    return True


@lru_cache(maxsize=1024)
def ask(found: str, answer: str) -> bool:
    """Puts one question, whatever the texts are. At most one at a time, from any thread."""
    with _worker.lock:
        counts["asked"] += 1
        reply = _worker.ask(found, answer)
        counts[reply] += 1
    return reply == "equal"


class _Worker:
    """The process, if there is one, and the lock of whoever talks to it."""

    def __init__(self):
        self.lock = threading.Lock()
        self._process: subprocess.Popen | None = None

    def ask(self, found: str, answer: str) -> str:
        """Returns "equal", "different", "timeout" or "crash"."""
        if self._process is None and not self._start():
            return "crash"
        try:
            self._process.stdin.write(json.dumps([found, answer]).encode() + b"\n")
            reply = self._read_line(WAIT_SECONDS)
        except OSError:
            reply = ""
        if reply in ("equal", "different"):
            return reply
        return "timeout" if self.stop() == -signal.SIGPROF or reply is None else "crash"

    def _start(self) -> bool:
        command = [sys.executable, "-m", f"{__package__}.worker", str(LIMIT_SECONDS)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd=_ROOT,
            start_new_session=True,  # Ctrl-C is for this process, which ends that one
        )
        if self._read_line(START_SECONDS) == "ready":
            return True
        log.warning("math-verify did not start (%s); answers that need it count as different", " ".join(command))
        self.stop()
        return False

    def _read_line(self, seconds: float) -> str | None:
        """Returns the next line, "" if the process ended, None after so many seconds."""
        line, deadline = b"", time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(deadline - time.monotonic()):
                    return None
                part = self._process.stdout.read(4096)
                if not part:
                    return ""
                line += part
        return line.decode().strip()

    def stop(self) -> int | None:
        """Kills the process, if it still lives, and returns its exit code; the next question starts another one."""
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        process.stdin.close()
        process.stdout.close()
        return process.wait()


_worker = _Worker()


def _forget() -> None:
    """A forked copy must not talk to its parent's process, nor wait for a lock whose holder was not copied."""
    global _worker
    _worker = _Worker()


os.register_at_fork(after_in_child=_forget)
