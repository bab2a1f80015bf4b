"""What a data folder was made from, and whether it still is what was made: asked before it is used again."""

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

from tiny_reasoning_jax import checksums
from tiny_reasoning_jax.data import sources
from tiny_reasoning_jax.data.contamination import Benchmark
from tiny_reasoning_jax.data.gather import find_test_source, is_generated, parse_quotas, parse_weights, source_names
from tiny_reasoning_jax.data.tokenizer import hash_tokenizer
from tiny_reasoning_jax.errors import DamagedError, OtherRunError, UserError

_AT = " at revision "  # in the mark of a hub set
_FORMAT = 3  # raise it when the same settings give other files


def create_fingerprint(
    config, tokenizer_folder: Path | None, target: Path, benchmarks: Sequence[Benchmark] = ()
) -> dict:
    """Returns every setting that the data folder depends on, files by their content and hub sets by their revision.

    Where `target` has been made from a hub set, its revision then is taken: a run goes on with the data that it has,
    without a network and whatever was changed there since.

    Raises:
      UserError: a source is missing, or a size is out of range.
    """
    data = config.data
    marks = {"data format": _FORMAT, "train.seq_len": config.train.seq_len}
    for name in ("num_problems", "num_validation", "num_test"):
        if getattr(data, name) < 1:
            raise UserError(f"data.{name}={getattr(data, name)} is too small; set it to 1 or more")
    names, known = source_names(data), _known_revisions(target)
    parse_quotas(data.category_quotas)  # a wrong one is refused before anything is read
    parse_weights(data)
    marks["data.num_validation"] = data.num_validation
    marks["data.source"] = "; ".join(_mark(name, "data.source", known) for name in names)
    tests = {name: find_test_source(data, name) for name in names}
    if data.test_source != "auto":
        marks["data.test_source"] = _mark(data.test_source, "data.test_source", known)
        marks["data.num_test"] = data.num_test
    else:
        marks["data.test_source"] = "; ".join(_mark(test, "data.test_source", known) for test in tests.values() if test)
        if None in tests.values():
            marks["data.num_test"] = data.num_test
    if any(map(is_generated, names)):
        marks |= {"data.num_problems": data.num_problems, "seed": config.seed}
    if is_generated(data.test_source):
        marks["seed"] = config.seed
    if not all(map(is_generated, names)):
        marks |= {f"data.{name}": data[name] for name in ("format", "near_duplicates", "decontamination_ngram")}
        if benchmarks and data.decontamination_ngram:
            marked = [f"{one.name}={_mark(one.source, 'eval.tasks', known)}" for one in benchmarks]
            marks["eval.tasks"] = "; ".join(sorted(marked))
    marks |= {f"data.{name}": data[name] for name in ("category_quotas", "difficulty")}
    if data.grades != "none":
        marks["data.grades"] = _mark(data.grades, "data.grades", known)
    marks["tokenizer.source"] = config.tokenizer.source
    if config.tokenizer.source == "procedural":
        marks["tokenizer.vocab_size"] = config.tokenizer.vocab_size
        return marks
    folder = Path(locate_tokenizer(config, tokenizer_folder)).expanduser()
    if folder.is_dir():
        marks["tokenizer.source"] = f"files with sha256 {hash_tokenizer(folder)}"
    return marks


def _mark(name: str, key: str, known: dict[str, str]) -> str:
    if is_generated(name):
        return name
    return known[name] if name in known and sources.is_hub_id(name, key) else sources.mark_source(name, key)


def _known_revisions(target: Path) -> dict[str, str]:
    """Returns the marks of the hub sets that a finished data folder was made from."""
    if not (target / "summary.json").is_file():
        return {}
    there = _read_summary(target)["fingerprint"]
    marks = "; ".join(str(there.get(key, "")) for key in ("data.source", "data.test_source")).split("; ")
    marks += [mark.partition("=")[2] for mark in str(there.get("eval.tasks", "")).split("; ")]
    return {mark.partition(_AT)[0]: mark for mark in marks if _AT in mark}


def locate_tokenizer(config, tokenizer_folder: Path | None) -> str | Path:
    """Returns the folder or hub id of the tokenizer that the configuration asks for."""
    if config.tokenizer.source != "model":
        return config.tokenizer.source
    if tokenizer_folder is None:
        raise UserError(
            f'tokenizer.source="model", but model.source={config.model.source!r} brings no tokenizer; set '
            'tokenizer.source to "procedural", a folder or a hub id'
        )
    return tokenizer_folder


def reuse(target: Path, fingerprint: dict) -> dict:
    """Returns the summary of a finished data folder.

    Raises:
      OtherRunError: it was made from other settings, which are named.
      DamagedError: it has no readable summary.
    """
    summary = _read_summary(target)
    there = summary["fingerprint"]
    differing = [
        f"{key} ({there.get(key, 'not set')} there, {fingerprint.get(key, 'not set')} now)"
        for key in sorted(there.keys() | fingerprint.keys())
        if there.get(key) != fingerprint.get(key)
    ]
    if differing:
        raise OtherRunError(
            f"{target} was prepared with other settings: {'; '.join(differing)}. Set them back, choose "
            "another workdir, or delete that folder and what was trained on it"
        )
    return summary


def check_files(target: Path) -> None:
    """Reads every file of a finished data folder and compares it with its checksum.

    Raises:
      DamagedError: files are not what the data stage wrote; names them.
    """
    if damage := checksums.find_damage(target):
        raise DamagedError(
            f"{target} is damaged: {checksums.tell(damage)}. Delete {target} and run the data stage again: the same "
            f"settings make the same data, and training goes on with them"
        )


def _read_summary(target: Path) -> dict:
    try:
        summary = json.loads((target / "summary.json").read_text(encoding="utf-8"))
        summary["fingerprint"].keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{target} exists, but not its summary.json ({error}); delete the folder") from error
    return summary


def describe(folder: Path, shards: dict[str, list[dict]]) -> dict:
    """Returns the manifest: which code wrote the folder, with which tokenizer, into which files."""
    room = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(room.rglob("*.py")):
        digest.update(path.relative_to(room).as_posix().encode() + path.read_bytes())
    return {
        "version": importlib.metadata.version("tiny_reasoning_jax"),
        "code_sha256": digest.hexdigest()[:16],
        "tokenizer_sha256": hash_tokenizer(folder / "tokenizer"),
        "shards": shards,
    }
