"""The process of a program: it runs what the model wrote and answers questions about it, with plain values.

Nothing that leaves here is believed. The program can do to this process what it likes: the questions, one at a time,
are all that it is told, and what it sends is a value or an exception, which the tests compare in their own process.
"""

import operator
import sys
import types

from tiny_reasoning_jax.eval.sandbox import wire

MODULE = "program"  # `__name__` of it; not "__main__", so that what a program does when it is run is left out


def serve(link: int) -> None:
    """Answers requests [operation, arguments, keyword arguments] until the other side is gone."""
    program = _Program()
    while True:
        try:
            request = wire.receive(link)
        except EOFError:
            return
        try:
            wire.send(link, program.answer(*request))
        except wire.BadMessage as error:  # an answer too large to send
            wire.send(link, _raised(error))


class _Program:
    def __init__(self) -> None:
        self._module = types.ModuleType(MODULE)
        sys.modules[MODULE] = self._module  # dataclasses and typing look their module up
        self._objects: list[object] = []  # what the other side holds references to
        self._numbers: dict[int, int] = {}  # by id; objects are never let go, so ids stay theirs
        self._operations = {
            "load": self._load,
            "find": self._find,
            "call": lambda function, *arguments, **keywords: function(*arguments, **keywords),
            "get": getattr,
            "set": setattr,
            "item": operator.getitem,
            "len": len,
            "truth": operator.truth,
            "iter": iter,
            "next": next,
        }

    def answer(self, operation: str, arguments: list, keywords: list) -> list:
        """Returns ["gave", value, changed arguments], ["raised", names of its types, text] or, for `next`, ["end"]."""
        try:
            values = wire.decode(arguments, self._objects.__getitem__)
            value = self._operations[operation](*values, **wire.decode(keywords, self._objects.__getitem__))
            changed = []
            if operation == "call" and value is None:  # as Python's own functions that change what they are given
                changed = self._find_changed(values[1:], arguments[1][1:])
            return ["gave", wire.encode(value, self._refer), changed]
        except StopIteration as error:
            return ["end"] if operation == "next" else _raised(error)
        except BaseException as error:
            return _raised(error)

    def _load(self, source: str) -> None:
        exec(compile(source, "<program>", "exec"), self._module.__dict__)

    def _find(self, name: str) -> tuple:
        """Returns the program's global of that name in a tuple; an empty one where there is none."""
        return (self._module.__dict__[name],) if name in self._module.__dict__ else ()

    def _find_changed(self, values: list, trees: list) -> list:
        """Returns the place and new value of each list, dict or set among the arguments that is not as it came."""
        changed = []
        for place, (value, tree) in enumerate(zip(values, trees, strict=True)):
            if isinstance(value, list | dict | set):
                now = wire.encode(value, self._refer)
                if now != tree:
                    changed.append([place, now])
        return changed

    def _refer(self, value: object) -> int:
        number = self._numbers.setdefault(id(value), len(self._objects))
        if number == len(self._objects):
            self._objects.append(value)
        return number


def _raised(error: BaseException) -> list:
    return ["raised", [kind.__name__ for kind in type(error).__mro__], str(error)[:500]]
