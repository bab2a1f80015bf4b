"""pytest tests/data/test_prepared.py"""

import errno
import hashlib
import multiprocessing
import pickle
import struct
import threading
import time
from array import array
from pathlib import Path

import grain
import numpy as np
import pytest

from tiny_reasoning_jax.data import prepared
from tiny_reasoning_jax.data.prepared import PreparedSplit, SplitWriter
from tiny_reasoning_jax.errors import UserError

IDS = ("a", "gsm8k:12", "größe-7", "x" * 300, "語")


@pytest.fixture
def examples(monkeypatch):
    """Examples of all lengths, enough for several shards."""
    monkeypatch.setattr(prepared, "_SHARD_BYTES", 40_000)
    rng = np.random.default_rng(0)
    return [
        (
            f"{IDS[i % len(IDS)]}-{i}",
            rng.integers(0, 151_936, rng.integers(0, 9)).tolist(),
            rng.integers(0, 9, n).tolist(),
        )
        for i, n in enumerate(rng.integers(1, 120, 500))
    ]


def write(folder, examples):
    writer = SplitWriter(folder)
    for i, (name, prompt, completion) in enumerate(examples):
        settings = {"difficulty": i % 5 + 1, "source": i % 3, "category": i % 7, "prompt_hash": 2**64 - 1 - i}
        writer.add(name, prompt, completion, **settings)
    return writer.close()


def test_what_is_read_is_what_was_written(examples, tmp_path):
    shards = write(tmp_path, examples)
    split = PreparedSplit.load(tmp_path)
    assert len(shards) > 2 and len(split) == len(examples)
    order = np.random.default_rng(1).permutation(len(examples)).tolist() + [0, 0]
    for i, (name, tokens) in zip(order, split.read(order), strict=True):
        assert tokens.dtype == np.int32 and not tokens.flags.writeable
        assert (name, tokens.tolist()) == (examples[i][0], examples[i][1] + examples[i][2])
    assert split.read([]) == []


def test_the_index_has_an_entry_for_each_example(examples, tmp_path):
    write(tmp_path, examples)
    split = PreparedSplit.load(tmp_path)
    numbers = np.arange(len(examples))
    expected = {
        "lengths": np.array([len(prompt) + len(completion) for _, prompt, completion in examples], np.int32),
        "prompt_lengths": np.array([len(prompt) for _, prompt, _ in examples], np.int32),
        "difficulty": (numbers % 5 + 1).astype(np.int8),
        "source": (numbers % 3).astype(np.int16),
        "category": (numbers % 7).astype(np.int16),
        "prompt_hash": np.uint64(2**64 - 1) - numbers.astype(np.uint64),
    }
    for name, column in expected.items():
        np.testing.assert_array_equal(getattr(split, name), column, err_msg=name, strict=True)


def test_grain_s_own_reader_and_the_documented_layout_agree(examples, tmp_path):
    shards = write(tmp_path, examples)
    source = grain.sources.ArrayRecordDataSource([str(tmp_path / shard["file"]) for shard in shards])
    assert len(source) == len(examples)
    for i in (0, 1, 250, len(examples) - 1):
        name, prompt, completion = examples[i]
        tokens = prompt + completion
        encoded = name.encode()
        assert source[i] == struct.pack(f"<I{len(encoded)}s{len(tokens)}i", len(encoded), encoded, *tokens)


def test_the_facts_about_shards_are_those_of_the_files(examples, tmp_path):
    shards = write(tmp_path, examples)
    assert sum(shard["examples"] for shard in shards) == len(examples)
    assert {path.name for path in tmp_path.glob("*.array_record")} == {shard["file"] for shard in shards}
    for shard in shards:
        content = (tmp_path / shard["file"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())


def test_the_same_examples_give_the_same_bytes(examples, tmp_path):
    assert write(tmp_path / "first", examples) == write(tmp_path / "second", examples)


def test_difficulties_may_be_decided_at_the_end(tmp_path):
    with SplitWriter(tmp_path) as writer:
        for length in (5, 9, 7):
            writer.add("x", [1], [2] * length, difficulty=0, source=0, category=0, prompt_hash=0)
        assert (list(writer.lengths), list(writer.prompt_lengths)) == ([6, 10, 8], [1, 1, 1])
        writer.difficulties = array("b", [1, 5, 3])
    assert PreparedSplit.load(tmp_path).difficulty.tolist() == [1, 5, 3]


def test_an_empty_split_is_a_split(tmp_path):
    assert write(tmp_path, []) == []
    assert len(PreparedSplit.load(tmp_path)) == 0


def test_a_fork_and_a_pickle_read_the_same(examples, tmp_path):
    write(tmp_path, examples)
    split = PreparedSplit.load(tmp_path)
    order = list(range(len(examples)))
    expected = [(name, prompt + completion) for name, prompt, completion in examples]
    with multiprocessing.get_context("fork").Pool(1) as pool:
        forked = pool.apply_async(split.read, (order,)).get(timeout=60)
    for found in (forked, pickle.loads(pickle.dumps(split)).read(order), split.read(order)):
        assert [(name, tokens.tolist()) for name, tokens in found] == expected


class SlowReader:
    """Lets the other threads go on between finding a record and reading it."""

    def __init__(self, reader):
        self.reader, self.read = reader, reader.read

    def seek(self, position):
        self.reader.seek(position)
        time.sleep(1e-4)


def test_threads_do_not_mix_up_what_they_read(examples, tmp_path):
    write(tmp_path, examples)
    split = PreparedSplit.load(tmp_path)
    split._readers = [SlowReader(reader) for reader in split._readers]
    found = {}

    def read(first):
        found[first] = [name for name, _ in split.read(range(first, 500, 8))]

    threads = [threading.Thread(target=read, args=(first,)) for first in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {first: [examples[i][0] for i in range(first, 500, 8)] for first in range(8)}


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def other_shard(path):
    path.write_bytes((path.parent / "tokens-00001.array_record").read_bytes())


def fewer_examples(path):
    np.save(path, np.load(path)[:-1])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("tokens-00001.array_record", cut, r"tokens-00001.array_record has .* bytes instead of"),
        ("tokens-00000.array_record", Path.unlink, r"tokens-00000.array_record has 0 bytes instead of"),
        ("tokens-00000.array_record", other_shard, r"tokens-00000.array_record does not have the 1?\d\d examples"),
        ("lengths.npy", fewer_examples, r"lengths.npy has 499 examples, the shards have 500"),
        ("prompt_hash.npy", cut, r"prompt_hash|mmap"),
        ("difficulty.npy", Path.unlink, r"difficulty.npy"),
        ("shards.json", cut, r"is damaged"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_remedy(examples, tmp_path, name, damage, message):
    folder = tmp_path / "data" / "train"
    write(folder, examples)
    damage(folder / name)
    with pytest.raises(UserError, match=message) as caught:
        PreparedSplit.load(folder)
    assert str(caught.value).endswith(f"Delete {tmp_path / 'data'} and run the data stage again")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("num_examples", [3, 100_000])  # noticed when the shard is closed, and while writing
def test_a_full_disk_is_an_os_error_that_says_so(tmp_path, num_examples):
    (tmp_path / "tokens-00000.array_record").symlink_to("/dev/full")
    with pytest.raises(OSError) as caught, SplitWriter(tmp_path) as writer:
        for _ in range(num_examples):
            writer.add("x", [1] * 50, [2] * 50, difficulty=1, source=0, category=0, prompt_hash=0)
    assert caught.value.errno == errno.ENOSPC and "tokens-00000.array_record" in str(caught.value)


def test_an_example_without_completion_is_our_defect(tmp_path):
    with pytest.raises(AssertionError):
        SplitWriter(tmp_path).add("x", [1], [], difficulty=1, source=0, category=0, prompt_hash=0)
