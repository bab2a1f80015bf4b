"""Problems in, graded samples out, and the files that keep them: eval/results.json and eval/samples.jsonl.

Every completion is kept with its verdict: a score that nobody can look behind is not written. It refuses
prompts that do not fit into the model together with the longest completion (it never cuts one), and problems that
only a run of the program that the model wrote could judge.
"""

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from ml_collections.config_dict import FrozenConfigDict

from tiny_reasoning_jax import answers
from tiny_reasoning_jax.answers import Verdict
from tiny_reasoning_jax.data import chat, gym
from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.data.procedural import families
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval import statistics
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.sampling.generate import Completion, generate
from tiny_reasoning_jax.workdir import write_json

Sample = dict[str, Any]
Label = Literal["before", "after"]


def select_problems(problems: list[Problem], num_problems: int) -> list[Problem]:
    """Returns num_problems spread evenly over (category, difficulty), or all of them if there are fewer.

    They go round the groups, within a group by a hash of the id: the choice does not depend on the order of
    the file, and a smaller selection is the beginning of a larger one.
    """
    by_hash = sorted(problems, key=_hash)
    groups = defaultdict(list)
    for problem in by_hash:
        groups[problem.category, problem.difficulty].append(problem)
    rounds = {problem.id: number for group in groups.values() for number, problem in enumerate(group)}
    return sorted(by_hash, key=lambda problem: rounds[problem.id])[:num_problems]


def _hash(problem: Problem) -> str:
    return hashlib.sha256(problem.id.encode()).hexdigest()


def evaluate(
    model_def: ModelDef,
    params: Params,
    problems: list[Problem],
    tokenizer,
    config_eval: FrozenConfigDict,
    *,
    task: str,
    seed: int,
    on_batch: Callable[[list[Completion]], None] | None = None,
) -> list[Sample]:
    """Lets the model answer every problem and grades what it wrote.

    Args:
      model_def: the model.
      params: its parameters, as training holds them.
      problems: what to ask.
      tokenizer: of the model.
      config_eval: section `eval` of the configuration.
      task: name of the problem set, noted in every sample.
      seed: of the draws, when temperature is above 0.
      on_batch: called with the completions of each batch, for progress.

    Returns:
      One dict per problem, in their order: id, task, category, difficulty, prompt, completion (special tokens
      such as <think> included, the end of turn not), extracted (text or None), answer, verdict ("correct",
      "wrong", "unparsed"), truncated (no end of turn within max_new_tokens), num_tokens (of the completion).

    Raises:
      UserError: a prompt is too long for the model, or an answer cannot be judged here.
    """
    _refuse_unjudgeable(problems)
    prompts = chat.encode_prompts(tokenizer, [problem.prompt for problem in problems])
    _refuse_long(model_def, problems, prompts, config_eval.max_new_tokens)
    written = ask(
        model_def, params, prompts, tokenizer, config_eval,
        temperature=config_eval.temperature, seed=seed, on_batch=on_batch,
    )  # fmt: skip
    samples = []
    for problem, (text, completion) in zip(problems, written, strict=True):
        extracted, verdict = judge(problem, text)
        samples.append({
            "id": problem.id,
            "task": task,
            "category": problem.category,
            "difficulty": problem.difficulty,
            "prompt": problem.prompt,
            "completion": text,
            "extracted": extracted,
            "answer": problem.answer,
            "verdict": verdict.value,
            "truncated": completion.stop_reason == "length",
            "num_tokens": len(completion.tokens),
        })  # fmt: skip
    return samples


def ask(
    model_def: ModelDef,
    params: Params,
    prompts: Sequence[Sequence[int]],
    tokenizer,
    config_eval: FrozenConfigDict,
    *,
    temperature: float,
    seed: int,
    on_batch: Callable[[list[Completion]], None] | None = None,
) -> list[tuple[str, Completion]]:
    """Lets the model continue every prompt (token ids) until its turn ends; returns text and tokens in their order.

    The text has special tokens such as <think> as written; the end of turn is not part of it.
    """
    completions = generate(
        model_def,
        params,
        prompts,
        max_new_tokens=config_eval.max_new_tokens,
        eos_ids=(chat.end_of_turn_id(tokenizer), tokenizer.get_added_vocab()["<|endoftext|>"]),
        batch_size=config_eval.batch_size,
        temperature=temperature,
        top_p=config_eval.top_p,
        top_k=config_eval.top_k,
        seed=seed,
        on_batch=on_batch,
    )
    return [(decode(tokenizer, completion.tokens), completion) for completion in completions]


def decode(tokenizer, tokens: Sequence[int]) -> str:
    """The text of these token ids, special tokens and white space as written."""
    return tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def judge(problem: Problem, text: str) -> tuple[str | None, Verdict]:
    """Returns the final answer found in a completion, None if there is none, and what becomes of it.

    Where several answers are right the task or family decides, otherwise the program's grader.
    """
    extracted = answers.extract(text)
    if extracted is None:
        return None, Verdict.UNPARSED
    if problem.source.startswith("gym:"):
        right = gym.score(problem, extracted)
    elif problem.source in families.ACCEPTS:
        right = families.check(dataclasses.replace(problem, answer=extracted))
    else:
        return extracted, answers.grade(text, problem.answer)
    return extracted, Verdict.CORRECT if right else Verdict.WRONG


def _refuse_unjudgeable(problems: list[Problem]) -> None:
    """Raises, before hours of generation, what judging their answers would raise."""
    programs = [problem.id for problem in problems if problem.tests]
    if programs:
        raise UserError(
            f"{len(programs)} of {len(problems)} test problems ask for a program (the first is {programs[0]}); judging "
            "it means running what a model wrote, which this version refuses because it has no sandbox: choose "
            "another data.test_source in another workdir"
        )
    for problem in problems:
        if problem.source.startswith("gym:"):
            gym.score(problem, problem.answer)


def _refuse_long(model_def: ModelDef, problems: list[Problem], prompts: list[list[int]], max_new_tokens: int) -> None:
    places = model_def.spec.max_position_embeddings
    for problem, prompt in zip(problems, prompts, strict=True):
        left = places - len(prompt)
        if left < max_new_tokens:
            shorter = f"lower eval.max_new_tokens to {left} or less, or " if left > 0 else ""
            raise UserError(
                f"the prompt of problem {problem.id} has {len(prompt)} tokens; with eval.max_new_tokens="
                f"{max_new_tokens} that is more than the model's {places} positions: {shorter}remove the "
                "problem"
            )


def write_results(workdir: Path, label: Label, facts: dict[str, Any], samples_by_task: dict[str, list[Sample]]) -> None:
    """Writes what one model achieved, in place of what `label` had; a file is replaced whole or not at all.

    results.json: {"before": {**facts, "tasks": {name: summary}}, "after": {...}} and, once both are there,
    "comparison": {name: paired difference after - before over the n problems that both answered}.
    samples.jsonl: every sample of both, with "model": label.

    Args:
      workdir: of the run.
      label: which model.
      facts: "model" (its name), "seconds", and what else should stand beside the numbers.
      samples_by_task: from `evaluate`, at least one task, none empty.
    """
    folder = workdir / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    others = [sample for sample in load_samples(workdir) if sample["model"] != label]
    new = [{"model": label, **sample} for samples in samples_by_task.values() for sample in samples]
    # Before first, then after, whichever was written last.
    samples = others + new if label == "after" else new + others
    _write_lines(folder / "samples.jsonl", samples)
    tasks = {name: statistics.summarize(samples) for name, samples in samples_by_task.items()}
    results = {**load_results(workdir), label: {**facts, "tasks": tasks}}
    results.pop("comparison", None)
    if "before" in results and "after" in results:
        results["comparison"] = _compare(samples)
    # Last, because a finished evaluation is known by its entry here.
    write_json(folder / "results.json", results)


def load_results(workdir: Path) -> dict[str, Any]:
    """The content of eval/results.json; {} if there is none yet."""
    path = workdir / "eval" / "results.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def load_samples(workdir: Path) -> list[Sample]:
    """The samples of eval/samples.jsonl; none if there is no such file yet."""
    path = workdir / "eval" / "samples.jsonl"
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _compare(samples: list[Sample]) -> dict[str, Any]:
    """Paired differences by task."""
    solved: dict[Label, dict] = {"before": defaultdict(dict), "after": defaultdict(dict)}
    for sample in samples:
        solved[sample["model"]][sample["task"]][sample["id"]] = sample["verdict"] == "correct"
    comparison = {}
    for task, before in solved["before"].items():
        after = solved["after"][task]
        both = [name for name in before if name in after]
        if both:
            difference = statistics.paired_difference((before[i] for i in both), (after[i] for i in both))
            comparison[task] = {"n": len(both), **difference}
    return comparison


def _write_lines(path: Path, samples: list[Sample]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("w", encoding="utf-8") as lines:
        for sample in samples:
            lines.write(json.dumps(sample, ensure_ascii=False) + "\n")
    temporary.replace(path)
