"""What crosses between the process of a program and the process of its tests: plain values in frames, and no more.

A frame is a length and JSON. A value is None, a bool, int, float or str, or a list that begins with its kind:

    ["list", [...]] ["tuple", [...]] ["set", [...]] ["frozenset", [...]] ["dict", [[key, value], ...]]
    ["bytes", hex] ["int", hex] ["complex", real, imaginary] ["fraction", numerator, denominator] ["decimal", text]
    ["type", name]       one of these types itself, as in `keep(values, int)`
    ["ref", number]      an object that stays in the program's process

What is read is made of these types alone, never of a subclass, and running nothing that the sender wrote: no pickle, no
eval. Depth and size are bounded. A subclass is sent as the type that it extends, whatever its methods say.
"""

import decimal
import fractions
import json
import os
from collections.abc import Callable

MAX_BYTES = 16 << 20
_MAX_DEPTH = 100
_LENGTH_BYTES = 4
_SMALL_INT_BITS = 63  # larger ones go as hex, which has no limit of digits and costs linear time


class BadMessage(Exception):
    """What came is no message of this form."""


def send(fd: int, message: object) -> None:
    """Writes one frame.

    Raises:
      BadMessage: it is larger than MAX_BYTES.
      OSError: the other side is gone.
    """
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_BYTES:
        raise BadMessage(f"a message of {len(data)} bytes; at most {MAX_BYTES} are taken")
    data = memoryview(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
    while data:
        data = data[os.write(fd, data) :]


def receive(fd: int) -> object:
    """Reads one frame.

    Raises:
      BadMessage: it is too large, or no JSON.
      EOFError: the other side is gone.
    """
    head = _read(fd, _LENGTH_BYTES)
    length = int.from_bytes(head, "big")
    if length > MAX_BYTES:
        raise BadMessage(f"a message of {length} bytes; at most {MAX_BYTES} are taken")
    return parse(head + _read(fd, length))


def parse(frame: bytes) -> object:
    """Reads one frame, whole and alone.

    Raises:
      BadMessage: it is something else.
    """
    if int.from_bytes(frame[:_LENGTH_BYTES], "big") != len(frame) - _LENGTH_BYTES:
        raise BadMessage("not one frame")
    try:
        return json.loads(frame[_LENGTH_BYTES:])
    except (ValueError, RecursionError) as error:  # ValueError: no JSON, no UTF-8, or a number of too many digits
        raise BadMessage(f"not JSON: {error}") from None


def _read(fd: int, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = os.read(fd, length - len(data))
        if not piece:
            raise EOFError("the other side closed the connection")
        data += piece
    return bytes(data)


def encode(value: object, refer: Callable[[object], int], depth: int = _MAX_DEPTH) -> object:
    """Returns a value in the form above.

    Args:
      refer: gives the number for an object that is no plain value, or raises TypeError.

    Raises:
      BadMessage: it is nested too deeply, or in itself.
    """
    if depth == 0:
        raise BadMessage(f"a value nested deeper than {_MAX_DEPTH}")
    if value is None or isinstance(value, bool | str | float):
        return value
    if isinstance(value, int):
        return int(value) if value.bit_length() <= _SMALL_INT_BITS else ["int", hex(value)]
    if isinstance(value, dict):
        return ["dict", [[encode(part, refer, depth - 1) for part in pair] for pair in value.items()]]
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            return [kind.__name__, [encode(item, refer, depth - 1) for item in value]]
    if isinstance(value, bytes | bytearray):
        return ["bytes", value.hex()]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, fractions.Fraction):
        return ["fraction", *(encode(part, refer) for part in (value.numerator, value.denominator))]
    if isinstance(value, decimal.Decimal):
        return ["decimal", str(value)]
    if isinstance(value, type) and _TYPES.get(value.__name__) is value:
        return ["type", value.__name__]
    return ["ref", refer(value)]


def decode(tree: object, resolve: Callable[[int], object], depth: int = _MAX_DEPTH) -> object:
    """Returns the value that `encode` was given.

    Args:
      resolve: gives the object for a number.

    Raises:
      BadMessage: `tree` has another form.
    """
    if depth == 0:
        raise BadMessage(f"a value nested deeper than {_MAX_DEPTH}")
    if tree is None or isinstance(tree, bool | int | float | str):  # JSON gives no subclasses
        return tree
    try:
        match tree:
            case ["list" | "tuple" | "set" | "frozenset" as kind, list(items)]:
                return _TYPES[kind](decode(item, resolve, depth - 1) for item in items)
            case ["dict", list(pairs)]:
                return {decode(k, resolve, depth - 1): decode(v, resolve, depth - 1) for k, v in pairs}
            case ["bytes", str(text)]:
                return bytes.fromhex(text)
            case ["int", str(text)]:
                return int(text, 16)
            case ["complex", float(real), float(imaginary)]:
                return complex(real, imaginary)
            case ["fraction", numerator, denominator]:
                return fractions.Fraction(decode(numerator, resolve, 2), decode(denominator, resolve, 2))
            case ["decimal", str(text)]:
                return decimal.Decimal(text)
            case ["type", str(name)]:
                return _TYPES[name]
            case ["ref", int(number)]:
                return resolve(number)
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:  # unhashable keys, odd hex, no denominator
        raise BadMessage(f"not a value: {error}") from None
    raise BadMessage("not a value")


_TYPES = {
    kind.__name__: kind
    for kind in (type(None), bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict)
}
