"""Which rung of train.remat and how many micro-batches: the fastest that a card has room for.

Candidates are ordered by what a step is predicted to cost, those that a sum on paper says cannot fit are left out, and
the rest are compiled in this order until one fits. What was compiled corrects the sum for those that come after.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from ml_collections import ConfigDict, FrozenConfigDict

from tiny_reasoning_jax.errors import ShortageError
from tiny_reasoning_jax.model import remat
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.plan import flops
from tiny_reasoning_jax.plan.cards import CARDS, GIB, Card
from tiny_reasoning_jax.plan.memory import Memory, split_state
from tiny_reasoning_jax.train.step import abstract_state

# Of the card's peak that matrix products reach, for ordering candidates; the order hardly depends on it.
EFFICIENCY = 0.55
# Bytes that a further micro-batch moves for every parameter: the accumulator read and written and the gradient read
# (12, measured on the CPU back end), the parameters read forward and backward, the gradient written.
MICRO_STEP_BYTES = 12 + 2 + 2 + 2
# A candidate is compiled although its sum exceeds the card by so much: the sum is rough.
OPTIMISM = 0.9
# Exact masters, from the fastest and largest to the smallest; what a run that does not fit is told to try.
STORAGE = (
    {"master": "float32", "moments": "float32", "offload_optimizer": False},
    {"master": "remainder16", "moments": "float32", "offload_optimizer": False},
    {"master": "remainder16", "moments": "bfloat16", "offload_optimizer": False},
    {"master": "remainder16", "moments": "int8", "offload_optimizer": False},
    {"master": "remainder16", "moments": "int8", "offload_optimizer": True},
)


class Candidate(NamedTuple):
    """One way to take a training step.

    Attributes:
      rung: of train.remat.
      accum_steps: micro-batches of a step.
      seconds: predicted for one step; good for comparing, and no more.
      state: bytes of the state on the device, exact.
      temporaries: bytes that a step needs besides, on paper.
    """

    rung: str
    accum_steps: int
    seconds: float
    state: int
    temporaries: int


def seconds_per_step(spec: ModelSpec, config_train, rung: str, accum_steps: int, card: Card) -> float:
    """Predicted seconds of an optimizer step whose rows are whole segments; for comparing candidates.

    Recomputation costs FLOPs, and memory traffic for norms and the like (written and read again); micro-batches cost
    memory traffic; what they all have in common is the training itself.
    """
    mean_keys, tokens = config_train.seq_len / 2, config_train.batch_size * config_train.seq_len
    per_token = flops.training_flops_per_token(spec, mean_keys)
    per_token += remat.recomputed_flops_per_token(spec, rung, mean_keys)
    moved = (accum_steps - 1) * MICRO_STEP_BYTES * spec.num_parameters
    if rung != "none":
        moved += tokens * 2 * (remat.kept_bytes_per_token(spec, "none") - remat.kept_bytes_per_token(spec, "most"))
    known = card if card.bf16_flops else CARDS["a100-80"]  # the order is much the same on every card
    return tokens * per_token / (EFFICIENCY * known.bf16_flops) + moved / known.bandwidth


def estimate_temporaries(spec: ModelSpec, config_train, rung: str, accum_steps: int) -> int:
    """Bytes of a micro-step's gradients and activations, on paper.

    The fullest moment is either in the loss, when all layers keep what their backward pass needs, or at the end of the
    backward pass, when all gradients are there and one layer is at work.
    """
    itemsize = jnp.dtype(config_train.compute_dtype).itemsize
    tokens = config_train.batch_size // accum_steps * config_train.seq_len
    embedding = spec.vocab_size * spec.hidden_size
    matrices = spec.num_parameters - embedding * (1 if spec.tie_word_embeddings else 2)
    kept = tokens * remat.kept_bytes_per_token(spec, rung, itemsize)
    layer = tokens * remat.kept_bytes_per_token(spec, "none", itemsize) // spec.num_hidden_layers
    chunk = min(config_train.loss_chunk, tokens)
    # The gradient of the head, its copy in the activations' dtype; half of the logits in float32, all their gradient.
    loss = embedding * (4 + itemsize) + chunk * spec.vocab_size * (2 + itemsize)
    return max(kept + loss, 4 * embedding + itemsize * matrices + 2 * layer)


def micro_batch_counts(train) -> list[int]:
    """What train.accum_steps may be, ascending; the update of an offloaded optimizer needs something accumulated."""
    fewest = 2 if train.offload_optimizer else 1
    return [n for n in range(fewest, train.batch_size + 1) if train.batch_size % n == 0]


def candidates(spec: ModelSpec, config: FrozenConfigDict, card: Card) -> list[Candidate]:
    """Every combination that the configuration leaves open, the fastest first."""
    train = config.train
    rungs = remat.RUNGS if train.remat == "auto" else (train.remat,)
    parts = _on_device(spec, with_train(config, accum_steps=2, remat="none").train)
    found = []
    for accum_steps in micro_batch_counts(train) if train.accum_steps == 0 else (train.accum_steps,):
        state = sum(parts.values()) - (parts["accumulator"] if accum_steps == 1 else 0)
        for rung in rungs:
            seconds = seconds_per_step(spec, train, rung, accum_steps, card)
            temporaries = estimate_temporaries(spec, train, rung, accum_steps)
            found.append(Candidate(rung, accum_steps, seconds, state, temporaries))
    return sorted(found, key=lambda c: (c.seconds, c.temporaries))


@functools.lru_cache(maxsize=16)
def _on_device(spec: ModelSpec, train: FrozenConfigDict) -> dict[str, int]:
    return split_state(abstract_state(ModelDef(spec), train), train)[0]


def with_train(config: FrozenConfigDict, **values) -> FrozenConfigDict:
    """The configuration with other values in its train section."""
    changed = ConfigDict(config)
    changed.train.update(values)
    return FrozenConfigDict(changed)


class Chosen(NamedTuple):
    """A configuration without open choices, and what it needs."""

    config: FrozenConfigDict
    memory: Memory


def choose(
    config: FrozenConfigDict,
    spec: ModelSpec,
    card: Card,
    usable: int,
    measure: Callable[[FrozenConfigDict], Memory],
) -> tuple[Chosen | None, list[Chosen]]:
    """The fastest candidate that fits, None if none does, and all that were measured on the way.

    Args:
      config: train.remat may be "auto", train.accum_steps 0; without either its one candidate is measured in any case.
      spec: the model's shape.
      card: for the order.
      usable: bytes that there are.
      measure: what a configuration without open choices needs.
    """
    found, tried, correction = candidates(spec, config, card), [], OPTIMISM
    for candidate in found:
        if len(found) > 1 and candidate.state + correction * candidate.temporaries > usable:
            continue
        settled = with_train(config, remat=candidate.rung, accum_steps=candidate.accum_steps)
        tried.append(Chosen(settled, measure(settled)))
        peak = tried[-1].memory.peak
        if peak <= usable:
            return tried[-1], tried
        correction = max(correction, (peak - candidate.state) / candidate.temporaries)
    return None, tried


def refuse(config, spec: ModelSpec, card: Card, usable: int, measure, tried: list[Chosen]) -> ShortageError:
    """The refusal of a run that does not fit: what it needs, what there is, and the nearest settings that fit.

    Nearest: first another rung and smaller micro-batches, then exact masters and moments that take less.
    """
    train = config.train
    needs = f"needs {min(c.memory.peak for c in tried) / GIB:.1f} GiB" if tried else "needs more than there is"
    now = {key: train[key] for key in STORAGE[0]}
    for stored in STORAGE[STORAGE.index(now) :] if now in STORAGE else (now, *STORAGE):
        open_config = with_train(config, remat="auto", accum_steps=0, **stored)
        chosen, _ = choose(open_config, spec, card, usable, measure)
        if chosen:
            remedy = "what fits: " + _flags(config, chosen)
            break
    else:
        remedy = f"no train.remat, accum_steps, {', '.join(now)} makes it fit; take shorter rows or a smaller model"
    return ShortageError(
        f"{config.model.source} with train.master={train.master}, moments={train.moments}, remat={train.remat}, "
        f"accum_steps={train.accum_steps} and rows of {train.seq_len:,} tokens {needs}, and {card.name} has "
        f"{usable / GIB:.1f} usable of {card.memory / GIB:.1f} GiB; {remedy}"
    )


def _flags(config, chosen: Chosen) -> str:
    names = (*STORAGE[0], "remat", "accum_steps")
    changed = [name for name in names if config.train[name] != chosen.config.train[name]]
    flags = " ".join(f"--config.train.{name}={chosen.config.train[name]}" for name in changed)
    return f"{flags} ({chosen.memory.peak / GIB:.1f} GiB)"
