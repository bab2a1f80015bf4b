"""The process of the tests: it runs them, asks the program's process for each value, and compares here.

The tests see the program's functions as `Reference`s. A reference forwards calls, attributes, items and iteration, and
nothing that compares: what a program's object says of its own equality, order or membership is never asked.
"""

import ast
import builtins
import importlib
import reprlib
import symtable
import sys
import traceback
import types
from typing import NoReturn

from tiny_reasoning_jax.eval.sandbox import wire

_FILE = "<tests>"
_DETAIL_CHARS = 300


class _Lost(BaseException):
    """The program can no longer be asked. Not an Exception, so that tests do not take it for something it raised."""


class Reference:
    """An object in the program's process, as the tests see it. It is equal to itself alone."""

    __slots__ = ("__ask", "__number")
    __contains__ = None  # else Python would search by iterating, and an endless iterator contains everything

    def __init__(self, ask, number: int) -> None:
        object.__setattr__(self, "_Reference__ask", ask)
        object.__setattr__(self, "_Reference__number", number)

    def __repr__(self) -> str:
        return "<object of the program>"

    def __call__(self, *arguments, **keywords):
        """Calls it there, with copies of plain values."""
        return self.__ask("call", self, *arguments, **keywords)

    def __getattr__(self, name: str):
        if name.startswith("__"):  # Python asks for these on its own account
            raise AttributeError(f"{name} of an object in another process")
        return self.__ask("get", self, name)

    def __setattr__(self, name: str, value: object) -> None:
        self.__ask("set", self, name, value)

    def __getitem__(self, key):
        return self.__ask("item", self, key)

    def __len__(self) -> int:
        return self.__ask("len", self)

    def __bool__(self) -> bool:
        return self.__ask("truth", self)

    def __iter__(self):
        return self.__ask("iter", self)

    def __next__(self):
        return self.__ask("next", self)


def serve(job: int, link: int) -> None:
    """Reads a program and its tests from `job`, and writes the verdict there: [passed, why not, program ended]."""
    source, tests = wire.receive(job)
    program = _Program(link)
    passed, why = False, ""
    try:
        program.ask("load", source)
        module = types.ModuleType("tests")
        sys.modules[module.__name__] = module  # dataclasses and typing look their module up
        code = compile(tests, _FILE, "exec")
        used = _find_names(program, tests)
        module.__dict__.update(used)
        module.__dict__.update(_import_modules(tests))
        exec(code, module.__dict__)
        passed, why = bool(used), "" if used else "the tests use nothing that the program defines"
    except BaseException as error:
        why = _describe(error, tests, program.last)
    passed = passed and not program.lost  # tests may have caught that, and gone on without answers
    wire.send(job, [passed, program.lost or why, program.ended])


class _Program:
    """The program's process, as it can be asked."""

    def __init__(self, link: int) -> None:
        self._link = link
        self._references: dict[int, Reference] = {}
        self.lost = ""  # why it can no longer be asked
        self.ended = False
        self.last = ""  # what it gave last

    def ask(self, operation: str, *arguments, **keywords):
        """Returns what the operation gave, or raises what it raised, as one of Python's own exceptions."""
        request = [operation, *(wire.encode(part, _number_of) for part in (list(arguments), keywords))]
        match self._exchange(request):
            case ["gave", tree, list(changed)]:
                value = self._decode(tree)
                if operation == "call" and value is None:
                    self._put_back(arguments, changed)
                self.last = _show(value)
                return value
            case ["end"] if operation == "next":
                raise StopIteration
            case ["raised", [*names], str(text)] if names and all(isinstance(name, str) for name in names):
                error = _make_exception(names, text[:_DETAIL_CHARS])
                if error is None:
                    self._lose(f"{names[0]}: {text[:_DETAIL_CHARS]}")
                raise error
        self._lose("the program's answer is none")

    def _exchange(self, request: list) -> object:
        if self.lost:
            raise _Lost(self.lost)
        try:
            wire.send(self._link, request)
            return wire.receive(self._link)
        except wire.BadMessage as bad:
            self._lose(f"between tests and program: {bad}")
        except (EOFError, OSError):
            self.ended = True
            self._lose("the program ended")

    def _decode(self, tree: object) -> object:
        try:
            return wire.decode(tree, self._resolve)
        except wire.BadMessage as bad:
            self._lose(f"the program's answer cannot be read: {bad}")

    def _resolve(self, number: int) -> Reference:
        return self._references.setdefault(number, Reference(self.ask, number))

    def _put_back(self, arguments: tuple, changed: list) -> None:
        """Changes the tests' lists, dicts and sets as the program changed its copies."""
        places = {place: argument for place, argument in enumerate(arguments[1:]) if type(argument) in _REFILL}
        for change in changed:
            match change:
                case [int(place), tree] if place in places:
                    mine, now = places[place], self._decode(tree)
                case _:
                    self._lose("the program changed what it was not given")
            if type(now) is not type(mine):
                self._lose("the program made something else of what it was given")
            mine.clear()
            _REFILL[type(mine)](mine, now)

    def _lose(self, why: str) -> NoReturn:
        self.lost = self.lost or why
        raise _Lost(why)


_REFILL = {list: list.extend, dict: dict.update, set: set.update}


def _number_of(value: object) -> int:
    if not isinstance(value, Reference):
        raise TypeError(f"the tests give the program a {type(value).__name__}, which is no plain value")
    return object.__getattribute__(value, "_Reference__number")


def _make_exception(names: list[str], text: str) -> Exception | None:
    """Returns the nearest of Python's exceptions among the names, or None where the program was leaving (SystemExit).

    StopIteration is not raised as itself: it would end a test's loop over its cases without a word.
    """
    for name in names:
        kind = getattr(builtins, name, None)
        if (
            isinstance(kind, type)
            and issubclass(kind, Exception)
            and name not in ("StopIteration", "StopAsyncIteration")
        ):
            try:
                return kind(text if name == names[0] else f"{names[0]}: {text}")
            except TypeError:  # UnicodeDecodeError and its like are made of more than a text; take what they extend
                continue
    return None


def _find_names(program: _Program, tests: str) -> dict[str, object]:
    """Returns what the tests use without defining or importing it, as far as the program has it.

    Python's own names (`abs`, `int`) stay Python's, unless the tests use no other name: then they are about a function
    that the program calls so.
    """
    names = _list_free_names(tests)
    names = {name for name in names if not hasattr(builtins, name)} or names
    found = {name: program.ask("find", name) for name in sorted(names - _list_modules(tests))}
    return {name: value[0] for name, value in found.items() if isinstance(value, tuple) and len(value) == 1}


def _import_modules(tests: str) -> dict[str, object]:
    """Modules that the tests use and leave to the program to import: the library's, not what the program has."""
    return {name: importlib.import_module(name) for name in _list_modules(tests) & _list_free_names(tests)}


def _list_modules(tests: str) -> set[str]:
    """Returns the names of modules of the standard library that the tests take attributes of."""
    attributes = (node for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Attribute))
    return {node.value.id for node in attributes if isinstance(node.value, ast.Name)} & sys.stdlib_module_names


def _list_free_names(tests: str) -> set[str]:
    """Returns the global names that the tests use and do not bind."""
    module = symtable.symtable(tests, _FILE, "exec")
    bound = {symbol.get_name() for symbol in module.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    tables, names = [module], set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        used = (symbol for symbol in table.get_symbols() if symbol.is_referenced())
        names |= {symbol.get_name() for symbol in used if table is module or symbol.is_global()}
    return names - bound


def _describe(error: BaseException, tests: str, last: str) -> str:
    """Returns what went wrong, with the tests' lines where it did."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == _FILE]
    if frames:
        lines = tests.splitlines()[frames[-1].lineno - 1 : frames[-1].end_lineno]
        where = " ".join(" ".join(lines).split())[:_DETAIL_CHARS]
        text = f"{text[:_DETAIL_CHARS]} at {where}"
        if isinstance(error, AssertionError):
            text = f"assertion failed: {where}; the program's last answer was {last}"
    return text[: 3 * _DETAIL_CHARS]


def _show(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # an int of too many digits
        return f"a large {type(value).__name__}"
