"""The stages of a run, in the order of a model's life: data, train, eval, export; then the report.

Each stage reads only what earlier ones left in the workdir, finds out what is already done, and does the rest.
"""

import contextlib
import functools
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import FrozenConfigDict

from convert import from_hf, hf_folder, to_hf
from convert.card import Card
from tiny_reasoning_jax import eval_stage, events, plan_stage, world
from tiny_reasoning_jax import workdir as rundir
from tiny_reasoning_jax.data import manifest, pipeline, prepare
from tiny_reasoning_jax.data.gather import parse_weights
from tiny_reasoning_jax.data.prepared import PreparedSplit
from tiny_reasoning_jax.data.tokenizer import load_tokenizer
from tiny_reasoning_jax.device import device_name
from tiny_reasoning_jax.errors import DamagedError, ShortageError, UserError, is_full_disk
from tiny_reasoning_jax.eval import grade
from tiny_reasoning_jax.eval.report import is_current, write_report
from tiny_reasoning_jax.eval.results import forget_results, load_results
from tiny_reasoning_jax.model import store
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.model.spec import parse_hf_config
from tiny_reasoning_jax.run import (
    Run,
    load_graded,
    load_json,
    load_source,
    make_model_def,
    require_data,
    write_facts,
)
from tiny_reasoning_jax.stop import STOP
from tiny_reasoning_jax.train import loop
from tiny_reasoning_jax.train.checkpoint import Checkpoints, abstract, choose_step, num_bytes
from tiny_reasoning_jax.train.metrics import load_metrics
from tiny_reasoning_jax.train.optimizer import make_optimizer
from tiny_reasoning_jax.train.step import abstract_state, create_state
from tiny_reasoning_jax.xla import is_full_device


def run(config: FrozenConfigDict) -> bool:
    """Runs config.stages; what an earlier session has finished is not done again.

    Returns:
      True; False if it was told to stop, and has saved what is needed to go on.

    Raises:
      UserError: whatever the user can mend; nothing already saved is lost.
    """
    print(config.recipe, flush=True)
    if config.stages == "plan":
        plan_stage.run_plan(config)
        return True
    eval_stage.refuse_early(config)
    asked, config = config, plan_stage.settle(config)
    has_source = config.model.source != "random" and (config.stages != "eval" or config.eval.model == "run")
    source = hf_folder.find_source(config.model.source) if has_source else None
    this = Run(config, Path(config.workdir), source)
    if source is not None:
        from_hf.open_tensors(source, parse_hf_config(hf_folder.read_config(source)))  # refuse bad weights now
    with rundir.locked(this.workdir):
        STOP.at("the start", kept=lambda: "nothing was changed")
        try:
            rundir.claim(this.workdir, json.loads(asked.to_json()))  # another card may settle open choices otherwise
            # Not before: a folder with nothing but events in it would be nobody's.
            STOP.at("the start", workdir=this.workdir)
            events.record(this.workdir, "start", stages=config.stages, pid=os.getpid(), host=platform.node())
            finished = _run_stages(this)
        except (UserError, OSError, jax.errors.JaxRuntimeError) as error:
            if isinstance(error, UserError) or is_full_disk(error) or is_full_device(error):  # others are our defects
                code = getattr(error, "exit_code", ShortageError.exit_code)
                with contextlib.suppress(OSError):  # a disk without room for it must not hide the error itself
                    events.record(this.workdir, "refusal", exit_code=code, message=str(error))
            raise
        events.record(this.workdir, "end", finished=finished)
        return finished


def _run_stages(this: Run) -> bool:
    if (this.workdir / "data").exists():
        manifest.check_files(this.workdir / "data")  # once a session, before anything reads them
    worked = False
    for stage in this.config.stages.split(","):
        STOP.at(f"the stage {stage}", kept=functools.partial(_tell_kept, this, stage))
        outcome = STAGES[stage](this)
        if outcome is None:
            return False  # told to stop, and it has said so
        worked |= outcome
    if worked or not is_current(this.workdir):  # killed between its last stage and its report
        print(f"report: {write_report(this.workdir)}")
    else:
        print(f"this run is finished: nothing to do, nothing changed; its report is {this.workdir}/report.html")
    return True


def _tell_kept(this: Run, stage: str) -> str:
    """What stays of a stage that is ended as it stands."""
    if stage == "train":
        step = this.latest_step()
        return "there is no checkpoint yet" if step is None else f"the newest checkpoint is step {step}"
    return KEPT[stage]


def _data(this: Run) -> bool:
    existed = (this.workdir / "data").exists()
    prepare.prepare(this.config, this.workdir, this.source, eval_stage.find_benchmarks(this.config))
    if not existed:
        print(f"data: {this.workdir / 'data'}", flush=True)
    return not existed


def _grade(this: Run) -> bool:
    require_data(this)
    config, before = this.config, load_json(this.workdir / "grades.json")
    name, spec, params = load_graded(this)
    facts = grade.grade(
        make_model_def(config, spec, trains=False),
        params,
        load_tokenizer(this.workdir / "data" / "tokenizer"),
        PreparedSplit.load(this.workdir / "data" / "train"),
        config.eval,
        workdir=this.workdir,
        model={"name": name, "sha256": grade.hash_params(params)},
        data=load_json(this.workdir / "data" / "summary.json")["fingerprint"],
        num_problems=config.grade.num_problems,
        num_samples=config.grade.num_samples,
        temperature=config.grade.temperature,
        seed=config.seed,
    )
    low, high = facts["ci95"]
    print(
        f"grade: {name} solves {facts['pass_rate']:.1%} of {facts['problems']:,} training problems (95 % interval "
        f"{low:.1%} to {high:.1%}): {this.workdir / 'grades.jsonl'}",
        flush=True,
    )
    return facts != before


def _train(this: Run) -> bool | None:
    config, latest = this.config, this.latest_step()
    if not config.checkpoint.allow_older and this.is_trained(latest):  # whoever reads it checks it
        _write_training_facts(this, latest)
        return False
    latest = choose_step(this.workdir, config.checkpoint.allow_older)
    if this.is_trained(latest):
        return False
    _forget_later(this, latest or 0)
    require_data(this)
    eval_stage.refuse_unjudgeable(this)
    checkpoints = Checkpoints(this.checkpoints, config.checkpoint.keep)
    try:
        model_def, state, data_state, meta = _begin(this, checkpoints, latest)
        unmeasured = meta.pop("unmeasured", None)
        batches = _make_batches(this)
        if data_state is not None:
            batches.set_state(data_state)
            events.record(this.workdir, "resume", step=latest)
        rows = config.train.batch_size // config.train.accum_steps
        validation = PreparedSplit.load(this.workdir / "data" / "validation")
        with contextlib.closing(batches), STOP.held():
            loop.train(
                config,
                model_def,
                state,
                batches,
                checkpoints,
                workdir=this.workdir,
                meta=meta,
                validation=list(pipeline.validation_batches(validation, batch_size=rows, seq_len=config.train.seq_len)),
                probe=_make_probe(this, model_def, validation),
                stop=STOP,
                unmeasured=unmeasured,
            )
    finally:
        checkpoints.close()
    _write_training_facts(this, this.latest_step())
    return None if STOP.is_asked() else True


def _forget_later(this: Run, step: int) -> None:
    """What was made of later steps than the one that training goes on from is made anew: their checkpoints are gone."""
    if load_json(this.workdir / "export.json").get("step", 0) > step:
        print(f"train: what was exported of a later step than {step} will be replaced", flush=True)
        (this.workdir / "export.json").unlink()
    if load_results(this.workdir).get("after", {}).get("settings", {}).get("step", 0) > step:
        print(f"train: results of a later step than {step} are taken out of eval/results.json", flush=True)
        forget_results(this.workdir, "after")


def _make_batches(this: Run) -> pipeline.TrainIterator:
    config = this.config
    return pipeline.make_train_iterator(
        PreparedSplit.load(this.workdir / "data" / "train"),
        curriculum=config.data.curriculum,
        num_steps=config.train.num_steps,
        batch_size=config.train.batch_size,
        accum_steps=config.train.accum_steps,
        seq_len=config.train.seq_len,
        seed=config.seed,
        prefetch_steps=config.data.prefetch_steps,
        weights=parse_weights(config.data),
        control=config.data.control,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _make_probe(
    this: Run, model_def: ModelDef, validation: PreparedSplit
) -> Callable[[Params, Callable[[], bool]], list[float] | None] | None:
    """What asks train.num_probe validation problems during training; None if there are none to ask."""
    config = this.config
    if not config.train.num_probe:
        return None
    tokenizer = load_tokenizer(this.workdir / "data" / "tokenizer")
    return grade.make_probe(model_def, tokenizer, validation, config.eval, config.train.num_probe, config.seed)


def _begin(this: Run, checkpoints: Checkpoints, latest: int | None):
    """Where training starts: the run's own newest checkpoint if there is one, otherwise the source's weights."""
    config = this.config
    if latest is None:
        source = load_source(this)
        model_def = make_model_def(config, source.spec)
        rundir.require_disk(this.workdir, num_bytes(abstract_state(model_def, config.train)), "one checkpoint")
        license_file = None if this.source is None else this.source / "LICENSE"
        store.save_tokenizer(this.checkpoints, this.workdir / "data" / "tokenizer", license_file)
        meta = {
            "model_config": source.hf_config,
            "generation_config": source.generation_config,
            "base_model": config.model.source,
            "seed": config.seed,
            "config": json.loads(config.to_json()),
            "world": world.describe(config, this.workdir / "data", this.source, model_def),
        }
        print(
            f"train: {source.spec.num_parameters:,} parameters from {config.model.source}, on {device_name()}",
            flush=True,
        )
        state = create_state(source.params, make_optimizer(config.train), config.train)
        return model_def, state, None, meta
    meta = store.load_meta(this.checkpoints / str(latest))
    model_def = make_model_def(config, parse_hf_config(meta["model_config"]))
    meta = _accept_world(this, meta, model_def)
    state, data_state = checkpoints.restore(latest, abstract(abstract_state(model_def, config.train), config.train))
    print(f"train: going on from step {latest} of {config.train.num_steps}, on {device_name()}", flush=True)
    return model_def, state, data_state, meta


def _accept_world(this: Run, meta: dict[str, Any], model_def: ModelDef) -> dict[str, Any]:
    """A checkpoint's meta as this session will write it, if the run may go on in the world as it is now.

    Raises:
      OtherRunError: it may not; names what has changed.
    """
    was, now = meta["config"], json.loads(this.config.to_json())
    there, here = meta["world"], world.describe(this.config, this.workdir / "data", this.source, model_def)
    fixed = lambda config, facts: rundir.identity(config) | {k: v for k, v in facts.items() if world.is_fixed(k)}
    others = lambda facts: {k: v for k, v in facts.items() if not world.is_fixed(k)}
    rundir.refuse_other(fixed(was, there), fixed(now, here), this.checkpoints)
    changes = rundir.find_other_numbers(was, now) + rundir.find_changes(others(there), others(here))
    rundir.refuse_changes(changes, this.config.checkpoint.allow_changes, this.checkpoints)
    if changes:
        print(f"train: goes on otherwise, as checkpoint.allow_changes=True asks: {'; '.join(changes)}", flush=True)
        events.record(this.workdir, "changed", changes=changes)
    return {**meta, "config": now, "world": here}


def _export(this: Run) -> bool:
    step = this.latest_step()
    if step is None:
        raise UserError(f"no checkpoint in {this.checkpoints} to export; run the train stage first")
    output = this.workdir / "hf"
    results = {key: part for key, part in load_results(this.workdir).items() if key != "model"}  # another model's
    wanted = {"step": step, "results": {k: v["settings"] for k, v in results.items() if "settings" in v}}
    if output.exists() and load_json(this.workdir / "export.json") == wanted:
        return False
    opened = store.open_checkpoint(this.checkpoints / str(step))
    if opened.tokenizer_folder is None:
        raise DamagedError(
            f"{this.checkpoints / 'tokenizer'} is missing, and every export needs it; copy "
            f"{this.workdir / 'data' / 'tokenizer'} there, which is the same"
        )
    fresh = this.workdir / "hf.new"
    old = this.workdir / "hf.old"
    for leftover in (fresh, old):  # of a killed export
        shutil.rmtree(leftover, ignore_errors=True)
    to_hf.export_hf(
        fresh,
        lambda name: store.restore_params(opened, [name])[name],
        hf_config=opened.meta["model_config"],
        generation_config=opened.meta["generation_config"],
        tokenizer_folder=opened.tokenizer_folder,
        card=Card(
            opened.meta["base_model"],
            step,
            results or None,
            opened.meta["config"],
            name=this.workdir.resolve().name,
        ),
    )
    if output.exists():
        output.rename(old)  # in one piece: a folder that is deleted in part looks like one that is whole
    fresh.rename(output)
    shutil.rmtree(old, ignore_errors=True)
    rundir.write_json(this.workdir / "export.json", wanted)
    print(f"export: {output}", flush=True)
    return True


def _write_training_facts(this: Run, step: int | None) -> None:
    """What the training has cost so far, unless run.json says so: a killed session may have left that to this one."""
    metrics = load_metrics(this.workdir)
    tokens = sum(m["tokens"] for m in metrics)
    if not metrics or load_json(this.workdir / "run.json").get("tokens") == tokens:
        return
    spec = parse_hf_config(store.load_meta(this.checkpoints / str(step))["model_config"])
    packages = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "tiny_reasoning_jax")
    write_facts(
        this,
        device=device_name(),
        num_parameters=spec.num_parameters,
        train_seconds=metrics[-1]["seconds"],
        tokens=tokens,
        versions={name: importlib.metadata.version(name) for name in packages},
    )


# What stays of other stages than training that are ended as they stand.
KEPT = {
    "data": "data that are prepared in part are prepared anew",
    "grade": f"problems graded so far are kept, by the {grade.CHUNK}",
    "eval": "the completions so far are kept",
    "export": "what is exported in part is exported anew",
}
STAGES = {"data": _data, "grade": _grade, "train": _train, "eval": eval_stage.run_eval, "export": _export}
