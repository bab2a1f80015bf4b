"""Damage of every kind, drawn from a random generator: the same generator state gives the same damage."""

import copy
import gzip
import json
import random
import re

# What stands for itself in JSON text, because json.dumps would not write it.
_RAW = {
    "@deep100": "[" * 100 + "]" * 100,
    "@deep900": "[" * 900 + "]" * 900,
    "@deep990": '{"a":' * 985 + "0" + "}" * 985,
    "@deep100000": "[" * 100_000 + "]" * 100_000,
    "@open": "[" * 3000,
    "@huge": "9" * 5000,
    "@exponent": "1e999999",
}
_VALUES = (
    None, True, False, 0, -1, 1, 2, 3, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, 10**9, 10**12, 10**30,
    10**400, -(2**63), 0.5, 1.5, -0.0, 24.0, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"), "", " ", "0",
    "24", "true", "../../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "a\\b", "nul\0byte", "half \ud800",
    "\udcff", "\U0001f642", "x" * 10_000, "\n", "{{ 7 * 7 }}", "%s%n", "é" * 300, [], {}, [[]], [None], [0, 0],
    [10**9, 10**9], [-1, 24], [1.5], {"": None}, {"a": {"a": {"a": 0}}}, ["a", 1, None, {}], *_RAW,
)  # fmt: skip
_BYTES = (
    b"\0", b"\xff" * 8, b"\xed\xa0\x80", b"\xc3", b"\xef\xbb\xbf", b"[" * 2000, b'"', b"{}", b"\n", b"NaN", b"\\u",
    (2**63).to_bytes(8, "little"), (2**31).to_bytes(4, "little"), (10**9).to_bytes(8, "little"), b"null", b"-",
    b"9" * 30, b"PK\3\4",
)  # fmt: skip


def damage_bytes(rng: random.Random, data: bytes) -> bytes:
    """Flips, cuts, doubles, inserts and overwrites, one to three times."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        start = rng.randrange(len(data) + 1)
        stop = min(len(data), start + rng.choice((1, 2, 4, 8, 64, 1000)))
        kind = rng.randrange(8)
        if kind <= 1 and data:
            for _ in range(rng.choice((1, 1, 8))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del data[start:]
        elif kind == 3:
            del data[start:stop]
        elif kind == 4:
            data[start:start] = data[start:stop] * rng.choice((1, 1, 2, 50))
        elif kind == 5:
            data[start:stop] = rng.randbytes(stop - start)
        elif kind == 6:
            data[start:start] = rng.choice(_BYTES)
        else:
            inserted = rng.choice(_BYTES)
            data[start : start + len(inserted)] = inserted
    return bytes(data)


def damage_tree(rng: random.Random, tree):
    """One to three changes somewhere in decoded JSON: a value, its kind, a name, what is missing or there twice."""
    holder = [json.loads(json.dumps(tree))]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(holder))
        parent, key = rng.choice(places)
        kind = rng.randrange(10)
        if kind <= 4:
            parent[key] = copy.deepcopy(rng.choice(_VALUES))
        elif kind == 5 and parent is not holder:
            del parent[key]
        elif kind == 6 and isinstance(parent, dict):
            parent[rng.choice(("", "x", "../x", "half \ud800", key.upper(), "__metadata__", key + key))] = parent.pop(
                key
            )
        elif kind == 7:
            other, name = rng.choice(places)
            parent[key] = json.loads(json.dumps(other.get(name) if isinstance(other, dict) else other[name : name + 1]))
        elif kind == 8:
            value = parent[key]
            parent[key] = rng.choice(
                ([value], {"a": value}, [copy.deepcopy(value) for _ in range(40)], str(value)[:999])
            )
        elif type(parent[key]) in (int, float):
            parent[key] = rng.choice(
                (
                    parent[key] + 1,
                    -parent[key],
                    parent[key] * 10**6,
                    parent[key] // 7 / 3 if abs(parent[key]) < 2**64 else 0,
                    parent[key] - 1,
                )
            )
    return holder[0]


def _places(tree, limit: int = 2000):
    """Every (container, key) below, up to a limit."""
    stack = [tree]
    while stack and limit > 0:
        node = stack.pop()
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            limit -= 1
            yield node, key
            if isinstance(node[key], dict | list):
                stack.append(node[key])


def write_json(rng: random.Random, tree) -> bytes:
    """JSON text of a damaged tree; now and then in another encoding, or with a name twice."""
    text = json.dumps(tree, ensure_ascii=rng.random() < 0.7, indent=rng.choice((None, None, 1)))
    text = re.sub(r'"(@\w+)"', lambda match: _RAW.get(match[1], match[0]), text)
    if rng.random() < 0.05:
        text = re.sub(r'("[^"]*": *[^,{}\[\]]+)([,}])', r"\1, \1\2", text, count=1)
    encoding = rng.choice(("utf-8",) * 20 + ("utf-16", "utf-8-sig", "latin-1"))
    data = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    return damage_bytes(rng, data) if rng.random() < 0.1 else data


def damage_json(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.2:
        return damage_bytes(rng, data)
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):  # damaged once already
        return damage_bytes(rng, data)
    try:
        return write_json(rng, damage_tree(rng, tree))
    except RecursionError:  # nested deeply by the damage before
        return damage_bytes(rng, data)


def damage_any(rng: random.Random, data: bytes) -> bytes:
    return damage_json(rng, data) if data[:1] == b"{" else damage_bytes(rng, data)


def damage_lines(rng: random.Random, data: bytes) -> bytes:
    """Some lines of JSON lines; or their order, number and ends."""
    lines = data.splitlines()
    for _ in range(rng.choice((1, 1, 3))):
        place = rng.randrange(len(lines))
        lines[place] = damage_json(rng, lines[place]) if lines[place].strip() else b"[]"
        lines[place] = lines[place].replace(b"\n", b" ") or b" "
    if rng.random() < 0.1:
        lines.insert(
            rng.randrange(len(lines)), rng.choice((b"", b"\xff\xfe", b"  ", b"null", b"[1]", b'"text"', b"x" * 70_000))
        )
    text = rng.choice((b"\n",) * 8 + (b"\r\n", b"")).join(lines) + rng.choice((b"\n", b""))
    return damage_bytes(rng, text) if rng.random() < 0.1 else text


def damage_gzip(rng: random.Random, data: bytes, damage) -> bytes:
    if rng.random() < 0.4:
        return damage_bytes(rng, data)
    data = gzip.compress(damage(rng, gzip.decompress(data)), 1)
    return data + rng.choice((b"", b"", b"", b"\0" * 10, data, b"rubbish"))


def damage_safetensors(rng: random.Random, data: bytes) -> bytes:
    """The header as JSON, its length, or the bytes as such."""
    length = int.from_bytes(data[:8], "little")
    header, tensors = data[8 : 8 + length], data[8 + length :]
    kind = rng.random()
    if kind < 0.7:
        header = write_json(rng, damage_tree(rng, json.loads(header)))
        length = len(header)
    elif kind < 0.8:
        length = rng.choice((0, 1, 2, length - 1, length + 1, length * 2, len(data), 2**24, 10**8, 2**63, 2**64 - 1))
    else:
        return damage_bytes(rng, data)
    if rng.random() < 0.1:
        tensors = rng.choice((tensors[:-1], tensors + b"x", b"", tensors * 2))
    return length.to_bytes(8, "little") + header + tensors


def damage_npy(rng: random.Random, data: bytes) -> bytes:
    """The header of a .npy file, of the same length, or the bytes as such."""
    if rng.random() < 0.4:
        return damage_bytes(rng, data)
    length = int.from_bytes(data[8:10], "little")
    header = data[10 : 10 + length].decode()
    shape = rng.choice(
        ("()", "(-1,)", "(10**9,)", "(1000000000000,)", "(2, 6)", "(12.0,)", "[12]", "None", "(9" * 400, "(13,)")
    )
    dtype = rng.choice(
        ("'|O'", "'<i8'", "'<f4'", "'|S9'", "'<M8[s]'", "[('a', '<i4')]", "'V1000000000'", "os", "'<i4'")
    )
    if rng.random() < 0.7:
        header = re.sub(r"\(\d+,\)", shape, header)
    if rng.random() < 0.5:
        header = re.sub(r"'[<|]\w\d+'", dtype, header)
    header = header.strip().ljust(length - 1)[: length - 1].encode() + b"\n"
    return data[:10] + header + data[10 + length :]


_SNIPPETS = (
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ 'a' * 10**10 }}", "{% for i in range(10**9) %}{% endfor %}",
    "{% set a = 'xxxxxxxx' %}" + "{% set a = a ~ a %}" * 30 + "{{ a }}", "{{ messages.append(1) }}",
    "{{ cycler.__init__ }}", "{{ undefined.x }}", "{% include 'x' %}", "{{ 1 / 0 }}", "{{ raise_exception('no') }}",
    "{{ self }}", "{% if %}", "{{", "{{ lipsum.__globals__['os'].system('touch pwned') }}", "{#", "{% break %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ '\\ud800' }}", "{{ messages | tojson }}",
    "{{ strftime_now('%Y') }}", "{{ namespace(__class__=1) }}",
)  # fmt: skip


def damage_template(rng: random.Random, data: bytes) -> bytes:
    text = data.decode()
    for _ in range(rng.choice((1, 1, 2))):
        pieces = re.split(r"(\s+|[{}%|().'])", text)
        place = rng.randrange(len(pieces))
        kind = rng.randrange(4)
        if kind == 0:
            pieces.insert(place, rng.choice(_SNIPPETS))
        elif kind == 1:
            del pieces[place : place + rng.choice((1, 2, 10))]
        elif kind == 2:
            pieces[place] = rng.choice(pieces)
        else:
            pieces.insert(
                place, rng.choice(("not ", "*", "~", "|upper", "[0]", "()", "10**9", "message", " ", "}", "-%}"))
            )
        text = "".join(pieces)
    return text.encode()
