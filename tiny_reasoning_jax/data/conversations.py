"""Foreign formats whose answer is a completion: conversations in three spellings, and lists of generations.

The reasoning is what stands inside <think> or a mark of the same meaning; the answer is the completion's final text as
it is. A system text goes in front of the user's, so that nothing the problem needs is lost, unless it only explains a
form of answer. A conversation with several user turns is no single problem: its last question may not stand alone.
"""

from tiny_reasoning_jax import answers
from tiny_reasoning_jax.data.fields import (
    ANSWER_FORMS_AFTER,
    Parts,
    Unusable,
    category_of,
    compare,
    finish,
    list_of,
    split_hashes,
    text_of,
)

_ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"}
_THOUGHT, _END_OF_THOUGHT = "<|begin_of_thought|>", "<|end_of_thought|>"
_SOLUTION, _END_OF_SOLUTION = "<|begin_of_solution|>", "<|end_of_solution|>"
# OpenThoughts' system text begins so in both of its versions; it explains the marks and says nothing of the problem.
_SYSTEM_OF_FORM = "Your role as an assistant involves thoroughly exploring questions through a systematic long thinking"
_CODE_PROMPT = "Generate an executable Python function"  # the start of OpenThoughts' code problems
_LINE_CHARS = 200  # a solution that is its own answer is not longer


def split_turns(record: dict, field: str, role: str = "role", text: str = "content") -> tuple[str, dict]:
    """Returns the prompt of a conversation and the assistant's turn, {} where it ends before that."""
    turns = list_of(record, field, dict)
    if not turns:
        raise Unusable(f"missing field {field!r}" if record.get(field) is None else "empty", field)
    texts = [text_of(turn, text) for turn in turns]
    roles = [text_of(turn, role) for turn in turns]
    roles = [_ROLES.get(name, name) for name in roles]
    if isinstance(record.get("system"), str) and roles[0] != "system":
        roles, texts = ["system", *roles], [record["system"], *texts]
    if roles.count("user") > 1:
        raise Unusable("several user turns")
    start = roles[0] == "system"
    if roles[start:] not in (["user"], ["user", "assistant"]):
        raise Unusable("unsupported turns", ", ".join(roles)[:80])
    user, system = texts[start].strip(), texts[0].strip() if start else ""
    if not user:
        raise Unusable("empty", "prompt")
    if system.startswith(_SYSTEM_OF_FORM) or system in ANSWER_FORMS_AFTER:
        system = ""
    return (f"{system}\n\n{user}" if system else user), (turns[-1] if roles[-1] == "assistant" else {})


def read_messages(record: dict) -> Parts:
    """Reads {"messages": [{"role", "content"}, ...]}."""
    return _read_turns(record, "messages")


def read_prompt_completion(record: dict) -> Parts:
    """Reads {"prompt", "completion"}, both text or both lists of messages, as TRL has them."""
    if record.get("label") is False:  # TRL's unpaired preferences: an example of what not to write
        raise Unusable("failed its checker", "label is false")
    if not isinstance(record.get("prompt"), list):
        prompt, completion = text_of(record, "prompt"), text_of(record, "completion")
        return _read_worked(record, prompt, *split_think(completion))
    turns = list_of(record, "prompt", dict) + list_of(record, "completion", dict)
    return _read_turns(record | {"messages": turns}, "messages")


def read_sharegpt(record: dict) -> Parts:
    """Reads {"conversations": [{"from", "value"}, ...]}."""
    return _read_turns(record, "conversations", "from", "value")


def _read_turns(record: dict, field: str, role: str = "role", text: str = "content") -> Parts:
    prompt, turn = split_turns(record, field, role, text)
    if not turn:
        raise Unusable("no final answer", "no assistant turn")
    if isinstance(turn.get("reasoning_content"), str):
        return _read_worked(record, prompt, turn["reasoning_content"], turn[text].strip())
    return _read_worked(record, prompt, *split_think(turn[text]))


def _read_worked(record: dict, prompt: str, reasoning: str, content: str) -> Parts:
    if not reasoning.strip() and "\\boxed{" not in content and "####" in content:
        reasoning, answer = split_hashes(content)  # the text before #### is the reasoning, as in GSM8K
        content = f"\\boxed{{{answer}}}"
    return Parts(prompt, reasoning, finish(content), category_of(record, "domain"))


def split_think(text: str) -> tuple[str, str]:
    """Returns a completion's reasoning ("" if it has none) and the rest of it."""
    reasoning, end, content = text.partition("</think>")
    if end:  # a template that opened <think> itself leaves a lone closing tag
        return reasoning.strip().removeprefix("<think>"), content.strip()
    if "<think>" in text:
        raise Unusable("no final answer", "cut off inside <think>")
    return "", text.strip()


def is_openthoughts(record: dict) -> bool:
    """Returns whether the last turn of `conversations` has OpenThoughts' marks."""
    turns = record["conversations"]
    last = turns[-1] if isinstance(turns, list) and turns else None
    text = last.get("value") if isinstance(last, dict) else None
    return isinstance(text, str) and _THOUGHT in text


def read_openthoughts(record: dict) -> Parts:
    """Reads conversations with thought and solution between marks, or the fields of the config `metadata`."""
    if record.get("conversations") is None:
        return _read_openthoughts_metadata(record)
    prompt, turn = split_turns(record, "conversations", "from", "value")
    thought, end, solution = turn.get("value", "").partition(_END_OF_THOUGHT)
    if not end or _END_OF_SOLUTION not in solution:
        raise Unusable("no final answer", f"no {_END_OF_SOLUTION if end else _END_OF_THOUGHT}")
    solution = solution.partition(_END_OF_SOLUTION)[0].strip().removeprefix(_SOLUTION)
    category = "code" if prompt.startswith(_CODE_PROMPT) else category_of(record, "domain")
    return Parts(prompt, thought.strip().removeprefix(_THOUGHT), _finish_or_line(solution), category)


def _read_openthoughts_metadata(record: dict) -> Parts:
    """Code problems come without their tests, which are of another kind than ours (standard input and output)."""
    prompt, reference = text_of(record, "problem"), record.get("ground_truth_solution")
    solution, domain = _finish_or_line(text_of(record, "deepseek_solution")), category_of(record, "domain")
    if domain != "code" and isinstance(reference, str) and (gold := answers.extract(reference)):
        compare(f"\\boxed{{{solution}}}" if "\\boxed{" not in solution else solution, gold)
    starter = record.get("starter_code")
    prompt = f"{prompt}\n{starter}" if isinstance(starter, str) and starter.strip() else prompt
    return Parts(prompt, text_of(record, "deepseek_reasoning"), solution, domain)


def _finish_or_line(solution: str) -> str:
    """As `finish`; but a solution of one short line is the answer itself, as in the puzzles of OpenThoughts."""
    solution = solution.strip()
    try:
        return finish(solution)
    except Unusable as unusable:
        if unusable.reason != "no final answer" or "\n" in solution or len(solution) > _LINE_CHARS:
            raise
        return solution


def read_openr1(record: dict) -> Parts:
    """Takes the first generation that is complete, was found correct, and is so by our own grader too."""
    problem, reference = text_of(record, "problem"), text_of(record, "answer")
    if not reference.strip():
        raise Unusable("empty", "answer")
    complete = list_of(record, "is_reasoning_complete", object)
    judges = [list_of(record, f"correctness_{name}", object) for name in ("math_verify", "llama")]
    detail = "no generation is complete and correct"
    for index, generation in enumerate(list_of(record, "generations", str)):
        is_correct = any(judge[index : index + 1] == [True] for judge in judges)
        if not is_correct or complete[index : index + 1] == [False]:
            continue
        try:
            compare(generation, reference)
            reasoning, content = split_think(generation)
            return Parts(problem, reasoning, finish(content), category_of(record, "problem_type"))
        except Unusable as unusable:
            detail = unusable.detail or unusable.reason
    raise Unusable("failed its checker", detail)
