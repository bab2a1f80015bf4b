"""Runs small Python programs that nobody vouches for: those of prompts and those that a model wrote.

No text is ever given to Python's own exec or eval. The interpreter walks the syntax tree, knows a short list of
constructs, and counts steps, nesting and the size of every value. What it refuses: imports, attributes other than
a few methods, keywords, floats, containers in containers, and any program beyond the limits. Whatever is wrong
with a program, it raises ValueError and nothing else.
"""

import ast
import itertools
import operator
import warnings
from collections.abc import Callable, Iterator

_MAX_STEPS = 20_000  # nodes of the tree visited, entries of containers read
_MAX_DEPTH = 200  # nodes visited within one another, calls included; two Python frames each
_MAX_SIZE = 1000  # entries of a list, characters of a text, characters of a program
_MAX_BITS = 256  # of an integer

_ATOMS = (int, str, type(None))
_OPERATORS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.Pow: operator.pow, ast.USub: operator.neg, ast.UAdd: operator.pos,
    ast.Not: operator.not_, ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b,
}  # fmt: skip
_FUNCTIONS = {f.__name__: f for f in (len, sum, max, min, sorted, abs, range, list, str, int, reversed)}
_METHODS = {
    str: ("upper", "lower", "replace", "count", "find", "join", "index"),
    list: ("append", "pop", "sort", "reverse", "count", "index", "insert"),
    dict: ("get", "items", "keys", "values", "pop"),
}
# What a program of allowed constructs can still raise; all of it means that the program is wrong.
_FAILURES = (ArithmeticError, LookupError, TypeError, RuntimeError, ValueError, AssertionError)


class _Return(Exception):
    def __init__(self, value: object):
        self.value = value


class _Loop(Exception):
    """A break or a continue on its way to its loop."""

    def __init__(self, node: ast.Break | ast.Continue):
        self.ends = isinstance(node, ast.Break)


class _Function:
    def __init__(self, node: ast.FunctionDef | ast.Lambda, scope: "_Scope"):
        rules = node.args
        plain = not (rules.posonlyargs or rules.kwonlyargs or rules.defaults or rules.vararg or rules.kwarg)
        if not plain or getattr(node, "decorator_list", []):
            raise ValueError("a function has plain parameters only")
        self.parameters, self.scope = [_name(argument.arg) for argument in rules.args], scope
        self.body = [ast.Return(node.body)] if isinstance(node, ast.Lambda) else node.body


class _Scope(dict):
    def __init__(self, outer: "_Scope | None" = None):
        super().__init__()
        self.outer = outer

    def __missing__(self, name: str) -> object:
        if self.outer is None:
            raise ValueError(f"{name} is not defined or not allowed")
        return self.outer[name]

    def knows(self, name: str) -> bool:
        return name in self or (self.outer is not None and self.outer.knows(name))


def _name(text: str) -> str:
    if text.startswith("_"):
        raise ValueError(f"the name {text} is not allowed")
    return text


class Program:
    """One run of one program: `run` takes statements, `call` calls a function that they defined.

    Attributes:
      printed: the lines that the program printed.
      names: its global names and their values.
    """

    def __init__(self):
        self.printed: list[str] = []
        self.names = _Scope()
        self._steps = self._depth = 0

    def run(self, body: list[ast.stmt]) -> None:
        """Runs statements. Raises ValueError for whatever is wrong with them."""
        self._guard(self._statements, body, self.names)

    def call(self, name: str, arguments: list) -> object:
        """Calls a function by name. Raises ValueError for whatever is wrong with it."""
        return self._guard(lambda: self._call_own(self.names[name], arguments))

    def _guard(self, function: Callable, *arguments: object) -> object:
        self._depth = 0
        try:
            return function(*arguments)
        except (_Return, _Loop) as error:
            raise ValueError("return, break or continue at a wrong place") from error
        except _FAILURES as error:
            raise ValueError(f"the program fails: {type(error).__name__}: {error}") from error

    def _count(self, num_steps: int = 1) -> None:
        self._steps += num_steps
        if self._steps > _MAX_STEPS:
            raise ValueError(f"more than {_MAX_STEPS} steps")

    def _deepen(self) -> None:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise ValueError(f"nested more than {_MAX_DEPTH} deep")

    def _checked(self, value: object) -> object:
        """The value, if it is of a known kind and within the limits."""
        if isinstance(value, int):
            if value.bit_length() > _MAX_BITS:
                raise ValueError(f"a number of more than {_MAX_BITS} bits")
        elif isinstance(value, (str, list, tuple, dict, range)):
            if len(value) > _MAX_SIZE:
                raise ValueError(f"a value of more than {_MAX_SIZE} entries")
            if not isinstance(value, (str, range)):
                entries = itertools.chain(value, value.values()) if isinstance(value, dict) else value
                if not all(isinstance(entry, _ATOMS) for entry in entries):
                    raise ValueError("containers hold numbers and texts only")
                self._count(len(value) // 8)
        elif value is not None and not isinstance(value, _Function):
            raise ValueError(f"a value of type {type(value).__name__}")
        return value

    # --- statements ---

    def _statements(self, body: list[ast.stmt], scope: _Scope) -> None:
        self._deepen()
        for node in body:
            self._count()
            method = getattr(self, f"_do_{type(node).__name__}", None)
            if method is None:
                raise ValueError(f"{type(node).__name__} is not allowed")
            method(node, scope)
        self._depth -= 1

    def _do_Expr(self, node: ast.Expr, scope: _Scope) -> None:
        self._value(node.value, scope)

    def _do_Pass(self, node: ast.Pass, scope: _Scope) -> None:
        pass

    def _do_Assign(self, node: ast.Assign, scope: _Scope) -> None:
        value = self._value(node.value, scope)
        for target in node.targets:
            self._store(target, value, scope)

    def _do_AugAssign(self, node: ast.AugAssign, scope: _Scope) -> None:
        old = self._value(node.target, scope)
        new = self._binary(node.op, old, self._value(node.value, scope))
        if isinstance(old, list):  # in place, as other names may stand for the same list
            old[:] = new
            new = old
        self._store(node.target, new, scope)

    def _do_If(self, node: ast.If, scope: _Scope) -> None:
        self._statements(node.body if self._value(node.test, scope) else node.orelse, scope)

    def _do_For(self, node: ast.For, scope: _Scope) -> None:
        for value in self._iterate(node.iter, scope):
            self._store(node.target, value, scope)
            if self._ends_loop(node.body, scope):
                return
        self._statements(node.orelse, scope)

    def _do_While(self, node: ast.While, scope: _Scope) -> None:
        while self._value(node.test, scope):
            if self._ends_loop(node.body, scope):
                return
        self._statements(node.orelse, scope)

    def _ends_loop(self, body: list[ast.stmt], scope: _Scope) -> bool:
        depth = self._depth
        try:
            self._statements(body, scope)
        except _Loop as jump:
            self._depth = depth
            return jump.ends
        return False

    def _do_Break(self, node: ast.Break | ast.Continue, scope: _Scope) -> None:
        raise _Loop(node)

    _do_Continue = _do_Break

    def _do_FunctionDef(self, node: ast.FunctionDef, scope: _Scope) -> None:
        scope[_name(node.name)] = _Function(node, scope)

    def _do_Return(self, node: ast.Return, scope: _Scope) -> None:
        raise _Return(None if node.value is None else self._value(node.value, scope))

    def _do_Assert(self, node: ast.Assert, scope: _Scope) -> None:
        if not self._value(node.test, scope):
            raise ValueError("an assert fails")

    def _store(self, target: ast.expr, value: object, scope: _Scope) -> None:
        if isinstance(target, ast.Name):
            scope[_name(target.id)] = self._checked(value)
        elif isinstance(target, ast.Subscript) and not isinstance(target.slice, ast.Slice):
            container = self._value(target.value, scope)
            container[self._value(target.slice, scope)] = value
            self._checked(container)
        elif isinstance(target, ast.Tuple) and isinstance(value, tuple | list) and len(value) == len(target.elts):
            for part, entry in zip(target.elts, value, strict=True):
                self._store(part, entry, scope)
        else:
            raise ValueError("this assignment is not allowed")

    # --- expressions ---

    def _value(self, node: ast.expr, scope: _Scope) -> object:
        self._count()
        self._deepen()
        method = getattr(self, f"_of_{type(node).__name__}", None)
        if method is None:
            raise ValueError(f"{type(node).__name__} is not allowed")
        value = self._checked(method(node, scope))
        self._depth -= 1
        return value

    def _of_Constant(self, node: ast.Constant, scope: _Scope) -> object:
        return node.value

    def _of_Name(self, node: ast.Name, scope: _Scope) -> object:
        return scope[_name(node.id)]

    def _of_BinOp(self, node: ast.BinOp, scope: _Scope) -> object:
        return self._binary(node.op, self._value(node.left, scope), self._value(node.right, scope))

    def _binary(self, kind: ast.operator, left: object, right: object) -> object:
        if type(kind) not in _OPERATORS:
            raise ValueError(f"{type(kind).__name__} is not allowed")
        numbers = isinstance(left, int) and isinstance(right, int)
        if isinstance(kind, ast.Pow) and not (numbers and 0 <= right and left.bit_length() * right <= _MAX_BITS):
            raise ValueError("a power that is too large or not whole")
        if isinstance(kind, ast.Mod | ast.FloorDiv) and not numbers:
            raise ValueError("only numbers are divided")
        if isinstance(kind, ast.Mult) and not numbers:
            entries, times = (left, right) if isinstance(right, int) else (right, left)
            if not isinstance(entries, str | list | tuple) or len(entries) * times > _MAX_SIZE:
                raise ValueError(f"a product of more than {_MAX_SIZE} entries or of no meaning")
        return self._checked(_OPERATORS[type(kind)](left, right))

    def _of_UnaryOp(self, node: ast.UnaryOp, scope: _Scope) -> object:
        if type(node.op) not in _OPERATORS:
            raise ValueError(f"{type(node.op).__name__} is not allowed")
        return _OPERATORS[type(node.op)](self._value(node.operand, scope))

    def _of_BoolOp(self, node: ast.BoolOp, scope: _Scope) -> object:
        stops = not isinstance(node.op, ast.And)
        for part in node.values:
            value = self._value(part, scope)
            if bool(value) == stops:
                break
        return value

    def _of_Compare(self, node: ast.Compare, scope: _Scope) -> bool:
        left = self._value(node.left, scope)
        for kind, part in zip(node.ops, node.comparators, strict=True):
            right = self._value(part, scope)
            if type(kind) not in _OPERATORS:
                raise ValueError(f"{type(kind).__name__} is not allowed")
            if not _OPERATORS[type(kind)](left, right):
                return False
            left = right
        return True

    def _of_IfExp(self, node: ast.IfExp, scope: _Scope) -> object:
        return self._value(node.body if self._value(node.test, scope) else node.orelse, scope)

    def _of_List(self, node: ast.List, scope: _Scope) -> list:
        return [self._value(part, scope) for part in node.elts]

    def _of_Tuple(self, node: ast.Tuple, scope: _Scope) -> tuple:
        return tuple(self._value(part, scope) for part in node.elts)

    def _of_Dict(self, node: ast.Dict, scope: _Scope) -> dict:
        if None in node.keys:
            raise ValueError("** is not allowed")
        pairs = zip(node.keys, node.values, strict=True)
        return {self._value(key, scope): self._value(value, scope) for key, value in pairs}

    def _of_ListComp(self, node: ast.ListComp | ast.GeneratorExp, scope: _Scope) -> list:
        if len(node.generators) != 1:
            raise ValueError("a comprehension has one for")
        (loop,), inner, values = node.generators, _Scope(scope), []
        for value in self._iterate(loop.iter, scope):
            self._store(loop.target, value, inner)
            if all(self._value(test, inner) for test in loop.ifs):
                values.append(self._value(node.elt, inner))
        return values

    _of_GeneratorExp = _of_ListComp

    def _of_Subscript(self, node: ast.Subscript, scope: _Scope) -> object:
        container = self._value(node.value, scope)
        if not isinstance(node.slice, ast.Slice):
            return container[self._value(node.slice, scope)]
        ends = (node.slice.lower, node.slice.upper, node.slice.step)
        return container[slice(*(None if end is None else self._value(end, scope) for end in ends))]

    def _of_Lambda(self, node: ast.Lambda, scope: _Scope) -> _Function:
        return _Function(node, scope)

    def _iterate(self, node: ast.expr, scope: _Scope) -> Iterator[object]:
        """The entries of a container; of `d.items()` too, whose pairs are no value elsewhere."""
        method = node.func if isinstance(node, ast.Call) and not node.args else None
        if isinstance(method, ast.Attribute) and method.attr == "items":
            entries = self._value(method.value, scope)
            if not isinstance(entries, dict):
                raise ValueError("only a dict has items")
            entries = entries.items()
        else:
            entries = self._value(node, scope)
        for entry in entries:
            self._count()
            yield entry

    def _of_Call(self, node: ast.Call, scope: _Scope) -> object:
        if node.keywords:
            raise ValueError("keywords are not allowed")
        arguments = [self._value(part, scope) for part in node.args]
        self._count(sum(len(a) for a in arguments if isinstance(a, str | list | tuple | dict | range)) // 8)
        if isinstance(node.func, ast.Attribute):
            owner = self._value(node.func.value, scope)
            if node.func.attr not in _METHODS.get(type(owner), ()):
                raise ValueError(f"the method {node.func.attr} is not allowed")
            self._count(len(owner) // 8)
            value = getattr(owner, node.func.attr)(*arguments)
            self._checked(owner)
            return list(value) if isinstance(owner, dict) and node.func.attr in ("keys", "values") else value
        name = node.func.id if isinstance(node.func, ast.Name) and not scope.knows(node.func.id) else ""
        if name in _FUNCTIONS and not any(isinstance(a, _Function) for a in arguments):
            value = _FUNCTIONS[name](*arguments)
            return list(value) if name == "reversed" else value
        if name == "print":
            self.printed.append(" ".join(map(str, arguments)))
            return None
        return self._call_own(self._value(node.func, scope), arguments)

    def _call_own(self, function: object, arguments: list) -> object:
        if not isinstance(function, _Function) or len(arguments) != len(function.parameters):
            raise ValueError("this cannot be called so")
        inner, depth = _Scope(function.scope), self._depth
        inner.update(zip(function.parameters, arguments, strict=True))
        try:
            self._statements(function.body, inner)
        except _Return as result:
            self._depth = depth
            return self._checked(result.value)
        except _Loop as error:
            raise ValueError("a break or continue outside a loop") from error
        return None


def parse(text: str) -> list[ast.stmt]:
    """The statements of a program. Raises ValueError if it is too long or no Python."""
    if len(text) > _MAX_SIZE:
        raise ValueError(f"a program of more than {_MAX_SIZE} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd literals in a model's text, which are wrong or harmless
            return ast.parse(text).body
    except (SyntaxError, RecursionError, MemoryError) as error:  # the last two: brackets nested too deep
        raise ValueError(f"no Python: {error}") from error


def run(text: str) -> Program:
    """Runs a program. Raises ValueError."""
    program = Program()
    program.run(parse(text))
    return program
