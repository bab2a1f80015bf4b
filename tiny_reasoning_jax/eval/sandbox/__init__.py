"""Programs written by a model, run where they can do no harm and judged where they cannot lie.

pool.py       the evaluating process: workers, limits, outcomes
zygote.py     a small process that forks two children a program
confine.py    what a child gives up before foreign code runs: landlock.py, seccomp.py, kernel.py
program.py    the child that runs the model's program and answers with plain values
tester.py     the child that runs the tests and compares
wire.py       what the two say to each other
"""

from tiny_reasoning_jax.eval.sandbox.pool import Outcome, Sandbox, SandboxError, require_sandbox

__all__ = ["Outcome", "Sandbox", "SandboxError", "require_sandbox"]
