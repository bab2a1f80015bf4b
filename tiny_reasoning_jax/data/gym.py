"""Problems of reasoning-gym (the extra `gym`), without reasoning, for evaluation and rewards; and their verifiers.

Its tasks differ in quality, so there is an allow-list: TASKS were read, tried and compared with references that we
computed ourselves where that was possible; REFUSED says what is wrong with others; the rest is not reviewed. What the
adapter works around: item i of seed s is item i - 1 of seed s + 1 (seeds here lie 2^32 apart), the same question comes
again (it is asked once), a verifier raises on text that it cannot read (such an answer is wrong).

It refuses verifiers that evaluate what a model wrote, and to judge by items that come out differently than when they
were written down.
"""

import contextlib
import functools
import hashlib
import io
import logging
import re
from collections.abc import Iterator

from tiny_reasoning_jax import answers
from tiny_reasoning_jax.data.problems import DIFFICULTIES, Problem
from tiny_reasoning_jax.errors import UserError

log = logging.getLogger(__name__)

# Task -> (our category, how many steps up its curriculum it may go: beyond them prompts have tens of thousands of
# characters, or an item takes seconds; None: all).
TASKS = {
    "chain_sum": ("arithmetic", None),
    "products": ("arithmetic", 8),
    "decimal_chain_sum": ("arithmetic", None),
    "gcd": ("arithmetic", None),
    "lcm": ("arithmetic", None),
    "prime_factorization": ("arithmetic", None),
    "bitwise_arithmetic": ("arithmetic", 6),
    "count_bits": ("arithmetic", None),
    "leg_counting": ("arithmetic", None),
    "calendar_arithmetic": ("arithmetic", None),
    "gsm_symbolic": ("arithmetic", None),
    "simple_equations": ("algebra", None),
    "advanced_geometry": ("geometry", None),
    "dice": ("probability", None),
    "aiw": ("logic", None),
    "circuit_logic": ("logic", 2),
    "family_relationships": ("logic", None),
    "knights_knaves": ("logic", None),
    "self_reference": ("logic", None),
    "syllogism": ("logic", None),
    "zebra_puzzles": ("logic", 4),
    "ab": ("code", None),
    "base_conversion": ("code", None),
    "bf": ("code", 1),
    "course_schedule": ("code", None),
    "string_insertion": ("code", None),
    "string_manipulation": ("code", None),
}
_EVALUATES = "its verifier evaluates the text of the model as Python"
_NO_ANSWER = "it has no reference answer"
_HASH_SEED = "its items change with PYTHONHASHSEED"
REFUSED = {
    "basic_arithmetic": "its references round quotients down at the higher levels",
    "boxnet": _NO_ANSWER,
    "codeio": "it runs the programs of its data file",
    "coin_flip": "its verifier takes 0 for 0.125",
    "complex_arithmetic": "its verifier takes nan for every number",
    "decimal_arithmetic": "its references are off in the last digit that it asks for",
    "fraction_simplification": "its verifier reads the first fraction of a text and ignores the rest",
    "game_of_life_halting": "its verifier takes every text",
    "graph_color": _NO_ANSWER,
    "intermediate_integration": _EVALUATES,
    "isomorphic_strings": _HASH_SEED,
    "list_functions": "it gives other items each time",
    "number_format": "its verifier does not tell apart the numbers that it asks to compare",
    "polynomial_equations": "it asks for another rounding than that of its references",
    "polynomial_multiplication": _EVALUATES,
    "power_function": "it reads -2^2 as (-2)^2",
    "propositional_logic": _NO_ANSWER,
    "ransom_note": _HASH_SEED,
    "rubiks_cube": _NO_ANSWER,
    "rush_hour": _NO_ANSWER,
    "simple_geometry": "its polygons have angles above 360 degrees",
    "simple_integration": _EVALUATES,
    "time_intervals": "its references are off by a millisecond, and its verifier ignores a sign",
    "word_ladder": _HASH_SEED,
}
# Its own verifier takes the first number and drops its sign; the program's grader is right for plain numbers.
_BY_OUR_GRADER = ("gsm_symbolic",)

_SIZE = 2**20  # items of a task and difficulty, far more than are ever asked for
_PATIENCE = 200  # repeated questions in a row after which a task and difficulty has no more
_ID = re.compile(r"gym:(?P<task>\w+)-(?P<difficulty>\d)-(?P<seed>\d+)-(?P<index>\d+)-(?P<hash>[0-9a-f]{16})")
# What verifiers raise on text that they cannot read (prime_factorization: ValueError).
_UNREADABLE = (ValueError, TypeError, ArithmeticError, LookupError, AttributeError)


def read_gym(spec: str, num_problems: int, seed: int) -> Iterator[Problem]:
    """Yields distinct problems in turn from every task and difficulty, without reasoning.

    A task's difficulties are steps up its own curriculum; 0 where it has none. A task with fewer than five steps has
    fewer difficulties. A pair that has no more questions gives its turn to the others, and the end says which.

    Args:
      spec: "gym" for all of TASKS, or "gym:chain_sum+gcd" for some.
      num_problems: how many; fewer where all tasks have run out of questions.
      seed: not negative; different ones share no item (a task may still ask the same question by chance).

    Raises:
      UserError: reasoning-gym is not installed, or the spec names a task that is not in TASKS.
    """
    head, colon, names = spec.partition(":")
    assert head == "gym", spec
    tasks = names.split("+") if colon else list(TASKS)
    for task in tasks:
        if task not in TASKS:
            reason = REFUSED.get(task, "not one of the tasks that were reviewed")
            raise UserError(f"{spec}: {task!r} cannot be used: {reason}. Choose from {', '.join(TASKS)}")
    if seed < 0:
        raise UserError(f"seed={seed} must not be negative for problems of reasoning-gym; use 0 or more")
    _import_gym()
    return _take_turns(dict.fromkeys(tasks), num_problems, seed)


def score(problem: Problem, text: str) -> bool:
    """Whether `text` is a right answer to a problem of `read_gym`, by the verifier of its task.

    Args:
      problem: from `read_gym`; its item is made again from its id.
      text: the answer alone, as `answers.extract` finds it.

    Raises:
      UserError: reasoning-gym is not installed, or the item comes out differently now.
    """
    dataset, entry = _recreate(problem.id)
    if len(text) > max(answers.MAX_ANSWER_CHARS, 2 * len(problem.answer)):
        return False  # a verifier may take longer than linear
    task = problem.source.removeprefix("gym:")
    if task in _BY_OUR_GRADER:
        return answers.grade(f"#### {text}", problem.answer) is answers.Verdict.CORRECT
    try:
        return dataset.score_answer(text, entry) >= 1.0
    except _UNREADABLE:
        return False


def _take_turns(tasks, num_problems: int, seed: int) -> Iterator[Problem]:
    cells = [(task, difficulty) for task in tasks for difficulty in _find_levels(task)]
    running = {cell: _problems_of(*cell, seed) for cell in cells}
    num_given, exhausted = 0, []
    while running and num_given < num_problems:
        for cell in list(running)[: num_problems - num_given]:
            problem = next(running[cell], None)
            if problem is None:
                del running[cell]
                exhausted.append("{}-{}".format(*cell))
                continue
            num_given += 1
            yield problem
    if exhausted:
        log.warning("reasoning-gym: %d of %d problems; no more questions in: %s", num_given, num_problems,
                    ", ".join(exhausted))  # fmt: skip


def _problems_of(task: str, difficulty: int, seed: int) -> Iterator[Problem]:
    """Every question of one task and difficulty once, until no new one turns up."""
    dataset, seen, misses = _open(task, difficulty, seed), set(), 0
    for index in range(_SIZE):
        entry = _item(dataset, index)
        question, answer = entry["question"].strip(), str(entry["answer"]).strip()
        digest = _hash(question)
        if digest in seen or not answer:
            misses += 1
            if misses >= _PATIENCE:
                return
            continue
        seen.add(digest)
        misses = 0
        yield Problem(
            id=f"gym:{task}-{difficulty}-{seed}-{index}-{digest}",
            category=TASKS[task][0],
            difficulty=difficulty,
            prompt=question,
            reasoning="",
            answer=answer,
            source=f"gym:{task}",
        )


def _hash(question: str) -> str:
    return hashlib.sha256(question.encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=4096)  # each of a problem's samples asks for it
def _recreate(problem_id: str):
    """The dataset and the item that a problem was made of."""
    match = _ID.fullmatch(problem_id)
    assert match and match["task"] in TASKS, problem_id
    _import_gym()
    dataset = _open(match["task"], int(match["difficulty"]), int(match["seed"]))
    entry = _item(dataset, int(match["index"]))
    if _hash(entry["question"].strip()) != match["hash"]:
        raise UserError(
            f"problem {problem_id} comes out differently than when it was written down, so that its answers cannot be "
            "judged: install the version of reasoning-gym that the data was made with, or make the data again in "
            "another workdir"
        )
    return dataset, entry


def _item(dataset, index: int) -> dict:
    with contextlib.redirect_stdout(io.StringIO()):  # the compiler of bf prints dots
        return dataset[index]


def _import_gym():
    try:
        import reasoning_gym
        from reasoning_gym.coaching import base_curriculum
    except ModuleNotFoundError as error:
        raise UserError(
            f"problems of reasoning-gym need a package that is not installed ({error.name}): "
            'pip install "tiny_reasoning_jax[gym]", or choose another data.test_source'
        ) from error
    return reasoning_gym.factory, base_curriculum


@functools.lru_cache(maxsize=256)
def _open(task: str, difficulty: int, seed: int):
    """The dataset of a task and difficulty; no two share an item, because item i is made from the seed plus i."""
    factory, base_curriculum = _import_gym()
    settings = {"seed": (8 * seed + difficulty) << 32, "size": _SIZE}
    dataset_type, config_type = factory.DATASETS[task]
    if not factory.has_curriculum(task):
        return dataset_type(config_type(**settings))
    curriculum = factory.create_curriculum(task)
    for name, level in _find_levels(task)[difficulty].items():
        curriculum.set_attr_level(name, level)
    # Only the highest part of each range: with all below it most items of the hardest would be easy.
    modes = base_curriculum.RangeAttributeMode
    context = base_curriculum.DefaultCurriculumContext(mode=modes.UPPER_BOUND)
    return dataset_type(curriculum.generate_configuration(settings, context))


@functools.cache
def _find_levels(task: str) -> dict[int, dict[str, int]]:
    """Difficulty -> level of each attribute of the task's curriculum; {0: {}} without one.

    A step raises one attribute by one level, all in turn; the difficulties are even parts of all steps.
    """
    factory, _ = _import_gym()
    if not factory.has_curriculum(task):
        return {0: {}}
    attributes = factory.create_curriculum(task).attributes
    highest = {name: len(attribute.levels) - 1 for name, attribute in attributes.items()}
    rounds = range(max(highest.values()))
    steps = [name for level in rounds for name in highest if level < highest[name]]
    num_steps = min(len(steps), TASKS[task][1] or len(steps))
    difficulties: dict[int, int] = {}
    for difficulty in DIFFICULTIES:
        difficulties.setdefault((difficulty - 1) * num_steps // 4, difficulty)
    return {d: {name: steps[:count].count(name) for name in highest} for count, d in difficulties.items()}
