"""Files of records for the tests of sources."""

import gzip
import json

import pyarrow
import pyarrow.parquet

from tiny_reasoning_jax.data import sources
from tiny_reasoning_jax.data.problems import Dropped, Problem


def gsm8k(number=4, **more) -> dict:
    return {"question": f"How many are {number}?", "answer": f"They are {number}.\n#### {number}"} | more


def write(path, *records):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record) + "\n" for record in records)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def write_parquet(path, records, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path, **options)
    return path


def read(spec, *args) -> list[Problem | Dropped]:
    return list(sources.read_source(str(spec), *args))


def show(records):
    return [(r.id, r.answer if isinstance(r, Problem) else r.reason) for r in records]


# --- files ----------------------------------------------------------------------------------------
