"""The data stage: problems from wherever they come -> graded, tokenised splits in workdir/data.

    tokenizer/            the run's tokenizer, byte for byte where it was given
    train/, validation/   `PreparedSplit`s
    test.jsonl            the problems that evaluation draws from
    summary.json          what was kept and what was dropped, with counts, lengths and grades
    dropped.jsonl         id and reason of every record that is not used

The folder appears whole or not at all, and one made from other settings is refused, never overwritten.
Nothing is cut to fit: an example that is too long is dropped and counted.
"""

import collections
import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
import shutil
import time
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from tiny_reasoning_jax.data import chat, sources
from tiny_reasoning_jax.data.prepared import PreparedSplit
from tiny_reasoning_jax.data.problems import Dropped, Problem, dump_problem, stream_problems
from tiny_reasoning_jax.data.procedural import generate
from tiny_reasoning_jax.data.tokenizer import (
    copy_tokenizer,
    find_tokenizer,
    hash_tokenizer,
    load_tokenizer,
    train_tokenizer,
)
from tiny_reasoning_jax.errors import UserError

SPLITS = ("train", "validation", "test")

_FORMAT = 1  # raise it when the same settings give other files
_TOKENIZER_TEXTS = 20_000  # training texts of a procedural tokenizer; more change its merges very little
# Training problems of difficulty 1 to 5. The harder are longer: so each difficulty has about as many tokens.
_TRAIN_SHARES = (5, 4, 3, 2, 1)
_CHUNK = 1000  # problems tokenised at a time
_LOG_SECONDS = 5.0
_PROCEDURAL_DIFFICULTY_RULE = "each procedural family's own five levels"

log = logging.getLogger(__name__)


def prepare(config, workdir: Path, tokenizer_folder: Path | None) -> dict:
    """Runs the data stage, or returns the summary of the one that workdir already holds.

    Args:
      config: the whole configuration.
      workdir: the run's folder; the result is `workdir`/data.
      tokenizer_folder: where the model's tokenizer lies, for tokenizer.source="model".

    Returns:
      The content of summary.json.

    Raises:
      UserError: unusable input, no training record left, data of other settings there, or a full disk.
    """
    target = workdir / "data"
    fingerprint = _create_fingerprint(config, tokenizer_folder)
    if target.exists():
        return _reuse(target, fingerprint)
    workdir.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(workdir)
    scratch = workdir / f"data.tmp-{os.getpid()}"
    try:
        summary = _build(config, tokenizer_folder, fingerprint, scratch)
        _sync(scratch)
        scratch.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"the disk is full: {error.strerror} while writing {scratch}, "
            f"{shutil.disk_usage(workdir).free:,} bytes free; nothing was kept. Free space or change workdir"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return summary


def load_problems(path: Path) -> list[Problem]:
    """Reads a file of `Problem`s, such as workdir/data/test.jsonl."""
    return list(stream_problems(path))


def describe(summary: dict) -> list[str]:
    """Returns the lines that tell a person what the data stage kept and dropped."""
    lines = []
    for split, facts in summary["splits"].items():
        dropped = ", ".join(f"{num:,} {reason}" for reason, num in facts["dropped"].items()) or "none"
        longest = f"longest {facts['length']['max']:,}"
        lines.append(f"{split}: {facts['kept']:,} problems, {facts['tokens']:,} tokens, {longest}; dropped: {dropped}")
    return lines


class _Drops:
    """Writes down every record that is not used, and counts them by split and reason."""

    def __init__(self, file: TextIO):
        self._file = file
        self.counts = {split: collections.Counter() for split in SPLITS}

    def add(self, split: str, dropped: Dropped) -> None:
        self.counts[split][dropped.reason] += 1
        self._file.write(json.dumps({"id": dropped.id, "reason": dropped.reason}, ensure_ascii=False) + "\n")


def _build(config, tokenizer_folder: Path | None, fingerprint: dict, folder: Path) -> dict:
    """Writes the whole data folder and returns its summary."""
    folder.mkdir()
    started = time.monotonic()
    with (folder / "dropped.jsonl").open("w", encoding="utf-8") as file:
        drops = _Drops(file)
        gathered = {split: folder / f"{split}.gathered" for split in SPLITS}
        kept = _gather(config, gathered, drops)
        _refuse_empty(config, kept, drops)
        tokenizer = _create_tokenizer(config, tokenizer_folder, gathered["train"], kept["train"], folder)
        facts = {}
        for split in ("train", "validation"):
            problems = _logged(stream_problems(gathered[split]), f"tokenising {split}", kept[split])
            prepared, facts[split] = _tokenise(tokenizer, problems, config.train.seq_len, split, drops)
            prepared.save(folder / split)
        facts["test"] = _keep_test(tokenizer, gathered["test"], config.train.seq_len, drops, folder)
        _refuse_empty(config, {split: facts[split]["kept"] for split in SPLITS}, drops)
    for path in gathered.values():
        path.unlink()
    for split in SPLITS:
        facts[split]["dropped"] = dict(sorted(drops.counts[split].items()))
    procedural = config.data.source == "procedural"
    summary = {
        "fingerprint": fingerprint,
        "difficulty_rule": _PROCEDURAL_DIFFICULTY_RULE if procedural else sources.DIFFICULTY_RULE,
        "vocab_size": len(tokenizer),
        "splits": facts,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    log.info("data: %s problems prepared in %.1f s", f"{sum(kept.values()):,}", time.monotonic() - started)
    return summary


def _gather(config, gathered: dict[str, Path], drops: _Drops) -> dict[str, int]:
    """Writes each split's problems, each prompt once over all splits, and returns how many there are.

    They go through a file because the tokenizer is trained on the text before anything can be tokenised, and
    millions of them do not fit in memory.
    """
    procedural = config.data.source == "procedural"
    records = _generate_splits(config) if procedural else sources.read_splits(config.data)
    seen: dict[int, str] = {}
    kept = dict.fromkeys(SPLITS, 0)
    with contextlib.ExitStack() as stack:
        files = {s: stack.enter_context(path.open("w", encoding="utf-8")) for s, path in gathered.items()}
        for split, record in _logged(records, "reading", None):
            if isinstance(record, Dropped):
                drops.add(split, record)
                continue
            key = sources.hash_prompt(record.prompt)
            if key in seen:
                reason = "duplicate" if seen[key] == split else f"also in {seen[key]}"
                drops.add(split, Dropped(record.id, reason))
                continue
            seen[key] = split
            kept[split] += 1
            files[split].write(dump_problem(record))
    return kept


def _generate_splits(config) -> Iterator[tuple[str, Problem]]:
    """Yields the held-out splits first: of two equal prompts it is the training one that is dropped."""
    data = config.data
    sizes = {"test": data.num_test, "validation": data.num_validation, "train": data.num_problems}
    for split, num_problems in sizes.items():
        shares = _TRAIN_SHARES if split == "train" else (1, 1, 1, 1, 1)
        for problem in generate(split, num_problems, config.seed, shares):
            yield split, problem


def _refuse_empty(config, kept: dict[str, int], drops: _Drops) -> None:
    empty = [split for split in ("train", "validation", "test") if not kept[split]]
    if not empty:
        return
    reasons = collections.Counter()
    for counts in drops.counts.values():
        reasons.update(counts)
    listed = ", ".join(f"{num:,} {reason}" for reason, num in reasons.most_common()) or "none"
    kind = "training" if empty[0] == "train" else empty[0]
    raise UserError(
        f"data.source={config.data.source!r} leaves no usable {kind} record; dropped: {listed}. Records "
        f"need the GSM8K form or the messages form, with reasoning and a final answer, at most train.seq_len="
        f"{config.train.seq_len} tokens, and to be enough for holding some out"
    )


def _create_tokenizer(config, tokenizer_folder: Path | None, train_path: Path, num_train: int, folder: Path):
    """Puts the run's tokenizer into `folder`/tokenizer and returns it."""
    target = folder / "tokenizer"
    if config.tokenizer.source == "procedural":
        # A first one without merges renders the texts with the template that the second one will have.
        draft = train_tokenizer((), 256 + len(chat.SPECIAL_TOKENS), folder / "draft")
        every = max(1, num_train // _TOKENIZER_TEXTS)
        sample = itertools.islice(stream_problems(train_path), 0, None, every)
        texts = ("".join(chat.render(draft, problem)) for problem in sample)
        tokenizer = train_tokenizer(texts, config.tokenizer.vocab_size, target)
        shutil.rmtree(folder / "draft")
    else:
        copy_tokenizer(find_tokenizer(_locate_tokenizer(config, tokenizer_folder)), target)
        tokenizer = load_tokenizer(target)
    chat.check_tokenizer(tokenizer)
    return tokenizer


def _locate_tokenizer(config, tokenizer_folder: Path | None) -> str | Path:
    if config.tokenizer.source != "model":
        return config.tokenizer.source
    if tokenizer_folder is None:
        raise UserError(
            f'tokenizer.source="model", but model.source={config.model.source!r} brings no tokenizer; set '
            'tokenizer.source to "procedural", a folder or a hub id'
        )
    return tokenizer_folder


def _tokenise(
    tokenizer, problems: Iterable[Problem], seq_len: int, split: str, drops: _Drops
) -> tuple[PreparedSplit, dict]:
    """Returns the split's token arrays and the facts about it."""
    tokens, prompt_lengths, lengths, difficulty = array("i"), array("i"), array("i"), array("b")
    ids, grades = [], collections.Counter()
    problems = iter(problems)
    while chunk := list(itertools.islice(problems, _CHUNK)):
        clean = []
        for problem in chunk:
            if chat.find_special_token(tokenizer, problem.prompt, problem.reasoning, problem.answer):
                drops.add(split, Dropped(problem.id, "special token in text"))
            else:
                clean.append(problem)
        for problem, (prompt, completion) in zip(clean, chat.encode_batch(tokenizer, clean), strict=True):
            # The last token is only ever a target, so a row holds one token more than it has positions.
            if len(prompt) + len(completion) - 1 > seq_len:
                drops.add(split, Dropped(problem.id, "over seq_len"))
                continue
            tokens.extend(prompt)
            tokens.extend(completion)
            prompt_lengths.append(len(prompt))
            lengths.append(len(prompt) + len(completion))
            difficulty.append(problem.difficulty)
            ids.append(problem.id)
            grades[problem.category, problem.difficulty] += 1
    prepared = PreparedSplit(
        tokens=np.asarray(tokens, np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64),
        prompt_lengths=np.asarray(prompt_lengths, np.int32),
        difficulty=np.asarray(difficulty, np.int8),
        ids=ids,
    )
    return prepared, _state_facts(lengths, grades)


def _keep_test(tokenizer, gathered: Path, seq_len: int, drops: _Drops, folder: Path) -> dict:
    """Writes test.jsonl and returns the facts about it.

    Only prompts count here, in its lengths too: dropping a problem because its worked solution is long would
    make the test easier.
    """
    lengths, grades = array("i"), collections.Counter()
    with (folder / "test.jsonl").open("w", encoding="utf-8") as file:
        for problem in stream_problems(gathered):
            if chat.find_special_token(tokenizer, problem.prompt):
                drops.add("test", Dropped(problem.id, "special token in text"))
                continue
            num_tokens = len(chat.encode_prompt(tokenizer, problem.prompt))
            if num_tokens > seq_len:
                drops.add("test", Dropped(problem.id, "over seq_len"))
                continue
            lengths.append(num_tokens)
            grades[problem.category, problem.difficulty] += 1
            file.write(dump_problem(problem))
    return _state_facts(lengths, grades)


def _state_facts(lengths: array, grades: collections.Counter) -> dict:
    """Returns a split's part of the summary; lengths in tokens."""
    by_category: dict[str, dict[str, int]] = {}
    for (category, difficulty), num in sorted(grades.items()):
        by_category.setdefault(category, {})[str(difficulty)] = num
    values = np.asarray(lengths, np.int64) if len(lengths) else np.zeros(1, np.int64)
    marks = np.percentile(values, (50, 90, 99, 100), method="higher").tolist()
    length = {
        "mean": round(float(values.mean()), 1),
        **dict(zip(("p50", "p90", "p99", "max"), marks, strict=True)),
    }
    return {"kept": len(lengths), "tokens": int(values.sum()), "length": length, "by_category": by_category}


def _create_fingerprint(config, tokenizer_folder: Path | None) -> dict:
    """Returns every setting that the data folder depends on, files by their content."""
    data = config.data
    marks = {"data format": _FORMAT, "train.seq_len": config.train.seq_len}
    for name in ("num_problems", "num_validation", "num_test"):
        if getattr(data, name) < 1:
            raise UserError(f"data.{name}={getattr(data, name)} is too small; set it to 1 or more")
    marks["data.num_validation"] = data.num_validation
    if data.source == "procedural":
        marks |= {"data.source": data.source, "data.num_problems": data.num_problems, "seed": config.seed}
        marks["data.num_test"] = data.num_test
    else:
        marks["data.source"] = _mark_file("data.source", Path(data.source).expanduser())
        test_path = sources.find_test_file(data)
        marks["data.test_source"] = _mark_file("data.test_source", test_path) if test_path else "held out"
        if test_path is None:
            marks["data.num_test"] = data.num_test
    marks["tokenizer.source"] = config.tokenizer.source
    if config.tokenizer.source == "procedural":
        marks["tokenizer.vocab_size"] = config.tokenizer.vocab_size
        return marks
    folder = Path(_locate_tokenizer(config, tokenizer_folder)).expanduser()
    if folder.is_dir():
        marks["tokenizer.source"] = f"files with sha256 {hash_tokenizer(folder)}"
    return marks


def _mark_file(key: str, path: Path) -> str:
    if not path.is_file():
        raise UserError(f'{key}={str(path)!r} is no file; give a JSONL file, or data.source="procedural"')
    with path.open("rb") as file:
        return f"{path.name} with sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"


def _reuse(target: Path, fingerprint: dict) -> dict:
    try:
        summary = json.loads((target / "summary.json").read_text(encoding="utf-8"))
        there = summary["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{target} exists, but not its summary.json ({error}); delete the folder") from error
    differing = [
        f"{key} ({there.get(key, 'not set')} there, {fingerprint.get(key, 'not set')} now)"
        for key in sorted(there.keys() | fingerprint.keys())
        if there.get(key) != fingerprint.get(key)
    ]
    if differing:
        raise UserError(
            f"{target} was prepared with other settings: {'; '.join(differing)}. Set them back, choose "
            "another workdir, or delete that folder and what was trained on it"
        )
    return summary


def _remove_leftovers(workdir: Path) -> None:
    """Deletes what killed runs left; a folder whose process still lives is not ours to touch."""
    for folder in workdir.glob("data.tmp-*"):
        pid = int(folder.name.rpartition("-")[2])
        if pid != os.getpid() and _is_alive(pid):
            continue
        shutil.rmtree(folder)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return error.errno == errno.EPERM  # it lives, but is somebody else's
    return True


def _sync(folder: Path) -> None:
    """Makes the files' contents safe from a power cut before the rename shows them."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _logged(items: Iterable, what: str, total: int | None) -> Iterator:
    """Passes items on and logs every few seconds how fast they go and, if `total` is known, what is left."""
    started = last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last < _LOG_SECONDS:
            continue
        last, rate = now, done / (now - started)
        left = f" of {total:,}, {max(total - done, 0) / rate:.0f} s left" if total else ""
        log.info("data: %s, %s%s, %.0f records/s", what, f"{done:,}", left, rate)
