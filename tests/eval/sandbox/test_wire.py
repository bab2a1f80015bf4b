"""Run: pytest tests/eval/sandbox/test_wire.py. Plain values arrive as they were; nothing else arrives."""

import collections
import decimal
import enum
import fractions
import json
import math
import os

import pytest

from tiny_reasoning_jax.eval.sandbox import wire

Point = collections.namedtuple("Point", "x y")


class Colour(enum.IntEnum):
    RED = 1


VALUES = [
    None, True, False, 0, 1, -1, 2**62, -(2**63), 2**64, -(2**64), 10**5000, 0.1, -0.0, 1e308, 5e-324, math.inf, 1j,
    complex(0.1, -2), "", "ä\n\0\ud800😀", b"", b"\0\xff", [], [1, [2, [3]]], (), (1,), ((), []), set(), {1, "a", (2,)},
    frozenset({1}), {frozenset({1}), frozenset()}, {}, {"a": 1, 2: [3], (4, 5): {}, None: None, 1.5: True},
    fractions.Fraction(1, 3), fractions.Fraction(10**30, 7), decimal.Decimal("0.10"),
    int, str, type(None), dict,
]  # fmt: skip


def same(left: object, right: object) -> bool:
    """Equal, and of the same types all the way down; `==` says that 1, 1.0 and True are one."""
    if type(left) is not type(right):
        return False
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    return left == right and (isinstance(left, int) or repr(left) == repr(right))  # -0.0 == 0.0; repr(int) has a limit


def refuse(value: object) -> int:
    raise TypeError(f"no plain value: {value!r}")


def carry(value: object) -> object:
    return wire.decode(json.loads(json.dumps(wire.encode(value, refuse))), refuse)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: str(type(value)))
def test_a_value_arrives_as_it_was(value):
    assert same(carry(value), value)


def test_nan_arrives():
    assert math.isnan(carry(math.nan))


@pytest.mark.parametrize(
    "value, plain",
    [
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        (Point(1, 2), (1, 2)),
        (Colour.RED, 1),
        (bytearray(b"a"), b"a"),
    ],
)
def test_a_subclass_arrives_as_what_it_extends(value, plain):
    assert same(carry(value), plain)


@pytest.mark.parametrize("value", [object(), range(3), iter([1]), len, map(str, []), collections.deque(), ValueError])
def test_anything_else_becomes_a_reference(value):
    assert wire.encode([value], lambda _: 7) == ["list", [["ref", 7]]]
    assert wire.decode(["list", [["ref", 7]]], lambda number: ("object", number)) == [("object", 7)]


def test_depth_is_bounded_both_ways():
    nested: list = []
    for _ in range(99):
        nested = [nested]
    assert same(carry(nested), nested)
    with pytest.raises(wire.BadMessage, match="deeper"):
        carry([nested])
    itself: list = []
    itself.append(itself)
    with pytest.raises(wire.BadMessage, match="deeper"):
        carry(itself)
    tree: list = []
    for _ in range(200):
        tree = ["list", [tree]]
    with pytest.raises(wire.BadMessage, match="deeper"):
        wire.decode(tree, refuse)


@pytest.mark.parametrize(
    "tree",
    [
        {}, {"a": 1}, [], ["list"], ["list", 1], ["list", [1], 2], ["no such kind", []], ["dict", [[1]]], ["dict", [1]],
        ["dict", [[["list", []], 1]]], ["set", [["list", []]]], ["bytes", "zz"], ["bytes", 1], ["int", "g"], ["int", 1],
        ["complex", 1, 2], ["fraction", 1, 0], ["fraction", "1", 2], ["decimal", "x"], ["decimal", 1],
        ["type", "object"], ["type", "eval"], ["type", ["list", []]], ["ref", "1"], [["list", []]],
        ["list", [["eval", "1"]]],
    ],
)  # fmt: skip
def test_nothing_else_is_read(tree):
    with pytest.raises(wire.BadMessage):
        wire.decode(tree, lambda number: number)


def test_an_unknown_reference_is_a_bad_message():
    with pytest.raises(wire.BadMessage):
        wire.decode(["ref", 5], [].__getitem__)


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)


def test_frames_arrive_in_order(pipe):
    reader, writer = pipe
    wire.send(writer, ["a", 1])
    wire.send(writer, None)
    os.close(writer)
    assert [wire.receive(reader), wire.receive(reader)] == [["a", 1], None]
    with pytest.raises(EOFError):
        wire.receive(reader)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xff\xff\xff", (wire.MAX_BYTES + 1).to_bytes(4, "big") + b"x", b"\0\0\0\1{", b"\0\0\0\2\xff\xff",
        (5000).to_bytes(4, "big") + b"9" * 5000, (60_000).to_bytes(4, "big") + b"[" * 60_000,
    ],
    ids=["huge", "large", "no JSON", "no UTF-8", "digits", "deep"],
)  # fmt: skip
def test_a_bad_frame_is_refused(pipe, data):
    reader, writer = pipe
    os.write(writer, data)
    os.close(writer)
    with pytest.raises(wire.BadMessage):
        wire.receive(reader)


def test_a_frame_that_breaks_off_is_an_end(pipe):
    reader, writer = pipe
    os.write(writer, b"\0\0\0\5ab")
    os.close(writer)
    with pytest.raises(EOFError):
        wire.receive(reader)


def test_what_is_too_large_is_not_sent(pipe):
    with pytest.raises(wire.BadMessage, match="at most"):
        wire.send(pipe[1], "x" * wire.MAX_BYTES)
    os.close(pipe[1])


def test_whole_frames_alone_are_parsed():
    assert wire.parse(b"\0\0\0\1" + b"1") == 1
    for data in (b"", b"\0\0\0\1", b"\0\0\0\1" + b"12", b"\0\0\0\0"):
        with pytest.raises(wire.BadMessage):
            wire.parse(data)
