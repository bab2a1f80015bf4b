"""The process that answers slow.py, one line for one line.

    python -m tiny_reasoning_jax.answers.worker SECONDS

reads [found, answer] as JSON and writes "equal" or "different", or ends by SIGPROF after SECONDS of processor time. The
texts come from a model and must not run as code. Only math-verify's reader of LaTeX is used, not the one of plain
expressions. But even that one hands the digits of every number to sympy as a string, and sympy reads strings with
Python's eval, in `sympy_parser.eval_expr`. That is replaced by one that knows numbers and nothing else.
"""

import json
import re
import resource
import signal
import sys

import sympy
import sympy.parsing.sympy_parser as sympy_parser
from math_verify import LatexExtractionConfig, parse, verify

_MAX_MEMORY = 2 << 30  # bytes of address space
# It rounds: to so many places where one side is a decimal number, and to so many digits elsewhere.
_PLACES, _DIGITS = 12, 30
_NUMBER = re.compile(r"\s*(Integer|Float) \('?(\d*\.?\d*)'? \)\s*", re.ASCII)
_CONFIG = [LatexExtractionConfig(boxed_match_priority=0)]


def _read_number(code: str, *_) -> sympy.Number:
    """Stands for sympy's eval: "Integer (5 )" and "Float ('0.5' )" are all that it accepts."""
    match = _NUMBER.fullmatch(code)
    if match is None:
        raise ValueError("text is not evaluated")
    return sympy.Integer(int(match[2])) if match[1] == "Integer" else sympy.Float(match[2])


def _parse(text: str) -> list:
    return parse(f"\\boxed{{{text}}}", _CONFIG, fallback_mode="no_fallback", parsing_timeout=None)


def _same(found: str, answer: str) -> bool:
    gold, target = _parse(answer), _parse(found)
    return bool(gold and target) and verify(gold, target, _PLACES, _DIGITS, timeout_seconds=None)


def _disarm() -> None:
    _same("\\int_0^x t dt", "\\frac{x^2}{2}")  # loads what sympy loads late, for which it evaluates names of its own
    sympy_parser.eval_expr = _read_number


def _main(seconds: float) -> None:
    _disarm()
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    print("ready", flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            same = _same(*json.loads(line))
        except (Exception, RecursionError, MemoryError):  # of a library that was given anything at all
            same = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print("equal" if same else "different", flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # which every process of a job may get; this one ends with its input
    _main(float(sys.argv[1]))
