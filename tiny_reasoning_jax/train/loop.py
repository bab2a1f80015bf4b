"""The training loop: hands batches to the compiled step, reads its metrics one step late, saves, and stops when told.

It refuses to go on from a non-finite step, and never saves a step whose metrics it has not read.
"""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from tiny_reasoning_jax import events
from tiny_reasoning_jax.data.batch import Batch, StepBatch
from tiny_reasoning_jax.data.problems import DIFFICULTIES
from tiny_reasoning_jax.errors import NumericsError
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.progress import Progress
from tiny_reasoning_jax.train import losses
from tiny_reasoning_jax.train.checkpoint import Checkpoints
from tiny_reasoning_jax.train.metrics import MetricsWriter, by_difficulty
from tiny_reasoning_jax.train.optimizer import make_optimizer, make_schedule
from tiny_reasoning_jax.train.step import Metrics, TrainState, make_train_step, run_step


class _Pending(NamedTuple):
    """A step that was handed to the device and whose metrics are not read yet."""

    step: int
    metrics: Metrics
    batch: StepBatch
    data_wait_seconds: float


def make_validate(model_def: ModelDef, loss_chunk: int, batches: list[Batch]) -> Callable[[Any], float]:
    """Returns validate(params): mean loss per completion token over fixed batches."""

    @jax.jit
    def loss_sum(params, batch):
        model = model_def.bind(params)
        hidden, _ = model(batch.tokens, batch.positions, batch.segment_ids)
        return losses.cross_entropy_sum(hidden, model.head, batch.targets, batch.loss_mask, loss_chunk)

    num_trained = sum(int(batch.loss_mask.sum()) for batch in batches)
    return lambda params: float(sum(loss_sum(params, batch) for batch in batches)) / num_trained


class Recorder:
    """Turns steps into lines of metrics: rates, learning rate, and the guard against non-finite numbers."""

    def __init__(self, writer: MetricsWriter, progress: Progress, learning_rates: np.ndarray):
        self.writer, self.progress, self.learning_rates = writer, progress, learning_rates
        self.began = self.last = time.monotonic()
        self.pending: _Pending | None = None

    def flush(self, measure: Callable[[], dict[str, float]] | None = None) -> None:
        """Reads and writes the metrics of the step in flight, if there is one.

        Args:
          measure: gives what to write beside them (see `_measure`); its time does not count as the step's.

        Raises:
          NumericsError: its loss or gradient was not finite.
        """
        if self.pending is None:
            return
        pending, self.pending = self.pending, None
        loss, grad_norm, finite = (float(x) for x in jax.device_get(pending.metrics))
        if not finite:
            raise NumericsError(_non_finite(pending, loss, grad_norm))
        now, of_difficulty = time.monotonic(), pending.batch.difficulty_tokens
        line = {
            "step": pending.step,
            "loss": loss,
            "tokens": pending.batch.num_tokens,
            "trained_tokens": pending.batch.num_trained_tokens,
            "grad_norm": grad_norm,
            "learning_rate": float(self.learning_rates[pending.step]),
            "tokens_per_second": pending.batch.num_tokens / (now - self.last),
            "data_wait_seconds": pending.data_wait_seconds,
            "seconds": self.writer.seconds_before + now - self.began,
            **by_difficulty("mixture", of_difficulty / of_difficulty.sum()),
        }
        if measure is not None:
            line |= measure()
        self.last = now if measure is None else time.monotonic()
        self.writer.write(line)
        self.progress.advance(1, f"loss {loss:.3f}  {line['tokens_per_second']:,.0f} tokens/s")
        if measure is not None:
            rates = [f"{level}: {line[key]:.0%}" for level in DIFFICULTIES if (key := f"pass_rate_{level}") in line]
            passes = f", passes {', '.join(rates)} by difficulty" if rates else ""
            self.progress.say(
                f"step {pending.step}: loss {loss:.4f}, validation loss {line['validation_loss']:.4f}{passes}"
            )


def _measure(
    step: int,
    params: Params,
    validate: Callable[[Params], float],
    probe: Callable[[Params], Sequence[float]] | None,
    batches: Iterable[StepBatch],
) -> dict[str, float]:
    """Returns validation_loss and, of a probe, pass_rate_1 to pass_rate_5; the data hear of the pass rates too."""
    measured = {"validation_loss": validate(params)}
    if probe is not None:
        pass_rates = probe(params)
        batches.observe(step, pass_rates)
        measured |= by_difficulty("pass_rate", pass_rates)
    return measured


def _non_finite(pending: _Pending, loss: float, grad_norm: float) -> str:
    ids = "; ".join(f"micro-batch {i}: {', '.join(ids)}" for i, ids in enumerate(pending.batch.ids))
    return (
        f"step {pending.step}: loss={loss}, gradient norm={grad_norm}; both must be finite. The update was not applied "
        f"and nothing was saved from it. Look at its examples, lower train.learning_rate or train.clip_norm, and run "
        f"again to go on from the last checkpoint. Examples: {ids}"
    )


def train(
    config,
    model_def: ModelDef,
    state: TrainState,
    batches: Iterable[StepBatch],
    checkpoints: Checkpoints,
    *,
    workdir: Path,
    meta: dict[str, Any],
    validation: list[Batch],
    probe: Callable[[Params], Sequence[float]] | None,
    should_stop: Callable[[], bool],
) -> TrainState:
    """Trains from state.step to config.train.num_steps; returns the state, which may be earlier if told to stop.

    Args:
      config: the whole configuration.
      model_def: the model.
      state: where to begin; its buffers are taken over.
      batches: from `make_train_iterator`, positioned at state.step (get_state and observe are called on it).
      checkpoints: where to save, every checkpoint.every_steps and at the end.
      workdir: folder of metrics.jsonl and events.jsonl.
      meta: what to store beside every checkpoint.
      validation: batches for the validation loss, every train.validate_every_steps and at the end.
      probe: gives, at the same steps, the pass rate of each difficulty, [5], NaN where none was asked; they go into the
        metrics of the step, and `batches` has observed them before a checkpoint of that step takes its state.
      should_stop: asked after every step; True saves and returns.

    Raises:
      NumericsError: a non-finite loss or gradient, with the step and the ids of its examples.
    """
    optimizer = make_optimizer(config.train)
    train_step = make_train_step(model_def, optimizer, config.train)
    validate = make_validate(model_def, config.train.loss_chunk, validation)
    start, end = int(state.step), config.train.num_steps
    # By step, computed once: asked for during a step it would queue behind that step and hold up the host.
    learning_rates = np.asarray(make_schedule(config.train)(np.arange(end + 1)))
    writer = MetricsWriter(workdir, start)
    try:
        with Progress("train", end, "step", start) as progress:
            recorder = Recorder(writer, progress, learning_rates)
            for step in range(start + 1, end + 1):
                asked = time.monotonic()
                batch = next(batches)
                data_wait = time.monotonic() - asked
                state, metrics = run_step(train_step, state, batch.arrays)
                recorder.flush()  # the step before this one: the device already has its next work
                recorder.pending = _Pending(step, metrics, batch, data_wait)
                stop = should_stop()
                if step == end or step % config.train.validate_every_steps == 0:
                    recorder.flush(functools.partial(_measure, step, state.params, validate, probe, batches))
                if stop or step == end or step % config.checkpoint.every_steps == 0:
                    recorder.flush()
                    checkpoints.save(step, state, batches.get_state(), {**meta, "step": step})
                    events.record(workdir, "save", step=step)
                if stop:
                    progress.say(f"stopped at step {step}, which is saved; the same command goes on from here")
                    break
    finally:
        writer.close()
    return state
