"""A plan: what a run needs of a card and what it may expect from it, for people and as JSON."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import FrozenConfigDict

from tiny_reasoning_jax.model import remat
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.plan import flops
from tiny_reasoning_jax.plan.cards import GIB, Card
from tiny_reasoning_jax.plan.memory import Memory

EXPECTED_MFU = (0.4, 0.6)


class Plan(NamedTuple):
    """What a run needs and may expect.

    Attributes:
      config: the run's, without open choices.
      spec: the model's shape.
      card: where it would run; None on a CPU and on accelerators whose compiler is not asked.
      usable: bytes that there are on it.
      memory: of the compiled step; on a CPU of the state alone.
    """

    config: FrozenConfigDict
    spec: ModelSpec
    card: Card | None
    usable: int | None
    memory: Memory

    @property
    def flops_per_token(self) -> float:
        """Of training, if every row is one segment; packed rows need less."""
        return flops.training_flops_per_token(self.spec, self.config.train.seq_len / 2)

    @property
    def recomputed(self) -> float:
        """FLOPs a token that the rung of train.remat spends a second time, as a part of flops_per_token."""
        again = remat.recomputed_flops_per_token(self.spec, self.config.train.remat, self.config.train.seq_len / 2)
        return again / self.flops_per_token

    @property
    def checkpoint_bytes(self) -> int:
        """Of one checkpoint: the state without the accumulator, which is empty between steps."""
        return self.memory.host + sum(self.memory.parts[name] for name in ("parameters", "master", "moments"))

    def tokens_per_second(self) -> tuple[float, float] | None:
        """At EXPECTED_MFU of the card's peak; None if that is not known."""
        if self.card is None or self.card.bf16_flops is None:
            return None
        low, high = (mfu * self.card.bf16_flops / self.flops_per_token for mfu in EXPECTED_MFU)
        return low, high

    def hours(self) -> tuple[float, float] | None:
        """Of the whole run, fastest first, validation and checkpoints apart."""
        train, rates = self.config.train, self.tokens_per_second()
        tokens = train.num_steps * train.batch_size * train.seq_len
        return rates and (tokens / rates[1] / 3600, tokens / rates[0] / 3600)

    def facts(self) -> dict[str, Any]:
        """Everything as JSON values; bytes where nothing else is said."""
        train, memory = self.config.train, self.memory
        keys = ("master", "moments", "offload_optimizer", "remat", "attention", "batch_size", "accum_steps", "seq_len",
                "loss_chunk")  # fmt: skip
        return {
            "recipe": self.config.recipe,
            "model": self.config.model.source,
            "num_parameters": self.spec.num_parameters,
            "card": self.card and self.card.name,
            "usable_gib": self.usable and round(self.usable / GIB, 2),
            "peak_gib": round(memory.peak / GIB, 2),
            "parts_gib": {name: round(size / GIB, 3) for name, size in memory.parts.items()},
            "host_gib": round(memory.host / GIB, 3),
            "tokens_per_micro_step": train.batch_size // train.accum_steps * train.seq_len,
            "settings": {key: train[key] for key in keys},
            "flops_per_token": self.flops_per_token,
            "recomputed": round(self.recomputed, 3),
            "tokens_per_second_expected": self.tokens_per_second() and [round(r) for r in self.tokens_per_second()],
            "checkpoint_gib": round(self.checkpoint_bytes / GIB, 2),
            "fullest_program": memory.variant,
            "largest_temporaries": [[round(v.num_bytes / GIB, 3), v.shape, v.op] for v in memory.largest],
            "hidden_remat": memory.hidden_remat,
            "compile_seconds": round(memory.compile_seconds, 1),
        }

    def write(self, path: Path) -> None:
        """Writes `facts`."""
        path.write_text(json.dumps(self.facts(), indent=2) + "\n", encoding="utf-8")

    def __str__(self):
        return "\n".join(["plan:", *(f"  {line}" for line in _lines(self))])


def _lines(plan: Plan) -> list[str]:
    train, memory = plan.config.train, plan.memory
    rows = train.batch_size // train.accum_steps
    lines = [
        f"{plan.config.model.source}, {plan.spec.num_parameters:,} parameters"
        + (f", on {plan.card.name}" if plan.card else ""),
        f"a step: {train.accum_steps} x {rows} rows of {train.seq_len:,} tokens; remat {train.remat}, attention "
        f"{train.attention}, master {train.master}, moments {train.moments}"
        + (", both offloaded" if train.offload_optimizer else ""),
    ]
    if plan.card is None:
        state = sum(memory.parts.values()) + memory.host
        lines.append(f"{state / GIB:.2f} GiB for parameters, master, moments and accumulator; activations come on top")
    else:
        lines += [f"{name:<13}{size / GIB:7.2f} GiB" for name, size in memory.parts.items() if size > GIB // 200]
        lines.append(
            f"{'peak':<13}{memory.peak / GIB:7.2f} GiB of {plan.usable / GIB:.2f} usable ({plan.card.memory / GIB:.1f} "
            f"on the card); compiled in {memory.compile_seconds:.0f} s"
        )
        if memory.host:
            lines.append(
                f"{memory.host / GIB:.2f} GiB of master and moments are in the host's memory; every step moves them to "
                "the card and back"
            )
        told = [f"{v.num_bytes / GIB:.2f} {v.shape.partition('{')[0]} ({_short(v.op)})" for v in memory.largest[:4]]
        if told:
            lines.append(f"largest temporaries then, GiB: {', '.join(told)}")
    if memory.hidden_remat:
        lines.append(f"XLA computes {memory.hidden_remat} operations twice on its own, to save memory")
    lines.append(
        f"{plan.flops_per_token / 1e9:.3g} GFLOP a token at {train.seq_len:,} tokens a segment"
        + (f", and {plan.recomputed:.0%} of that again for train.remat={train.remat}" if plan.recomputed else "")
    )
    if rates := plan.tokens_per_second():
        low, high = plan.hours()
        lines.append(
            f"at {EXPECTED_MFU[0]:.0%} to {EXPECTED_MFU[1]:.0%} of {plan.card.bf16_flops / 1e12:.4g} TFLOP/s: "
            f"{rates[0]:,.0f} to {rates[1]:,.0f} tokens/s, {train.num_steps:,} steps in {low:.1f} to {high:.1f} hours "
            "(expected, not measured)"
        )
    lines.append(
        f"a checkpoint takes {plan.checkpoint_bytes / 1e9:.3g} GB of disk; {plan.config.checkpoint.keep} are kept"
    )
    return lines


def _short(op: str) -> str:
    """The end of an operation's path in our code."""
    return "/".join(op.split("/")[-3:])
