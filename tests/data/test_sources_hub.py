"""pytest tests/data/test_sources_hub.py: data sets of the hub are streamed; without a network."""

import datasets
import pytest
from source_files import gsm8k, read, show, write, write_parquet

from tiny_reasoning_jax.data import sources
from tiny_reasoning_jax.errors import UserError


class Broken(Exception):
    """Of a type that nobody expects, as the hub's many libraries raise them."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """`datasets` with one set "org/set", made of a local file; everything but its load_dataset is real."""
    monkeypatch.chdir(tmp_path)
    local = write(tmp_path / "local" / "made.jsonl", *map(gsm8k, range(5)))
    real, calls = datasets.load_dataset, []

    def load_dataset(name, config=None, *, split, streaming):
        assert streaming and name == "org/set"
        calls.append((config, split))
        return real("json", data_files={"train": str(local)}, split=split, streaming=True, cache_dir=str(tmp_path))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


@pytest.mark.parametrize(
    ("spec", "call"),
    [("org/set", (None, "train")), ("org/set:main", ("main", "train")), ("org/set:a-b_c:train", ("a-b_c", "train")),
     ("org/set::train", (None, "train"))],
)  # fmt: skip
def test_a_hub_id_is_streamed_with_config_and_split(hub, spec, call):
    found = read(spec)
    assert show(found) == [(f"{spec}:{row + 1}", str(row)) for row in range(5)]
    assert {record.source for record in found} == {"org/set"} and hub == [call]


def test_an_unknown_split_says_which_there_are(hub):
    with pytest.raises(UserError, match=r"split 'test': ValueError: .*train.*hf download"):
        sources.read_source("org/set:main:test")


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Couldn't reach 'org/set' on the Hub"),
        datasets.exceptions.DatasetNotFoundError("Dataset 'org/set' doesn't exist on the Hub"),
        ValueError("Config name is missing. Pick one among: ['main', 'socratic']"),
        Broken("what"),
    ],
)
def test_a_hub_that_does_not_give_is_the_users_to_mend_at_once(monkeypatch, tmp_path, error):
    def fail(*args, **options):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", fail)
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", fail)
    for function in (sources.read_source, sources.mark_source):
        with pytest.raises(UserError, match=r"data.source='org/set' is no file.*give the folder") as raised:
            function("org/set")
        assert str(error) in str(raised.value)


def test_a_stream_that_breaks_is_not_taken_for_one_that_ended(monkeypatch, tmp_path):
    def give(kind):
        yield from map(gsm8k, range(3))
        if kind is not None:
            raise kind("connection lost")

    monkeypatch.chdir(tmp_path)
    for kind in (ConnectionError, Broken, EOFError):
        stream = datasets.IterableDataset.from_generator(give, gen_kwargs={"kind": kind})
        monkeypatch.setattr(datasets, "load_dataset", lambda *args, stream=stream, **options: stream)
        records = sources.read_source("org/set")
        assert [next(records).answer for _ in range(3)] == ["0", "1", "2"]
        with pytest.raises(UserError, match="broke off after 3 records: connection lost"):
            next(records)
    short = datasets.IterableDataset.from_generator(give, gen_kwargs={"kind": None})
    short.info.splits = {"train": datasets.SplitInfo("train", num_examples=4)}
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **options: short)
    with pytest.raises(UserError, match="gave 3 of the 4 records that its card announces"):
        read("org/set")


def test_without_the_library_the_message_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    path = write_parquet(tmp_path / "a.parquet", [gsm8k()])
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    for spec in ("org/set", path):
        with pytest.raises(UserError, match=r'pip install "tiny_reasoning_jax\[hub\]"'):
            read(spec)


def test_a_local_folder_comes_before_the_hub(hub, tmp_path):
    write(tmp_path / "org" / "set" / "a.jsonl", gsm8k(7))
    assert show(read("org/set")) == [("a.jsonl:1", "7")] and hub == []


def test_the_hubs_mark_is_its_newest_commit(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    info = type("Info", (), {"sha": "abc123"})
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda self, name: info if name == "org/set" else None)
    assert sources.mark_source("org/set:main") == "org/set:main at revision abc123"
