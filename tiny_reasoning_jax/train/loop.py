"""The training loop: hands batches to the compiled step, reads its metrics one step late, saves, and stops when told.

It refuses to go on from a non-finite step, of which it leaves a dump that computes it again, and never saves a step
whose metrics it has not read. A stage that hangs ends the process (train/watchdog.py).
"""

import functools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tiny_reasoning_jax import events
from tiny_reasoning_jax.data.batch import Batch, StepBatch
from tiny_reasoning_jax.data.problems import DIFFICULTIES
from tiny_reasoning_jax.errors import NumericsError
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.progress import Progress
from tiny_reasoning_jax.stop import Stop
from tiny_reasoning_jax.train import examine, spikes
from tiny_reasoning_jax.train.checkpoint import Checkpoints, bind, cadence
from tiny_reasoning_jax.train.dump import write_dump
from tiny_reasoning_jax.train.metrics import MetricsWriter, by_difficulty
from tiny_reasoning_jax.train.optimizer import make_schedule
from tiny_reasoning_jax.train.step import (
    Metrics,
    TrainState,
    TrainStep,
    make_train_step,
    micro_loss,
    run_step,
)
from tiny_reasoning_jax.train.watchdog import Watchdog

# A step that takes longer than this is stopped between its micro-steps. Waiting for each of them costs the device a
# moment, which long ones do not mind.
LONG_STEP_SECONDS = 10.0


class _Pending(NamedTuple):
    """A step that was handed to the device and whose metrics are not read yet."""

    step: int
    metrics: Metrics
    batch: StepBatch
    data_wait_seconds: float


def make_validate(
    model_def: ModelDef, loss_chunk: int, batches: list[Batch]
) -> Callable[[Params, Callable[[], bool]], float | None]:
    """Returns validate(params, give_up): mean loss per completion token over fixed batches.

    None if `give_up`, asked after every batch, said so.
    """

    @jax.jit
    def loss_sum(params, batch):
        return micro_loss(model_def, loss_chunk, params, batch._replace(loss_denom=jnp.float32(1)))

    num_trained = sum(int(batch.loss_mask.sum()) for batch in batches)

    def validate(params: Params, give_up: Callable[[], bool]) -> float | None:
        sums = []
        for batch in batches:
            sums.append(jax.block_until_ready(loss_sum(params, batch)))
            if give_up():
                break
        loss = float(sum(sums))
        if not math.isfinite(loss):
            bad = [i for i, value in enumerate(sums) if not math.isfinite(value)]
            raise NumericsError(
                f"the validation loss is {loss}: of {len(batches)} validation batches those that are not finite are "
                f"{', '.join(map(str, bad)) or 'none alone'}, counted from 0. Nothing was saved from here on. Lower "
                f"train.learning_rate and run again to go on from the last checkpoint"
            )
        return loss / num_trained if len(sums) == len(batches) else None

    return validate


class Recorder:
    """Turns steps into lines of metrics; refuses a step that is not finite, and too many spikes in a row."""

    def __init__(self, config, workdir: Path, model_def: ModelDef, writer: MetricsWriter, progress: Progress):
        self.config, self.workdir, self.model_def = config, workdir, model_def
        self.writer, self.progress = writer, progress
        # By step, computed once: asked for during a step it would queue behind that step and hold up the host.
        self.learning_rates = np.asarray(make_schedule(config.train)(np.arange(config.train.num_steps + 1)))
        self.began = self.last = time.monotonic()
        self.step_seconds = 0.0  # of the last step
        self.pending: _Pending | None = None
        self.unmeasured: dict[str, Any] | None = None  # metrics of a step whose validation was given up

    def flush(self, state: TrainState, measure: Callable[[], dict[str, float] | None] | None = None) -> None:
        """Reads and writes the metrics of the step in flight, if there is one.

        Args:
          state: the newest there is; after a step that was not finite still the one that it began with.
          measure: gives what to write beside them (see `write_measured`); its time does not count as the step's.

        Raises:
          NumericsError: its loss or gradient was not finite, or it is one spike in a row too many.
        """
        if self.pending is None:
            return
        pending, self.pending = self.pending, None
        loss, grad_norm, finite, skipped, in_row = (x.item() for x in jax.device_get(pending.metrics))
        if not finite:
            raise NumericsError(
                _explain_non_finite(self.workdir, self.config, self.model_def, pending, state, loss, grad_norm)
            )
        now, of_difficulty = time.monotonic(), pending.batch.difficulty_tokens
        self.step_seconds = now - self.last
        line = {
            "step": pending.step,
            "loss": loss,
            "tokens": pending.batch.num_tokens,
            "trained_tokens": pending.batch.num_trained_tokens,
            "grad_norm": grad_norm,
            # A skipped step does not move the schedule.
            "learning_rate": float(self.learning_rates[pending.step - skipped + bool(in_row)]),
            "tokens_per_second": pending.batch.num_tokens / self.step_seconds,
            "data_wait_seconds": pending.data_wait_seconds,
            "seconds": self.writer.seconds_before + now - self.began,
            **by_difficulty("mixture", of_difficulty / of_difficulty.sum()),
        }
        if self.config.train.max_spike:
            line["skipped_steps"] = skipped
            if in_row:
                self._tell_skipped(pending, loss, grad_norm, in_row)
        self.last = now
        note = f"  {skipped} steps skipped" if skipped else ""
        self.progress.advance(1, f"loss {loss:.3f}  {line['tokens_per_second']:,.0f} tokens/s{note}")
        if measure is None:
            self.writer.write(line)
        else:
            self.write_measured(line, measure)

    def write_measured(self, line: dict[str, Any], measure: Callable[[], dict[str, float] | None]) -> None:
        """Writes a step's metrics with what `measure` gives; if that was given up, keeps them as `unmeasured`."""
        measured = measure()
        self.last = time.monotonic()
        self.unmeasured = line if measured is None else None
        if measured is None:
            return
        line = line | measured
        self.writer.write(line)
        rates = [f"{level}: {line[key]:.0%}" for level in DIFFICULTIES if (key := f"pass_rate_{level}") in line]
        passes = f", passes {', '.join(rates)} by difficulty" if rates else ""
        self.progress.say(
            f"step {line['step']}: loss {line['loss']:.4f}, validation loss {line['validation_loss']:.4f}{passes}"
        )

    def _tell_skipped(self, pending: _Pending, loss: float, grad_norm: float, in_row: int) -> None:
        values = {"loss": loss, "grad_norm": grad_norm, "examples": pending.batch.ids}
        events.record(self.workdir, "skip", step=pending.step, **values)
        if in_row >= spikes.MAX_IN_ROW:
            raise NumericsError(
                f"step {pending.step}: the last {in_row} steps were all more than "
                f"train.max_spike={self.config.train.max_spike:g} standard deviations above the usual, this one with "
                f"loss={loss:.4g}, gradient norm={grad_norm:.4g}: that is no spike. None of them was applied. Lower "
                f"train.learning_rate, or raise train.max_spike (0: skip nothing), and run again to go on from the "
                f"last checkpoint; what was skipped is in events.jsonl"
            )


def _measure(
    step: int,
    params: Params,
    validate: Callable[[Params, Callable[[], bool]], float | None],
    probe: Callable[[Params, Callable[[], bool]], Sequence[float] | None] | None,
    batches: Iterable[StepBatch],
    stop: Stop,
) -> dict[str, float] | None:
    """Returns validation_loss and, of a probe, pass_rate_1 to pass_rate_5, told to the data; None if stopped."""
    loss = validate(params, stop.is_asked)
    if loss is None or probe is None:
        return None if loss is None else {"validation_loss": loss}
    pass_rates = probe(params, stop.is_asked)
    if pass_rates is None:
        return None
    batches.observe(step, pass_rates)
    return {"validation_loss": loss, **by_difficulty("pass_rate", pass_rates)}


def _explain_non_finite(
    workdir: Path, config, model_def: ModelDef, pending: _Pending, state: TrainState, loss: float, grad_norm: float
) -> str:
    """The message about a step that was not finite, and its dump; looks for the micro-batch that is to blame."""
    facts = {"step": pending.step, "loss": loss, "grad_norm": grad_norm}
    folder, lacking = write_dump(workdir, config, model_def, state, pending.batch, facts)
    bad, found = [], "Computed once more every micro-batch is finite: the sum of gradients is not, or the device errs"
    try:
        bad = examine.find_bad(model_def, config.train.loss_chunk, state, pending.batch.arrays)
    except jax.errors.JaxRuntimeError as error:  # no memory for one more program; the rest must be told
        found = f"Which micro-batch is to blame could not be computed ({str(error).splitlines()[0][:200]})"
    if bad:
        found = f"Not finite: micro-batch {', '.join(map(str, bad))} of {len(pending.batch.ids)}"
    shown = bad or range(len(pending.batch.ids))
    ids = "; ".join(f"micro-batch {i}: {', '.join(pending.batch.ids[i])}" for i in shown)
    remedy = f"python -m tiny_reasoning_jax.train.replay {folder}"
    return (
        f"step {pending.step}: loss={loss}, gradient norm={grad_norm}; both must be finite. The update was not applied "
        f"and nothing was saved from it. {found}. Examples of {ids}. Look at them, lower train.learning_rate or "
        f"train.clip_norm, and run again to go on from the last checkpoint. "
        + (f"{folder} has no state to compute the step from again: {lacking}" if lacking else f"Its replay: {remedy}")
    )


class _Session:
    """Takes steps and saves; tells the watchdog and whoever wants a stop what is being done."""

    def __init__(
        self,
        recorder: Recorder,
        watchdog: Watchdog,
        stop: Stop,
        checkpoints: Checkpoints,
        workdir: Path,
        meta: dict[str, Any],
        start: int,
    ):
        self.recorder, self.watchdog, self.stop = recorder, watchdog, stop
        self.checkpoints, self.workdir, self.meta = checkpoints, workdir, meta
        self.start = self.saved = self.done = start  # steps

    def at(self, stage: str, step: int) -> None:
        """`stage` of this step begins."""
        self.watchdog.at(stage, step)
        self.stop.at(f"{stage} (step {step})", unsaved=self.done > self.start)

    def take_step(
        self, train_step: TrainStep, state: TrainState, batches: Iterable[StepBatch]
    ) -> tuple[TrainState, dict[str, Any] | None]:
        """The state after the next step; of a long one that was stopped, the state and the place in the data before."""
        step, is_long = self.done + 1, self.recorder.step_seconds > LONG_STEP_SECONDS
        place = batches.get_state() if is_long else None
        self.at("waiting for data", step)
        asked = time.monotonic()
        batch = next(batches)
        data_wait = time.monotonic() - asked
        self.at("training", step)
        began = time.monotonic()
        state, metrics = run_step(train_step, state, batch.arrays, self.stop.is_asked if is_long else None)
        self.recorder.flush(state)  # the step before this one: the device already has its next work
        if metrics is None:
            return state, place
        if step == self.start + 1:  # how long a step takes is not known yet; a stop still ends this one as it stands
            jax.block_until_ready(metrics)
            self.recorder.step_seconds = time.monotonic() - began
        self.recorder.pending, self.done = _Pending(step, metrics, batch, data_wait), step
        return state, None

    def make_up(self, line: dict[str, Any], measure: Callable[[], dict[str, float] | None]) -> None:
        """Does the validation of the checkpoint that training goes on from, which a stop had cut short."""
        self.at("validation", self.start)
        self.recorder.writer.seconds_before = line["seconds"]
        try:
            self.recorder.write_measured(line, measure)
        except NumericsError as error:
            folder = self.checkpoints.folder / str(self.start)
            aside = f"mv {folder} {self.workdir / f'not-finite-checkpoint-{self.start}'}"
            raise NumericsError(f"{error}. That is step {self.start}, saved before this was known: {aside}") from error

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Saves the last whole step, unless it is saved; with its metrics, if they lack its validation."""
        if self.saved == self.done:
            return
        self.recorder.flush(state)
        self.at("saving a checkpoint", self.done)
        # A finite loss does not vouch for what the update made of the state; nor for moments that are used later.
        examine.require_finite(
            state,
            f"step {self.done}, whose loss was finite; nothing was saved of it. Run again to go on from the last "
            "checkpoint: if it happens again at the same step, lower train.learning_rate; if not, the device errs",
        )
        owed = {"unmeasured": self.recorder.unmeasured} if self.recorder.unmeasured else {}
        self.checkpoints.save(self.done, state, data_state, {**self.meta, "step": self.done, **owed})
        events.record(self.workdir, "save", step=self.done)
        self.saved = self.done


def _explain_origin(folder: Path, start: int) -> str:
    """Where a state that is not finite came from, and what to do."""
    if not start:
        return "the model that training began with; no training mends them. Get it anew"
    aside = f"mv {folder / str(start)} {folder.parent / f'not-finite-checkpoint-{start}'}"
    return f"the checkpoint of step {start}; no training mends them. To go on from the one before it: {aside}"


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
    probe: Callable[[Params, Callable[[], bool]], Sequence[float] | None] | None,
    stop: Stop,
    unmeasured: dict[str, Any] | None = None,
) -> TrainState:
    """Trains from state.step to config.train.num_steps; returns the state, which may be earlier if told to stop.

    Args:
      config: the whole configuration.
      model_def: the model.
      state: where to begin; its buffers are taken over.
      batches: from `make_train_iterator`, positioned at state.step (get_state and observe are called on it).
      checkpoints: where to save, at the cadence that checkpoint.every_steps asks for and at the end.
      workdir: folder of metrics.jsonl and events.jsonl.
      meta: what to store beside every checkpoint.
      validation: batches for the validation loss, every train.validate_every_steps and at the end.
      probe: gives, at the same steps, the pass rate of each difficulty, [5], NaN where none was asked; they go into the
        metrics of the step, and `batches` has observed them before a checkpoint of that step takes its state.
      stop: asked after every step, between the micro-steps of a long one, and within validation and probe: whether to
        save and return.
      unmeasured: of the checkpoint's meta: metrics of its step without a validation, which a stop cut short. It is done
        first. The checkpoint stays as it is: whoever begins with it again does it again.

    Raises:
      NumericsError: a non-finite loss or gradient, with the step, the ids of its examples and a dump; a state that is
        not finite before the first step; a validation loss that is not; spikes.MAX_IN_ROW spikes in a row.
    """
    state, train_step = bind(state), make_train_step(model_def, config.train)
    validate = make_validate(model_def, config.train.loss_chunk, validation)
    start, end = int(state.step), config.train.num_steps
    save_every, ahead = cadence(config.checkpoint.every_steps)
    examine.require_finite(state, _explain_origin(checkpoints.folder, start))
    with (
        MetricsWriter(workdir, start - (unmeasured is not None)) as writer,
        Progress("train", end, "step", start) as progress,
        Watchdog(config.train.watchdog_seconds, workdir) as watchdog,
    ):
        recorder = Recorder(config, workdir, model_def, writer, progress)
        session = _Session(recorder, watchdog, stop, checkpoints, workdir, meta, start)
        measure = lambda: functools.partial(_measure, session.done, state.params, validate, probe, batches, stop)
        if unmeasured is not None:
            session.make_up(unmeasured, measure())
        stopped = recorder.unmeasured is not None
        while session.done < end and not stopped:
            state, place = session.take_step(train_step, state, batches)
            step = session.done
            if place is None and (step == end or step % config.train.validate_every_steps == 0):
                session.at("validation", step)
                recorder.flush(state, measure())
            stopped = stop.is_asked()
            if stopped or step == end or step % save_every == 0:
                session.save(state, place or batches.get_state())
            if step % save_every == ahead:
                session.at("waiting for a checkpoint", step)
                checkpoints.wait()
        session.at("waiting for the last checkpoint", session.done)
        checkpoints.wait()
        if stopped:
            progress.say(f"stopped at step {session.done}, which is saved; the same command goes on from here")
    return state
