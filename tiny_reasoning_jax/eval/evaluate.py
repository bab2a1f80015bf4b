"""Problems in, graded samples out.

A problem is put to a model as chat, exactly as training shows it, or to a base model as the text of a task's few-shot
protocol. Refused: prompts that do not fit into the model together with the longest completion (none is ever cut), and
problems whose answers cannot be judged here.
"""

import bisect
import collections
import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ml_collections.config_dict import FrozenConfigDict

from tiny_reasoning_jax import answers
from tiny_reasoning_jax.data import chat
from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval.journal import Journal, Written, make_key
from tiny_reasoning_jax.eval.judge import (
    Judgement,
    find_program,
    is_unclosed,
    judge,
    judge_programs,
    refuse_unjudgeable,
)
from tiny_reasoning_jax.eval.statistics import Sample
from tiny_reasoning_jax.eval.tasks import TASKS
from tiny_reasoning_jax.eval.tasks.task import Task
from tiny_reasoning_jax.model.qwen3 import ModelDef, Params
from tiny_reasoning_jax.progress import Progress
from tiny_reasoning_jax.sampling.batch import STOP_EVERY
from tiny_reasoning_jax.sampling.generate import Completion, Request, generate


class Question(NamedTuple):
    """A problem as it is put to a model: the whole text that is continued, and its token ids."""

    problem: Problem
    text: str
    prompt: list[int]


def select_problems(problems: list[Problem], num_problems: int, evenly: bool = True) -> list[Problem]:
    """Returns num_problems, or all of them if there are fewer, chosen by a hash of the id.

    The choice does not depend on the order of the file, and a smaller selection is the beginning of a larger one.

    Args:
      problems: to choose from.
      num_problems: how many.
      evenly: spread them over (category, difficulty), going round the groups. Otherwise their mixture is that of all,
        so that a part of a benchmark estimates the score of the whole.
    """
    by_hash = sorted(problems, key=lambda problem: hashlib.sha256(problem.id.encode()).hexdigest())
    if not evenly:
        return by_hash[:num_problems]
    groups = collections.defaultdict(list)
    for problem in by_hash:
        groups[problem.category, problem.difficulty].append(problem)
    rounds = {problem.id: number for group in groups.values() for number, problem in enumerate(group)}
    return sorted(by_hash, key=lambda problem: rounds[problem.id])[:num_problems]


# --- asking ---------------------------------------------------------------------------------------


def pose(
    task: Task, problems: list[Problem], tokenizer, config_eval: FrozenConfigDict, model_def: ModelDef
) -> list[Question]:
    """Returns the problems as the model will be asked.

    Raises:
      UserError: an answer cannot be judged here, a prompt is too long for the model or spells a special token, or the
        task or the tokenizer does not have the protocol that is asked for.
    """
    refuse_unjudgeable(problems, task.name, config_eval.unsafe_code)
    chat.refuse_special_tokens(tokenizer, f"a prompt of {task.name}", *(problem.prompt for problem in problems))
    if config_eval.protocol == "few-shot":
        if task.few_shot is None:
            known = ", ".join(name for name, other in TASKS.items() if other.few_shot)
            raise UserError(
                f'eval.protocol="few-shot" has no examples for {task.name}; they are there for {known}. Take '
                'eval.protocol="chat" for the others'
            )
        texts = [task.few_shot(problem) for problem in problems]
    else:
        chat.check_tokenizer(tokenizer)
        asked = [_instruct(problem, config_eval.instruction) for problem in problems]
        chat.refuse_special_tokens(tokenizer, "eval.instruction", config_eval.instruction)
        texts = [chat.render_prompt(tokenizer, prompt, config_eval.thinking) for prompt in asked]
        if not config_eval.thinking and texts[0] == chat.render_prompt(tokenizer, asked[0]):
            raise UserError(
                "eval.thinking=False changes nothing with the chat template of this tokenizer, which does not know "
                "enable_thinking; leave it at True"
            )
    prompts = chat.encode_texts(tokenizer, texts)
    _refuse_long(model_def, problems, prompts, config_eval.max_new_tokens)
    return [Question(*one) for one in zip(problems, texts, prompts, strict=True)]


def _instruct(problem: Problem, instruction: str) -> str:
    return f"{problem.prompt}\n{instruction}" if instruction and not problem.tests else problem.prompt


def ask(
    model_def: ModelDef,
    params: Params,
    requests: Sequence[Request],
    tokenizer,
    config_eval: FrozenConfigDict,
    *,
    temperature: float,
    seed: int,
    stops: tuple[str, ...] = (),
    give_up: Callable[[], bool] | None = None,
) -> Iterator[tuple[int, Written]]:
    """Lets the model continue prompts until its turn ends or one of `stops` comes; yields (index, what it wrote).

    They come as they are finished, in no order; once `give_up` says so, no more of them.
    """
    completions = generate(
        model_def,
        params,
        requests,
        max_new_tokens=config_eval.max_new_tokens,
        eos_ids=chat.stop_ids(tokenizer),
        batch_size=config_eval.batch_size,
        temperature=temperature,
        top_p=config_eval.top_p,
        top_k=config_eval.top_k,
        seed=seed,
        should_stop=_make_should_stop(tokenizer, stops) if stops else None,
        give_up=give_up,
    )
    for index, completion in completions:
        yield index, _read(completion, tokenizer, stops)


def _make_should_stop(tokenizer, stops: tuple[str, ...]) -> Callable[[list[int]], bool]:
    """Returns whether one of `stops` is new in a row, asked after every STOP_EVERY of its tokens.

    Only the end is decoded, or a long completion would be decoded over and over: a stop that has come since the last
    time begins at most as many tokens before it as it has bytes, for a token writes at least one.
    """
    last = STOP_EVERY + max(len(stop.encode()) for stop in stops)
    return lambda tokens: _find_stop(decode(tokenizer, tokens[-last:]), stops) is not None


def _read(completion: Completion, tokenizer, stops: tuple[str, ...]) -> Written:
    text, num_tokens = decode(tokenizer, completion.tokens), len(completion.tokens)
    end = _find_stop(text, stops)
    if end is None:
        return Written(text, num_tokens, _round(completion.logps), completion.stop_reason == "length")
    # What was written behind the answer does not count: the fewest tokens that hold the stop.
    has_stop = lambda count: _find_stop(decode(tokenizer, completion.tokens[:count]), stops) is not None
    num_tokens = bisect.bisect_left(range(num_tokens), True, key=has_stop)
    return Written(text[:end], num_tokens, _round(completion.logps[:num_tokens]), False)


def _round(logps: Sequence[float]) -> float:
    """The last digits of a log-probability depend on how many prompts are computed together."""
    return round(sum(logps), 3)


def _find_stop(text: str, stops: tuple[str, ...]) -> int | None:
    """Returns where the first stop begins."""
    return min((text.find(stop) for stop in stops if stop in text), default=None)


def decode(tokenizer, tokens: Sequence[int]) -> str:
    """The text of these token ids, special tokens and white space as written."""
    return tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)


# --- evaluating -----------------------------------------------------------------------------------


def evaluate(
    model_def: ModelDef,
    params: Params,
    questions: list[Question],
    tokenizer,
    config_eval: FrozenConfigDict,
    *,
    task: Task,
    seed: int,
    journal: Journal | None = None,
    label: str = "eval",
) -> list[Sample]:
    """Lets the model answer every question and grades what it wrote.

    Args:
      model_def: the model.
      params: its parameters, as training holds them.
      questions: what `pose` returned.
      tokenizer: of the model.
      config_eval: section `eval` of the configuration.
      task: whose questions they are.
      seed: of the draws, when temperature is above 0.
      journal: completions that are there already are taken from it, new ones written to it.
      label: of the lines that show the progress.

    Returns:
      config_eval.num_samples dicts for each question, in their order: the lines of samples.jsonl without "model".
    """
    stops = task.stops if config_eval.protocol == "few-shot" else ()
    wanted = [(question, sample) for question in questions for sample in range(config_eval.num_samples)]
    keys = [make_key(question.prompt, stops, sample) for question, sample in wanted]
    written = [journal.get(key) if journal else None for key in keys]
    missing = [index for index, one in enumerate(written) if one is None]
    requests = [Request(wanted[index][0].prompt, wanted[index][1]) for index in missing]
    completions = ask(
        model_def, params, requests, tokenizer, config_eval, temperature=config_eval.temperature, seed=seed, stops=stops
    )
    num_kept = len(written) - len(missing)
    with contextlib.closing(completions), Progress(label, len(written), "sample", num_kept) as progress:
        if num_kept:
            progress.say(f"{label}: {num_kept:,} of {len(written):,} completions are there from before")
        for number, one in completions:
            index = missing[number]
            written[index] = one
            if journal:
                journal.add(keys[index], one)
            progress.advance(1)
    judgements = _judge_all([question for question, _ in wanted], written, task, config_eval)
    return [
        _make_sample(question, sample, one, judgement, task.name, seed)
        for (question, sample), one, judgement in zip(wanted, written, judgements, strict=True)
    ]


def _judge_all(
    questions: list[Question], written: list[Written], task: Task, config_eval: FrozenConfigDict
) -> list[Judgement]:
    """Judges every completion; those with tests together, because the sandbox runs several at a time."""
    is_chat = config_eval.protocol == "chat"
    judgements: list[Judgement | None] = [None] * len(questions)
    tested = [index for index, question in enumerate(questions) if question.problem.tests]
    texts = [whole_text(question.text, one) for question, one in zip(questions, written, strict=True)]
    for index, (question, text) in enumerate(zip(questions, texts, strict=True)):
        if not question.problem.tests:
            judgements[index] = judge(question.problem, text)
    if tested:
        problems = [questions[index].problem for index in tested]
        programs = [
            find_program(texts[index], problem.tests) if is_chat else written[index].text
            for index, problem in zip(tested, problems, strict=True)
        ]
        outcomes = judge_programs(programs, problems, config_eval.unsafe_code, task.preamble)
        for index, judgement in zip(tested, outcomes, strict=True):
            judgements[index] = judgement
    return judgements


def whole_text(prompt: str, written: Written) -> str:
    """What is judged: the completion, behind a <think> that the prompt's template has opened and left open."""
    return "<think>" * is_unclosed(prompt) + written.text


def _make_sample(
    question: Question, sample: int, written: Written, judgement: Judgement, task: str, seed: int
) -> Sample:
    problem, _, _ = question
    return {
        "task": task,
        "id": problem.id,
        "sample": sample,
        "seed": seed,
        "category": problem.category,
        "difficulty": problem.difficulty,
        "prompt": question.text,
        "completion": written.text,
        "extracted": judgement.extracted,
        "how": judgement.how,
        "answer": problem.answer,
        "verdict": judgement.verdict.value,
        "truncated": written.truncated,
        "unclosed": is_unclosed(whole_text(question.text, written)),
        "num_tokens": written.num_tokens,
        "logp": written.logp,
        "detail": judgement.detail,
        "grader": answers.VERSION,
    }


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
