"""Measured difficulty: how often a model solves each training problem, over several samples of its answer.

    grades.jsonl   {"id", "correct", "samples", "unparsed", "truncated"}, one line a problem; all but id are counts
    grades.json    whose pass rates these are (model, data, sampling, seed, grader), and what they come to

The prompt is the one that training shows, the reference what `answers.extract` finds in the completion that training
shows, the judge that of evaluation. Grading goes on where it was stopped and ends in the same files: what a model
writes depends on the seed, the prompt and the number of the sample, and on nothing else. It refuses to mix two models,
or two ways of sampling, in one file. An example that cannot be judged (a program, whose judge would have
to run it) or leaves the model no room is skipped and counted, never guessed.
"""

import collections
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections.config_dict import FrozenConfigDict

from tiny_reasoning_jax import answers
from tiny_reasoning_jax.answers import Verdict
from tiny_reasoning_jax.data import chat
from tiny_reasoning_jax.data.difficulty import from_pass_rate
from tiny_reasoning_jax.data.prepared import PreparedSplit
from tiny_reasoning_jax.data.problems import DIFFICULTIES, Problem
from tiny_reasoning_jax.data.procedural import families
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval import statistics
from tiny_reasoning_jax.eval.evaluate import ask, decode, whole_text
from tiny_reasoning_jax.eval.judge import judge
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.progress import Progress
from tiny_reasoning_jax.sampling.generate import Request
from tiny_reasoning_jax.workdir import flatten, write_json

CHUNK = 256  # problems between two writes
_READ = 1000  # examples in memory at a time
_PROCEDURAL_ID = re.compile(r"(\w+)-[1-5]-[0-9a-f]{16}")
_GYM_ID = re.compile(r"(gym:\w+)-.*")


class Question(NamedTuple):
    """An example of a prepared split as something to ask: its problem and its prompt's token ids."""

    problem: Problem
    prompt: list[int]


def grade(
    model_def: ModelDef,
    params: Params,
    tokenizer,
    split: PreparedSplit,
    config_eval: FrozenConfigDict,
    *,
    workdir: Path,
    model: dict[str, Any],
    data: dict[str, Any],
    num_problems: int,
    num_samples: int,
    temperature: float,
    seed: int,
) -> dict[str, Any]:
    """Measures pass rates and writes workdir/grades.jsonl and grades.json; what is there already is not done again.

    Args:
      model_def: the model.
      params: its parameters, as training holds them.
      tokenizer: of the data.
      split: the problems.
      config_eval: section `eval` of the configuration, for batch_size, max_new_tokens, top_p and top_k.
      workdir: of the run.
      model: who is asked, as JSON: its name, its step or folder, and `hash_params`.
      data: of which data, as JSON: the fingerprint in the data's summary.
      num_problems: how many examples, spread evenly over category and difficulty; all if there are fewer.
      num_samples: answers of each, at least 1.
      temperature: of the answers; at 0 all answers to a problem are the same.
      seed: of the draws.

    Returns:
      The content of grades.json, see `summarize`: besides that "settings" (the arguments), "complete" (True) and
      "skipped" {reason: examples}.

    Raises:
      UserError: grades of another model or with other settings are there, or no example can be graded.
    """
    sampling = {name: config_eval[name] for name in ("max_new_tokens", "top_p", "top_k")}
    asked = {"num_problems": num_problems, "num_samples": num_samples, "temperature": temperature, "seed": seed}
    computed = {"spec": dataclasses.asdict(model_def.spec), "compute_dtype": model_def.dtype}
    settings = {"model": model, "data": data, **computed, **asked, **sampling, "grader": answers.VERSION}
    facts = _claim(workdir, json.loads(json.dumps(settings)))
    if facts["complete"]:
        return facts
    examples = select_examples(split, num_problems)
    questions, skipped = read_questions(model_def, tokenizer, split, examples, config_eval.max_new_tokens)
    path = workdir / "grades.jsonl"
    start = _keep_whole_lines(path, [question.problem.id for question in questions])
    total = num_samples * len(questions)
    with path.open("a", encoding="utf-8") as lines, Progress("grade", total, "sample", num_samples * start) as progress:
        for begin in range(start, len(questions), CHUNK):
            grades = _grade_chunk(
                model_def, params, tokenizer, config_eval, questions[begin : begin + CHUNK],
                num_samples=num_samples, temperature=temperature, seed=seed, on_sample=lambda: progress.advance(1),
            )  # fmt: skip
            lines.writelines(json.dumps(one, ensure_ascii=False) + "\n" for one in grades)
            lines.flush()
    with path.open(encoding="utf-8") as lines:
        grades = [json.loads(line) for line in lines]
    facts |= {"complete": True, "skipped": skipped, **summarize(grades, [q.problem.difficulty for q in questions])}
    write_json(workdir / "grades.json", facts)
    return facts


def make_probe(
    model_def: ModelDef,
    tokenizer,
    split: PreparedSplit,
    config_eval: FrozenConfigDict,
    num_problems: int,
    seed: int,
) -> Callable[[Params, Callable[[], bool]], list[float] | None]:
    """Returns probe(params, give_up): pass rates of difficulty 1 to 5, NaN where none is asked, over greedy answers.

    The problems are always the same. None if `give_up`, asked after every few tokens, said so. Calls have the same
    shapes while as many rows fit into memory, so that as a rule only the first compiles.

    Args:
      model_def: the model.
      tokenizer: of the data.
      split: problems to ask, not trained on.
      config_eval: section `eval` of the configuration, for batch_size and max_new_tokens.
      num_problems: how many, spread evenly over category and difficulty.
      seed: given to the sampler; greedy answers do not depend on it.

    Raises:
      UserError: no example can be graded.
    """
    examples = select_examples(split, num_problems)
    questions, _ = read_questions(model_def, tokenizer, split, examples, config_eval.max_new_tokens)

    def probe(params: Params, give_up: Callable[[], bool]) -> list[float] | None:
        requests = [Request(question.prompt, 0) for question in questions]
        solved = collections.defaultdict(list)
        answered = ask(model_def, params, requests, tokenizer, config_eval, temperature=0.0, seed=seed, give_up=give_up)
        for index, written in answered:
            if give_up():
                return None
            problem, prompt = questions[index]
            judgement = judge(problem, whole_text(decode(tokenizer, prompt), written))
            solved[problem.difficulty].append(judgement.verdict is Verdict.CORRECT)
        if sum(map(len, solved.values())) < len(questions):
            return None
        return [float(np.mean(solved[level])) if level in solved else math.nan for level in DIFFICULTIES]

    return probe


def hash_params(params: Params) -> str:
    """The sha256 of a model's parameters: names, shapes, dtypes and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(params.items()):
        array = np.asarray(jax.device_get(value))
        digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()


# --- which examples, and what they ask ------------------------------------------------------------


def select_examples(split: PreparedSplit, num_problems: int) -> np.ndarray:
    """Returns int64 [<= num_problems], examples spread evenly over (category, difficulty), in the order of asking.

    As `evaluate.select_problems`: round the groups, within a group by a hash of the prompt; a smaller selection is the
    beginning of a larger one.
    """
    by_hash = np.argsort(split.prompt_hash, kind="stable")
    groups = split.category[by_hash].astype(np.int64) * (max(DIFFICULTIES) + 1) + split.difficulty[by_hash]
    grouped = np.argsort(groups, kind="stable")
    _, first, sizes = np.unique(groups[grouped], return_index=True, return_counts=True)
    rounds = np.empty(len(groups), np.int64)
    rounds[grouped] = np.arange(len(groups)) - np.repeat(first, sizes)
    return by_hash[np.argsort(rounds, kind="stable")[:num_problems]]


def read_questions(
    model_def: ModelDef, tokenizer, split: PreparedSplit, examples: Sequence[int], max_new_tokens: int
) -> tuple[list[Question], dict[str, int]]:
    """Returns those examples that can be graded, in their order, and how many cannot, by reason.

    Raises:
      UserError: none can.
    """
    questions, skipped = [], collections.Counter()
    longest = model_def.spec.max_position_embeddings - max_new_tokens
    frame = "PROMPT STANDS HERE"
    before, after = chat.render_prompt(tokenizer, frame).split(frame)
    for begin in range(0, len(examples), _READ):
        part = examples[begin : begin + _READ]
        for example, (example_id, tokens) in zip(part, split.read(part), strict=True):
            border = int(split.prompt_lengths[example])
            prompt, completion = tokens[:border].tolist(), decode(tokenizer, tokens[border:])
            answer = answers.extract(completion)
            if completion.rpartition("</think>")[2].lstrip().startswith("```"):
                skipped["answer is a program"] += 1
            elif answer is None:
                skipped["no final answer"] += 1
            elif len(prompt) > longest:
                skipped["prompt leaves no room for an answer"] += 1
            else:
                text = decode(tokenizer, prompt).removeprefix(before).removesuffix(after)
                difficulty = int(split.difficulty[example])
                problem = Problem(example_id, "", difficulty, text, "", answer, _find_source(example_id))
                questions.append(Question(problem, prompt))
    if not questions:
        listed = ", ".join(f"{num:,} {reason}" for reason, num in skipped.items()) or "there are none"
        raise UserError(
            f"none of {len(examples):,} examples can be asked and judged ({listed}): use data with final answers, or "
            f"lower eval.max_new_tokens={max_new_tokens} where the prompts leave no room"
        )
    return questions, dict(sorted(skipped.items()))


def _find_source(example_id: str) -> str:
    """Who judges answers to this example: its procedural family or reasoning-gym task; "" for the grader."""
    procedural, gym = _PROCEDURAL_ID.fullmatch(example_id), _GYM_ID.fullmatch(example_id)
    if gym:
        return gym[1]
    return procedural[1] if procedural and procedural[1] in families.FAMILIES else ""


# --- asking, and the files ------------------------------------------------------------------------


def _grade_chunk(
    model_def,
    params,
    tokenizer,
    config_eval,
    questions: list[Question],
    *,
    num_samples: int,
    temperature: float,
    seed: int,
    on_sample: Callable[[], None],
) -> list[dict[str, Any]]:
    """Grades the questions, num_samples answers of each."""
    grades = [
        {"id": problem.id, "correct": 0, "samples": num_samples, "unparsed": 0, "truncated": 0}
        for problem, _ in questions
    ]
    asked = [(number, sample) for number in range(len(questions)) for sample in range(num_samples)]
    requests = [Request(questions[number].prompt, sample) for number, sample in asked]
    answered = ask(model_def, params, requests, tokenizer, config_eval, temperature=temperature, seed=seed)
    for index, written in answered:
        number, _ = asked[index]
        problem, prompt = questions[number]
        verdict = judge(problem, whole_text(decode(tokenizer, prompt), written)).verdict
        grades[number]["correct"] += verdict is Verdict.CORRECT
        grades[number]["unparsed"] += verdict is Verdict.UNPARSED
        grades[number]["truncated"] += written.truncated
        on_sample()
    return grades


def _claim(workdir: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The content of grades.json, made if it is not there yet; it is there before the first grade."""
    path = workdir / "grades.json"
    if not path.exists():
        if (workdir / "grades.jsonl").exists():
            raise UserError(f"{workdir / 'grades.jsonl'} has no grades.json that says whose they are; delete it")
        write_json(path, {"settings": settings, "complete": False})
    facts = json.loads(path.read_text(encoding="utf-8"))
    was, now = flatten(facts["settings"]), flatten(settings)
    differing = [key for key in sorted(was | now) if was.get(key) != now.get(key)]
    if differing:
        changes = "; ".join(f"{key} was {was.get(key)!r}, is now {now.get(key)!r}" for key in differing)
        raise UserError(
            f"{workdir / 'grades.jsonl'} holds other grades: {changes}. Go back to those values, or delete it and "
            "grades.json beside it to grade anew"
        )
    return facts


def _keep_whole_lines(path: Path, ids: list[str]) -> int:
    """Cuts off a last line that a killed process left unfinished, and returns the number of problems that are there."""
    if not path.exists():
        return 0
    lines = path.read_bytes().splitlines(keepends=True)
    if lines and not lines[-1].endswith(b"\n"):
        lines.pop()
    try:
        found = [json.loads(line)["id"] for line in lines]
    except (ValueError, KeyError, TypeError):
        found = None
    if found != ids[: len(lines)]:
        raise UserError(f"{path} was changed since it was written; delete it and grades.json there to grade anew")
    with path.open("r+b") as file:
        file.truncate(sum(map(len, lines)))
    return len(lines)


def summarize(grades: list[dict[str, Any]], difficulties: list[int]) -> dict[str, Any]:
    """Sums up grades of problems that have these difficulties in the data, in the same order; at least one.

    Returns: {"problems": n, "samples", "correct", "unparsed", "truncated": counts over all samples, "pass_rate" in
    [0, 1] and its "ci95": [low, high], "by_difficulty": {difficulty in the data: {"problems", "pass_rate", "measured":
    {difficulty by pass rate: problems}}}}.
    """
    totals = {name: sum(one[name] for one in grades) for name in ("samples", "correct", "unparsed", "truncated")}
    by_difficulty = {}
    for level in sorted(set(difficulties)):
        part = [one for one, difficulty in zip(grades, difficulties, strict=True) if difficulty == level]
        measured = collections.Counter(from_pass_rate(one["correct"], one["samples"]) for one in part)
        by_difficulty[str(level)] = {
            "problems": len(part),
            "pass_rate": sum(one["correct"] for one in part) / sum(one["samples"] for one in part),
            "measured": {str(band): measured[band] for band in DIFFICULTIES},
        }
    low, high = _interval(grades)
    rate = {"pass_rate": totals["correct"] / totals["samples"], "ci95": [low, high]}
    return {"problems": len(grades), **totals, **rate, "by_difficulty": by_difficulty}


def _interval(grades: list[dict[str, Any]]) -> tuple[float, float]:
    """95 % Wilson interval for other problems: samples of one problem are alike, so they count as fewer."""
    rates = np.array([one["correct"] / one["samples"] for one in grades])
    n, rate = len(rates), float(rates.mean())
    variance = rates.var(ddof=1) / n if n > 1 else 0.0  # of the mean rate, between problems
    most = sum(one["samples"] for one in grades)
    independent = rate * (1 - rate) / variance if variance > 0 else n
    independent = min(max(independent, n), most)
    return statistics.wilson_interval(rate * independent, independent)
