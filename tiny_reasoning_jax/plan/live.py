"""A compiled program's memory, from what XLA writes down about it: how much, and what is there at the fullest moment.

`compiler_options={"xla_dump_to": folder}` makes XLA write, beside much else, where each value was put
(buffer-assignment.txt) and from which instruction to which it is needed (live-range.txt). Both together are replayed
here. `memory_analysis()` gives the sizes alone; its serialized_buffer_assignment_proto is empty on a GPU.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_ALLOCATION = re.compile(r"allocation \d+: size (\d+), (?:page \d+, )?(.*)")  # since jax 0.11 with its page
_ON_HOST = "color 5"  # XLA's number for the host's memory
_VALUE = re.compile(r" value: <\d+ (\S+)(?: \(phi\))? @\d+> \(size=(\d+),offset=(\d+)\): (.*)")
_RANGE = re.compile(r"\s+(\S+\{[\d, ]*\}):(\d+)-(\d+)$")
_INSTRUCTION = re.compile(r'\s*(?:ROOT )?%(\S+) = .*?op_name="([^"]*)"')
_HIDDEN_REMAT = re.compile(r"%\S+\.remat\d*\S* = ")  # how XLA's pass names its copies
WITH_WORKSPACE = "dot_product_attention_bwd"  # cuDNN's attention, backward
WORKSPACE = "workspace"
_DIMENSIONS = re.compile(r"\w+\[([\d,]*)\]")


class Value(NamedTuple):
    """A value in temporary memory.

    Attributes:
      num_bytes: its size.
      shape: as XLA writes it, e.g. "f32[2048,6144]{1,0}".
      op: the operation in our code that made it; the instruction's own name where XLA made it up.
    """

    num_bytes: int
    shape: str
    op: str

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Of an array; empty for a scalar and for what is no array."""
        found = _DIMENSIONS.match(self.shape)
        return tuple(int(n) for n in found[1].split(",") if n) if found else ()


class Sizes(NamedTuple):
    """Bytes of a program's memory on its device; arguments + temporaries is all that it needs there.

    Attributes:
      arguments: of all arguments.
      donated: of the arguments whose place results take over.
      temporaries: of everything else, results that have a place of their own included.
    """

    arguments: int
    donated: int
    temporaries: int


def read_sizes(folder: Path) -> Sizes | None:
    """The sizes of the one program whose dump is in `folder`; None if nothing was written."""
    paths = sorted(folder.glob("*buffer-assignment.txt"))
    if not paths:
        return None
    arguments = donated = temporaries = 0
    for found in map(_ALLOCATION.match, paths[0].read_text(errors="replace").splitlines()):
        if not found or "thread-local" in found[2] or found[2].startswith(_ON_HOST):
            continue
        if found[2].startswith("parameter"):
            arguments += int(found[1])
            donated += int(found[1]) if "maybe-live-out" in found[2] else 0
        else:
            temporaries += int(found[1])
    return Sizes(arguments, donated, temporaries)


def count_hidden_remat(program: str) -> int:
    """Instructions of a program (XLA's text) that XLA computes a second time of its own accord, to save memory."""
    return len(_HIDDEN_REMAT.findall(program))


def read_fullest_moment(folder: Path, workspace: int = 0) -> list[Value]:
    """The values that are in temporary memory when most of it is needed, largest first; empty if nothing was written.

    Values that share their place at that moment (a loop's argument and its result) are one. `folder` must hold the dump
    of one program.

    Args:
      folder: XLA's dump.
      workspace: bytes that a kernel WITH_WORKSPACE takes while it is at work, and that XLA does not know of; here it is
        a value of the shape WORKSPACE.
    """
    paths = [sorted(folder.glob(f"*{name}.txt")) for name in ("buffer-assignment", "live-range", "after_optimizations")]
    if not all(paths):
        return []
    assignment, ranges, program = (path[0].read_text(errors="replace").splitlines() for path in paths)
    needed = {m[1]: (int(m[2]), int(m[3])) for m in map(_RANGE.match, ranges) if m}
    placed = [(name, size, offset, shape) for name, size, offset, shape in _placed(assignment) if name in needed]
    if workspace:
        at_work = {
            f"{name} at work": (first,) * 2 for name, (first, _) in needed.items() if name.startswith(WITH_WORKSPACE)
        }
        placed += [(name, workspace, -1, WORKSPACE) for name in at_work]
        needed |= at_work
    moment = _fullest([(*needed[name], offset, size) for name, size, offset, _ in placed])
    at_place: dict[int, tuple] = {}
    for name, size, offset, shape in placed:
        first, last = needed[name]
        if first <= moment <= last and size > at_place.get(offset, (0,))[0]:
            at_place[offset] = size, shape, name
    wanted = {name.partition("{")[0] for _, _, name in at_place.values()}
    ops = {m[1]: m[2] for m in map(_INSTRUCTION.match, program) if m and m[1] in wanted}
    values = [Value(size, shape, ops.get(name.partition("{")[0], name)) for size, shape, name in at_place.values()]
    return sorted(values, key=lambda value: -value.num_bytes)


def _placed(assignment: Iterable[str]):
    """(name{index}, bytes, offset, shape) of every value in temporary memory."""
    temporary = False
    for line in assignment:
        if found := _ALLOCATION.match(line):
            temporary = "preallocated-temp" in found[2]
        elif temporary and (found := _VALUE.match(line)):
            name = found[1] if "{" in found[1] else found[1] + "{}"
            yield name, int(found[2]), int(found[3]), found[4]


def _fullest(values: list[tuple[int, int, int, int]]) -> int:
    """The instruction at which the values (first, last, offset, bytes) take most; what shares an offset counts once."""
    events = sorted(
        [(first, 1, offset, size) for first, _, offset, size in values]
        + [(last + 1, 0, offset, size) for _, last, offset, size in values]
    )
    there: dict[int, Counter] = defaultdict(Counter)
    total, best, moment = 0, -1, 0
    for time, begins, offset, size in events:
        sizes = there[offset]
        total -= max(sizes, default=0)
        sizes[size] += 1 if begins else -1
        if not sizes[size]:
            del sizes[size]
        total += max(sizes, default=0)
        if total > best:
            best, moment = total, time
    return moment


def find_gradients(values: list[Value], shapes: Iterable[tuple[int, ...]], width: int, tokens: set[int]) -> list[Value]:
    """Those of `values` that are gradients of parameters, told by their shape.

    A gradient has as many entries as its parameter and the model's width among its dimensions, and no dimension that
    counts tokens; of each number of entries there are at most as many gradients as parameters, and what has the
    parameter's own shape comes before what is turned around.

    Args:
      values: what is in memory.
      shapes: of the parameters.
      width: the model's D.
      tokens: dimensions that activations have and gradients lack: a row's tokens, a micro-batch's.
    """
    matrices = {tuple(shape) for shape in shapes if len(shape) > 1}
    left = Counter(math.prod(shape) for shape in shapes if len(shape) > 1)
    found = []
    for value in sorted(values, key=lambda value: value.dimensions not in matrices):
        dimensions = value.dimensions
        size = math.prod(dimensions)
        if left[size] and width in dimensions and not (tokens - {width}) & set(dimensions):
            left[size] -= 1
            found.append(value)
    return found
