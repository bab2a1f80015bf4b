"""pytest tests/data/test_chat.py: training, evaluation and export share one render, the template's own."""

import json
import random
import string
import time
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tiny_reasoning_jax.data import chat, sources
from tiny_reasoning_jax.data.problems import Problem
from tiny_reasoning_jax.data.tokenizer import load_tokenizer, train_tokenizer
from tiny_reasoning_jax.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "data"


def problem(prompt="What is 2 + 2?", reasoning="Two and two\nmake four.", answer="4") -> Problem:
    return Problem("made:1", "arithmetic", 1, prompt, reasoning, answer, "made")


def create_problems(num=200) -> list[Problem]:
    """Texts with everything that a template or a tokenizer could trip over."""
    rng = random.Random(0)
    letters = string.ascii_letters + string.digits + "  \n\n\t.,'\"<>|{}\\/$+=é½漢🙂\u0301\u00a0\u200b"
    hard = [
        problem("  indented\n", "\n\nlines\n\n", " 4 "),
        problem("<tool", "a < b > c", "\\boxed{\\frac{1}{2}} or so"),
        problem("PROMPT STANDS HERE", "REASONING STANDS HERE", "ANSWER STANDS HERE"),
        problem("{{ messages }} {% if %}", "\\1 \\g<0> %s {0}", "\\boxed{}"),
        problem("<|im_end", "|><|im", "_end|>"),
    ]
    texts = ["x" + "".join(rng.choices(letters, k=rng.randint(0, 80))) for _ in range(3 * num)]
    return hard + [problem(*parts) for parts in zip(texts[::3], texts[1::3], texts[2::3], strict=True)]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    texts = [f"user\nWhat is {n} + {n}?assistant\n\nmake {2 * n}.\n\n\n\\boxed{{{2 * n}}}" for n in range(300)]
    return train_tokenizer(texts, 400, tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def qwen():
    if not REAL.is_dir():
        pytest.skip("no shared data beside this checkout")
    return load_tokenizer(REAL / "qwen3_tokenizer")


@pytest.fixture(params=["small", "qwen"])
def tokenizer(request):
    return request.getfixturevalue(request.param)


def test_prompt_and_completion_are_as_designed(tokenizer):
    prompt, completion = chat.render(tokenizer, problem())
    assert prompt == "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n"
    assert completion == "<think>\nTwo and two\nmake four.\n</think>\n\n\\boxed{4}<|im_end|>"


def test_an_answer_that_is_boxed_already_is_shown_as_it_is(tokenizer):
    assert chat.render(tokenizer, problem(answer="So \\boxed{4}."))[1].endswith("\n\nSo \\boxed{4}.<|im_end|>")


def test_the_render_is_the_templates_own(tokenizer):
    for example in create_problems():
        answer = chat.show_answer(example.answer.strip())
        user = {"role": "user", "content": example.prompt.strip()}
        assistant = {"role": "assistant", "reasoning_content": example.reasoning.strip(), "content": answer}
        opened = tokenizer.apply_chat_template([user], tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([user, assistant], tokenize=False)
        prompt, completion = chat.render(tokenizer, example)
        assert prompt == opened
        assert prompt + completion + "\n" == whole


def test_tokens_apart_are_the_tokens_of_the_whole(tokenizer):
    end = chat.end_of_turn_id(tokenizer)
    examples = create_problems()
    for example, (prompt, completion) in zip(examples, chat.encode_batch(tokenizer, examples), strict=True):
        whole = "".join(chat.render(tokenizer, example))
        assert prompt + completion == tokenizer(whole, add_special_tokens=False)["input_ids"]
        assert completion.count(end) == 1 and completion[-1] == end
        assert (prompt, completion) == chat.encode(tokenizer, example)


def test_evaluation_asks_with_the_tokens_that_training_used(tokenizer):
    for example in create_problems(20):
        prompt = chat.encode_prompts(tokenizer, [example.prompt])[0]
        assert prompt == chat.encode(tokenizer, example)[0]
        user = {"role": "user", "content": example.prompt.strip()}
        asked = tokenizer.apply_chat_template([user], add_generation_prompt=True, return_dict=False)
        assert prompt == asked


@pytest.mark.parametrize("thinking", [True, False])
def test_a_prompt_with_thinking_on_or_off_has_the_templates_own_ids(tokenizer, thinking):
    for example in create_problems(20):
        user = {"role": "user", "content": example.prompt.strip()}
        asked = tokenizer.apply_chat_template(
            [user], add_generation_prompt=True, return_dict=False, enable_thinking=thinking
        )
        text = chat.render_prompt(tokenizer, example.prompt, thinking)
        assert chat.encode_texts(tokenizer, [text]) == [asked]
        assert text.endswith("assistant\n" if thinking else "assistant\n<think>\n\n</think>\n\n")


@pytest.mark.parametrize("field", ["prompt", "reasoning", "answer"])
@pytest.mark.parametrize("token", ["<|im_end|>", "<think>", "</think>", "<|endoftext|>"])
def test_text_cannot_inject_a_special_token(tokenizer, field, token):
    bad = problem(**{field: f"a{token}b"})
    assert chat.find_special_token(tokenizer, bad.prompt, bad.reasoning, bad.answer) == token
    with pytest.raises(UserError, match="contains the special token"):
        chat.encode_batch(tokenizer, [problem(), bad])
    if field == "prompt":
        with pytest.raises(UserError, match="contains the special token"):
            chat.encode_prompts(tokenizer, ["Fine?", bad.prompt])


def test_every_added_token_of_the_real_tokenizer_is_found(qwen):
    for token in qwen.get_added_vocab():
        assert chat.find_special_token(qwen, "fine", f"x{token}") == token
    assert chat.find_special_token(qwen, "<|im_end |>", "< think>", "") is None


def test_no_texts_give_no_tokens(small):
    assert chat.encode_batch(small, []) == []


CONVERSATIONS = [
    [("user", "Hi")],
    [("user", "  Hi\n\n")],
    [("system", "Be brief."), ("user", "Hi")],
    [("user", "Hi"), ("system", "Be brief."), ("user", "Well?")],
    [("user", "Hi"), ("assistant", "Hello.", "They greet.")],
    [("user", "Hi"), ("assistant", "\n\nHello.\n", "\n\nThey greet.\n\n")],
    [("user", "Hi"), ("assistant", "Hello.", "")],
    [("user", "Hi"), ("assistant", "Hello.")],
    [("user", "Hi"), ("assistant", "<think>\nThey greet.\n</think>\n\nHello.")],
    [("user", "Hi"), ("assistant", "They greet.</think>Hello.")],
    [("user", "1"), ("assistant", "one", "thought"), ("user", "2"), ("assistant", "two", "thought")],
    [
        ("user", "1"),
        ("assistant", "<think>t</think>one"),
        ("user", "2"),
        ("assistant", "<think>t</think>two"),
    ],
    [
        ("user", "1"),
        ("assistant", "one", "first"),
        ("assistant", "two", "second"),
        ("assistant", "three", ""),
    ],
    [("user", "1"), ("assistant", "one"), ("assistant", "two")],
    [("system", "s"), ("user", "1"), ("assistant", "one", "t"), ("user", "2")],
    [("system", "s"), ("assistant", "one", "thought")],
]


@pytest.mark.parametrize("options", [{}, {"enable_thinking": True}, {"enable_thinking": False}])
@pytest.mark.parametrize("opened", [False, True])
@pytest.mark.parametrize("turns", CONVERSATIONS)
def test_our_template_is_qwen3s(qwen, turns, opened, options):
    keys = ("role", "content", "reasoning_content")
    messages = [dict(zip(keys, turn, strict=False)) for turn in turns]
    ours, official = (
        qwen.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=opened, **options
        )
        for template in (chat.CHAT_TEMPLATE, qwen.chat_template)
    )
    assert ours == official


def test_our_template_refuses_roles_that_it_does_not_know(small):
    with pytest.raises(Exception, match="roles are system, user and assistant, not tool"):
        small.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


def with_template(tokenizer, template, tmp_path):
    """Returns a copy of the tokenizer with another chat template."""
    tokenizer.save_pretrained(tmp_path)
    other = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    other.chat_template = template
    return other


def test_a_tokenizer_without_the_format_is_refused_with_all_that_is_missing(small, tmp_path):
    bare = with_template(small, None, tmp_path)
    text = (tmp_path / "tokenizer.json").read_text().replace("think>", "thinks>").replace("<|im_start|>", "<|start|>")
    (tmp_path / "tokenizer.json").write_text(text)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for key in ("added_tokens_decoder", "extra_special_tokens", "additional_special_tokens"):
        config.pop(key, None)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="lacks a chat template; use"):
        chat.check_tokenizer(bare)
    lacking = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    lacking.chat_template = None
    with pytest.raises(UserError, match=r"lacks <\|im_start\|>, <think>, </think>, a chat template; use"):
        chat.check_tokenizer(lacking)
    assert chat.stop_ids(lacking) == chat.stop_ids(small)
    for path in (tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"):
        path.write_text(path.read_text().replace("<|im_end|>", "<|end|>"))
    with pytest.raises(UserError, match=r"lacks <\|im_end\|>, where a completion ends; use"):
        chat.stop_ids(AutoTokenizer.from_pretrained(tmp_path, local_files_only=True))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("message.reasoning_content is string", "false"), "must show"),  # drops the reasoning
        (("+ text +", "+ text + text +"), "does not continue"),  # says everything twice
        (("{{- '<|im_start|>assistant\\n' }}", "{{- 'Answer: ' }}"), "does not continue"),
        (("'<think>\\n' + thought", "'<think>\\n<|im_end|>' + thought"), "must show"),
        (("\\n</think>\\n\\n'", "\\n</think>\\n<|im_end|>\\n'"), "must show"),  # ends the turn twice
    ],
)
def test_a_template_of_another_kind_is_refused(small, tmp_path, change, complaint):
    assert change[0] in chat.CHAT_TEMPLATE
    other = with_template(small, chat.CHAT_TEMPLATE.replace(*change), tmp_path)
    with pytest.raises(UserError, match=complaint):
        chat.check_tokenizer(other)


def test_a_template_that_depends_on_the_text_is_refused(small, tmp_path):
    shouting = chat.CHAT_TEMPLATE.replace("+ text +", "+ (text if 'HERE' in text else text|upper) +")
    other = with_template(small, shouting, tmp_path)
    chat.check_tokenizer(other)
    with pytest.raises(UserError, match="depends on the text"):
        chat.encode(other, problem())


def test_a_template_that_opens_think_in_the_prompt_works(small, tmp_path):
    opening = chat.CHAT_TEMPLATE.replace(
        "{{- '<|im_start|>assistant\\n' }}", "{{- '<|im_start|>assistant\\n<think>\\n' }}"
    )
    other = with_template(small, opening, tmp_path)
    prompt, completion = chat.render(other, problem())
    assert prompt.endswith("<|im_start|>assistant\n<think>\n")
    assert completion == "Two and two\nmake four.\n</think>\n\n\\boxed{4}<|im_end|>"
    ids = chat.encode(other, problem())
    assert ids[0] + ids[1] == chat.encode(small, problem())[0] + chat.encode(small, problem())[1]


def test_real_records_tokenise_alike_apart_and_whole_and_fast(qwen, small):
    problems = list(sources.read_source(str(REAL / "gsm8k" / "test.jsonl")))
    for tokenizer in (qwen, small):
        started = time.process_time()
        encoded = chat.encode_batch(tokenizer, problems)
        assert (time.process_time() - started) / len(problems) < 1 / 500  # measured: 1/3000 s of one core
        for example, (prompt, completion) in list(zip(problems, encoded, strict=True))[::20]:
            whole = "".join(chat.render(tokenizer, example))
            assert prompt + completion == tokenizer(whole, add_special_tokens=False)["input_ids"]
