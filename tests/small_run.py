"""A run small enough for a test: every stage, seconds each."""

from pathlib import Path

from ml_collections import FrozenConfigDict

from configs import base, reason

# The identity of a tiny run: 6 steps over 300 problems, a model of one layer.
SMALL = {
    "data.num_problems": 300, "data.num_validation": 20, "data.num_test": 60, "data.prefetch_steps": 2,
    "tokenizer.vocab_size": 400,
    "model.random.hidden_size": 32, "model.random.intermediate_size": 64, "model.random.num_hidden_layers": 1,
    "model.random.num_attention_heads": 2, "model.random.num_key_value_heads": 1, "model.random.head_dim": 16,
    "train.num_steps": 6, "train.warmup_steps": 2, "train.batch_size": 4, "train.accum_steps": 2, "train.seq_len": 320,
    "train.validate_every_steps": 4, "train.num_probe": 0, "checkpoint.every_steps": 2,
    "eval.num_problems": 10, "eval.batch_size": 8, "eval.max_new_tokens": 8,
}  # fmt: skip


def make_config(workdir: Path, **changes) -> FrozenConfigDict:
    """The tiny recipe made smaller; `changes` use double underscores for dots: train__num_steps=3."""
    config = reason.get_config("tiny")
    config.workdir = str(workdir)
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict({**SMALL, **changes})
    base.validate(config)
    return FrozenConfigDict(config)
