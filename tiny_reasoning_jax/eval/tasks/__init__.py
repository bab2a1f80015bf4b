"""The tasks that a model can be evaluated on. Adding one is one small file beside these, and its name in TASKS.

config.eval.tasks names them, separated by commas:

    test                   the run's own test problems
    gsm8k                  a task, its problems from where they are published
    gsm8k=FILE             a task, its problems from a file, a folder or another hub id
    procedural[:sums+dice] made here, of all families or of some
    FILE                   any file that data/formats.py can read, also of prompts with tests; named after the file
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tiny_reasoning_jax.data import sources
from tiny_reasoning_jax.data.files import SUFFIXES
from tiny_reasoning_jax.data.formats import FORMATS
from tiny_reasoning_jax.data.gather import find_families, is_generated
from tiny_reasoning_jax.data.problems import Dropped, Problem
from tiny_reasoning_jax.data.procedural import check_families, generate
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval.tasks import gsm8k, humaneval, math, mbpp, procedural
from tiny_reasoning_jax.eval.tasks.task import Task

TASKS = {task.name: task for task in (gsm8k.TASK, math.TASK, mbpp.TASK, humaneval.TASK, procedural.TASK)}
PROGRAMS = ("mbpp", "humaneval")  # known to need the sandbox before a problem is read
OWN = "test"  # in config.eval.tasks: the run's own test problems
_TRAINING = re.compile("(?<![a-z])train", re.IGNORECASE)  # in a path, at the beginning of a word: not in "constraints"


class Chosen(NamedTuple):
    """A task of this evaluation and where its problems are: a source, or the run's own test problems."""

    task: Task
    source: str
    is_own: bool = False


def choose(names: str, own: str) -> list[Chosen]:
    """Reads config.eval.tasks; `own` is what the run's own test set is called.

    Raises:
      UserError: a task is unknown or named twice, or its file does not exist.
    """
    chosen = [_choose(part.strip(), own) for part in names.split(",")]
    called = [one.task.name for one in chosen]
    if twice := sorted({name for name in called if called.count(name) > 1}):
        raise UserError(
            f"eval.tasks={names!r} has several tasks called {', '.join(twice)}, whose results could not be told apart; "
            "name each once, or rename a file"
        )
    return chosen


def _choose(part: str, own: str) -> Chosen:
    if part == OWN:
        return Chosen(TASKS.get(own, Task(own, OWN)), OWN, is_own=True)
    name, _, source = part.partition("=")
    if is_generated(part) and part.startswith("procedural"):
        check_families(find_families(part))
        return Chosen(TASKS["procedural"], part)
    if name in TASKS:
        source = source.strip() or TASKS[name].source
    elif source or not part or not (part.endswith(SUFFIXES) or "/" in part or Path(part).exists()):
        raise UserError(
            f"eval.tasks names {name!r}, which is no task; choose from {OWN}, {', '.join(TASKS)}, each also as "
            f"{next(iter(TASKS))}=FILE, or give a file ({', '.join(SUFFIXES)}), a folder or a hub id alone"
        )
    else:
        source = part
    _refuse_training_files(source)
    sources.is_hub_id(source, "eval.tasks")  # refuses a file that is not there
    return Chosen(TASKS.get(name) or Task(name_source(source), source), source)


def _refuse_training_files(source: str) -> None:
    """Raises UserError for a folder of training and other files: it would be read whole."""
    folder = Path(source).expanduser()
    names = [name for name in sources.list_names(folder) if name.endswith(SUFFIXES)] if folder.is_dir() else []
    training = [name for name in names if _TRAINING.search(name)]
    if training and len(training) < len(names):
        raise UserError(
            f"eval.tasks: {source!r} holds training files ({training[0]}) beside others, and a folder is read whole; "
            "give the test file, or the folder of the test files"
        )


def name_source(source: str) -> str:
    """What problems from this source are called: after their folder, file or hub id."""
    path = Path(source.partition(":")[0]).expanduser().resolve()
    stem = path.name.partition(".")[0]
    return path.parent.name if stem in ("train", "test") else stem


def mark(chosen: Chosen) -> str:
    """What changes when the problems do: for files the sha256 of their content."""
    if chosen.is_own or is_generated(chosen.source) or sources.is_hub_id(chosen.source, "eval.tasks"):
        return chosen.source
    return sources.mark_source(chosen.source, "eval.tasks")


def load_problems(chosen: Chosen, num_problems: int, seed: int) -> tuple[list[Problem], list[Dropped]]:
    """Returns a task's problems, in the order of their source, and the records that are none; not for OWN.

    Args:
      chosen: the task.
      num_problems: how many are made of a task that is made here.
      seed: of those.

    Raises:
      UserError: the source cannot be read, or holds no problem.
    """
    records: Iterator[Problem | Dropped]
    if is_generated(chosen.source):
        records = generate("test", num_problems, seed, families=find_families(chosen.source))
    else:
        # A known task's file must have its form: GSM8K's problems under another name would be another score.
        format = chosen.task.name if chosen.task.name in FORMATS else "auto"
        records = sources.read_source(chosen.source, format, "eval.tasks", parse=chosen.task.parse)
    problems, dropped = [], []
    for record in records:
        (problems if isinstance(record, Problem) else dropped).append(record)
    if not problems:
        why = " (it is empty, or nothing in it is of the test split)"
        if dropped:
            why = f"; the first of {len(dropped):,} records: {tell(dropped[0])}"
        raise UserError(
            f"eval.tasks: {chosen.source!r} holds no problem for {chosen.task.name}{why}. Give records of its own "
            'form, or, as a file alone, lines such as {"question": "What is 2+3?", "answer": "5"} or {"prompt": '
            '"Write f.", "tests": "assert f(2) == 4"}; all forms are named in tiny_reasoning_jax/data/formats.py'
        )
    return problems, dropped


def tell(dropped: Dropped) -> str:
    """Why a record cannot be asked."""
    return f"{dropped.reason}: {dropped.detail}" if dropped.detail else dropped.reason
