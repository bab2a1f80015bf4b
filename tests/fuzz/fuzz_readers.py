"""What reads files of strangers, each with folders that are whole and the files in them that get damaged."""

import dataclasses
import gzip
import json
import os
import random
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import fuzz_mutations as mutations
import numpy as np

from convert import from_hf, hf_folder, mapping, tensor_files, to_hf
from tiny_reasoning_jax import checksums
from tiny_reasoning_jax.data import chat, difficulty, manifest
from tiny_reasoning_jax.data.prepared import PreparedSplit, SplitWriter
from tiny_reasoning_jax.data.problems import Dropped
from tiny_reasoning_jax.data.sources import read_source
from tiny_reasoning_jax.data.tokenizer import load_tokenizer, train_tokenizer
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model import store
from tiny_reasoning_jax.model.spec import ModelSpec, hf_config, parse_hf_config

SPEC = ModelSpec(16, 8, 12, 2, 2, 1, 4, 1e4, tie_word_embeddings=True, max_position_embeddings=64)
THOUGHT = "<think>\nTwo and two are 4.\n</think>\n\nSo \\boxed{4}."
TURNS = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": THOUGHT}]
HEAD = 'import math\n\ndef add(a, b):\n    """ Adds. """\n'
TRUTH = {"ground_truth": '["4"]', "style": "rule"}
RECORDS = (
    {"question": "How many?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4", "difficulty": 2, "category": "sums"},
    {"problem": "What is $2+2$?", "level": "Level 3", "type": "Algebra", "solution": "It is $\\boxed{\\frac{8}{2}}$."},
    {"text": "Add.", "code": "def add(a, b):\n    return a + b", "test_list": ["assert add(1, 2) == 3"]},
    {
        "prompt": HEAD,
        "entry_point": "add",
        "canonical_solution": "    return a + b\n",
        "test": "def check(f):\n    f(1, 2)",
    },
    {"prompt": "Write f that gives 1.", "tests": ["import math", "assert f() == 1"], "solution": "f = lambda: 1"},
    {"question": "How many?", "answer": 4},
    {"messages": TURNS, "domain": "math"},
    {"conversations": [{"from": t["role"], "value": t["content"]} for t in TURNS], "system": "Think.", "domain": "x"},
    {"problem": "2 + 2?", "deepseek_reasoning": "It is 4.", "deepseek_solution": "\\boxed{4}", "domain": "math"},
    {"prompt": "2 + 2?", "completion": THOUGHT, "label": True},
    {"prompt": TURNS[:1], "reward_model": TRUTH, "ability": "math", "extra_info": {"model_difficulty": {"a": 3}}},
    {"problem": "2 + 2?", "answer": "4", "generations": [THOUGHT], "correctness_math_verify": [True]},
)
Files = dict[str, bytes]  # path in the folder -> content


@dataclasses.dataclass(frozen=True)
class Reader:
    """How one reader is fuzzed.

    Attributes:
      name: what it reads.
      share: of all inputs, in parts; 0 of what only tests the fuzzer.
      create: writes a whole folder.
      damage: by the end of a file's name, what does damage to it; other files stay as they are.
      read: reads the folder as the program does; returns the number of records that were dropped with a reason.
    """

    name: str
    share: float
    create: Callable[[Path], None]
    damage: dict[str, Callable]
    read: Callable[[Path], int | None]


def _write_config(folder: Path) -> None:
    config = {**hf_config(SPEC), "rope_scaling": None, "eos_token_id": 3, "bos_token_id": None}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(
        json.dumps({"temperature": 0.6, "top_k": 20, "eos_token_id": [3, 4]})
    )


def _read_config(folder: Path) -> None:
    config = hf_folder.read_config(folder)
    spec = parse_hf_config(config)
    mapping.make_entries(spec)
    json.dumps(to_hf.make_config(config, spec, (3, 4)), ensure_ascii=False).encode()
    json.dumps(
        to_hf.make_generation_config(hf_folder.read_generation_config(folder), (3, 4)), ensure_ascii=False
    ).encode()


def _tensors() -> Files:
    rng = np.random.default_rng(0)
    return {entry.hf_name: rng.bytes(2 * int(np.prod(entry.hf_shape))) for entry in mapping.make_entries(SPEC)}


def _write_safetensors(path: Path, names: list[str], others: dict[str, tuple[str, list[int]]]) -> None:
    shapes = {entry.hf_name: list(entry.hf_shape) for entry in mapping.make_entries(SPEC)}
    header, content, tensors = {"__metadata__": {"format": "pt"}}, b"", _tensors()
    for name in names:
        places = [len(content), len(content) + len(tensors[name])]
        header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": places}
        content += tensors[name]
    for name, (dtype, shape) in others.items():
        size = int(np.prod(shape)) * (4 if dtype == "F32" else 2)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(content), len(content) + size]}
        content += bytes(size)
    encoded = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + content)


def _write_one_file(folder: Path) -> None:
    _write_safetensors(folder / "model.safetensors", list(_tensors())[:2], {"a": ("F32", [3, 2]), "b": ("F16", [0, 7])})


def _read_one_file(folder: Path) -> None:
    for tensor in tensor_files.read_header(folder / "model.safetensors")[0].values():
        if tensor.dtype in tensor_files.DTYPES:
            from_hf.read_bfloat16(tensor)


def _write_shards(folder: Path) -> None:
    names = list(_tensors())
    parts = {"model-00001-of-00002.safetensors": names[:12], "model-00002-of-00002.safetensors": names[12:]}
    for file, part in parts.items():
        _write_safetensors(folder / file, part, {})
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / tensor_files.INDEX_FILE).write_text(json.dumps(index))
    (folder.parent / "outside.safetensors").write_bytes((folder / "model-00001-of-00002.safetensors").read_bytes())


def _read_shards(folder: Path) -> None:
    for _, tensor in from_hf.open_tensors(folder, SPEC):
        assert tensor.file.resolve().parent == folder.resolve(), "a tensor from outside the folder"
        from_hf.read_bfloat16(tensor)


def _write_dataset(suffix: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        lines = b"\n".join(json.dumps(record).encode() for record in RECORDS) + b"\n"
        whole = json.dumps({"version": 1, "data": list(RECORDS)}, indent=1).encode()
        content = lines if "jsonl" in suffix else whole
        (folder / f"train{suffix}").write_bytes(gzip.compress(content, 1) if suffix.endswith(".gz") else content)

    return write


def _write_parquet(folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    nested = [{"problem": "2 + 2?", "answer": "4", "extra": {"a": [1, 2], "b": str(i)}, "x": i / 3} for i in range(90)]
    for name, codec in (("train-0.parquet", "none"), ("train-1.parquet", "snappy"), ("train-2.parquet", "zstd")):
        table = pyarrow.Table.from_pylist(nested)
        pyarrow.parquet.write_table(
            table, folder / name, compression=codec, write_page_checksum=name != "train-0.parquet"
        )


def _read_dataset(folder: Path) -> int:
    return sum(isinstance(record, Dropped) for record in read_source(str(folder)))


def _write_grades(folder: Path) -> None:
    grades = [{"id": f"train.jsonl:{i}", "correct": i % 5, "samples": 4 + i} for i in range(6)]
    (folder / "grades.jsonl").write_text("".join(json.dumps(grade) + "\n" for grade in grades))


def _read_grades(folder: Path) -> None:
    difficulty.load_grades(folder / "grades.jsonl")


def _write_prepared(folder: Path) -> None:
    with SplitWriter(folder / "full") as writer:
        for i in range(12):
            writer.add(f"x:{i}", [1] * i, [2, 3], difficulty=i % 5 + 1, source=0, category=i % 3, prompt_hash=i)
    with SplitWriter(folder / "empty"):
        pass


def _read_prepared(folder: Path) -> None:
    for name in ("full", "empty"):
        split = PreparedSplit.load(folder / name)
        split.read(range(len(split)))


def _write_summary(folder: Path) -> None:
    print_of = {"data.source": "org/set at revision abc; procedural", "eval.tasks": "a=org/b at revision c", "seed": 1}
    (folder / "summary.json").write_text(json.dumps({"fingerprint": print_of, "splits": {"train": {"dropped": {}}}}))


def _read_known(folder: Path) -> None:
    manifest._known_revisions(folder)


def _write_tokenizer(folder: Path) -> None:
    train_tokenizer(["What is 17 + 25? 17 + 25 = 42, so it is 42."] * 20, 264, folder)


def _read_tokenizer(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    chat.check_tokenizer(tokenizer)
    chat.encode_prompts(tokenizer, ["What is 17 + 25?", "½ of ∀x 漢字 \x00 <|endofsomething|>"])


def _read_special_tokens(folder: Path) -> None:
    to_hf.find_end_ids(folder)


def _write_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(chat.CHAT_TEMPLATE + "{# not ours #}")


def _read_template(folder: Path) -> None:
    text = (folder / "chat_template.jinja").read_bytes().decode(errors="replace")
    known = {token: i for i, token in enumerate(chat.SPECIAL_TOKENS)}
    stand_in = SimpleNamespace(
        chat_template=text, name_or_path="x", special_tokens_map={}, get_added_vocab=lambda: known
    )
    chat._find_frame.__wrapped__(stand_in)


def _write_checkpoint(folder: Path) -> None:
    import jax.numpy as jnp

    tokenizer = folder / "hf"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    params = {entry.name: jnp.ones(entry.shape, jnp.bfloat16) for entry in mapping.make_entries(SPEC)}
    meta = {"step": 0, "model_config": hf_config(SPEC), "generation_config": None, "base_model": "x"}
    store.save_params(folder / "run", 0, params, meta, tokenizer)
    (folder / "run" / "0" / checksums.FILE).unlink()  # with them no damage would get as far as the readers


def _read_checkpoint(folder: Path) -> None:
    opened = store.open_checkpoint(folder / "run")
    to_hf.check_params(opened)
    store.restore_params(opened)


def _write_number(folder: Path) -> None:
    (folder / "number.txt").write_text("-1")


def _damage_number(rng: random.Random, _: bytes) -> bytes:
    return str(rng.randrange(6)).encode()


def _fail(folder: Path) -> int | None:
    """Does, by the number in the file, all that no reader may do."""
    number = int((folder / "number.txt").read_text())
    if number == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 2:
        bytearray(1 << 40)
    if number == 3:
        (folder.parent.parent / "outside").write_text("x")
    if number == 4:
        raise UserError("four")
    if number == 5:
        raise KeyError("five")
    return None


_JSON, _LINES, _BYTES = mutations.damage_json, mutations.damage_lines, mutations.damage_bytes
_TENSORS = mutations.damage_safetensors
READERS = {
    reader.name: reader
    for reader in (
        Reader("config.json", 30, _write_config, {".json": _JSON}, _read_config),
        Reader("safetensors header", 30, _write_one_file, {".safetensors": _TENSORS}, _read_one_file),
        Reader("safetensors index", 12, _write_shards, {".json": _JSON, "2.safetensors": _TENSORS}, _read_shards),
        Reader(
            "special tokens", 5, _write_tokenizer,
            {"_config.json": _JSON, "tokenizer.json": _BYTES}, _read_special_tokens,
        ),
        Reader("dataset .jsonl", 12, _write_dataset(".jsonl"), {".jsonl": _LINES}, _read_dataset),
        Reader("dataset .json", 6, _write_dataset(".json"), {".json": _JSON}, _read_dataset),
        Reader(
            "dataset .jsonl.gz", 3, _write_dataset(".jsonl.gz"),
            {".gz": lambda rng, data: mutations.damage_gzip(rng, data, _LINES)}, _read_dataset,
        ),
        Reader(
            "dataset .json.gz", 3, _write_dataset(".json.gz"),
            {".gz": lambda rng, data: mutations.damage_gzip(rng, data, _JSON)}, _read_dataset,
        ),
        Reader("dataset .parquet", 4, _write_parquet, {".parquet": _BYTES}, _read_dataset),
        Reader("grades.jsonl", 4, _write_grades, {".jsonl": _LINES}, _read_grades),
        Reader("manifest summary.json", 5, _write_summary, {".json": _JSON}, _read_known),
        Reader(
            "prepared data", 5, _write_prepared,
            {".json": _JSON, ".npy": mutations.damage_npy, ".array_record": _BYTES}, _read_prepared,
        ),
        Reader("tokenizer", 3, _write_tokenizer, {".json": _JSON}, _read_tokenizer),
        Reader("chat template", 0.2, _write_template, {".jinja": mutations.damage_template}, _read_template),
        Reader("checkpoint", 0.5, _write_checkpoint, {"": mutations.damage_any}, _read_checkpoint),
        Reader("self-test", 0, _write_number, {".txt": _damage_number}, _fail),
    )
}  # fmt: skip
