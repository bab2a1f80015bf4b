"""Problems as chat tokens: the one place where text becomes what the model reads and writes.

Training, evaluation and export all go through here, and the tokenizer's own chat template decides every byte:

    <|im_start|>user\\n{prompt}<|im_end|>\\n<|im_start|>assistant\\n          the prompt, never trained
    <think>\\n{reasoning}\\n</think>\\n\\n\\boxed{answer}<|im_end|>            the completion, trained whole

It refuses text that spells one of the tokenizer's special tokens (such text could end a turn or open a second
<think>), and templates that do not show a user turn, the reasoning and the answer in this order.
"""

import dataclasses
import functools
import re

from tiny_reasoning_jax.data import template
from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.errors import UserError

# The end of every completion. Not tokenizer.eos_token: Qwen3's base models name <|endoftext|> there.
END_OF_TURN, END_OF_TEXT = "<|im_end|>", "<|endoftext|>"
SPECIAL_TOKENS = (END_OF_TEXT, "<|im_start|>", END_OF_TURN, "<think>", "</think>")

# The template of tokenizers that we train ourselves. For system, user and assistant turns its render is
# byte-equal to that of the official Qwen3 template; other roles are refused. As there, only turns after the
# last user turn show reasoning.
CHAT_TEMPLATE = """\
{%- set last = namespace(user=messages|length) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- set last.user = loop.index0 %}
    {%- elif message.role not in ['system', 'assistant'] %}
        {{- raise_exception('roles are system, user and assistant, not ' + message.role) }}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set text = message.content if message.content is string else '' %}
    {%- if message.role == 'assistant' %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in text %}
            {%- set thought = text.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set text = text.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > last.user and (loop.last or thought) %}
            {%- set text = '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + text.lstrip('\\n') %}
        {%- endif %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + text + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""


@dataclasses.dataclass(frozen=True)
class _Frame:
    """The template's own text around the parts of a problem, in the order in which it appears."""

    before_prompt: str
    after_prompt: str
    after_prompt_without_thinking: str
    before_reasoning: str
    before_answer: str
    after_answer: str


def check_tokenizer(tokenizer) -> None:
    """Checks that a tokenizer can express our chat format.

    Raises:
      UserError: special tokens or the template are missing, or the template does not show what we train on.
    """
    known = tokenizer.get_added_vocab()
    lacks = [token for token in SPECIAL_TOKENS if token not in known]
    if not tokenizer.chat_template:
        lacks.append("a chat template")
    if lacks:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path!r} lacks {', '.join(lacks)}; use a Qwen3 tokenizer (a folder "
            'or hub id), or tokenizer.source="procedural", which trains a complete one'
        )
    _find_frame(tokenizer)


def end_of_turn_id(tokenizer) -> int:
    """Returns the id that ends every completion."""
    return tokenizer.get_added_vocab()[END_OF_TURN]


def stop_ids(tokenizer) -> tuple[int, int]:
    """Returns the ids at which sampling stops: the end of a turn, and that of a text, which base models write.

    Raises:
      UserError: the tokenizer lacks one.
    """
    known = tokenizer.get_added_vocab()
    if lacks := [token for token in (END_OF_TURN, END_OF_TEXT) if token not in known]:
        raise UserError(
            f"tokenizer {tokenizer.name_or_path!r} lacks {', '.join(lacks)}, where a completion ends; use the "
            "tokenizer of a Qwen3 model"
        )
    return known[END_OF_TURN], known[END_OF_TEXT]


def find_special_token(tokenizer, *texts: str) -> str | None:
    """Returns the first special token that one of the texts spells out, or None."""
    pattern = _special_pattern(tokenizer)
    for text in texts:
        if match := pattern.search(text):
            return match.group()
    return None


def show_answer(answer: str) -> str:
    """Returns a completion's final text: the answer as it is if boxed or with a program, else \\boxed{answer}."""
    return answer if "\\boxed{" in answer or "```" in answer else f"\\boxed{{{answer}}}"


def render_prompt(tokenizer, prompt: str, thinking: bool = True) -> str:
    """Returns the text the model is given: the user's turn and the opening of its own.

    Without thinking the template puts an empty <think></think> there, so that the model answers at once.
    """
    frame = _find_frame(tokenizer)
    after = frame.after_prompt if thinking else frame.after_prompt_without_thinking
    return frame.before_prompt + prompt.strip() + after


def render(tokenizer, problem: Problem) -> tuple[str, str]:
    """Returns a problem's prompt and completion as text; the completion ends with END_OF_TURN."""
    frame = _find_frame(tokenizer)
    answer = show_answer(problem.answer.strip())
    completion = frame.before_reasoning + problem.reasoning.strip() + frame.before_answer + answer + frame.after_answer
    return render_prompt(tokenizer, problem.prompt), completion


def encode_prompts(tokenizer, prompts: list[str]) -> list[list[int]]:
    """Returns the token ids of what the model is given for each prompt, the same for training and evaluation.

    Raises:
      UserError: a prompt spells a special token.
    """
    refuse_special_tokens(tokenizer, "the prompt", *prompts)
    return encode_texts(tokenizer, [render_prompt(tokenizer, prompt) for prompt in prompts])


def encode_texts(tokenizer, texts: list[str]) -> list[list[int]]:
    """Returns the token ids of texts as they stand, nothing put around them; special tokens in them are such.

    Encodes with the library underneath, which gives the same ids. transformers takes a tenth longer and warns of every
    text that is longer than the model.

    Raises:
      UserError: the tokenizer cannot cut a text; a damaged one may load and fail at the first.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # a tokenizer.json can ask to cut or fill up
    backend.no_padding()
    try:
        return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    except BaseException as error:  # tokenizers raises plain Exceptions, and panics, which are not even that
        if type(error) is not Exception and type(error).__name__ != "PanicException":
            raise
        raise UserError(
            f"tokenizer {tokenizer.name_or_path!r} cannot cut a text: {str(error)[:300]}; copy its files again"
        ) from error


def encode(tokenizer, problem: Problem) -> tuple[list[int], list[int]]:
    """Returns one problem's prompt ids and completion ids. See `encode_batch`."""
    return encode_batch(tokenizer, [problem])[0]


def encode_batch(tokenizer, problems: list[Problem]) -> list[tuple[list[int], list[int]]]:
    """Returns each problem's prompt ids and completion ids. The last completion id, no other, is END_OF_TURN.

    Prompt and completion are tokenised apart, as in sampling. A special token stands on their border, so that
    the ids are those of the whole text.

    Raises:
      UserError: a text spells a special token, or the template changes with the text.
    """
    if not problems:
        return []
    for problem in problems:
        refuse_special_tokens(tokenizer, f"problem {problem.id}", problem.prompt, problem.reasoning, problem.answer)
    _check_render(tokenizer, problems[0])
    texts = [text for problem in problems for text in render(tokenizer, problem)]
    ids = encode_texts(tokenizer, texts)
    end = end_of_turn_id(tokenizer)
    for completion in ids[1::2]:
        assert completion[-1] == end and completion.count(end) == 1, "END_OF_TURN must come once, last"
    return list(zip(ids[::2], ids[1::2], strict=True))


def apply_template(tokenizer, messages: list[dict], **options: bool) -> str:
    """Returns what the tokenizer's `apply_chat_template` gives as text, in bounded time and memory.

    Raises:
      UserError: the template cannot be rendered.
    """
    text = tokenizer.chat_template
    if text == CHAT_TEMPLATE:  # ours; any other is a program that we do not know
        return tokenizer.apply_chat_template(messages, tokenize=False, **options)
    if isinstance(text, dict):
        text = text.get("default")
    if not isinstance(text, str):
        raise UserError(
            f"the chat template of tokenizer {tokenizer.name_or_path!r} is no text, or several without a default; use "
            "a tokenizer with Qwen3's template"
        )
    return template.render(text, tokenizer.name_or_path, messages, **tokenizer.special_tokens_map, **options)


def _apply_template(tokenizer, prompt: str, reasoning: str, content: str) -> tuple[str, str]:
    """Returns the template's own render of the prompt, as the model is given it, and of the conversation."""
    user = {"role": "user", "content": prompt}
    messages = [user, {"role": "assistant", "reasoning_content": reasoning, "content": content}]
    opened = apply_template(tokenizer, messages[:1], add_generation_prompt=True, enable_thinking=True)
    return opened, apply_template(tokenizer, messages)


@functools.lru_cache(maxsize=8)
def _find_frame(tokenizer) -> _Frame:
    """Renders the template once, with stand-ins for the texts: for every record it would be slow."""
    prompt, reasoning, content = "PROMPT STANDS HERE", "REASONING STANDS HERE", "ANSWER STANDS HERE"
    opened, whole = _apply_template(tokenizer, prompt, reasoning, content)
    name = f"the chat template of tokenizer {tokenizer.name_or_path!r}"
    if not whole.startswith(opened) or opened.count(prompt) != 1:
        raise UserError(
            f"{name} does not continue its own generation prompt: the prompt is {opened!r}, the whole "
            f"conversation {whole!r}. Use a tokenizer with Qwen3's template"
        )
    before_prompt, after_prompt = opened.split(prompt)
    user = {"role": "user", "content": prompt}
    without = apply_template(tokenizer, [user], add_generation_prompt=True, enable_thinking=False)
    order = f"(.*){reasoning}(.*</think>.*){content}(.*?{re.escape(END_OF_TURN)}).*"
    found = re.fullmatch(order, whole[len(opened) :], re.DOTALL)
    if found is None or "<think>" not in after_prompt + found[1] or END_OF_TURN in found[1] + found[2]:
        raise UserError(
            f"{name} must show the user's text, <think>, reasoning_content, </think>, the answer and one "
            f"{END_OF_TURN}, in this order; it gives {whole!r}. Use a tokenizer with Qwen3's template"
        )
    return _Frame(before_prompt, after_prompt, without.removeprefix(before_prompt + prompt), *found.groups())


def _check_render(tokenizer, problem: Problem) -> None:
    """Compares our substituted render with the template's own, in case the template depends on the text."""
    ours = render(tokenizer, problem)
    answer = show_answer(problem.answer.strip())
    opened, whole = _apply_template(tokenizer, problem.prompt.strip(), problem.reasoning.strip(), answer)
    if opened != ours[0] or not whole.startswith("".join(ours)):
        raise UserError(
            f"the chat template of tokenizer {tokenizer.name_or_path!r} renders problem {problem.id} as "
            f"{whole!r}, not {''.join(ours)!r}: it depends on the text. Use a tokenizer with Qwen3's template"
        )


@functools.lru_cache(maxsize=8)
def _special_pattern(tokenizer) -> re.Pattern:
    longest_first = sorted(tokenizer.get_added_vocab(), key=len, reverse=True)
    return re.compile("|".join(re.escape(token) for token in longest_first))


def refuse_special_tokens(tokenizer, what: str, *texts: str) -> None:
    """Raises UserError, which says `what` it is about, where a text spells a special token."""
    if token := find_special_token(tokenizer, *texts):
        raise UserError(f"{what} contains the special token {token!r}, which breaks the chat format; remove it")
