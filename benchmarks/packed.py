"""What the benchmarks of training share: a recipe's packed batches, real or made up, and a model of its shape."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from configs import base, reason
from tiny_reasoning_jax import stages
from tiny_reasoning_jax.data.batch import Batch, StepBatch
from tiny_reasoning_jax.data.gather import parse_weights
from tiny_reasoning_jax.data.pipeline import make_train_iterator
from tiny_reasoning_jax.data.prepared import PreparedSplit, SplitWriter

# Qwen3-1.7B's shape and vocabulary. Random weights cost the same time and memory as trained ones.
QWEN3_1_7B = {
    "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "rope_theta": 1e6, "tie_word_embeddings": True,
}  # fmt: skip
VOCAB_SIZE = 151_936
# Made-up examples; as many as that of longer ones would be tokens that no benchmark reads.
NUM_EXAMPLES, MOST_TOKENS = 20_000, 18_000_000


def make_config(variant: str, **changes) -> ConfigDict:
    """The recipe `variant`, with `changes` whose double underscores are dots; a 1.7b recipe gets random weights."""
    config = reason.get_config(variant)
    if variant != "tiny":
        config.model.source = "random"
        config.model.random.update(QWEN3_1_7B)
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in changes.items()})
    base.validate(config)
    return config


def prepare(config: ConfigDict, mean_length: int | None, vocab_size: int = VOCAB_SIZE) -> PreparedSplit:
    """The training examples of a recipe, made in config.workdir unless they are there.

    Args:
      config: with model.source "random".
      mean_length: None: what the recipe's data stage prepares from data.source. A number: examples of random tokens
        whose lengths are log-normal with this mean (sigma 0.8, as far as they fit a row) and of which three fifths are
        trained; 20,000, fewer where they are longer than 900.
      vocab_size: of those random tokens.
    """
    if mean_length is None:
        stages.run(FrozenConfigDict({**config.to_dict(), "stages": "data"}))
        return PreparedSplit.load(Path(config.workdir) / "data" / "train")
    folder = Path(config.workdir) / f"made-up-{mean_length}-{config.train.seq_len}"
    if not folder.exists():
        _write_made_up(folder, mean_length, config.train.seq_len, vocab_size)
    return PreparedSplit.load(folder)


def _write_made_up(folder: Path, mean_length: int, seq_len: int, vocab_size: int) -> None:
    rng, sigma = np.random.default_rng(0), 0.8
    num_examples = min(NUM_EXAMPLES, MOST_TOKENS // mean_length)
    lengths = rng.lognormal(np.log(mean_length) - sigma**2 / 2, sigma, num_examples).astype(np.int64).clip(16)
    tokens = rng.integers(0, vocab_size, 50_000 + seq_len).tolist()
    writer = SplitWriter(folder)
    for i, length in enumerate(lengths[lengths <= seq_len].tolist()):
        start, prompt_length = i * 7919 % 50_000, int(0.4 * length)
        prompt, completion = tokens[start : start + prompt_length], tokens[start + prompt_length : start + length]
        writer.add(f"made-up-{i}", prompt, completion, difficulty=i % 5 + 1, source=0, category=0, prompt_hash=i)
    writer.close()


def take_steps(config: ConfigDict, split: PreparedSplit, num_steps: int) -> list[StepBatch]:
    """The first steps that training by this recipe would see."""
    train, data = config.train, config.data
    one_source = int(split.source.max()) == 0
    iterator = make_train_iterator(
        split, curriculum=data.curriculum, num_steps=train.num_steps, batch_size=train.batch_size,
        accum_steps=train.accum_steps, seq_len=train.seq_len, seed=config.seed, prefetch_steps=0,
        weights=None if one_source else parse_weights(data),
    )  # fmt: skip
    steps = [next(iterator) for _ in range(num_steps)]
    iterator.close()
    return steps


def save_steps(path: Path, steps: list[StepBatch]) -> None:
    """Writes the arrays of all steps, [num_steps, accum_steps, B, T], for processes that do not import this package."""
    names = Batch._fields
    np.savez(path, **{name: np.stack([getattr(step.arrays, name) for step in steps]) for name in names})
