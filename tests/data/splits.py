"""Prepared splits for tests, and iterators over them."""

import itertools

import numpy as np

from tiny_reasoning_jax.data.pipeline import make_train_iterator
from tiny_reasoning_jax.data.prepared import PreparedSplit, SplitWriter

SETTINGS = {
    "curriculum": "linear",
    "num_steps": 40,
    "batch_size": 8,
    "accum_steps": 2,
    "seq_len": 256,
    "seed": 7,
}


def write_split(folder, examples, *, prompt_lengths, difficulty, source=None):
    """Prepares examples, lists of tokens; their ids are their numbers."""
    source = np.zeros(len(examples), int) if source is None else source
    with SplitWriter(folder) as writer:
        for i, tokens in enumerate(examples):
            prompt, completion = tokens[: prompt_lengths[i]], tokens[prompt_lengths[i] :]
            settings = {"difficulty": int(difficulty[i]), "source": int(source[i]), "category": 0, "prompt_hash": i}
            writer.add(str(i), prompt, completion, **settings)
    return PreparedSplit.load(folder)


def make_split(folder, num_examples, *, mean, sigma=0.5, longest=4096, seed=0, num_sources=1):
    """Log-normal lengths, as real problems have; unequal shares of difficulty, and of the sources in each."""
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(np.log(mean) - sigma**2 / 2, sigma, num_examples)).astype(int).clip(8, longest)
    difficulty = rng.choice(np.arange(1, 6), num_examples, p=[0.3, 0.25, 0.2, 0.15, 0.1])
    return write_split(
        folder,
        [rng.integers(1, 151_936, length).tolist() for length in lengths],
        prompt_lengths=rng.integers(1, lengths - 1),
        difficulty=difficulty,
        source=(rng.random(num_examples) < difficulty / 6).astype(int) * (num_sources - 1),
    )


def make_iterator(split, *, prefetch_steps=0, **changes):
    return make_train_iterator(split, **{**SETTINGS, "prefetch_steps": prefetch_steps, **changes})


def take(iterator, num_steps):
    return list(itertools.islice(iterator, num_steps))


def flat_ids(step):
    return [int(i) for micro_batch in step.ids for i in micro_batch]
