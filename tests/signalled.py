"""python tests/signalled.py PLACE SIGNALS THEN [flags of main.py]: main.py, which gets signals at a certain place.

PLACE is `module:attribute@n`, the n-th call of a function, `import:module`, or "nowhere". SIGNALS are names, separated
by commas, a moment apart. THEN is "go on", or "hang": the thread stays in compiled code, as in a long compilation.
"""

import hashlib
import importlib
import os
import runpy
import signal
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]


def arrive(signals: str, then: str) -> None:
    for name in signals.split(","):
        os.kill(os.getpid(), signal.Signals[name])
        time.sleep(0.3 if "," in signals else 0)
    if then == "hang":
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # a quarter of an hour


class OnImport:
    """Finds no module; gets the signals when this one is asked for."""

    def __init__(self, module: str, *what: str):
        self.module, self.what = module, what

    def find_spec(self, name, path=None, target=None):
        if name == self.module:
            arrive(*self.what)


def patch(place: str, number: int, *what: str) -> None:
    module, _, attribute = place.partition(":")
    *outer, name = attribute.split(".")
    owner = importlib.import_module(module)
    for part in outer:
        owner = getattr(owner, part)
    function, calls = getattr(owner, name), []

    def counting(*args, **kwargs):
        calls.append(1)
        if len(calls) == number:
            arrive(*what)
        return function(*args, **kwargs)

    setattr(owner, name, counting)


if __name__ == "__main__":
    place, signals, then, *flags = sys.argv[1:]
    if place.startswith("import:"):
        sys.meta_path.insert(0, OnImport(place.partition(":")[2], signals, then))
    elif place != "nowhere":
        from tiny_reasoning_jax import xla

        xla.set_environment()
        patch(place.partition("@")[0], int(place.partition("@")[2]), signals, then)
    sys.argv = ["main.py", *flags]
    runpy.run_path(str(ROOT / "main.py"), run_name="__main__")
