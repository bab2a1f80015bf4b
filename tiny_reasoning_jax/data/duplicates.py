"""Near-duplicates: problems that ask the same, of the same numbers, to the same answer, found by MinHash.

A prompt becomes the set of its runs of three words; two prompts are as similar as their sets (Jaccard: shared over
all). MinHash estimates that from 128 hashes a prompt, 520 bytes on disk, so that millions need not be compared pair by
pair, nor be in memory.

One wording does not make one problem: "the volume of a sphere" and "of a cube", "the largest value" and "the
smallest", or one story with other numbers. So two problems are only compared if they name the same numbers in the
same order, in digits or in words, and have the same final answer. What this leaves in, rather than drop a problem that
is none of the copies: paraphrases, translations, an answer that is written in another way, another program for the
same task.
"""

import hashlib
import re
import struct
import unicodedata
from collections.abc import Iterator

import numpy as np
import rensa

from tiny_reasoning_jax.answers import extract

NUM_HASHES = 128  # the estimate's standard deviation is at most sqrt(s (1 - s) / 128): 0.035 at similarity s = 0.8
NUM_COLUMNS = NUM_HASHES + 2  # the last two are 64 bits that stand for the prompt's numbers and the answer
DTYPE = np.dtype(np.uint32)

_SEED = 0
_PACK = struct.Struct(f"={NUM_HASHES}I").pack
_RECALL = 0.99  # of pairs exactly at the threshold; more similar ones are missed less
_LARGE_RUN = 64
_PATIENCE = 4  # rounds in which runs longer than _LARGE_RUN count
_MAX_ROUNDS = 64
_CHUNK = 8192  # signatures that are in memory at a time

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"  # written without spaces: every character is a word
# What comes before is looked at last: a pattern that begins with it is tried in full at every character.
_NUMBER_OR_SIGN = r"\d+(?:\.\d+)?|[-+*/=<>^_|%]|!(?<=[\d)]!)"  # a factorial, not an exclamation
_ASCII_WORD = re.compile(rf"[a-z]+|{_NUMBER_OR_SIGN}")
_WORD = re.compile(rf"[{_CJK}]|(?:(?![{_CJK}])[^\W\d_])+|{_NUMBER_OR_SIGN}")
_LATEX_SPACING = re.compile(r"\\(?:[,;:!> ]|(?:q?quad|left|right|displaystyle|limits)(?![a-z]))")
_LATEX_FRACTION = re.compile(r"\\[dtc]frac(?![a-z])")
_THOUSANDS = re.compile(r"(?:,(?<=\d,)(?:\\!)?|\{(?<=\d\{),\})(?=\d{3}(?!\d))")
_SMALL = "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
_NUMBERS = {word: str(number) for number, word in enumerate(f"{_SMALL} eighteen nineteen".split(), start=2)}
_NUMBERS |= {word: str(10 * n) for n, word in enumerate("twenty thirty forty fifty sixty".split(), start=2)}
_NUMBERS |= {"seventy": "70", "eighty": "80", "ninety": "90", "hundred": "100", "thousand": "1000"}
_NUMBERS |= {"half": "1/2", "third": "1/3", "quarter": "1/4", "fourth": "1/4", "fifth": "1/5", "tenth": "1/10"}
_NUMBERS |= {"twice": "2", "double": "2", "triple": "3", "dozen": "12"}  # "one" is too often no number


def split_words(text: str) -> list[str]:
    """Splits a prompt into what it says: words, numbers and the signs of formulas, in order.

    Case, Unicode compatibility forms, punctuation, brackets, LaTeX's backslashes and spacing and the commas in
    numbers do not count.
    """
    pattern = _ASCII_WORD
    if not text.isascii():
        text, pattern = unicodedata.normalize("NFKC", text), _WORD
    text = text.casefold()
    if "," in text:
        text = _THOUSANDS.sub("", text)
    if "\\" in text:
        text = _LATEX_FRACTION.sub(r"\\frac", _LATEX_SPACING.sub(" ", text))
    return pattern.findall(text)


def sign(texts: list[str], answers: list[str] | None = None) -> np.ndarray:
    """Returns the MinHash signatures of problems, uint32 [len(texts), NUM_COLUMNS].

    They are the same in every process. NUM_HASHES columns are MinHashes of the prompt; the other two are equal where
    the prompt has the same numbers in the same order and the final answer is the same.

    Args:
      texts: the prompts.
      answers: the answer of each, as in `Problem`; None where none is known, then wording and numbers decide alone.
    """
    signatures = np.empty((len(texts), NUM_COLUMNS), DTYPE)
    if not texts:
        return signatures
    split = [split_words(text) for text in texts]
    shingles = [[*map(" ".join, zip(w, w[1:], w[2:], strict=False))] or [" ".join(w)] for w in split]
    hashes = rensa.RMinHash.digest_matrix_from_token_sets(shingles, NUM_HASHES, _SEED).to_rows()
    packed = b"".join(_PACK(*row) for row in hashes)  # half the time of an array from lists
    signatures[:, :NUM_HASHES] = np.frombuffer(packed, DTYPE).reshape(-1, NUM_HASHES)
    finals = [" ".join(split_words(extract(answer) or answer)) for answer in answers or [""] * len(texts)]
    exact = (f"{_join_numbers(words)}\n{final}".encode() for words, final in zip(split, finals, strict=True))
    digests = b"".join(hashlib.blake2b(text, digest_size=8).digest() for text in exact)
    signatures[:, NUM_HASHES:] = np.frombuffer(digests, "<u4").reshape(-1, 2)
    return signatures


def find_near_duplicates(
    signatures: np.ndarray, candidates: np.ndarray, similarity: float
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the rows that repeat an earlier one.

    In order, a row is dropped if it has the numbers and the answer of an earlier row that is kept, and at least the
    share `similarity` of equal hashes. So of a chain a ~ b ~ c, with a and c not alike, only b is dropped.

    Rows meet where a band of r hashes is equal; there are 128 // r bands, and r is the largest with which two rows
    exactly at the threshold meet with probability 1 - (1 - similarity**r) ** (128 // r) >= 0.99. At 0.8 that is 21
    bands of 6: 0.998, for 0.9 over 0.9999; at 0.7 25 bands of 5: 0.990. Whoever meets is compared over all hashes.

    Work and memory are bounded. Equal signatures are settled first by one sort. Then rounds: a row that is the first
    in every run of equal bands is kept and compared with the rest of its runs. From round 5 on runs of more than 64
    rows, which are one form filled in many ways, do not count; what is undecided after 64 rounds is kept. Both can
    only keep what could have been dropped. Memory is about 60 bytes a row; signatures are read in chunks.

    Args:
      signatures: uint32 [n, NUM_COLUMNS] from `sign`; may be a memory map.
      candidates: bool [n]; other rows are neither dropped nor dropped for.
      similarity: share of equal hashes from which two prompts count as one, above 0 and at most 1.

    Returns:
      of, int64 [n]: the earlier row that is kept, or -1 for a row that is kept; and the share of hashes equal to
      that row's, float32 [n], 0 for a row that is kept.
    """
    assert signatures.shape == (len(candidates), NUM_COLUMNS) and signatures.dtype == DTYPE
    assert 0 < similarity <= 1
    of, found = np.full(len(candidates), -1, np.int64), np.zeros(len(candidates), np.float32)
    active = np.flatnonzero(candidates)
    copies = _drop_copies(signatures, active, of, found)
    active = active[of[active] < 0]
    for round_ in range(_MAX_ROUNDS):
        largest = len(active) if round_ < _PATIENCE else _LARGE_RUN
        active = _play_round(signatures, active, similarity, largest, of, found)
        if not len(active):
            break
    # A copy is as similar to every row as its original: where that is dropped, so is the copy, for the same row.
    originals = of[copies]
    moved = of[originals] >= 0
    of[copies[moved]], found[copies[moved]] = of[originals[moved]], found[originals[moved]]
    return of, found


def rows_in_band(similarity: float) -> int:
    """Returns how many hashes a band has; see `find_near_duplicates`."""
    fitting = (r for r in range(NUM_HASHES, 1, -1) if 1 - (1 - similarity**r) ** (NUM_HASHES // r) >= _RECALL)
    return next(fitting, 1)


def _join_numbers(words: list[str]) -> str:
    return " ".join([_NUMBERS.get(word, word) for word in words if word in _NUMBERS or word[0].isdigit()])


def _drop_copies(signatures: np.ndarray, active: np.ndarray, of: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Points every row that equals an earlier one to the first such row; returns these rows."""
    members, firsts = _find_runs(signatures, active, slice(0, NUM_HASHES), len(active))
    later = members != firsts
    _mark(signatures, active[firsts[later]], active[members[later]], 1.0, of, found)
    return active[of[active] >= 0]


def _play_round(signatures, active, similarity: float, largest: int, of: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Keeps and drops the rows of which that can be said now; returns those that stay undecided."""
    width = rows_in_band(similarity)
    bands = [slice(i * width, (i + 1) * width) for i in range(NUM_HASHES // width)]
    is_first, meets = np.ones(len(active), bool), np.zeros(len(active), bool)
    for band in bands:
        members, firsts = _find_runs(signatures, active, band, largest)
        meets[members] = True
        is_first[members[members != firsts]] = False
    active, is_first = active[meets], is_first[meets]
    for band in bands:
        members, firsts = _find_runs(signatures, active, band, largest)
        pairs = is_first[firsts] & (members != firsts) & (of[active[members]] < 0)
        _mark(signatures, active[firsts[pairs]], active[members[pairs]], similarity, of, found)
    return active[~is_first & (of[active] < 0)]


def _find_runs(signatures, active: np.ndarray, band: slice, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns members and, to each, the first of its run; both are places in `active`.

    A run is 2 to `largest` rows that have the same hashes in the band, the same numbers and the same answer.
    """
    keys = np.empty(len(active), np.uint64)
    for chunk in _chunks(len(active)):
        keys[chunk] = _mix(signatures[active[chunk]], band)
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
    lengths = np.diff(starts, append=len(keys))
    chosen = (lengths > 1) & (lengths <= largest)
    starts, lengths = starts[chosen], lengths[chosen]
    shift = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    return order[np.arange(len(shift)) + shift], order[np.repeat(starts, lengths)]


def _mix(rows: np.ndarray, band: slice) -> np.ndarray:
    """Returns 64 bits for each row's band, numbers and answer."""
    mixed = rows[:, NUM_HASHES].astype(np.uint64) << np.uint64(32) | rows[:, NUM_HASHES + 1]
    for column in range(band.start, band.stop):
        mixed = (mixed ^ rows[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _mark(signatures, firsts: np.ndarray, members: np.ndarray, similarity: float, of, found) -> None:
    """Drops the members that are similar to their firsts."""
    for chunk in _chunks(len(members)):
        equal = signatures[firsts[chunk]] == signatures[members[chunk]]
        share = equal[:, :NUM_HASHES].mean(axis=1)
        alike = equal[:, NUM_HASHES:].all(axis=1) & (share >= similarity)
        of[members[chunk][alike]] = firsts[chunk][alike]
        found[members[chunk][alike]] = share[alike]


def _chunks(num_rows: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, num_rows, _CHUNK))
