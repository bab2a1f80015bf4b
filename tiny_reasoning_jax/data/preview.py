"""Before a run: the checks that stop it, and three examples for a person to look at.

The checks open the finished data folder as training and evaluation will, and ask the tokenizer's own template and the
arrays that the training step reads, not the code that wrote the folder: that could only confirm itself. Each sample
has a bound, so a million examples take seconds. Nothing is mended here. How it is shown is in preview_page.py.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tiny_reasoning_jax.data import chat
from tiny_reasoning_jax.data.packing import fill_rows
from tiny_reasoning_jax.data.prepared import PreparedSplit
from tiny_reasoning_jax.data.problems import stream_problems
from tiny_reasoning_jax.data.sources import hash_prompt
from tiny_reasoning_jax.errors import UserError

_SPLITS = ("train", "validation")

# Bounds of the samples, which are spread evenly over a split.
_MAX_READ_EXAMPLES, _MAX_READ_TOKENS = 100_000, 20_000_000  # whose every token is looked at
_MAX_ROW_TOKENS = 2**18  # put into rows as training does
_NUM_COMPARED = 64  # whose text is read back
_CHUNK = 1000  # examples in memory at a time

_AGAIN = "prepare the data again in a new workdir; if it comes back, that is a defect of this program: report it"
_TURN = re.compile(r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\n?", re.DOTALL)


class Check(NamedTuple):
    """What one check found; of a failed one `detail` says value, limit and remedy."""

    name: str
    passed: bool
    detail: str


class Piece(NamedTuple):
    """The fewest neighbouring tokens that make whole characters, as `text`."""

    text: str
    ids: tuple[int, ...]
    trained: bool
    special: bool


class Example(NamedTuple):
    """One example of a split for a person to read."""

    id: str
    category: str
    difficulty: int
    pieces: list[Piece]

    @property
    def num_tokens(self) -> int:
        """Tokens, the prompt's included."""
        return sum(len(piece.ids) for piece in self.pieces)

    @property
    def num_trained(self) -> int:
        """Tokens that training learns to write."""
        return sum(len(piece.ids) for piece in self.pieces if piece.trained)


def run_checks(folder: Path, tokenizer, seq_len: int, facts: dict) -> list[Check]:
    """Runs every check on a data folder and returns all that they found, in the order of the page.

    Args:
      folder: the data folder, or the scratch folder that is to become it.
      tokenizer: the one in `folder`/tokenizer.
      seq_len: positions of a training row.
      facts: the summary's "splits", for what was dropped.
    """
    splits = {name: PreparedSplit.load(folder / name) for name in _SPLITS}
    return [
        _check_trained(splits, seq_len),
        _check_end_of_turn(splits, chat.end_of_turn_id(tokenizer)),
        _check_template(splits, tokenizer),
        _check_length(splits, seq_len, facts),
        _check_evaluation(splits, folder / "test.jsonl", tokenizer),
    ]


def refuse_failed(checks: list[Check]) -> None:
    """Raises UserError naming every check that failed, what it found and what to do; returns if none has."""
    failed = [check for check in checks if not check.passed]
    if failed:
        found = "\n".join(f"  {check.name}: {check.detail}" for check in failed)
        raise UserError(f"the prepared data failed {len(failed)} of {len(checks)} checks and was not kept:\n{found}")


def choose_examples(split: PreparedSplit, tokenizer, categories: Sequence[str]) -> list[Example]:
    """Returns an easy short example, a middling one and a hard long one; fewer where the split has fewer.

    The same split gives the same ones; of different categories where that is possible.

    Args:
      split: what training reads.
      tokenizer: the one that wrote it.
      categories: the names that split.category counts from 0.
    """
    lengths, levels, names = (np.asarray(x) for x in (split.lengths, split.difficulty, split.category))
    chosen: list[int] = []
    if not len(split):
        return []
    wishes = ((levels == levels.min(), 0.1), (np.ones(len(split), bool), 0.5), (levels == levels.max(), 0.9))
    for wish, quantile in wishes:
        new = np.ones(len(split), bool)
        new[chosen] = False
        for allowed in (wish & new & ~np.isin(names, names[chosen]), wish & new, new):
            candidates = np.flatnonzero(allowed)
            if len(candidates):
                order = np.argsort(lengths[candidates], kind="stable")
                chosen.append(int(candidates[order[int(quantile * (len(order) - 1))]]))
                break
    return [_show(split, example, tokenizer, categories) for example in chosen]


def _show(split: PreparedSplit, example: int, tokenizer, categories: Sequence[str]) -> Example:
    [(example_id, tokens)] = split.read([example])
    ids = tokens.tolist()
    trained = _trained_tokens(split, example, len(ids))
    pieces = split_pieces(tokenizer, ids, trained)
    return Example(example_id, categories[split.category[example]], int(split.difficulty[example]), pieces)


def split_pieces(tokenizer, ids: list[int], trained: Sequence[bool]) -> list[Piece]:
    """Returns an example's tokens as pieces of readable text.

    A byte-level token can end inside a character and then decodes to U+FFFD; it waits for those that complete it.
    """
    special = set(tokenizer.get_added_vocab().values())
    pieces, group = [], []
    for place, token in enumerate(ids):
        group.append(token)
        text = _decode(tokenizer, group)
        last = place + 1 == len(ids)
        if last or not text.endswith("\ufffd") or ids[place + 1] in special:
            pieces.append(Piece(text, tuple(group), bool(trained[place]), token in special))
            group = []
    return pieces


def _trained_tokens(split: PreparedSplit, example: int, num_tokens: int) -> np.ndarray:
    """Returns bool [num_tokens], which tokens are targets of the loss, from the arrays that training reads."""
    mask = fill_rows(split, [[example]], num_rows=1, seq_len=num_tokens).loss_mask[0]
    return np.concatenate([[False], mask[: num_tokens - 1]])


def _spread(total: int, num: int) -> list[int]:
    """Returns up to `num` different indices below `total`, evenly spread, the first and the last among them."""
    return np.unique(np.linspace(0, total - 1, min(num, total)).round().astype(np.int64)).tolist()


def _fitting(split: PreparedSplit, num_tokens: int) -> int:
    """Returns how many examples of average length have `num_tokens` tokens together; 1 at least."""
    return max(1, int(num_tokens * len(split) / max(int(split.lengths.sum(dtype=np.int64)), 1)))


def _conclude(name: str, problems: list[str], passed: str, remedy: str) -> Check:
    return Check(name, not problems, f"{'; '.join(problems)}. Remedy: {remedy}" if problems else passed)


def _count(num: int, split: PreparedSplit) -> str:
    return f"{num:,} of {len(split):,} examples"


def _name(split: PreparedSplit, example: int) -> str:
    return split.read([int(example)])[0][0]


def _check_trained(splits: dict[str, PreparedSplit], seq_len: int) -> Check:
    """Every example has a token to learn from, and the loss mask of the rows that training reads has all of them."""
    problems = []
    for name, split in splits.items():
        bare = np.flatnonzero(split.lengths <= split.prompt_lengths)
        if len(bare):
            problems.append(f"{name}: {_count(len(bare), split)} have no token to train on, as {_name(split, bare[0])}")
    train = splits["train"]
    rows = _fill_sample(train, seq_len)
    batch = fill_rows(train, rows, num_rows=len(rows), seq_len=seq_len)
    masked, real = int(batch.loss_mask.sum()), int((batch.segment_ids > 0).sum())
    examples = [example for row in rows for example in row]
    expected = int((train.lengths[examples].astype(np.int64) - train.prompt_lengths[examples]).sum())
    which = f"of {real:,} tokens in {len(rows):,} sampled rows of train"
    if not masked:
        problems.append(f"{which} none is trained, at least 1 is needed")
    elif masked != expected:
        problems.append(f"{which} {masked:,} are trained, but their examples have {expected:,} in the completions")
    passed = f"{masked / max(real, 1):.1%} {which} are trained; no example is without"
    return _conclude("trained tokens", problems, passed, f"give records with reasoning and an answer, or {_AGAIN}")


def _fill_sample(split: PreparedSplit, seq_len: int) -> list[list[int]]:
    """Deals a spread sample into rows, in order; what fits no row is the length check's to tell."""
    rows, free = [[]], seq_len
    for example in _spread(len(split), _fitting(split, _MAX_ROW_TOKENS)):
        positions = int(split.lengths[example]) - 1
        if not 0 < positions <= seq_len:
            continue
        if positions > free:
            rows.append([])
            free = seq_len
        rows[-1].append(example)
        free -= positions
    return rows


def _check_end_of_turn(splits: dict[str, PreparedSplit], end: int) -> Check:
    """Every completion ends with the token at which sampling stops, and has no other."""
    problems, num_read = [], 0
    for name, split in splits.items():
        sample = _spread(len(split), min(_MAX_READ_EXAMPLES, _fitting(split, _MAX_READ_TOKENS)))
        num_read += len(sample)
        bad = []
        for example_id, tokens, prompt_length in _read_chunks(split, sample):
            count = int(np.count_nonzero(tokens[prompt_length:] == end))
            if count != 1 or tokens[-1] != end:
                bad.append(f"{example_id} has {count} in its completion and ends with token {tokens[-1]}")
        if bad:
            which = f"{len(bad):,} of {len(sample):,} examples"
            problems.append(f"{name}: {which} do not end with one trained {chat.END_OF_TURN} (token {end}): {bad[0]}")
    total = sum(map(len, splits.values()))
    which = f"all {total:,}" if num_read == total else f"{num_read:,} of {total:,}"
    passed = f"{which} examples were read and end with {chat.END_OF_TURN}, trained and once"
    return _conclude("end of turn", problems, passed, f"a model would not learn from them to stop; {_AGAIN}")


def _read_chunks(split: PreparedSplit, examples: list[int]) -> Iterator[tuple[str, np.ndarray, int]]:
    """Yields (id, tokens, prompt length) of many examples, of which few are in memory."""
    for start in range(0, len(examples), _CHUNK):
        chunk = examples[start : start + _CHUNK]
        for (example_id, tokens), prompt_length in zip(split.read(chunk), split.prompt_lengths[chunk], strict=True):
            yield example_id, tokens, int(prompt_length)


def _check_template(splits: dict[str, PreparedSplit], tokenizer) -> Check:
    """The tokens are those that the tokenizer's own chat template gives, the trained ones those of the reply."""
    problems, num_compared = [], 0
    for name, split in splits.items():
        sample = _spread(len(split), _NUM_COMPARED)
        num_compared += len(sample)
        differing = []
        for example, (example_id, tokens) in zip(sample, split.read(sample), strict=True):
            trained = _trained_tokens(split, example, len(tokens))
            if difference := _compare_with_template(tokenizer, tokens.tolist(), trained):
                differing.append(f"{example_id}: {difference}")
        if differing:
            which = f"{len(differing)} of {len(sample)} examples"
            problems.append(f"{name}: {which} are not what the tokenizer's chat template gives: {differing[0]}")
    passed = f"{num_compared} examples are, token by token, what the tokenizer's own apply_chat_template gives"
    return _conclude("chat template", problems, passed, f"use a tokenizer with Qwen3's template, or {_AGAIN}")


def _compare_with_template(tokenizer, ids: list[int], trained: np.ndarray) -> str:
    """Returns the first difference to the template's own tokens in words, or "" where there is none."""
    parts = _parse_example(tokenizer, ids)
    if parts is None:
        return f"no user's turn and reply with <think>, but {_decode(tokenizer, ids)[:200]!r}"
    prompt, reasoning, content = parts
    reply = {"role": "assistant", "reasoning_content": reasoning, "content": content}
    messages = [{"role": "user", "content": prompt}, reply]
    thinking = {"add_generation_prompt": True, "enable_thinking": True}
    texts = [chat.apply_template(tokenizer, messages[:1], **thinking), chat.apply_template(tokenizer, messages)]
    opened, whole = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)
    for place, token in enumerate(ids):
        if whole[place : place + 1] != [token]:
            ours, theirs = (_decode(tokenizer, x[max(place - 3, 0) : place + 5]) for x in (ids, whole))
            return f"token {place} stands in {ours!r}, the template's in {theirs!r}"
    if rest := _decode(tokenizer, whole[len(ids) :]).strip():
        return f"after the last token the template goes on with {rest[:80]!r}"
    border = len(opened)
    if trained[:border].any() or not trained[border:].all():
        counts = f"{trained[border:].sum()} of its {len(ids) - border} tokens and {trained[:border].sum()} before it"
        return f"the reply begins at token {border}, and trained are {counts}"
    return ""


def _parse_example(tokenizer, ids: list[int]) -> tuple[str, str, str] | None:
    """Reads prompt, reasoning and final text back from tokens; None where they are no question and reply.

    A reader of its own, with none of chat.py's. A system turn can only be one that the template itself puts there.
    """
    text = _decode(tokenizer, ids)
    turns = _TURN.findall(text)
    if _TURN.sub("", text) or [role for role, _ in turns if role != "system"] != ["user", "assistant"]:
        return None
    reasoning, mark, content = turns[-1][1].partition("</think>")
    if not mark or not reasoning.startswith("<think>"):
        return None
    return turns[-2][1], reasoning.removeprefix("<think>").strip("\n"), content.lstrip("\n")


def _decode(tokenizer, ids: list[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def _check_length(splits: dict[str, PreparedSplit], seq_len: int, facts: dict) -> Check:
    """There are examples, and each fits into a row: its last token is a target only and takes no position."""
    problems, longest = [], 0
    for name, split in splits.items():
        if not len(split):
            dropped = ", ".join(f"{num:,} {reason}" for reason, num in facts[name]["dropped"].items()) or "none"
            problems.append(f"{name}: no example of at most {seq_len:,} positions is left; dropped: {dropped}")
            continue
        positions = split.lengths - 1
        longest = max(longest, int(positions.max()))
        if num_over := int((positions > seq_len).sum()):
            takes = f"take more than train.seq_len={seq_len} positions, the longest {positions.max():,}"
            problems.append(f"{name}: {_count(num_over, split)} {takes}")
    remedy = "give records with shorter reasoning, or raise train.seq_len"
    remedy += f" to {longest}" if longest > seq_len else ""
    return _conclude("length", problems, f"the longest example takes {longest:,} of {seq_len:,} positions", remedy)


def _check_evaluation(splits: dict[str, PreparedSplit], test_path: Path, tokenizer) -> Check:
    """No held-out prompt is trained on, by hashes that a sample proves to be those of the prompts."""
    problems = []
    test = np.unique(np.array([hash_prompt(problem.prompt) for problem in stream_problems(test_path)], np.uint64))
    if not len(test):
        problems.append(f"{test_path.name} has 0 problems, so nothing can be compared")
    hashes = {"test": test, "validation": np.asarray(splits["validation"].prompt_hash)}
    for name, held_out in (("train", "test"), ("validation", "test"), ("train", "validation")):
        split = splits[name]
        shared = np.flatnonzero(np.isin(split.prompt_hash, hashes[held_out]))
        if len(shared):
            which = f"{_count(len(shared), split)} ask a {held_out} problem"
            problems.append(f"{name}: {which}, 0 may, such as {_name(split, shared[0])}")
    for name, split in splits.items():
        sample = _spread(len(split), _NUM_COMPARED)
        for example, (example_id, tokens) in zip(sample, split.read(sample), strict=True):
            parts = _parse_example(tokenizer, tokens.tolist())
            if parts is None or hash_prompt(parts[0]) != int(split.prompt_hash[example]):
                problems.append(f"{name}: the hash of {example_id} is not its prompt's, so nothing can be compared")
                break
    num = sum(map(len, splits.values()))
    passed = f"none of {num:,} examples asks one of the {len(test):,} test problems, no training one a validation one"
    return _conclude("held-out apart", problems, passed, f"remove them from data.source, or {_AGAIN}")
