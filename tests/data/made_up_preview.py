"""What a preview shows, made up, with marks that could steer a terminal or a page in every text."""

from tiny_reasoning_jax.data import preview

CATEGORIES = ["algebra", "logic", "code"]


FOREIGN = "caf\u00e9 \u0928\u092e\u0938\u094d\u0924\u0947 \u6f22\u5b57 \U0001f9d1\u200d\U0001f680 \u2026 "
MARKS = ("</script><script>alert(1)</script>", "\x1b[2J\x1b[31m", "\u202egnorw", "<img src=x>", "\r\0")
NAMES = ["trained tokens", "end of turn", "chat template", "length", "held-out apart"]


def create_summary(facts: dict | None = None) -> dict:
    """A summary as the data stage writes it, with marks in every text that comes from outside."""
    lengths = {"mean": 88.5, "p50": 80, "p90": 120, "p99": 200, "max": 250}
    histogram = {"edges": [0, 32, 64, 128, 256, 512], "counts": [0, 1000, 3001, 500, 0]}
    train = {
        "kept": 4501, "tokens": 400_000, "trained_tokens": 250_000, "length": lengths, "length_histogram": histogram,
        "by_category": {"algebra": {"1": 4000, "5": 1}, "logic" + "".join(MARKS): {"3": 500}},
        "dropped": {"over seq_len": 12, "near duplicate": 3},
    }  # fmt: skip
    test = {key: value for key, value in train.items() if key != "trained_tokens"} | {"dropped": {}}
    return {
        "fingerprint": {"data.source": f"train.jsonl {MARKS}"}, "manifest": {"version": "1.0", "shards": {"train": []}},
        "difficulty_rule": f"by length {MARKS}", "sources": ["procedural", *MARKS], "categories": CATEGORIES,
        "splits": {"train": train, "validation": train, "test": test} | (facts or {}),
        "near_duplicates": {"similarity": 0.8, "pairs": 1234}, "contaminated": {"ngram": 13, "training_problems": 2},
        "packing": {"efficiency": 0.9931, "seq_len": 4096},
    }  # fmt: skip


def create_checks() -> list[preview.Check]:
    return [
        preview.Check(name, k != 1, f"{k} found {MARKS[k]} " + "and a long story " * 8) for k, name in enumerate(NAMES)
    ]


def create_examples(num_repeats=3) -> list[preview.Example]:
    piece = lambda text, trained, special=False: preview.Piece(text, (7, 1234), trained, special)
    reply = [piece(f"{FOREIGN}word {mark}\n\n" * 2, True) for mark in MARKS for _ in range(num_repeats)]
    pieces = [piece("<|im_start|>", False, True), piece("prompt\n", False), *reply, piece("<|im_end|>", True, True)]
    return [preview.Example(f"id {mark}", f"category {mark}", 3, pieces) for mark in MARKS[:3]]
