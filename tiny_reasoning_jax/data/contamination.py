"""Contamination: training prompts that give a test problem away, whatever their numbers.

Two prompts share a run of n words (13 by default) of what is left without case, punctuation, operators, LaTeX's
backslashes and drawings, with every number, or row of them, read as "#". So a test problem with other numbers is found
too: so look most copies of GSM8K and MATH. Two kinds of runs say nothing and do not count:

    formulas     at most half of the n words differ from each other, such as "x # x # x # x"
    boilerplate  in more than three test problems and more than 1 % of them, such as "read the input from ...", or
                 more than half made of words that stand in such runs

A test prompt is also looked for whole, with its numbers and operators, anywhere in the training prompt (below six
words: as all of it). That is all for a short one such as "Compute sin 135": other numbers are another exercise.

This does not see paraphrases and translations, nor a test problem in the reasoning: only prompts are compared. Of a
test set made from a few forms every run is boilerplate, and whole copies alone are found.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

from tiny_reasoning_jax.data.duplicates import split_words
from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.data.sources import Parse, read_source

_BOILERPLATE_PROBLEMS, _BOILERPLATE_SHARE = 3, 0.01  # a run in more test problems than both say gives none away
_HEAD = 6  # words by which whole test prompts are looked up


class Benchmark(NamedTuple):
    """Test problems beside the run's own that it will be asked: their name, where they are, how they are read."""

    name: str
    source: str
    parse: Parse

    def read(self) -> Iterator[Problem]:
        """Yields its problems; what cannot be asked gives nothing away."""
        records = read_source(self.source, "auto", "eval.tasks", parse=self.parse)
        return (record for record in records if isinstance(record, Problem))


class EvaluationText:
    """What must not be trained on: runs of words of the test problems. About 9 KB for a problem of 45 words."""

    def __init__(self, ngram: int):
        """Takes the words in a run, 1 or more."""
        assert ngram >= 1
        self._ngram = ngram
        # A run holds a piece that begins at a multiple of the step, wherever it stands in a prompt. So a prompt of
        # which no such piece is known has no run either, and for most that is all there is to look up.
        self._piece = ngram // 2 + 1
        self._step = ngram - self._piece + 1
        self._pieces: set[int] = set()  # hashes: one that is equal by chance costs time, no more
        self._ids: list[str] = []
        self._frames: list[str] = []
        self._holder: dict[str, int] = {}  # run -> the first test problem that has it
        self._repeats: Counter[str] = Counter()  # run -> further test problems that have it
        self._whole: dict[tuple[str, ...], list[tuple[str, int]]] = {}  # first words -> whole prompts that begin so

    def add(self, problem_id: str, prompt: str) -> None:
        """Adds a test problem."""
        number = len(self._ids)
        words = split_words(prompt)
        frame = _frame(prompt, words)
        self._ids.append(problem_id)
        self._frames.append(f" {' '.join(frame)} ")
        self._pieces.update(self._hash_pieces(frame, 1))
        runs = [
            run
            for start, run in enumerate(_runs(frame, self._ngram))
            if len(set(frame[start : start + self._ngram])) > self._ngram // 2
        ]
        for run in dict.fromkeys(runs):
            if run in self._holder:
                self._repeats[run] += 1
            else:
                self._holder[run] = number
        if words:
            self._whole.setdefault(tuple(words[:_HEAD]), []).append((" ".join(words), number))

    def find(self, prompt: str) -> tuple[str, str] | None:
        """Returns the id of a test problem that a prompt gives away, and the words that they share; or None.

        The words are as they were compared: the longest run that begins with the first shared one.
        """
        words = split_words(prompt)
        frame = _frame(prompt, words)
        if not self._pieces.isdisjoint(self._hash_pieces(frame, self._step)):
            runs = _runs(frame, self._ngram)
            start = self._choose(runs)
            if start is not None:
                number = self._holder[runs[start]]
                return self._ids[number], self._extend(frame, start, number)
        if not self._whole.keys().isdisjoint(_heads(words)):
            text = f" {' '.join(words)} "
            for head in _heads(words):
                for whole, number in self._whole.get(head, ()):
                    if f" {whole} " in text:
                        return self._ids[number], whole
        return None

    def _hash_pieces(self, frame: list[str], step: int) -> list[int]:
        length = self._piece
        return [hash(tuple(frame[start : start + length])) for start in range(0, len(frame) - length + 1, step)]

    def _choose(self, runs: list[str]) -> int | None:
        """Returns where the first run begins that gives a test problem away."""
        shared = [start for start, run in enumerate(runs) if run in self._holder]
        form = [start for start in shared if self._is_boilerplate(runs[start])]
        struck = {place for start in form for place in range(start, start + self._ngram)}
        for start in shared:
            if sum(place in struck for place in range(start, start + self._ngram)) <= self._ngram // 2:
                return start
        return None

    def _is_boilerplate(self, run: str) -> bool:
        num_problems = 1 + self._repeats.get(run, 0)
        return num_problems > max(_BOILERPLATE_PROBLEMS, _BOILERPLATE_SHARE * len(self._ids))

    def _extend(self, frame: list[str], start: int, number: int) -> str:
        shared = " ".join(frame[start : start + self._ngram])
        for word in frame[start + self._ngram :]:
            if f" {shared} {word} " not in self._frames[number]:
                break
            shared = f"{shared} {word}"
        return shared


def _frame(prompt: str, words: list[str]) -> list[str]:
    """Returns the words that count, a number or a row of numbers as "#"."""
    if "[asy]" in prompt:
        text, *drawings = prompt.split("[asy]")
        words = split_words(" ".join([text, *(drawing.rpartition("[/asy]")[2] for drawing in drawings)]))
    frame, last = [], ""
    for word in words:
        if word[0].isalpha():
            frame.append(word)
            last = word
        elif last != "#" and word[0].isdigit():
            frame.append("#")
            last = "#"
    return frame


def _runs(words: list[str], length: int) -> list[str]:
    """Returns every run of so many words; cut out of one text, which is faster than to join each."""
    text = " ".join(words)
    starts = [0, *accumulate(len(word) + 1 for word in words)]
    return [text[start : end - 1] for start, end in zip(starts, starts[length:], strict=False)]


def _heads(words: list[str]) -> Iterator[tuple[str, ...]]:
    """Yields every run of _HEAD words; of fewer words, all."""
    return zip(*(words[start:] for start in range(min(_HEAD, len(words)))), strict=False)
