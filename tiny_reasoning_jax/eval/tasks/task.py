"""What a task is: where its problems are, how they are read, and how a base model is asked."""

import dataclasses
from collections.abc import Callable

from tiny_reasoning_jax.data.formats import parse_record
from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.data.sources import Parse


@dataclasses.dataclass(frozen=True)
class Task:
    """A set of test problems.

    Who judges the answers follows from each problem: tests are run, reasoning-gym and families with several right
    answers have verifiers of their own, everything else is compared by `answers`.

    Attributes:
      name: in the configuration, in samples and in results.
      source: where its problems are when the configuration says no more: a hub id, or "procedural".
      parse: how one of its records becomes a problem; what its categories and difficulties mean is decided there.
      few_shot: the text that a base model is to continue, from a problem; None: it can only be asked as chat.
      stops: where such a continuation ends, at the first of these texts.
      preamble: Python that stands before the program that a model writes for a problem.
    """

    name: str
    source: str
    parse: Parse = parse_record
    few_shot: Callable[[Problem], str] | None = None
    stops: tuple[str, ...] = ()
    preamble: Callable[[Problem], str] = lambda problem: ""
