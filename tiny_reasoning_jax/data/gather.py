"""First half of the data stage: every record once, from wherever it comes, and which of them are used.

The problems go through a file, because the tokenizer is trained on the text before anything can be tokenised and
millions of them do not fit in memory. In memory stay columns of some forty bytes a problem, and all decisions are made
on those (what the whole process takes is measured by benchmarks/prepare.py):

    held out     validation, and test where a source has no test file: the problems with the smallest hashes
    duplicates   equal but for case and white space: test wins over validation over training, then the first one
    near ones    prompts from files that MinHash finds alike, in the same order of precedence
    quotas       of a category's training problems, those with the smallest hashes stay
    contaminated training problems that share a run of words with a test problem, numbers aside, of the run's own or
                 of a benchmark that it will be asked; found while they are tokenised, which leaves a core free

Problems that the program generates are distinct by construction and apart by their canonical form; MinHash and shared
words would see only their common wording, and do not look at them.
"""

from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tiny_reasoning_jax.data import duplicates, gym, sources
from tiny_reasoning_jax.data.contamination import Benchmark, EvaluationText
from tiny_reasoning_jax.data.difficulty import load_grades
from tiny_reasoning_jax.data.problems import Dropped, Problem, dump_problem, parse_problem
from tiny_reasoning_jax.data.procedural import FAMILIES, check_families, generate
from tiny_reasoning_jax.data.signing import Signatures
from tiny_reasoning_jax.errors import UserError

SPLITS = ("train", "validation", "test")  # a row's split is an index into this
TRAIN, VALIDATION, TEST = range(3)
# Training problems of difficulty 1 to 5. The harder are longer: so each difficulty has about as many tokens.
_TRAIN_SHARES, _EVEN = (5, 4, 3, 2, 1), (1, 1, 1, 1, 1)
_LIVES = 0  # index into Gathered.reasons of a row that is used
_TEST_ROUNDS = 8  # near-duplicates of one another within a test set beyond which copies of the next are not looked for
_SIGN_BYTES = 500_000  # of problems that are signed at a time


class _Record(NamedTuple):
    """What a source gave: a record, where it belongs before anything is held out, and if the program made it itself."""

    split: int
    source: int
    record: Problem | Dropped
    generated: bool


def source_names(data) -> list[str]:
    """Returns the sources of config.data in their order.

    Raises:
      UserError: one is empty, named twice, or has nothing to learn from.
    """
    names = [name.strip() for name in data.source.split(",")]
    if "" in names or len(set(names)) < len(names):
        raise UserError(f"data.source={data.source!r}: name every source once, separated by commas, none empty")
    if any(name.partition(":")[0] == "gym" for name in names):
        raise UserError(
            f"data.source={data.source!r}: reasoning-gym writes no reasoning to learn from; it can be data.test_source"
        )
    for name in filter(is_generated, names):
        check_families(find_families(name))
    return names


def find_families(name: str) -> list[str]:
    """Returns the families of "procedural" (all of them) or "procedural:sums+linear"."""
    chosen = name.partition(":")[2]
    return chosen.split("+") if chosen else list(FAMILIES)


def is_generated(name: str) -> bool:
    """Whether a source's problems are made by a program, in a few forms of words that all of them share."""
    return name.partition(":")[0] in ("procedural", "gym")


def find_test_source(data, name: str) -> str | None:
    """Returns the test problems that one of the sources brings along; None where they are made or held out."""
    if data.test_source != "auto" or is_generated(name):
        return None
    return sources.find_test_source(name)


class Gathered:
    """All problems on disk and what is known of each, by row.

    Attributes:
      categories: their names; a row's category is an index into this.
      split, source, category, level: small integers [n]; level is 0 where the source has none.
      key: uint64 [n], hash of the prompt.
      generated: bool [n], whether the program made the problem itself.
      reasons: the reasons for which rows are not used; a row's fate is an index into this, 0 if it is used.
      fate: int8 [n]. of: int64 [n], the row that it repeats or gives away, -1 where there is none.
      detail: by row, where the reason needs more words.
      contaminated: the summary's facts on contamination, so far.
    """

    def __init__(self, path: Path):
        self.path = path
        self.categories: list[str] = []
        self.reasons = ["used"]
        self.detail: dict[int, str] = {}
        self.contaminated: dict[str, int] = {}
        self._evaluations: dict[str, EvaluationText] = {}  # by benchmark; "" are the run's own test problems
        self._offsets = array("q")
        self._signatures = Signatures(path)

    def __enter__(self) -> "Gathered":
        return self

    def __exit__(self, *_) -> None:
        self._signatures.close()
        self.path.unlink(missing_ok=True)

    def read(self, config, on_drop: Callable[[str, Dropped], None], logged: Callable[[Iterator], Iterator]) -> None:
        """Writes every problem of the sources to `path`; what is none goes to on_drop(split, dropped)."""
        grades = load_grades(Path(config.data.grades).expanduser()) if config.data.difficulty == "measured" else None
        by_length, signs = config.data.difficulty == "length", config.data.near_duplicates < 1
        columns = {"split": array("b"), "source": array("h"), "category": array("h"), "level": array("b")}
        key, generated, mute, graded = array("Q"), array("b"), array("b"), array("b")
        codes: dict[str, int] = {}
        position = unsigned = 0
        with self.path.open("wb") as file:
            for split, source, record, made_here in logged(_read_all(config)):
                if isinstance(record, Dropped):
                    on_drop(SPLITS[split], record)
                    continue
                if unsigned > _SIGN_BYTES or (unsigned and made_here):
                    file.flush()
                    self._signatures.ask(position - unsigned, position)
                    unsigned = 0
                line = dump_problem(record)
                file.write(line)
                self._offsets.append(position)
                position += len(line)
                unsigned += len(line) if signs and not made_here else 0
                code = codes.setdefault(record.category, len(codes))
                level = 0 if by_length else record.difficulty
                if grades is not None and split == TRAIN:
                    level = grades.get(record.id, level)
                for column, value in zip(columns.values(), (split, source, code, level), strict=True):
                    column.append(value)
                key.append(sources.hash_prompt(record.prompt))
                generated.append(made_here)
                mute.append(not record.reasoning)
                graded.append(grades is None or record.id in grades)
            if unsigned:
                file.flush()
                self._signatures.ask(position - unsigned, position)
        self.categories = list(codes)
        self.split, self.source, self.category, self.level = (np.array(column) for column in columns.values())
        self.key, self.generated, self._mute = np.array(key), np.array(generated, bool), np.array(mute, bool)
        self._graded = np.array(graded, bool)
        self.fate = np.zeros(len(key), np.int8)
        self.of = np.full(len(key), -1, np.int64)

    def __len__(self) -> int:
        return len(self.key)

    def live(self, split: int) -> np.ndarray:
        """Returns the rows of a split that are used, in order."""
        return np.flatnonzero((self.split == split) & (self.fate == _LIVES))

    def stream(self, rows: np.ndarray) -> Iterator[Problem]:
        """Reads the problems of rising rows, one after the other."""
        yield from map(parse_problem, _pick_lines(self.path, rows))

    def name(self, row: int) -> str:
        """Returns the id of one row's problem."""
        with self.path.open("rb") as file:
            file.seek(self._offsets[row])
            return parse_problem(file.readline()).id

    def drop(self, rows: np.ndarray, reason: str, of: np.ndarray | int = -1) -> None:
        """Marks rows as not used, with the reason and the row of which each tells."""
        if not len(rows):
            return
        if reason not in self.reasons:
            self.reasons.append(reason)
        self.fate[rows] = self.reasons.index(reason)
        self.of[rows] = of

    def drops(self) -> Iterator[tuple[str, Dropped]]:
        """Yields (split, dropped) of every row that is not used."""
        rows = np.flatnonzero(self.fate != _LIVES)
        for row, problem in zip(rows.tolist(), self.stream(rows), strict=True):
            of = self.name(self.of[row]) if self.of[row] >= 0 else ""
            reason = self.reasons[self.fate[row]]
            yield SPLITS[self.split[row]], Dropped(problem.id, reason, of, self.detail.get(row, ""))

    def decide(self, config, benchmarks: Sequence[Benchmark] = ()) -> dict:
        """Decides which rows are used, but for contamination; see the module. Returns the facts on near ones."""
        self._hold_out(config.data)
        self._drop_duplicates()
        # While signatures are still made: none of these is dropped.
        self._read_tests(config.data.decontamination_ngram, benchmarks)
        near = self._drop_near_duplicates(config.data.near_duplicates)
        self.drop(np.flatnonzero((self.fate == _LIVES) & self._mute & (self.split != TEST)), "no reasoning")
        self.drop(np.flatnonzero((self.fate == _LIVES) & ~self._graded & (self.split == TRAIN)), "not measured")
        self._apply_quotas(parse_quotas(config.data.category_quotas))
        return near

    def _hold_out(self, data) -> None:
        """Moves problems with the smallest hashes out of training: a choice that depends on neither seed nor order."""
        names = source_names(data)
        test_keys = np.unique(self.key[self.split == TEST])
        for source, name in enumerate(names):
            if is_generated(name):
                continue
            rows = np.flatnonzero((self.source == source) & (self.split == TRAIN))
            distinct = np.setdiff1d(self.key[rows], test_keys)  # in rising order
            tenth = max(1, len(distinct) // 10)
            has_test = data.test_source != "auto" or find_test_source(data, name) is not None
            num_test = 0 if has_test else min(_part(data.num_test, names), tenth)
            held = distinct[: num_test + min(_part(data.num_validation, names), tenth)]
            rank = np.searchsorted(held, self.key[rows])
            is_held = rank < len(held)
            is_held[is_held] = held[rank[is_held]] == self.key[rows][is_held]
            self.split[rows[is_held]] = np.where(rank[is_held] < num_test, TEST, VALIDATION)

    def _drop_duplicates(self) -> None:
        order = np.lexsort((np.arange(len(self)), -self.split.astype(np.int64), self.key))
        first = np.ones(len(order), bool)
        first[1:] = self.key[order][1:] != self.key[order][:-1]
        winner = order[np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))]
        for split, name in enumerate(SPLITS):
            among = ~first & (self.split[winner] == split)
            same = self.split[order] == split
            self.drop(order[among & same], "duplicate", winner[among & same])
            self.drop(order[among & ~same], f"also in {name}", winner[among & ~same])

    def _drop_near_duplicates(self, similarity: float) -> dict:
        facts = {"similarity": similarity, "pairs": 0}
        rows = np.flatnonzero(~self.generated)
        if similarity < 1 and len(rows):
            # What is held out comes first, so that training problems are compared with it and not with each other's
            # copies; a test set is never thinned out.
            order = np.argsort(-self.split[rows], kind="stable")
            signatures = self._signatures.sort(order)
            candidates, is_test = self.fate[rows[order]] == _LIVES, self.split[rows[order]] == TEST
            for _ in range(_TEST_ROUNDS):
                of, found = duplicates.find_near_duplicates(signatures, candidates, similarity)
                lost = np.flatnonzero((of >= 0) & ~is_test)
                self.drop(rows[order[lost]], "near duplicate", rows[order[of[lost]]])
                marks = zip(rows[order[lost]].tolist(), found[lost].tolist(), strict=True)
                self.detail |= {row: f"similarity {s:.2f}" for row, s in marks}
                facts["pairs"] += len(lost)
                # A test problem that is like another stays as well, so its own copies have to go.
                alike = (of >= 0) & is_test
                if not alike.any():
                    break
                candidates = alike | (candidates & ~is_test & (of < 0))
        return facts

    def _read_tests(self, ngram: int, benchmarks: Sequence[Benchmark]) -> None:
        tests = np.flatnonzero((self.split == TEST) & (self.fate == _LIVES) & ~self.generated)
        self.contaminated = {"ngram": ngram, "test_problems": len(tests), "training_problems": 0}
        if not ngram or self.generated.all():
            return
        named = {f"{benchmark.name}/": benchmark.read() for benchmark in benchmarks}
        for prefix, problems in {"": self.stream(tests), **named}.items():
            text = self._evaluations[prefix] = EvaluationText(ngram)
            for problem in problems:
                text.add(prefix + problem.id, problem.prompt)
        self.contaminated |= {f"training_problems_of_{benchmark.name}": 0 for benchmark in benchmarks}

    def find_contamination(self, row: int, problem: Problem) -> Dropped | None:
        """Returns why a training problem gives a test problem away, and counts it; None where it does not."""
        if self.split[row] != TRAIN or self.generated[row]:
            return None
        for prefix, text in self._evaluations.items():
            if found := text.find(problem.prompt):
                self.contaminated["training_problems"] += 1
                if prefix:
                    self.contaminated[f"training_problems_of_{prefix[:-1]}"] += 1
                return Dropped(problem.id, "contaminated", *found)
        return None

    def _apply_quotas(self, quotas: dict[str, int]) -> None:
        unknown = sorted(set(quotas) - set(self.categories))
        if unknown:
            raise UserError(
                f"data.category_quotas names {', '.join(unknown)}, which no problem has; the categories are: "
                f"{', '.join(sorted(self.categories))}"
            )
        for name, quota in quotas.items():
            rows = self.live(TRAIN)
            rows = rows[self.category[rows] == self.categories.index(name)]
            self.drop(rows[np.argsort(self.key[rows], kind="stable")[quota:]], "over its category's quota")


def parse_quotas(text: str) -> dict[str, int]:
    """Reads data.category_quotas, "algebra=5000,logic=2000" or "none".

    Raises:
      UserError: it has another form.
    """
    if text == "none":
        return {}
    quotas = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if not name or not number.isdecimal() or name in quotas:
            raise UserError(
                f'data.category_quotas={text!r}: {part!r} is no quota; write "algebra=5000,logic=2000", each category '
                'once, or "none"'
            )
        quotas[name] = int(number)
    return quotas


def parse_weights(data) -> list[float] | None:
    """Reads data.weights, one number for each source, e.g. "3,1"; None for "auto".

    Raises:
      UserError: there are not as many as sources, or one is not above 0.
    """
    if data.weights == "auto":
        return None
    names, parts = source_names(data), [part.strip() for part in data.weights.split(",")]
    try:
        weights = [float(part) for part in parts]
    except ValueError:
        weights = []
    if len(weights) != len(names) or not all(0 < weight < float("inf") for weight in weights):
        raise UserError(
            f"data.weights={data.weights!r} must be {len(names)} numbers above 0, separated by commas, one for each of "
            f'data.source={data.source!r}; "auto" draws each source by its size'
        )
    return weights


def _part(num_problems: int, names: list[str]) -> int:
    """Returns what each of several sources gives of a number of held-out problems."""
    return -(-num_problems // len(names))


def _read_all(config) -> Iterator[_Record]:
    """Yields every record: per source test, then validation and training; a test source of its own before all."""
    data, names = config.data, source_names(config.data)
    if data.test_source != "auto":
        made_here = is_generated(data.test_source)
        for record in _read_test(config):
            yield _Record(TEST, 0, record, made_here)
    for source, name in enumerate(names):
        if is_generated(name):
            yield from _generate(config, source, names)
            continue
        prefix = f"{source + 1}/" if len(names) > 1 else ""
        if test_name := find_test_source(data, name):
            for record in sources.read_source(test_name, data.format, "data.test_source", prefix):
                yield _Record(TEST, source, record, False)
        for record in sources.read_source(name, data.format, "data.source", prefix):
            yield _Record(TRAIN, source, record, False)


def _read_test(config) -> Iterator[Problem | Dropped]:
    data = config.data
    if data.test_source.partition(":")[0] == "procedural":
        return generate("test", data.num_test, config.seed, _EVEN, find_families(data.test_source))
    if is_generated(data.test_source):
        return gym.read_gym(data.test_source, data.num_test, config.seed)
    return sources.read_source(data.test_source, "auto", "data.test_source")


def _generate(config, source: int, names: list[str]) -> Iterator[_Record]:
    data, families = config.data, find_families(names[source])
    sizes = [(VALIDATION, _part(data.num_validation, names), _EVEN), (TRAIN, data.num_problems, _TRAIN_SHARES)]
    if data.test_source == "auto":
        sizes.insert(0, (TEST, _part(data.num_test, names), _EVEN))
    for split, num_problems, shares in sizes:
        for problem in generate(SPLITS[split], num_problems, config.seed, shares, families):
            yield _Record(split, source, problem, True)


def _pick_lines(path: Path, rows: np.ndarray) -> Iterator[bytes]:
    wanted = iter(rows.tolist())
    row = next(wanted, None)
    with path.open("rb") as lines:
        for number, line in enumerate(lines):
            if row is None:
                return
            if number == row:
                yield line
                row = next(wanted, None)
