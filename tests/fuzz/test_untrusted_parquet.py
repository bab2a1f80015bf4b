"""pytest tests/fuzz/test_untrusted_parquet.py: what a Parquet file may hold."""

import pytest

from tiny_reasoning_jax.data.sources import read_source
from tiny_reasoning_jax.errors import UserError


def test_one_value_cannot_fill_memory_as_every_row_of_a_parquet_file(tmp_path):
    import pyarrow
    import pyarrow.parquet

    value, rows = pyarrow.array(["x" * (16 << 20)]), pyarrow.array([0] * 500, pyarrow.int32())
    answers = pyarrow.DictionaryArray.from_arrays(rows, value)
    table = pyarrow.table({"question": ["How many?"] * 500, "answer": answers})
    pyarrow.parquet.write_table(table, tmp_path / "bomb.parquet", compression="zstd", store_schema=False)
    assert (tmp_path / "bomb.parquet").stat().st_size < 10_000
    del table, answers, value
    most, records = 0, read_source(str(tmp_path / "bomb.parquet"))
    for _ in range(20):
        next(records)
        most = max(most, pyarrow.total_allocated_bytes())
    assert most < 400 << 20  # 64 rows at once would be 1 GiB


def test_a_parquet_columns_name_that_is_no_text_is_told_with_the_file(tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"question": ["How many?"], "answer": ["4"], "zzzz": [{"yyyy": 1}]})
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet", store_schema=False)
    for name in (b"zzzz", b"yyyy"):
        data = (tmp_path / "train.parquet").read_bytes()
        (tmp_path / "train.parquet").write_bytes(data.replace(name, b"\xdc" + name[1:]))
        with pytest.raises(UserError, match="train.parquet' cannot be read on after 0 records"):
            list(read_source(str(tmp_path)))
        (tmp_path / "train.parquet").write_bytes(data)


def test_parquet_values_that_python_has_not_cost_their_record(tmp_path):
    import pyarrow
    import pyarrow.parquet

    times = pyarrow.array([0, 2**62, 0], pyarrow.timestamp("us"))  # the year 148,108
    table = pyarrow.table({"question": ["How many?"] * 3, "answer": ["4"] * 3, "time": times})
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    records = list(read_source(str(tmp_path / "train.parquet")))
    assert [getattr(record, "reason", "used") for record in records] == ["used", "unreadable value", "used"]
