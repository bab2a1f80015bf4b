"""One decoded foreign record -> one `Problem`, or a `Dropped` that says why not.

    gsm8k              question; answer = steps with <<48/2=24>> marks, then #### 72
    math               problem; solution with a \\boxed{}; level ("Level 3" or 3), type or subject, answer (MATH-500)
    mbpp               text or prompt; code; test_list; test_setup_code or test_imports
    humaneval          prompt (a function's head); canonical_solution; entry_point; test
    plain              question, problem or prompt; answer, one line of text or a number: without reasoning
    program            prompt; tests (Python statements that a right program passes, text or a list); solution or none
    messages           messages of {role, content}, one user turn; <think> tags or reasoning_content
    sharegpt           conversations of {from, value}, the same otherwise; system, domain
    openthoughts       the same, thought and solution between <|begin_of_thought|> marks; or problem,
                       deepseek_reasoning, deepseek_solution, ground_truth_solution, domain
    prompt_completion  prompt and completion, both text or both lists of messages
    verl               prompt, reward_model.ground_truth, ability, extra_info.model_difficulty: without reasoning
    openr1             problem, answer, generations with their correctness_math_verify or correctness_llama

Any record may carry `difficulty` (1 to 5) and `category` (a word) of its own, which win; null is as good as none.
Refused: to guess, to cut, and to run code that a record brings. What in a prompt only asks for another form of answer
than ours is no part of the problem and goes (`fields.ANSWER_FORMS_AFTER`).
"""

import ast
import json
import re
from collections.abc import Callable

from tiny_reasoning_jax import answers
from tiny_reasoning_jax.data.arrival import arrives
from tiny_reasoning_jax.data.conversations import (
    is_openthoughts,
    read_messages,
    read_openr1,
    read_openthoughts,
    read_prompt_completion,
    read_sharegpt,
    split_turns,
)
from tiny_reasoning_jax.data.difficulty import from_pass_rate
from tiny_reasoning_jax.data.fields import (
    Parts,
    Unusable,
    category_of,
    compare,
    fence,
    find_box,
    list_of,
    split_hashes,
    strip_answer_form,
    text_of,
)
from tiny_reasoning_jax.data.problems import DIFFICULTIES, Dropped, Problem
from tiny_reasoning_jax.errors import UserError

DIFFICULTY_RULE = (
    "a record's own difficulty if it has one, 1 to 5 (in sharegpt beside a domain 1 to 10, taken in pairs); else gsm8k "
    "by steps, up to 2 is 1, 3 is 2, 4 is 3, 5 is 4, more is 5; math: its level; verl: the pass rate over all samples "
    "of model_difficulty, above 80 % is 1, above 60 % is 2, above 40 % is 3, above 20 % is 4, else 5; others: none"
)

_PLAIN_CHARS = 200  # of an answer that stands alone; more is a text that has one
_CALCULATOR_MARK = re.compile(r"<<[^<>]*>>")
_LEVELS = {f"{prefix}{level}": level for prefix in ("Level ", "") for level in DIFFICULTIES}  # "Level ?" is none
_SKYWORK_SAMPLES = 16  # per model; model_difficulty counts the wrong ones
_DETAIL_CHARS = 200


def check_format(name: str) -> None:
    """Raises a UserError unless `name` is "auto" or in FORMATS."""
    if name != "auto" and name not in FORMATS:
        raise UserError(f'data.format={name!r} is unknown; give "auto" or one of: {", ".join(FORMATS)}')


def recognise(record: dict) -> str | None:
    """Returns the name of a record's format by the fields that it has, or None."""
    for first, second, name in _SIGNS:
        if record.get(first) is not None and record.get(second) is not None:
            if name == "gsm8k" and _is_plain(record["answer"]):
                return "plain"
            return name if name != "sharegpt" or not is_openthoughts(record) else "openthoughts"
    return None


def parse_record(record: object, record_id: str, source: str, format: str = "auto") -> Problem | Dropped:
    """Reads one decoded JSON value, in the named format or in the one that its fields show.

    Raises:
      UserError: `format` is unknown.
    """
    check_format(format)
    try:
        if not isinstance(record, dict):
            raise Unusable("unknown format", f"{type(record).__name__} in place of an object with fields")
        name = recognise(record) if format == "auto" else format
        if name is None:
            raise Unusable("unknown format", f"fields: {', '.join(map(str, record))}")
        prompt, reasoning, answer, category, level, tests = FORMATS[name](record)
        prompt, reasoning, answer = strip_answer_form(prompt), reasoning.strip(), answer.strip()
        level, category = _read_own(record, name, level, category)
        if not prompt or not (answer or tests):
            raise Unusable("empty", "answer" if prompt else "prompt")
        if not _is_unicode(prompt + reasoning + answer + category + tests):
            raise Unusable("invalid characters")
        if reasoning and not arrives(reasoning, answer):
            raise Unusable("answer not in the reasoning", answers.extract(answer) or answer)
    except Unusable as unusable:
        detail = unusable.detail[:_DETAIL_CHARS].encode("utf-8", "replace").decode()
        return Dropped(record_id, unusable.reason, detail=detail)
    return Problem(record_id, category, level, prompt, reasoning, answer, source, tests)


def _read_own(record: dict, name: str, level: int, category: str) -> tuple[int, str]:
    """Returns difficulty and category: the record's own where it has them, else the format's."""
    own = record.get("difficulty")
    if own is not None:
        has_ten = name == "sharegpt" and record.get("domain") is not None  # OpenThoughts3
        if type(own) is float and own.is_integer():  # as a Parquet column with gaps gives it
            own = int(own)
        if type(own) is not int or not 1 <= own <= (10 if has_ten else DIFFICULTIES[-1]):
            raise Unusable("difficulty not 1 to 5", repr(own))
        level = (own + 1) // 2 if has_ten else own
    own = record.get("category")
    if own is not None:
        if not isinstance(own, str) or not own.strip():
            raise Unusable("category not a word", repr(own))
        category = own.strip()
    return level, category


def _is_unicode(text: str) -> bool:
    """JSON can spell half of a surrogate pair, which no tokenizer takes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _read_gsm8k(record: dict) -> Parts:
    question = text_of(record, "question")
    steps, answer = split_hashes(text_of(record, "answer"))
    num_steps = sum(1 for line in steps.splitlines() if line.strip())
    return Parts(question, _CALCULATOR_MARK.sub("", steps), answer, "arithmetic", min(max(num_steps - 1, 1), 5))


def _is_plain(answer: object) -> bool:
    if isinstance(answer, str):
        return "####" not in answer and "\n" not in answer.strip() and len(answer) <= _PLAIN_CHARS
    return type(answer) in (int, float)


def _read_plain(record: dict) -> Parts:
    question = next((name for name in ("question", "problem", "prompt") if record.get(name) is not None), "question")
    answer = record.get("answer")
    if not _is_plain(answer):
        raise Unusable("no final answer", f"answer is not one line of at most {_PLAIN_CHARS} characters, or a number")
    return Parts(text_of(record, question), "", str(answer), category_of(record, "type", "subject"))


def _read_math(record: dict) -> Parts:
    problem, solution = text_of(record, "problem"), text_of(record, "solution")
    answer = find_box(solution)
    if record.get("answer") is not None:  # MATH-500, NuminaMath
        reference = text_of(record, "answer")
        if answer is not None:
            compare(f"\\boxed{{{answer}}}", reference)
        answer = reference
    elif answer is None:
        raise Unusable("no final answer", "no \\boxed{...} in the solution")
    level = _LEVELS.get(str(record.get("level")), 0)
    return Parts(problem, solution, answer, category_of(record, "type", "subject", "problem_type"), level)


def _read_mbpp(record: dict) -> Parts:
    task = text_of(record, "text" if record.get("text") is not None else "prompt")
    code = text_of(record, "code").replace("\r\n", "\n")
    asserts = list_of(record, "test_list", str)
    if not asserts or not code.strip():
        raise Unusable("empty", "code" if asserts else "test_list")
    setup = [text_of(record, "test_setup_code")] if record.get("test_setup_code") else []
    tests = "\n".join([*setup, *list_of(record, "test_imports", str), *asserts]).replace("\r\n", "\n")
    prompt = f"{task.strip()}\n\nYour code should pass these tests:\n\n" + "\n".join(asserts)
    return Parts(prompt, "", fence(code), "code", tests=tests + "\n")


def _read_humaneval(record: dict) -> Parts:
    head, body = text_of(record, "prompt"), text_of(record, "canonical_solution")
    name, test = text_of(record, "entry_point"), text_of(record, "test")
    if not name.isidentifier() or not body.strip():
        raise Unusable("empty", "canonical_solution" if name.isidentifier() else "entry_point")
    prompt = f"Complete this Python function, and write it out in full.\n\n{fence(head)}"
    tests = _find_helpers(head, name) + test.strip("\n") + f"\n\ncheck({name})\n"
    return Parts(prompt, "", fence(head + body), "code", tests=tests)


def _find_helpers(head: str, name: str) -> str:
    """What stands beside the function in its head: the tests use it, and must not take a program's word for it."""
    try:
        statements = ast.parse(head).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Unusable("prompt is not Python", str(error)) from error
    others = [node for node in statements if getattr(node, "name", None) != name]
    return "".join(ast.unparse(node) + "\n" for node in others)


def _read_program(record: dict) -> Parts:
    tests = record.get("tests")
    tests = "\n".join(list_of(record, "tests", str)) if isinstance(tests, list) else text_of(record, "tests")
    if not tests.strip():
        raise Unusable("empty", "tests")
    solution = text_of(record, "solution") if record.get("solution") is not None else ""
    return Parts(text_of(record, "prompt"), "", fence(solution) if solution.strip() else "", "code", tests=tests + "\n")


def _read_verl(record: dict) -> Parts:
    if isinstance(record.get("prompt"), str):
        prompt, turn = record["prompt"], {}
    else:
        prompt, turn = split_turns(record, "prompt")
    if turn:
        raise Unusable("unsupported turns", "an assistant turn in the prompt")
    reward = record.get("reward_model")
    if reward is None:
        raise Unusable("missing field 'reward_model'")
    if not isinstance(reward, dict):
        raise Unusable("wrong type", f"reward_model is {type(reward).__name__}, not an object")
    level = _level_of_counts(record.get("extra_info"))
    return Parts(prompt, "", _single_truth(reward), category_of(record, "ability"), level)


def _single_truth(reward: dict) -> str:
    """Returns the answer in a ground truth: text, a number, or a list of one text, which Skywork writes as JSON."""
    truth = reward.get("ground_truth")
    if type(truth) in (int, float):
        return str(truth)
    if not isinstance(truth, list | dict):
        text = text_of(reward, "ground_truth")
        try:
            truth = json.loads(text) if text.lstrip()[:1] in ("[", "{") else None
        except (ValueError, RecursionError):  # "[1, 2)" is an answer and no JSON
            truth = None
        if not isinstance(truth, dict) and not (isinstance(truth, list) and truth and isinstance(truth[0], str)):
            return text
    if isinstance(truth, dict):
        raise Unusable("no final answer", "ground_truth holds tests, and no solution comes with them")
    if len(truth) != 1 or not isinstance(truth[0], str):
        raise Unusable("several answers" if len(truth) > 1 else "wrong type", f"ground_truth is {truth!r}")
    return truth[0]


def _level_of_counts(extra: object) -> int:
    """Returns the difficulty by Skywork's counts of wrong samples of each model, all taken together; 0 without."""
    counts = extra.get("model_difficulty") if isinstance(extra, dict) else None
    if not isinstance(counts, dict):
        return 0
    wrong = [count for count in counts.values() if type(count) is int and 0 <= count <= _SKYWORK_SAMPLES]
    samples = _SKYWORK_SAMPLES * len(wrong)
    return from_pass_rate(samples - sum(wrong), samples) if wrong else 0


FORMATS: dict[str, Callable[[dict], Parts]] = {
    "gsm8k": _read_gsm8k,
    "math": _read_math,
    "mbpp": _read_mbpp,
    "humaneval": _read_humaneval,
    "program": _read_program,
    "plain": _read_plain,
    "messages": read_messages,
    "sharegpt": read_sharegpt,
    "openthoughts": read_openthoughts,
    "prompt_completion": read_prompt_completion,
    "verl": _read_verl,
    "openr1": read_openr1,
}

# Two fields that a format is known by. The first that fits counts, as some data sets carry the fields of two formats:
# OpenR1 has messages, OpenThoughts-114k-math and NuminaMath have problem and solution.
_SIGNS = (
    ("problem", "generations", "openr1"),
    ("problem", "deepseek_reasoning", "openthoughts"),
    ("conversations", "conversations", "sharegpt"),
    ("prompt", "reward_model", "verl"),
    ("prompt", "completion", "prompt_completion"),
    ("prompt", "canonical_solution", "humaneval"),
    ("code", "test_list", "mbpp"),
    ("prompt", "tests", "program"),
    ("problem", "solution", "math"),
    ("messages", "messages", "messages"),
    ("question", "answer", "gsm8k"),
    ("problem", "answer", "plain"),
    ("prompt", "answer", "plain"),
)
