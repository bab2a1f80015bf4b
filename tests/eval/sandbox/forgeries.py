"""Wrong programs that want to be taken for right ones. What they are asked for is `f(x) == x + 1`, or what TESTS say.

Each is a program; PLAIN_TESTS, or those in TESTS, are what it is judged by. In one process with its tests, as programs
are commonly judged, each of them passes.
"""

PLAIN_TESTS = """
def check(candidate):
    assert candidate(1) == 2
    assert candidate(41) == 42

check(f)
"""

FORGERIES = {
    "an object that is equal to everything": """
class Anything:
    def __eq__(self, other):
        return True

def f(x):
    return Anything()
""",
    "a subclass of int that is equal to everything": """
class Number(int):
    def __eq__(self, other):
        return True
    __hash__ = int.__hash__

def f(x):
    return Number(0)
""",
    "an iterator that holds everything": """
import itertools

def f(x):
    return itertools.count()
""",
    "a set that says it holds everything": """
class Everything(set):
    def __contains__(self, item):
        return True

def f(x):
    return Everything()
""",
    "a difference of nothing to any number": """
class Near:
    def __sub__(self, other):
        return self
    __rsub__ = __sub__
    def __abs__(self):
        return 0.0

def f(x):
    return Near()
""",
    "an order that puts it where it should be": """
class Between:
    def __lt__(self, other):
        return True
    __gt__ = __le__ = __ge__ = __lt__

def f(x):
    return Between()
""",
    "a text that is equal to every text": """
class Text(str):
    def __eq__(self, other):
        return True
    __hash__ = str.__hash__

def f(x):
    return Text("wrong")
""",
    "a type that says it is another": """
class Liar:
    __class__ = int
    def __eq__(self, other):
        return True

def f(x):
    return Liar()
""",
    "a list that is another one each time it is looked at": """
class Sly(list):
    looks = 0
    def __iter__(self):
        self.looks += 1
        return iter([3, 1, 2] if self.looks == 1 else [])

def f(items):
    return Sly([3, 1, 2])
""",
    "leaving with success": """
import sys

def f(x):
    sys.exit(0)
""",
    "leaving with success while it loads": """
raise SystemExit(0)
""",
    "ending the process with success": """
import os

def f(x):
    os._exit(0)
""",
    "ending the process with success from a thread": """
import os, threading

def f(x):
    threading.Thread(target=os._exit, args=(0,)).start()
    threading.Event().wait()
""",
    "writing a verdict to every descriptor": """
import os

def f(x):
    for fd in range(1, 64):
        for message in (b"true", b'[true, "", false]', b"passed", b"OK"):
            try:
                os.write(fd, len(message).to_bytes(4, "big") + message)
            except OSError:
                pass
    os._exit(0)
""",
    "sending values before they are asked for": """
import os

def f(x):
    message = b'["gave",true,[]]'
    for fd in range(3, 64):
        try:
            for _ in range(10):
                os.write(fd, len(message).to_bytes(4, "big") + message)
        except OSError:
            pass
    os._exit(0)
""",
    "replacing Python's own functions": """
import builtins

builtins.all = builtins.any = builtins.isinstance = lambda *_: True

def f(x):
    return x
""",
    "replacing a function of the library": """
import math

math.isclose = lambda *_, **__: True

def f(x):
    return 0
""",
    "its own version of a module that the tests use": """
class math:
    isclose = staticmethod(lambda *_, **__: True)

def f(x):
    return 0
""",
    "ending the tests' loop without a word": """
def f(x):
    raise StopIteration
""",
    "changing the tests' variables in their frame": """
import sys

def f(x):
    frame = sys._getframe(1)
    while frame:
        if "cases" in frame.f_globals:
            frame.f_globals["cases"].clear()
        frame = frame.f_back
    return 0
""",
    "looking the answers up in memory": """
import gc

def f(x):
    for found in gc.get_objects():
        if type(found) is list and found and found[0] == "table":
            return dict(found[1:])[x]
""",
    "skipping the tests with the debugger": """
import sys

def f(x):
    def jump(frame, event, _):
        if event == "line":
            frame.f_lineno = frame.f_code.co_firstlineno + 3
            frame.f_trace = None
    frame = sys._getframe(1)
    frame.f_trace = jump
    sys.settrace(lambda *_: None)
    return 0
""",
    "overwriting the number that it is compared with": """
import ctypes

def f(x):
    expected = x + 1
    ctypes.c_uint32.from_address(id(expected) + 24).value = x
    return x
""",
    "switching failures off": """
import atexit, os

atexit.register(os._exit, 0)

def f(x):
    return 0
""",
    "printing an excuse from the hook of uncaught errors": """
import os, sys

sys.excepthook = lambda *_: os._exit(0)

def f(x):
    return 0
""",
    "emptying the list that it is judged by": """
def f(items):
    items.clear()
    return 0
""",
    "a number that is no number": """
class NotANumber(float):
    def __eq__(self, other):
        return True

def f(x):
    return NotANumber("nan")
""",
}

TESTS = {
    "an iterator that holds everything": "assert 2 in f(1)\n",
    "a set that says it holds everything": "assert 2 in f(1)\n",
    "a difference of nothing to any number": "assert abs(f(1) - 2) < 1e-6\n",
    "an order that puts it where it should be": "assert 1 < f(1) < 3\n",
    "a text that is equal to every text": "assert f(1) == 'two'\n",
    "replacing Python's own functions": "assert all([f(1) == 2, f(2) == 3])\n",
    "replacing a function of the library": "import math\nassert math.isclose(f(1), 2)\n",
    "its own version of a module that the tests use": "assert math.isclose(f(1), 2)\n",
    "ending the tests' loop without a word": "assert all(map(lambda x: f(x) == x + 1, [1, 2, 3]))\n",
    "changing the tests' variables in their frame": (
        "cases = [(1, 2), (2, 3)]\nf(0)\nfor x, y in cases:\n    assert f(x) == y\n"
    ),
    "looking the answers up in memory": (
        "table = ['table', (1, 2), (41, 42)]\nassert f(1) == table[1][1]\nassert f(41) == table[2][1]\n"
    ),
    "skipping the tests with the debugger": (
        "def check(candidate):\n    got = candidate(1)\n    assert got == 2\n    return\n\ncheck(f)\n"
    ),
    "overwriting the number that it is compared with": "assert f(100) == 101\n",
    "emptying the list that it is judged by": "items = [1, 2, 3]\nassert f(items) == len(items)\n",
    "a list that is another one each time it is looked at": (
        "got = f([3, 1, 2])\nassert sorted(got) == [1, 2, 3]\nassert all(a <= b for a, b in zip(got, got[1:]))\n"
    ),
    "a type that says it is another": "assert isinstance(f(1), int) and f(1) == 2\n",
}
