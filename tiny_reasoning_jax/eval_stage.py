"""The eval stage: which models are asked which tasks, what of it is done already, and what it comes to."""

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import FrozenConfigDict

from tiny_reasoning_jax import answers
from tiny_reasoning_jax.data import prepare
from tiny_reasoning_jax.data.contamination import Benchmark
from tiny_reasoning_jax.data.gather import is_generated, source_names
from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.data.tokenizer import hash_tokenizer, load_tokenizer
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval import evaluate, judge, tasks
from tiny_reasoning_jax.eval.grade import hash_params
from tiny_reasoning_jax.eval.journal import Journal
from tiny_reasoning_jax.eval.results import Label, load_results, write_results
from tiny_reasoning_jax.eval.sandbox import require_sandbox
from tiny_reasoning_jax.eval.tasks.task import Task
from tiny_reasoning_jax.model.qwen3 import Params
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.run import (
    Run,
    find_model,
    load_checkpoint,
    load_json,
    load_source,
    make_model_def,
    require_data,
    task_name,
    write_facts,
)


class _Asked(NamedTuple):
    """A model that is asked: where its results go, what they depend on, and how it is loaded."""

    label: Label
    name: str
    settings: dict[str, Any]
    tokenizer_folder: Path
    load: Callable[[], tuple[ModelSpec, Params]]


class _Loaded(NamedTuple):
    """The problems of a task that are asked, and how many records of its source are none."""

    task: Task
    problems: list[Problem]
    num_unusable: int


def choose_tasks(config: FrozenConfigDict) -> list[tasks.Chosen]:
    """The tasks of config.eval.tasks.

    Raises:
      UserError: one is unknown, its file is not there, or it needs a sandbox that this machine does not have.
    """
    chosen = tasks.choose(config.eval.tasks, task_name(config.data))
    if not config.eval.unsafe_code and "eval" in config.stages.split(","):
        for one in chosen:
            if one.task.name in tasks.PROGRAMS and not one.is_own:
                require_sandbox()
    return chosen


def refuse_early(config: FrozenConfigDict) -> None:
    """Raises UserError, before anything is written, for tasks and models of which it can be told now that they fail."""
    choose_tasks(config)
    if config.eval.model != "run" and "eval" in config.stages.split(","):
        find_model(config.eval.model, "eval.model")


def find_benchmarks(config: FrozenConfigDict) -> list[Benchmark]:
    """The test sets besides the run's own that its training data must not give away."""
    others = [one for one in choose_tasks(config) if not one.is_own and not is_generated(one.source)]
    return [Benchmark(one.task.name, one.source, one.task.parse) for one in others]


def refuse_unjudgeable(this: Run) -> None:
    """Raises UserError, before the training, where problems cannot be had, or answers to them not be judged."""
    if "eval" not in this.config.stages.split(","):
        return
    for one in choose_tasks(this.config):
        if one.is_own or not is_generated(one.source):
            judge.refuse_unjudgeable(_load_problems(this, one).problems, one.task.name, this.config.eval.unsafe_code)


def run_eval(this: Run) -> bool:
    """Evaluates whatever has not been evaluated with these settings; returns whether there was anything.

    Raises:
      UserError: there is no model, or a problem cannot be asked or judged.
    """
    chosen = choose_tasks(this.config)
    if this.config.eval.model == "run" or any(one.is_own for one in chosen):
        require_data(this)
    results = load_results(this.workdir)
    left = [
        asked for asked in _find_models(this, chosen) if results.get(asked.label, {}).get("settings") != asked.settings
    ]
    problems = [_load_problems(this, one) for one in chosen] if left else []
    for asked in left:
        if replaced := results.get(asked.label):
            print(
                f"eval {asked.label}: replaces the results of {replaced['model']} on {', '.join(replaced['tasks'])}; "
                "another workdir would keep them",
                flush=True,
            )
        _evaluate(this, asked, problems)
    return bool(left)


def _find_models(this: Run, chosen: list[tasks.Chosen]) -> list[_Asked]:
    config, step = this.config, this.latest_step()
    settings = {
        "eval": json.loads(config.eval.to_json()),
        "tasks": {one.task.name: tasks.mark(one) for one in chosen},
        "seed": config.seed,
        "compute_dtype": config.train.compute_dtype,
        "grader": answers.VERSION,
    }
    if config.eval.model != "run":
        found = find_model(config.eval.model, "eval.model")
        settings |= {"model": found.mark}
        return [_Asked("model", found.name, settings, found.tokenizer_folder, found.load)]
    if step is None:
        raise UserError(
            f"no checkpoint in {this.checkpoints} to evaluate; run the train stage first, or name a model with "
            "--config.eval.model=<folder>"
        )

    def load_before() -> tuple[ModelSpec, Params]:
        source = load_source(this)
        return source.spec, source.params

    tokenizer_folder, source = this.workdir / "data" / "tokenizer", config.model.source
    load_after = lambda: load_checkpoint(this.checkpoints / str(step))
    return [
        _Asked("before", f"{source} at step 0", {**settings, "step": 0}, tokenizer_folder, load_before),
        _Asked("after", f"{source} at step {step}", {**settings, "step": step}, tokenizer_folder, load_after),
    ]


def _evaluate(this: Run, asked: _Asked, loaded: list[_Loaded]) -> None:
    config, began = this.config, time.monotonic()
    tokenizer = load_tokenizer(asked.tokenizer_folder)
    spec, params = asked.load()
    if len(tokenizer) > spec.vocab_size:
        raise UserError(
            f"the tokenizer of {asked.name} has {len(tokenizer)} entries, its embedding only {spec.vocab_size} rows; "
            "copy the model's files again"
        )
    model_def = make_model_def(config, spec, trains=False)
    questions = [(one.task, evaluate.pose(one.task, one.problems, tokenizer, config.eval, model_def)) for one in loaded]
    folder, samples = this.workdir / "eval", {}
    folder.mkdir(exist_ok=True)
    settings = _describe_generation(config, spec, params, asked.tokenizer_folder)
    with Journal(folder, asked.label, settings) as journal:
        for task, part in questions:
            samples[task.name] = evaluate.evaluate(
                model_def, params, part, tokenizer, config.eval,
                task=task, seed=config.seed, journal=journal, label=f"eval {asked.label} {task.name}",
            )  # fmt: skip
    seconds = time.monotonic() - began
    # An evaluation that goes on where it was stopped took longer than this.
    facts = {"model": asked.name, "settings": asked.settings, "last_session_seconds": seconds}
    facts["unusable_records"] = {one.task.name: one.num_unusable for one in loaded if one.num_unusable}
    facts["not_decontaminated"] = _find_not_decontaminated(this, asked.label)
    write_results(this.workdir, asked.label, facts, samples)
    write_facts(this, **{f"eval_{asked.label}_last_session_seconds": seconds})
    for task, summary in load_results(this.workdir)[asked.label]["tasks"].items():
        print(f"eval {asked.label}: {task} {_describe(summary)}", flush=True)


def _find_not_decontaminated(this: Run, label: Label) -> list[str]:
    """The tasks that the training data of this run may give away, because nobody has looked; says so."""
    fingerprint = load_json(this.workdir / "data" / "summary.json").get("fingerprint", {})
    looked_for = [mark.partition("=")[0] for mark in fingerprint.get("eval.tasks", "").split("; ")]
    needed = [] if all(map(is_generated, source_names(this.config.data))) else find_benchmarks(this.config)
    unsure = [benchmark.name for benchmark in needed if benchmark.name not in looked_for]
    if label != "after" or not unsure:
        return []
    print(
        f"eval: the training data of this run were not searched for problems of {', '.join(unsure)}: what they give "
        "away counts as solved. To be sure, train in another workdir with the same eval.tasks",
        flush=True,
    )
    return unsure


def _load_problems(this: Run, one: tasks.Chosen) -> _Loaded:
    config = this.config.eval
    if one.is_own:
        problems = prepare.load_problems(this.workdir / "data" / "test.jsonl")
        return _Loaded(one.task, evaluate.select_problems(problems, config.num_problems), 0)
    problems, dropped = tasks.load_problems(one, config.num_problems, this.config.seed)
    if dropped:
        print(
            f"eval: {len(dropped):,} of {len(problems) + len(dropped):,} records of {one.source} cannot be asked, the "
            f"first is {dropped[0].id}: {tasks.tell(dropped[0])}",
            flush=True,
        )
    selected = evaluate.select_problems(problems, config.num_problems, evenly=is_generated(one.source))
    return _Loaded(one.task, selected, len(dropped))


def _describe_generation(
    config: FrozenConfigDict, spec: ModelSpec, params: Params, tokenizer_folder: Path
) -> dict[str, Any]:
    """All that decides what a model writes to a prompt; train.attention is not asked while it writes."""
    names = ("temperature", "top_p", "top_k", "max_new_tokens")
    return {
        "model": hash_params(params),
        "spec": dataclasses.asdict(spec),
        "tokenizer": hash_tokenizer(tokenizer_folder),
        "compute_dtype": config.train.compute_dtype,
        "seed": config.seed,
        **{name: config.eval[name] for name in names},
    }


def _describe(summary: dict[str, Any]) -> str:
    n, k = summary["n"], summary["num_samples"]
    (low, high), total = summary["ci95"], n * k
    counted = f"{summary['correct']} of {n}" if k == 1 else f"mean over {k} samples of {n} problems"
    told = [f"{counted}, 95 % interval {low:.1%} to {high:.1%}"]
    if summary["truncated"]:
        told.append(f"cut off {summary['truncated'] / total:.1%}")
    if summary["unparsed"]:
        told.append(f"no answer {summary['unparsed'] / total:.1%}")
    return f"{summary['accuracy']:.1%} correct ({'; '.join(told)})"
