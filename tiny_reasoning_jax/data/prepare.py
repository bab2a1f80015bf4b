"""The data stage: problems from wherever they come -> graded, tokenised splits in workdir/data.

    tokenizer/            the run's tokenizer, byte for byte where it was given
    train/, validation/   `PreparedSplit`s
    test.jsonl            the problems that evaluation draws from
    summary.json          what was kept and dropped, by which rules, from which sources, with counts, lengths and grades
    dropped.jsonl         id and reason of every record that is not used, and of which other record it tells
    preview.html          the same for people, with examples as the model will read them
    checksums.json        of all of these; every later session checks them before it does anything

The folder appears whole or not at all, after checks that do not trust this code; one made from other settings is
refused, never overwritten. Nothing is cut to fit: an example that is too long is dropped and counted.
"""

import collections
import dataclasses
import errno
import functools
import itertools
import json
import logging
import os
import shutil
import sys
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TextIO

import numpy as np

from tiny_reasoning_jax import checksums
from tiny_reasoning_jax.data import chat, difficulty, facts, manifest, preview, preview_page
from tiny_reasoning_jax.data.contamination import Benchmark
from tiny_reasoning_jax.data.formats import DIFFICULTY_RULE
from tiny_reasoning_jax.data.gather import SPLITS, TEST, TRAIN, VALIDATION, Gathered, is_generated, source_names
from tiny_reasoning_jax.data.prepared import PreparedSplit, SplitWriter
from tiny_reasoning_jax.data.problems import Dropped, Problem, dump_problem, stream_problems
from tiny_reasoning_jax.data.tokenizer import copy_tokenizer, find_tokenizer, load_tokenizer, train_tokenizer
from tiny_reasoning_jax.errors import ShortageError, UserError, is_full_disk

_TOKENIZER_TEXTS = 20_000  # training texts of a procedural tokenizer; more change its merges very little
_CHUNK = 250  # problems tokenised at a time; of more, their encodings no longer fit into the memory just freed
_MANY_CHARS = 16  # to a token; whatever has fewer is tokenised without asking for the vocabulary, which takes 0.1 s
_LOG_SECONDS = 5.0

log = logging.getLogger(__name__)


def prepare(config, workdir: Path, tokenizer_folder: Path | None, benchmarks: Sequence[Benchmark] = ()) -> dict:
    """Runs the data stage, or returns the summary of the one that workdir already holds.

    Args:
      config: the whole configuration.
      workdir: the run's folder; the result is `workdir`/data.
      tokenizer_folder: where the model's tokenizer lies, for tokenizer.source="model".
      benchmarks: test sets beside the run's own that training must not give away.

    Returns:
      The content of summary.json.

    Raises:
      UserError: unusable input, no training record left, data of other settings there, or a failed check.
      ShortageError: the disk is full.
    """
    target = workdir / "data"
    fingerprint = manifest.create_fingerprint(config, tokenizer_folder, target, benchmarks)
    if target.exists():
        return manifest.reuse(target, fingerprint)
    workdir.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(workdir)
    scratch = workdir / f"data.tmp-{os.getpid()}"
    try:
        summary = _build(config, tokenizer_folder, benchmarks, fingerprint, scratch)
        checksums.create(scratch)
        _sync(scratch)
        scratch.rename(target)
    except OSError as error:
        if not is_full_disk(error):
            raise
        raise ShortageError(
            f"the disk is full: {error.strerror} while writing {scratch}, "
            f"{shutil.disk_usage(workdir).free:,} bytes free; nothing was kept. Free space or change workdir"
        ) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return summary


def load_problems(path: Path) -> list[Problem]:
    """Reads a file of `Problem`s, such as workdir/data/test.jsonl."""
    return list(stream_problems(path))


class _Drops:
    """Writes down every record that is not used, and counts them by split and reason."""

    def __init__(self, file: TextIO):
        self._file = file
        self.counts = {split: collections.Counter() for split in SPLITS}

    def add(self, split: str, dropped: Dropped) -> None:
        self.counts[split][dropped.reason] += 1
        line = {"id": dropped.id, "split": split, "reason": dropped.reason}
        line |= {name: getattr(dropped, name) for name in ("of", "detail") if getattr(dropped, name)}
        self._file.write(json.dumps(line, ensure_ascii=False) + "\n")


def _build(
    config, tokenizer_folder: Path | None, benchmarks: Sequence[Benchmark], fingerprint: dict, folder: Path
) -> dict:
    """Writes the whole data folder and returns its summary."""
    folder.mkdir()
    started, seq_len = time.monotonic(), config.train.seq_len
    with (
        (folder / "dropped.jsonl").open("w", encoding="utf-8") as file,
        Gathered(folder / "gathered.jsonl") as gathered,
    ):
        drops = _Drops(file)
        gathered.read(config, drops.add, lambda records: _logged(records, "reading", None))
        tokenizer = _copy_tokenizer(config, tokenizer_folder, folder)  # while near-duplicates are looked for
        near_duplicates = gathered.decide(config, benchmarks)
        for split, dropped in gathered.drops():
            drops.add(split, dropped)
        _refuse_empty(config, {name: len(gathered.live(split)) for split, name in enumerate(SPLITS)}, drops)
        tokenizer = tokenizer or _train_tokenizer(config, gathered, folder)
        chat.check_tokenizer(tokenizer)
        shards, bounds = {}, None
        for split in (TRAIN, VALIDATION):
            name = SPLITS[split]
            shards[name], bounds = _tokenise(tokenizer, gathered, split, config, drops, folder / name, bounds)
        test_lengths = _keep_test(tokenizer, gathered, bounds, seq_len, drops, folder)
    splits = {name: PreparedSplit.load(folder / name) for name in SPLITS[:TEST]}
    told = {name: facts.describe_split(split, gathered.categories) for name, split in splits.items()}
    told["test"] = facts.describe_test(folder / "test.jsonl", test_lengths)
    _refuse_empty(config, {name: told[name]["kept"] for name in SPLITS}, drops)
    for name in SPLITS:
        told[name]["dropped"] = dict(sorted(drops.counts[name].items()))
    summary = {
        "fingerprint": fingerprint,
        "manifest": manifest.describe(folder, shards),
        "difficulty_rule": _describe_difficulty(config.data, bounds),
        "vocab_size": len(tokenizer),
        "sources": source_names(config.data),
        "categories": gathered.categories,
        "splits": told,
        "near_duplicates": near_duplicates,
        "contaminated": gathered.contaminated,
        "packing": {
            "seq_len": seq_len,
            "efficiency": facts.pack_some(splits["train"], config.train.batch_size, seq_len, config.seed),
        },
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    _show(summary, splits["train"], tokenizer, folder)
    tokens, seconds = sum(split["tokens"] for split in told.values()), time.monotonic() - started
    log.info("data: %s tokens in %.1f s, %s tokens/s", f"{tokens:,}", seconds, f"{tokens / seconds:,.0f}")
    return summary


def _show(summary: dict, train: PreparedSplit, tokenizer, folder: Path) -> None:
    """Checks the folder and shows it, on the screen and as preview.html.

    Raises:
      UserError: a check failed.
    """
    checks = preview.run_checks(folder, tokenizer, summary["packing"]["seq_len"], summary["splits"])
    examples = preview.choose_examples(train, tokenizer, summary["categories"])
    preview_page.write_page(folder, summary, examples, checks)
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size().columns
    log.info("%s", preview_page.render_terminal(summary, examples, checks, width, colour))
    preview.refuse_failed(checks)


def _refuse_empty(config, kept: dict[str, int], drops: _Drops) -> None:
    empty = [split for split in SPLITS if not kept[split]]
    if not empty:
        return
    reasons = collections.Counter()
    for counts in drops.counts.values():
        reasons.update(counts)
    listed = ", ".join(f"{num:,} {reason}" for reason, num in reasons.most_common()) or "none"
    kind = "training" if empty[0] == "train" else empty[0]
    raise UserError(
        f"data.source={config.data.source!r} leaves no usable {kind} record; dropped: {listed}. Training records "
        f"need a known form, reasoning and a final answer, at most train.seq_len={config.train.seq_len} tokens, and to "
        f"be enough for holding some out"
    )


def _copy_tokenizer(config, tokenizer_folder: Path | None, folder: Path):
    """Puts the tokenizer that was given into `folder`/tokenizer and returns it; None if there is one to be trained."""
    if config.tokenizer.source == "procedural":
        return None
    copy_tokenizer(find_tokenizer(manifest.locate_tokenizer(config, tokenizer_folder)), folder / "tokenizer")
    return load_tokenizer(folder / "tokenizer")


def _train_tokenizer(config, gathered: Gathered, folder: Path):
    """Trains a tokenizer on the training problems, puts it into `folder`/tokenizer and returns it."""
    # A first one without merges renders the texts with the template that the second one will have.
    draft = train_tokenizer((), 256 + len(chat.SPECIAL_TOKENS), folder / "draft")
    rows = gathered.live(TRAIN)
    sample = gathered.stream(rows[:: max(1, len(rows) // _TOKENIZER_TEXTS)])
    texts = ("".join(chat.render(draft, problem)) for problem in sample)
    tokenizer = train_tokenizer(texts, config.tokenizer.vocab_size, folder / "tokenizer")
    shutil.rmtree(folder / "draft")
    return tokenizer


_Encoded = tuple[int, Problem, list[int], list[int]]  # row, problem, prompt ids, completion ids


def _encode_rows(tokenizer, gathered: Gathered, split: int, seq_len: int, drops: _Drops) -> Iterator[_Encoded]:
    """Encodes a split's problems; those that spell a special token or are far too long are dropped.

    A thread encodes one chunk, in Rust and without Python's lock, while the one before it is written.
    """
    rows, name = gathered.live(split), SPLITS[split]
    stream = zip(rows.tolist(), gathered.stream(rows), strict=True)
    stream = _logged(stream, f"tokenising {name}", len(rows))
    begun = None
    with ThreadPoolExecutor(1) as pool:
        while chunk := list(itertools.islice(stream, _CHUNK)):
            clean = []
            for row, problem in chunk:
                texts = (problem.prompt, problem.reasoning, problem.answer)
                if given_away := gathered.find_contamination(row, problem):
                    drops.add(name, given_away)
                elif _is_far_too_long(tokenizer, num_chars := sum(map(len, texts)), seq_len):
                    drops.add(name, Dropped(problem.id, "over seq_len", detail=f"{num_chars} characters"))
                elif token := chat.find_special_token(tokenizer, *texts):
                    drops.add(name, Dropped(problem.id, "special token in text", detail=token))
                else:
                    clean.append((row, problem))
            last, begun = begun, (clean, pool.submit(chat.encode_batch, tokenizer, [p for _, p in clean]))
            if last is not None:
                yield from _pair(*last)
        if begun is not None:
            yield from _pair(*begun)


def _is_far_too_long(tokenizer, num_chars: int, seq_len: int) -> bool:
    """Whether that many characters must have more tokens than a row; megabytes take a tokenizer minutes."""
    return num_chars > seq_len * _MANY_CHARS and num_chars > seq_len * _longest_token(tokenizer)


@functools.lru_cache(maxsize=1)
def _longest_token(tokenizer) -> int:
    """Returns the bytes of the longest entry; of byte-level vocabularies each character is one."""
    return max(map(len, tokenizer.get_vocab()))


def _pair(clean: list[tuple[int, Problem]], encoded) -> Iterator[_Encoded]:
    for (row, problem), (prompt, completion) in zip(clean, encoded.result(), strict=True):
        yield row, problem, prompt, completion


def _tokenise(
    tokenizer, gathered: Gathered, split: int, config, drops: _Drops, folder: Path, bounds: list[int] | None
) -> tuple[list[dict], list[int]]:
    """Writes a split's examples; those without a level are graded by length.

    Args:
      bounds: lengths that part the difficulties, None to take them from this split.

    Returns:
      Facts about the shards, and the bounds.
    """
    writer, seq_len = SplitWriter(folder), config.train.seq_len  # a look into the configuration takes a microsecond
    for row, problem, prompt, completion in _encode_rows(tokenizer, gathered, split, seq_len, drops):
        # The last token is only ever a target, so a row holds one token more than it has positions.
        if (num_positions := len(prompt) + len(completion) - 1) > seq_len:
            drops.add(SPLITS[split], Dropped(problem.id, "over seq_len", detail=f"{num_positions} positions"))
            continue
        writer.add(
            problem.id, prompt, completion,
            difficulty=int(gathered.level[row]), source=int(gathered.source[row]),
            category=int(gathered.category[row]), prompt_hash=int(gathered.key[row]),
        )  # fmt: skip
    worked = np.array(writer.lengths) - np.array(writer.prompt_lengths)  # tokens of reasoning and answer
    levels = np.array(writer.difficulties)
    ungraded = levels == 0
    if bounds is None:
        known = worked[ungraded] if ungraded.any() else worked
        bounds = difficulty.length_bounds(known) if len(known) else [0, 0, 0, 0]
    levels[ungraded] = difficulty.from_length(worked[ungraded], bounds)
    writer.difficulties = array("b", levels.tobytes())
    return writer.close(), bounds


def _keep_test(tokenizer, gathered: Gathered, bounds: list[int], seq_len: int, drops: _Drops, folder: Path) -> array:
    """Writes test.jsonl and returns the length of every prompt, in tokens.

    Only prompts count here: dropping a problem because its worked solution is long would make the test easier.
    """
    lengths, rows = array("i"), gathered.live(TEST)
    stream = zip(rows.tolist(), gathered.stream(rows), strict=True)
    with (folder / "test.jsonl").open("wb") as file:
        while chunk := list(itertools.islice(stream, _CHUNK)):
            clean = []
            for row, problem in chunk:
                if token := chat.find_special_token(tokenizer, problem.prompt):
                    drops.add("test", Dropped(problem.id, "special token in text", detail=token))
                else:
                    clean.append((row, problem))
            prompts = chat.encode_prompts(tokenizer, [problem.prompt for _, problem in clean])
            for (row, problem), prompt in zip(clean, prompts, strict=True):
                if len(prompt) > seq_len:
                    drops.add("test", Dropped(problem.id, "over seq_len", detail=f"{len(prompt)} positions"))
                    continue
                lengths.append(len(prompt))
                level = int(gathered.level[row]) or _grade_test(tokenizer, problem, bounds)
                file.write(dump_problem(dataclasses.replace(problem, difficulty=level)))
    return lengths


def _grade_test(tokenizer, problem: Problem, bounds: list[int]) -> int:
    texts = (problem.reasoning, problem.answer)
    if not problem.reasoning or chat.find_special_token(tokenizer, *texts):
        return difficulty.MIDDLE
    _, completion = chat.encode(tokenizer, problem)
    return int(difficulty.from_length(np.array([len(completion)]), bounds)[0])


def _describe_difficulty(data, bounds: list[int]) -> str:
    """Says in words how the difficulties came about."""
    by_length = f"{difficulty.describe_bounds(bounds)}; {difficulty.MIDDLE} for a test problem without reasoning"
    if data.difficulty == "length":
        return by_length
    rules = []
    if data.difficulty == "measured":
        rules.append(f"training problems: {difficulty.PASS_RATE_RULE}, from {data.grades}; others")
    if any(map(is_generated, source_names(data))):
        rules.append("each procedural family's own five levels")
    if not all(map(is_generated, source_names(data))):
        rules += [DIFFICULTY_RULE, f"where there is none, {by_length}"]
    return "; ".join(rules)


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
