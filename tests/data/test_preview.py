"""pytest tests/data/test_preview.py: bad data is stopped with a reason, and what is shown is what training reads."""

import dataclasses
import json
import re
import unicodedata
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from made_up_preview import CATEGORIES, FOREIGN, NAMES, create_checks, create_examples, create_summary

from tiny_reasoning_jax.data import chat, preview, preview_page
from tiny_reasoning_jax.data.prepared import PreparedSplit, SplitWriter
from tiny_reasoning_jax.data.problems import Problem, dump_problem
from tiny_reasoning_jax.data.sources import hash_prompt
from tiny_reasoning_jax.data.tokenizer import load_tokenizer, train_tokenizer
from tiny_reasoning_jax.errors import UserError

SEQ_LEN = 512
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def create_problems(split: str, num: int, first: int = 0) -> list[Problem]:
    """Longer with difficulty, of all categories, with characters that take several tokens."""
    problems = []
    for n in range(first, first + num):
        reasoning = "\n".join(f"{FOREIGN}step {k}: {n} plus {k}." for k in range(1 + n % 5))
        prompt = f"{split}: What is {FOREIGN}{n} + 1?"
        problems.append(Problem(f"{split}-{n}", CATEGORIES[n % 3], n % 5 + 1, prompt, reasoning, str(n + 1), "s"))
    return problems


def write_split(
    folder, tokenizer, problems, change=lambda prompt, completion: (prompt, completion), hashed=hash_prompt
):
    with SplitWriter(folder) as writer:
        for problem, pair in zip(problems, chat.encode_batch(tokenizer, problems), strict=True):
            prompt, completion = change(*pair)
            writer.add(
                problem.id, prompt, completion,
                difficulty=problem.difficulty, source=0, category=CATEGORIES.index(problem.category),
                prompt_hash=hashed(problem.prompt),
            )  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    texts = (problem.reasoning.replace(FOREIGN, "") for problem in create_problems("train", 40))
    return train_tokenizer(texts, 300, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def folder(tmp_path, tokenizer):
    """A good data folder, which each test spoils in one way."""
    write_split(tmp_path / "train", tokenizer, create_problems("train", 60))
    write_split(tmp_path / "validation", tokenizer, create_problems("validation", 10))
    (tmp_path / "test.jsonl").write_bytes(b"".join(map(dump_problem, create_problems("test", 10))))
    return tmp_path


def run_checks(folder, tokenizer, seq_len=SEQ_LEN) -> dict[str, preview.Check]:
    facts = {name: {"dropped": {"over seq_len": 3}} for name in ("train", "validation", "test")}
    return {check.name: check for check in preview.run_checks(folder, tokenizer, seq_len, facts)}


def stopped_by(folder, tokenizer, **settings) -> dict[str, str]:
    """Returns the details of the failed checks; the refusal must repeat each."""
    checks = run_checks(folder, tokenizer, **settings)
    failed = {check.name: check.detail for check in checks.values() if not check.passed}
    with pytest.raises(UserError) as refusal:
        preview.refuse_failed(list(checks.values()))
    assert all(f"{name}: {detail}" in str(refusal.value) for name, detail in failed.items())
    assert all("Remedy: " in detail for detail in failed.values())
    return failed


def set_index(folder, name, change) -> None:
    array = np.load(folder / "train" / f"{name}.npy")
    change(array)
    np.save(folder / "train" / f"{name}.npy", array)


def test_good_data_passes_every_check(folder, tokenizer):
    checks = run_checks(folder, tokenizer)
    assert list(checks) == NAMES
    assert all(check.passed for check in checks.values()), checks
    preview.refuse_failed(list(checks.values()))
    assert "all 70 examples" in checks["end of turn"].detail


def test_data_that_trains_nothing_stops_the_run(folder, tokenizer):
    lengths = np.load(folder / "train" / "lengths.npy")
    set_index(folder, "prompt_lengths", lambda array: np.copyto(array, lengths))
    failed = stopped_by(folder, tokenizer)
    assert "60 of 60 examples have no token to train on, as train-0" in failed["trained tokens"]
    assert "none is trained, at least 1 is needed" in failed["trained tokens"]
    assert {"end of turn", "chat template"} <= failed.keys()


def test_one_example_without_trained_tokens_stops_the_run(folder, tokenizer):
    lengths = np.load(folder / "train" / "lengths.npy")
    set_index(folder, "prompt_lengths", lambda array: array.__setitem__(7, lengths[7]))
    assert "1 of 60 examples have no token to train on, as train-7" in stopped_by(folder, tokenizer)["trained tokens"]


@pytest.mark.parametrize("masked", [False, True])
def test_the_arrays_that_training_reads_are_asked_and_not_the_index(folder, tokenizer, monkeypatch, masked):
    fill_rows = preview.fill_rows

    def wrong(*args, **settings):
        batch = fill_rows(*args, **settings)
        return batch._replace(loss_mask=np.full_like(batch.loss_mask, masked) & (batch.segment_ids > 0))

    monkeypatch.setattr(preview, "fill_rows", wrong)
    failed = stopped_by(folder, tokenizer)
    assert failed.keys() == {"trained tokens", "chat template"}


@pytest.mark.parametrize(
    "spoil",
    [lambda c, end: c[:-1], lambda c, end: [*c, c[0]], lambda c, end: [*c[:4], end, *c[4:]], lambda c, end: [*c, end]],
    ids=["missing", "not last", "one inside", "twice"],
)
def test_an_end_of_turn_that_is_missing_or_not_alone_stops_the_run(folder, tokenizer, spoil):
    end = chat.end_of_turn_id(tokenizer)
    problems = create_problems("validation", 10)
    bad = iter([*[False] * 9, True])
    write_split(folder / "validation", tokenizer, problems, lambda p, c: (p, spoil(c, end) if next(bad) else c))
    found = stopped_by(folder, tokenizer)["end of turn"]
    assert f"validation: 1 of 10 examples do not end with one trained <|im_end|> (token {end}): validation-9" in found


def test_other_tokens_than_the_template_gives_stop_the_run(folder, tokenizer):
    newline = tokenizer("\n", add_special_tokens=False)["input_ids"]
    first = chat.encode_batch(tokenizer, create_problems("train", 1))[0]
    assert first[1][1:2] == newline, "the completion begins <think>, newline"
    write_split(folder / "train", tokenizer, create_problems("train", 60), lambda p, c: (p, [c[0], *c[2:]]))
    failed = stopped_by(folder, tokenizer)
    assert failed.keys() == {"chat template"}
    assert (
        "60 of 60 examples are not what the tokenizer's chat template gives: train-0: token" in failed["chat template"]
    )


def test_the_same_text_cut_into_other_tokens_stops_the_run(folder, tokenizer):
    def split_first_merge(prompt, completion):
        texts = [tokenizer.decode([token]) for token in completion]
        place, text = next((k, t) for k, t in enumerate(texts) if t.isascii() and t.isalpha() and len(t) > 1)
        return prompt, [*completion[:place], *tokenizer.convert_tokens_to_ids(list(text)), *completion[place + 1 :]]

    write_split(folder / "train", tokenizer, create_problems("train", 60), split_first_merge)
    assert stopped_by(folder, tokenizer).keys() == {"chat template"}


@pytest.mark.parametrize("shift", [-1, 1])
def test_a_reply_that_is_trained_from_the_wrong_token_stops_the_run(folder, tokenizer, shift):
    set_index(folder, "prompt_lengths", lambda array: np.add(array, shift, out=array))
    failed = stopped_by(folder, tokenizer)
    assert failed.keys() == {"chat template"}
    assert "the reply begins at token" in failed["chat template"]


def test_text_that_is_no_conversation_stops_the_run(folder, tokenizer):
    write_split(folder / "train", tokenizer, create_problems("train", 60), lambda p, c: (p[1:], c))
    failed = stopped_by(folder, tokenizer)
    assert "no user's turn and reply with <think>, but 'user" in failed["chat template"]
    assert "train: the hash of train-0 is not its prompt's" in failed["held-out apart"]


def test_an_example_longer_than_a_row_stops_the_run(folder, tokenizer):
    longest = int(np.load(folder / "train" / "lengths.npy").max()) - 1
    assert run_checks(folder, tokenizer, seq_len=longest)["length"].passed
    failed = stopped_by(folder, tokenizer, seq_len=longest - 1)
    assert failed.keys() == {"length"}
    assert f"train.seq_len={longest - 1} positions, the longest {longest}" in failed["length"]
    assert f"raise train.seq_len to {longest}" in failed["length"]


def test_a_split_of_which_nothing_is_left_stops_the_run(folder, tokenizer):
    for path in (folder / "train").iterdir():
        path.unlink()
    write_split(folder / "train", tokenizer, [])
    failed = stopped_by(folder, tokenizer)
    assert "train: no example of at most 512 positions is left; dropped: 3 over seq_len" in failed["length"]
    assert "trained tokens" in failed


@pytest.mark.parametrize("split, held_out", [("train", "test"), ("validation", "test"), ("train", "validation")])
def test_a_held_out_problem_among_the_examples_stops_the_run(folder, tokenizer, split, held_out):
    [leaked] = create_problems(held_out, 1, first=4)
    leaked = dataclasses.replace(leaked, id="leaked", prompt=leaked.prompt.upper().replace(" ", "  "))
    number = {"train": 60, "validation": 10}[split]
    write_split(folder / split, tokenizer, [*create_problems(split, number), leaked])
    failed = stopped_by(folder, tokenizer)
    assert failed.keys() == {"held-out apart"}
    assert (
        f"{split}: 1 of {number + 1} examples ask a {held_out} problem, 0 may, such as leaked"
        in failed["held-out apart"]
    )


def test_hashes_of_something_else_than_the_prompt_stop_the_run(folder, tokenizer):
    write_split(
        folder / "train", tokenizer, create_problems("train", 60), hashed=lambda prompt: hash_prompt(prompt + "!")
    )
    failed = stopped_by(folder, tokenizer)
    assert failed.keys() == {"held-out apart"}
    assert "train: the hash of train-0 is not its prompt's, so nothing can be compared" in failed["held-out apart"]


def test_no_test_problem_at_all_stops_the_run(folder, tokenizer):
    (folder / "test.jsonl").write_text("")
    assert "test.jsonl has 0 problems" in stopped_by(folder, tokenizer)["held-out apart"]


def test_real_data_with_the_real_tokenizer_passes(tmp_path, shared_data):
    tokenizer = load_tokenizer(shared_data / "qwen3_tokenizer")
    records = []
    for number, line in enumerate(
        (shared_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()[:300]
    ):
        record = json.loads(line)
        steps, _, answer = record["answer"].partition("#### ")
        records.append(Problem(f"gsm8k:{number}", "algebra", 1, record["question"], steps, answer, "gsm8k"))
    write_split(tmp_path / "train", tokenizer, records[:200])
    write_split(tmp_path / "validation", tokenizer, records[200:250])
    (tmp_path / "test.jsonl").write_bytes(b"".join(map(dump_problem, records[250:])))
    checks = run_checks(tmp_path, tokenizer, seq_len=1024)
    assert all(check.passed for check in checks.values()), checks


def test_a_million_examples_cost_bounded_reads(monkeypatch):
    """Counts the reads of the check that reads most, on a split that is made up while it is read."""
    num, end, reads = 1_000_000, 5, []

    def read(examples):
        reads.append(len(examples))
        return [(str(example), np.full(40, end if example < 0 else 1, np.int32)) for example in examples]

    class Split(SimpleNamespace):
        def __len__(self):
            return num

    split = Split(lengths=np.full(num, 40, np.int32), prompt_lengths=np.full(num, 30, np.int32), read=read)
    check = preview._check_end_of_turn({"train": split}, end)
    assert "1,000,000" not in check.detail and "100,000 of 100,000" in check.detail
    assert sum(reads) == 100_000 and max(reads) <= 1000
    split.lengths = np.full(num, 4_000, np.int32)
    reads.clear()
    preview._check_end_of_turn({"train": split}, end)
    assert sum(reads) == 5_000


def test_the_examples_are_easy_middling_and_hard_and_always_the_same(folder, tokenizer):
    split = PreparedSplit.load(folder / "train")
    examples = preview.choose_examples(split, tokenizer, CATEGORIES)
    assert examples == preview.choose_examples(split, tokenizer, CATEGORIES)
    assert [examples[0].difficulty, examples[2].difficulty] == [1, 5]
    assert len({example.category for example in examples}) == 3
    assert examples[0].num_tokens < examples[1].num_tokens < examples[2].num_tokens
    for example in examples:
        assert CATEGORIES[int(example.id.partition("-")[2]) % 3] == example.category


@pytest.mark.parametrize("num", [0, 1, 2])
def test_a_small_split_gives_the_examples_it_has(tmp_path, tokenizer, num):
    write_split(tmp_path, tokenizer, create_problems("train", num))
    examples = preview.choose_examples(PreparedSplit.load(tmp_path), tokenizer, CATEGORIES)
    assert len({example.id for example in examples}) == len(examples) == num


def test_pieces_are_whole_characters_and_lose_no_token(folder, tokenizer):
    split = PreparedSplit.load(folder / "train")
    [example] = [e for e in preview.choose_examples(split, tokenizer, CATEGORIES) if e.difficulty == 5]
    [(_, tokens)] = split.read([int(example.id.partition("-")[2])])
    assert [token for piece in example.pieces for token in piece.ids] == tokens.tolist()
    assert "\ufffd" not in "".join(piece.text for piece in example.pieces)
    assert "".join(piece.text for piece in example.pieces) == tokenizer.decode(tokens)
    assert any(len(piece.ids) > 1 for piece in example.pieces), "some character takes several tokens"
    trained = "".join(piece.text for piece in example.pieces if piece.trained)
    assert trained.startswith("<think>") and trained.endswith("<|im_end|>")
    assert [p.text for p in example.pieces if p.special and p.trained] == ["<think>", "</think>", "<|im_end|>"]


def count_cells(line: str) -> int:
    return sum(
        1 + (unicodedata.east_asian_width(c) in "WF") for c in line if not unicodedata.combining(c) and c != "\u200d"
    )


@pytest.mark.parametrize("width", [20, 80, 100, 300])
def test_the_terminal_page_fits_and_colours_change_no_letter(width):
    page = [create_summary(), create_examples(), create_checks(), width]
    plain = preview_page.render_terminal(*page, False)
    assert "\x1b" not in plain
    coloured = preview_page.render_terminal(*page, True)
    assert "\x1b[32m" in coloured and ANSI.sub("", coloured) == plain
    lines = plain.split("\n")
    assert len(lines) <= 60
    assert max(map(count_cells, lines)) <= min(max(width, 80), 120)


def test_the_terminal_page_says_what_was_found():
    plain = preview_page.render_terminal(create_summary(), create_examples(1), create_checks(), 100, False)
    for text in ("4,501", "400,000", "62.5%", "99.3% full", "12 over seq_len", "pairs 1,234", "dropped.jsonl", "250",
                 "\u2713 trained tokens", "\u2717 end of turn", "preview.html", "64  \u2013  127"):  # fmt: skip
        assert text in plain, text
    bars = {line.split()[0]: line.count("\u2588") for line in plain.split("\n") if "\u2588" in line}
    assert list(bars) == ["32", "64", "128"] and bars["64"] > 2.8 * bars["32"] > 5 * bars["128"]
    example = plain[plain.index("<|im_start|>") :].split("\n")
    assert [line.startswith("  \u258c") for line in example[:3]] == [False, True, True]
    assert example[-2] == "  \u258c <|im_end|>"


@pytest.mark.parametrize("colour", [False, True])
def test_no_record_can_steer_the_terminal(colour):
    shown = preview_page.render_terminal(create_summary(), create_examples(), create_checks(), 100, colour)
    assert all(c.isprintable() or c in "\n\u200d" for c in ANSI.sub("", shown))
    assert "\\x1b[2J" in shown


class Page(HTMLParser):
    """Collects what a browser would act on, and checks that tags are closed in order."""

    VOID = {"meta", "br"}

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.titles, self.trained = set(), [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        attributes = dict(attributes)
        assert not attributes.keys() & {"src", "href", "onerror", "onload"}
        self.titles += [attributes["title"]] if "title" in attributes else []
        if tag not in self.VOID:
            self.open.append((tag, attributes.get("class", "")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if any(tag == "pre" for tag, _ in self.open) and any("t" in kind.split() for _, kind in self.open):
            self.trained += data


def test_the_page_is_whole_and_shows_every_token(folder, tokenizer):
    examples = preview.choose_examples(PreparedSplit.load(folder / "train"), tokenizer, CATEGORIES)
    path = preview_page.write_page(folder, create_summary(), examples, create_checks())
    assert path == folder / "preview.html"
    page = Page(path.read_text(encoding="utf-8"))
    ids = [", ".join(map(str, piece.ids)) for example in examples for piece in example.pieces]
    assert page.titles == ids
    trained = "".join(piece.text for example in examples for piece in example.pieces if piece.trained)
    assert page.trained == trained


def test_nothing_from_the_data_becomes_markup(tmp_path):
    path = preview_page.write_page(tmp_path, create_summary(), create_examples(), create_checks())
    text = path.read_text(encoding="utf-8")
    assert not Page(text).tags & {"script", "img", "link", "iframe", "object"}
    assert "http" not in text and "url(" not in text and "@import" not in text
    assert text.count("&lt;/script&gt;&lt;script&gt;alert(1)") > 5
    assert all(c.isprintable() or c in "\n\u200d" for c in text)


def test_the_middle_of_a_long_example_is_left_out_and_said(tmp_path):
    pieces = [preview.Piece(f"word{k} ", (k,), True, False) for k in range(5000)]
    path = preview_page.write_page(tmp_path, create_summary(), [preview.Example("long", "logic", 5, pieces)], [])
    text = path.read_text(encoding="utf-8")
    assert "3,800 tokens left out here" in text and "5,000 of 5,000 tokens trained" in text
    assert "word799 " in text and "word800 " not in text and "word4599 " not in text and "word4600 " in text


def test_many_categories_and_bins_stay_a_page(tmp_path):
    summary = create_summary()
    train = summary["splits"]["train"]
    train["by_category"] = {f"category{k:03}": {"1": k + 1} for k in range(100)}
    train["length_histogram"] = {"edges": list(range(0, 6400, 64)) + [6400], "counts": list(range(100))}
    plain = preview_page.render_terminal(summary, create_examples(), create_checks(), 80, False)
    assert len(plain.split("\n")) <= 60
    assert "94 others" in plain and "category099" in plain and "5,050" in plain
    assert "category000" in preview_page.write_page(tmp_path, summary, [], []).read_text(encoding="utf-8")
