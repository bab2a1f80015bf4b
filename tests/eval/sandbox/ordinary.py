"""Programs that the sandbox must run: what people write who mean no harm."""

ORDINARY = {
    "imports": """
import abc, array, ast, base64, binascii, bisect, bz2, calendar, cmath, collections, contextlib, copy, csv, datetime
import decimal, difflib, enum, fractions, functools, hashlib, heapq, hmac, html, inspect, io, itertools, json
import lzma, math, numbers, operator, pprint, queue, random, re, secrets, statistics, string, struct, sys
import textwrap, threading, time, tempfile, timeit, traceback, types, typing, unicodedata, urllib.parse, uuid, warnings
import weakref, xml.dom, zlib, zoneinfo

def f():
    return (
        hashlib.sha256(b"").hexdigest()[:4], str(decimal.Decimal(1) / 3)[:5], statistics.mean([1, 2]),
        zlib.decompress(zlib.compress(b"a")), re.sub("a", "b", "aa"), json.loads("[1]"), unicodedata.name("a"),
    ) == ("e3b0", "0.333", 1.5, b"a", "bb", [1], "LATIN SMALL LETTER A")
""",
    "classes": """
from __future__ import annotations
import dataclasses, enum, typing

@dataclasses.dataclass(order=True)
class Point:
    x: int
    y: int = 0

class Colour(enum.Enum):
    RED = "r"

def f():
    return Point(1) < Point(1, 2) and Colour("r").name == "RED" and typing.get_type_hints(Point)["x"] is int
""",
    "threads": """
import queue, threading
from concurrent.futures import ThreadPoolExecutor

def f():
    results = queue.Queue()
    threads = [threading.Thread(target=results.put, args=(i,)) for i in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    with ThreadPoolExecutor(8) as executor:
        return results.qsize() == 50 and sum(executor.map(lambda x: x * x, range(100))) == 328350
""",
    "recursion": """
import sys

def depth(n):
    return n if n == 0 else 1 + depth(n - 1)

def f():
    try:
        depth(10**6)
    except RecursionError:
        sys.setrecursionlimit(20_000)
        return depth(900) == 900 and depth(15_000) == 15_000
""",
    "big integers": """
import math

def f():
    return math.factorial(2000) % (10**9 + 7) == pow(2, 10**6, 10**9 + 7) * 0 + math.factorial(2000) % (10**9 + 7)
""",
    "printing": """
import sys

def f():
    for i in range(1000):
        print("line", i, file=sys.stderr if i % 2 else sys.stdout, flush=True)
    return True
""",
    "reading nothing": """
import sys

def f():
    try:
        input()
    except EOFError:
        return sys.stdin.read() == ""
""",
    "files of its own": """
import os, pathlib, tempfile

def f():
    with open("data.txt", "w") as file:
        file.write("ä" * 1000)
    os.rename("data.txt", "other.txt")
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
    path = pathlib.Path("other.txt")
    text, size, names = path.read_text(), path.stat().st_size, os.listdir()
    path.unlink()
    return text == "ä" * 1000 and size == 2000 and names == ["other.txt"] and os.listdir() == []
""",
    "time and chance": """
import datetime, random, time

def f():
    start = time.monotonic()
    time.sleep(0.01)
    return time.monotonic() > start and datetime.datetime.now().year > 2000 and 0 <= random.random() < 1
""",
    "a program that is also a script": """
def f():
    return True

if __name__ == "__main__":
    raise SystemExit(f())
""",
    "memory that is a lot and not too much": """
def f():
    return len(bytearray(400 << 20)) == 400 << 20
""",
}
