"""Distinct problems of a split, evenly over families and difficulties, and the independent check of any one.

A problem belongs to the split that the hash of its canonical form says: the same one whatever the seed, the
wording or the number of problems asked for.
"""

import hashlib
import logging
import random
from collections.abc import Iterator, Sequence

from tiny_reasoning_jax.data.problems import CATEGORIES, DIFFICULTIES, Problem
from tiny_reasoning_jax.data.procedural import (
    algebra,
    arithmetic,
    bugs,
    checks_code,
    checks_counting,
    checks_logic,
    checks_math,
    checks_numbers,
    code,
    constraints,
    counting,
    deduction,
    equations,
    functions,
    geometry,
    logic,
    number_theory,
    probability,
    programs,
    sets,
    shapes,
)
from tiny_reasoning_jax.data.procedural.spaces import SPACES
from tiny_reasoning_jax.errors import UserError

log = logging.getLogger(__name__)

# Family -> (category, generator (rng, difficulty) -> Draft, check: prompt -> the answer, found another way).
FAMILIES = {
    "sums": ("arithmetic", arithmetic.sums, checks_math.solve_expression),
    "products": ("arithmetic", arithmetic.products, checks_math.solve_expression),
    "fractions": ("arithmetic", arithmetic.fractions, checks_math.solve_expression),
    "percent": ("arithmetic", arithmetic.percent, checks_math.solve_percent),
    "remainder": ("arithmetic", number_theory.remainder, checks_numbers.solve_remainder),
    "divisors": ("arithmetic", number_theory.divisors, checks_numbers.solve_divisors),
    "journey": ("arithmetic", number_theory.journey, checks_numbers.solve_journey),
    "linear": ("algebra", algebra.linear, checks_math.solve_linear),
    "evaluate": ("algebra", algebra.evaluate, checks_math.solve_evaluate),
    "sequence": ("algebra", algebra.sequence, checks_math.solve_sequence),
    "system": ("algebra", algebra.system, checks_math.solve_system),
    "quadratic": ("algebra", equations.quadratic, checks_numbers.solve_quadratic),
    "inequality": ("algebra", equations.inequality, checks_numbers.solve_inequality),
    "ratio": ("algebra", equations.ratio, checks_numbers.solve_ratio),
    "rectangle": ("geometry", geometry.rectangle, checks_math.solve_rectangle),
    "angles": ("geometry", geometry.angles, checks_math.solve_angles),
    "points": ("geometry", geometry.points, checks_math.solve_points),
    "circle": ("geometry", shapes.circle, checks_counting.solve_circle),
    "solid": ("geometry", shapes.solid, checks_counting.solve_solid),
    "draw": ("probability", probability.draw, checks_math.solve_draw),
    "dice": ("probability", probability.dice, checks_math.solve_dice),
    "expect": ("probability", probability.expect, checks_math.solve_expect),
    "counting": ("probability", counting.counting, checks_counting.solve_counting),
    "conditional": ("probability", counting.conditional, checks_counting.solve_conditional),
    "liars": ("logic", logic.liars, checks_logic.solve_liars),
    "order": ("logic", logic.order, checks_logic.solve_order),
    "boolean": ("logic", logic.boolean, checks_logic.solve_boolean),
    "assign": ("code", code.assign, checks_code.solve_program),
    "loop": ("code", code.loop, checks_code.solve_program),
    "lists": ("code", code.lists, checks_code.solve_program),
    "syllogism": ("logic", deduction.syllogism, checks_logic.solve_syllogism),
    "seats": ("logic", constraints.seats, checks_logic.solve_seats),
    "sets": ("logic", sets.sets, checks_logic.solve_sets),
    "strings": ("code", programs.strings, checks_code.solve_program),
    "dicts": ("code", programs.dicts, checks_code.solve_program),
    "bug": ("code", bugs.bug, checks_code.solve_bug),
    "write": ("code", functions.write, checks_code.solve_function),
}
# Families whose right answers have more than one form: (prompt, answer) -> whether it is right, for any text.
ACCEPTS = {"write": checks_code.accepts_function}
assert {category for category, _, _ in FAMILIES.values()} == set(CATEGORIES)

# Split -> the share of every hundred canonical problems that it owns.
SPLITS = {"test": range(0, 10), "validation": range(10, 15), "train": range(15, 100)}

# A family x difficulty counts as exhausted when this many drafts for every problem it has given, over the
# split's share, brought nothing new: a problem of average likelihood is missed with a chance of exp(-20).
_PATIENCE = 20
COUNTED = 100_000  # spaces that reach it are not counted to their end
_COUNTED_DRAFTS = 2_000_000  # nor are a space's rarest problems waited for beyond this


def _hash(family: str, canonical: str) -> bytes:
    return hashlib.blake2b(f"{family}:{canonical}".encode(), digest_size=8).digest()


def _bucket(digest: bytes) -> int:
    return int.from_bytes(digest, "big") % 100


def num_distinct(split: str, family: str, difficulty: int) -> int | None:
    """How many problems of a family and difficulty a split has; None where all splits together have 100,000 or more."""
    sizes = SPACES.get((family, difficulty))
    return None if sizes is None else sizes[tuple(SPLITS).index(split)]


def count_space(family: str, difficulty: int) -> tuple[int, ...] | None:
    """Counts what `num_distinct` states, by drawing until nothing new turns up: the size in every split.

    Returns None as soon as 100,000 distinct problems were met. What two million drafts do not meet does not count.
    """
    create, rng = FAMILIES[family][1], random.Random(f"space/{family}/{difficulty}")
    seen, misses = set(), 0
    for _ in range(_COUNTED_DRAFTS):
        if misses == 10 * len(seen) + 50_000:  # many drafts for a small space, whose rare problems shall be met
            break
        digest = _hash(family, create(rng, difficulty).canonical)
        misses = misses + 1 if digest in seen else 0
        seen.add(digest)
        if len(seen) == COUNTED:
            return None
    return tuple(sum(_bucket(digest) in buckets for digest in seen) for buckets in SPLITS.values())


def mark_family(family: str) -> str:
    """A mark that changes when the generator makes other problems, so that a stale count is noticed."""
    digest = hashlib.blake2b(digest_size=4)
    for difficulty in DIFFICULTIES:
        for i in range(20):
            digest.update(FAMILIES[family][1](random.Random(f"{family}/{i}"), difficulty).canonical.encode())
    return digest.hexdigest()


def problems_of(split: str, family: str, difficulty: int, seed: int) -> Iterator[Problem]:
    """Every problem of one family and difficulty in random order, each once.

    Ends with the last of a space that was counted (`num_distinct`), else where no new one turns up.
    """
    category, create, _ = FAMILIES[family]
    size = num_distinct(split, family, difficulty)
    rng = random.Random(f"{seed}/{split}/{family}/{difficulty}")
    buckets, seen, misses = SPLITS[split], set(), 0
    while len(seen) != size and misses < _PATIENCE * (len(seen) + 10) * 100 // len(buckets):
        draft = create(rng, difficulty)
        digest = _hash(family, draft.canonical)
        if digest in seen or _bucket(digest) not in buckets:
            misses += 1
            continue
        seen.add(digest)
        misses = 0
        yield Problem(
            id=f"{family}-{difficulty}-{digest.hex()}",
            category=category,
            difficulty=difficulty,
            prompt=draft.prompt,
            reasoning=draft.reasoning,
            answer=draft.answer,
            source=family,
        )


def check_families(families: Sequence[str]) -> None:
    """Raises UserError where a family is unknown or named twice."""
    unknown = [family for family in families if family not in FAMILIES]
    if unknown or len(set(families)) < len(families):
        raise UserError(
            f"no procedural family is called {', '.join(unknown)}; choose from {', '.join(FAMILIES)}"
            if unknown
            else f"procedural families {', '.join(families)}: name each once"
        )


def generate(
    split: str,
    num_problems: int,
    seed: int,
    shares: tuple[int, ...] = (1, 1, 1, 1, 1),
    families: Sequence[str] | None = None,
) -> Iterator[Problem]:
    """Yields distinct problems of a split in turn from every family, or those named, and every difficulty.

    In each round a family gives shares[d - 1] problems of difficulty d, none of it where the share is 0.

    The problems of a family and difficulty depend on nothing but the seed, the split and the two. A pair that
    has no more (`num_distinct` says beforehand how many small ones have) gives its turn to the others; a warning at
    the end says which and how many there were. Ends early when all are used up.

    Raises:
      UserError: the split or a family is unknown, or num_problems is negative.
    """
    if split not in SPLITS:
        raise UserError(f"split={split!r} is unknown; choose one of {', '.join(sorted(SPLITS))}")
    if num_problems < 0:
        raise UserError(f"num_problems={num_problems} is negative; ask for 0 or more")
    families = tuple(FAMILIES) if families is None else families
    check_families(families)
    return _take_turns(split, num_problems, seed, shares, families)


def _take_turns(
    split: str, num_problems: int, seed: int, shares: tuple[int, ...], families: Sequence[str]
) -> Iterator[Problem]:
    # A pair without a share never runs: it could neither give its turn away nor be used up.
    cells = [(family, difficulty) for difficulty in DIFFICULTIES if shares[difficulty - 1] for family in families]
    running = {cell: problems_of(split, *cell, seed) for cell in cells}
    given = dict.fromkeys(cells, 0)
    while running and sum(given.values()) < num_problems:
        turns = [cell for cell in running for _ in range(shares[cell[1] - 1])]
        for cell in turns[: num_problems - sum(given.values())]:
            if cell not in running:
                continue
            problem = next(running[cell], None)
            if problem is None:
                del running[cell]
                continue
            given[cell] += 1
            yield problem
    exhausted = [f"{family}-{difficulty} {given[family, difficulty]}" for family, difficulty in cells
                 if (family, difficulty) not in running]  # fmt: skip
    if exhausted:
        log.warning(
            "%d of %d problems generated for split %s; these family-difficulty pairs have no more than: %s",
            sum(given.values()), num_problems, split, ", ".join(exhausted),
        )  # fmt: skip


def check(problem: Problem) -> bool:
    """Whether the answer is right, by code that reads the prompt and shares nothing with the generator.

    Raises:
      UserError: the problem's source is no procedural family.
      ValueError: the prompt is not one that the family could have written.
    """
    if problem.source not in FAMILIES:
        raise UserError(f"source={problem.source!r} is no procedural family; known: {', '.join(FAMILIES)}")
    if problem.source in ACCEPTS:
        return ACCEPTS[problem.source](problem.prompt, problem.answer)
    return FAMILIES[problem.source][2](problem.prompt) == problem.answer
