"""Run: pytest tests/eval/test_evaluate.py. From problems to graded samples, in whatever pieces they are made."""

import dataclasses
import json
from collections import Counter
from types import SimpleNamespace

import pytest
from ml_collections.config_dict import FrozenConfigDict

from tiny_reasoning_jax import answers
from tiny_reasoning_jax.data import chat
from tiny_reasoning_jax.data.problems import CATEGORIES, DIFFICULTIES, Problem
from tiny_reasoning_jax.data.tokenizer import load_tokenizer, train_tokenizer
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.eval import evaluate, judge
from tiny_reasoning_jax.eval.journal import Journal
from tiny_reasoning_jax.eval.tasks import TASKS
from tiny_reasoning_jax.eval.tasks.task import Task
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.sampling.batch import STOP_EVERY
from tiny_reasoning_jax.sampling.generate import Completion

SETTINGS = {
    "num_problems": 9, "num_samples": 1, "batch_size": 2, "max_new_tokens": 8, "temperature": 0.0, "top_p": 1.0,
    "top_k": 0, "protocol": "chat", "thinking": True, "unsafe_code": False, "instruction": "",
}  # fmt: skip
TOY = Task("toy", "test")


def make_problem(number, category="algebra", difficulty=1, answer="7", **changes):
    return Problem(f"id-{number}", category, difficulty, f"What is {number}?", "Seven.", answer, "test", **changes)


def settings(**changes) -> FrozenConfigDict:
    return FrozenConfigDict({**SETTINGS, **changes})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer([], 300, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def model(tokenizer):
    # More rows than the tokenizer has entries, as in the official checkpoints.
    spec = ModelSpec(len(tokenizer) + 60, 16, 16, 1, 2, 1, 8, 1e4, max_position_embeddings=64)
    model_def = ModelDef(spec, dtype="float32")
    return model_def, {name: 4 * value for name, value in model_def.create_params(0).items()}  # unlike logits


@pytest.fixture
def scripted(monkeypatch, tokenizer):
    """Lets `generate` write these texts; <|im_end|> at the end of one is its EOS. Returns the calls."""
    calls = []

    def script(texts):
        def generate(model_def, params, requests, **given):
            calls.append((requests, given))
            # As rows are finished, the last first.
            for index, _ in reversed(list(enumerate(requests))):
                ids = tokenizer(texts[index].removesuffix("<|im_end|>"))["input_ids"]
                ended = texts[index].endswith("<|im_end|>")
                yield index, Completion(ids, [-0.5] * (len(ids) + ended), "eos" if ended else "length")

        monkeypatch.setattr(evaluate, "generate", generate)
        return calls

    return script


def run(model, problems, tokenizer, config=None, task=TOY, **changes):
    config = config or settings()
    questions = evaluate.pose(task, problems, tokenizer, config, model[0])
    return evaluate.evaluate(*model, questions, tokenizer, config, task=task, **{"seed": 4, **changes})


def test_a_sample_says_what_was_asked_written_and_found(scripted, tokenizer, model):
    problems = [make_problem(1), make_problem(2, "logic", 3), make_problem(3)]
    right = "<think>\n3 + 4 = 7\n</think>\n\n\\boxed{7}"
    wrong = "<think>\n\\boxed{7}\n</think>\n\n<|im_start|>\\boxed{8}"
    calls = scripted([right + "<|im_end|>", wrong + "<|im_end|>", "<think>\nhmm"])
    samples = run(model, problems, tokenizer)
    num_tokens = len(tokenizer(right)["input_ids"])
    assert samples[0] == {
        "task": "toy", "id": "id-1", "sample": 0, "seed": 4, "category": "algebra", "difficulty": 1,
        "prompt": "<|im_start|>user\nWhat is 1?<|im_end|>\n<|im_start|>assistant\n", "completion": right,
        "extracted": "7", "how": "boxed", "answer": "7", "verdict": "correct", "truncated": False, "unclosed": False,
        "num_tokens": num_tokens, "logp": -0.5 * (num_tokens + 1), "detail": "", "grader": answers.VERSION,
    }  # fmt: skip
    assert [sample["verdict"] for sample in samples] == ["correct", "wrong", "unparsed"]
    assert [sample["truncated"] for sample in samples] == [False, False, True]
    assert [sample["unclosed"] for sample in samples] == [False, False, True]
    assert (samples[1]["category"], samples[1]["difficulty"], samples[1]["extracted"]) == ("logic", 3, "8")
    assert samples[2]["extracted"] is None and samples[1]["completion"] == wrong
    assert json.loads(json.dumps(samples)) == samples
    [(requests, given)] = calls
    assert [list(prompt) for prompt, _ in requests] == chat.encode_prompts(tokenizer, [p.prompt for p in problems])
    ends = tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    expected = {"max_new_tokens": 8, "eos_ids": tuple(ends), "batch_size": 2, "temperature": 0.0, "top_p": 1.0}
    assert {name: given[name] for name in expected} == expected and given["seed"] == 4 and given["top_k"] == 0
    assert given["should_stop"] is None


def test_a_real_model_is_asked_and_graded(tokenizer, model, capsys):
    config = settings(num_samples=3, temperature=1.0)
    samples = run(model, [make_problem(n) for n in range(3)], tokenizer, config, label="eval toy")
    assert capsys.readouterr().out.startswith("eval toy 9/9 sample")
    assert [(s["id"], s["sample"]) for s in samples] == [(f"id-{n}", k) for n in range(3) for k in range(3)]
    assert all(sample["verdict"] in ("wrong", "unparsed") for sample in samples)
    assert len({sample["completion"] for sample in samples}) > 5, "samples of one problem differ"


def test_a_sample_depends_on_nothing_else_that_is_asked(tokenizer, model):
    problems = [make_problem(n) for n in range(5)]
    all_of_them = run(model, problems, tokenizer, settings(num_samples=2, temperature=1.0))
    alone = run(model, problems[3:4], tokenizer, settings(num_samples=1, temperature=1.0, batch_size=5))
    assert alone == [sample for sample in all_of_them if (sample["id"], sample["sample"]) == ("id-3", 0)]


# --- how problems are put -------------------------------------------------------------------------


def test_without_thinking_the_prompt_ends_with_the_empty_block(scripted, tokenizer, model):
    scripted(["\\boxed{7}<|im_end|>"])
    [sample] = run(model, [make_problem(1)], tokenizer, settings(thinking=False))
    assert sample["prompt"].endswith("assistant\n<think>\n\n</think>\n\n")
    assert (sample["verdict"], sample["unclosed"]) == ("correct", False)


def test_an_instruction_follows_what_is_no_program(tokenizer, model):
    told = settings(instruction="Put it in \\boxed{}.")
    asked, program = make_problem(1), dataclasses.replace(make_problem(2), tests="assert f(1) == 1")
    with_it, without = evaluate.pose(TOY, [asked, program], tokenizer, told, model[0])
    turn = f"<|im_start|>user\n{asked.prompt}\nPut it in \\boxed{{}}.<|im_end|>"
    assert with_it.text.startswith(turn) and "boxed" not in without.text
    with pytest.raises(UserError, match="eval.instruction contains the special token"):
        evaluate.pose(TOY, [asked], tokenizer, settings(instruction="<|im_end|>"), model[0])


def test_prompts_have_the_ids_of_the_real_tokenizers_own_template(shared_data):
    qwen = load_tokenizer(shared_data / "qwen3_tokenizer")
    model_def = ModelDef(ModelSpec(len(qwen), 16, 16, 1, 2, 1, 8, 1e4, max_position_embeddings=4096))
    problems = [make_problem(1), make_problem("$x^2$ \u00e9\n\nor so")]
    for thinking in (True, False):
        for question in evaluate.pose(TOY, problems, qwen, settings(thinking=thinking), model_def):
            turn = [{"role": "user", "content": question.problem.prompt}]
            assert question.prompt == qwen.apply_chat_template(
                turn, add_generation_prompt=True, enable_thinking=thinking, return_dict=False
            )
    [question] = evaluate.pose(TASKS["gsm8k"], problems[:1], qwen, settings(protocol="few-shot"), model_def)
    assert question.text.endswith("\n\nQ: What is 1?\nA:") and qwen.decode(question.prompt) == question.text


def test_an_answer_of_a_base_model_ends_at_the_next_question(scripted, tokenizer, model):
    wide = dataclasses.replace(model[0], spec=dataclasses.replace(model[0].spec, max_position_embeddings=9000))
    problems, config = [make_problem(1, answer="29"), make_problem(2)], settings(protocol="few-shot")
    first, second = " 30 - 1 = 29. The answer is 29.\n\nQ: And 3?\nA: The answer is 3.", " It is 7"
    calls = scripted([first, second])
    samples = run((wide, model[1]), problems, tokenizer, config, task=TASKS["gsm8k"])
    assert [sample["completion"] for sample in samples] == [first.partition("\nQ:")[0], second]
    assert [(sample["verdict"], sample["how"]) for sample in samples] == [
        ("correct", "answer is"), ("correct", "last number")]  # fmt: skip
    # What was written behind the answer is neither counted nor taken for an answer that was cut off.
    assert [sample["truncated"] for sample in samples] == [False, True]
    until_stop = len(tokenizer(first.partition(" And")[0])["input_ids"])
    assert samples[0]["num_tokens"] == until_stop and samples[0]["logp"] == -0.5 * until_stop
    assert samples[0]["prompt"].startswith("Q: ") and "<|im_start|>" not in samples[0]["prompt"]
    should_stop = calls[0][1]["should_stop"]
    assert [should_stop(tokenizer(text)["input_ids"]) for text in (first, second)] == [True, False]


def test_a_row_ends_where_the_whole_text_would_end_it(scripted, tokenizer, model):
    """Asked after every STOP_EVERY tokens, wherever the stop lies among them."""
    stops = ("\nProblem:", "\nQ:", "\u00e9\u00e9\u00e9\u00e9\u00e9\u00e9")
    calls = scripted([])
    list(evaluate.ask(*model, [], tokenizer, settings(), temperature=0.0, seed=0, stops=stops))
    [(_, given)] = calls
    for stop in stops:
        for place in range(70, 140):
            ids = tokenizer("\u00fc" * (place // 2) + "x" * (place % 2) + stop + "y" * 90)["input_ids"]
            ends = range(STOP_EVERY, len(ids), STOP_EVERY)
            whole = [any(s in evaluate.decode(tokenizer, ids[:end]) for s in stops) for end in ends]
            assert [given["should_stop"](ids[:end]) for end in ends].index(True) == whole.index(True)
    decoded = []
    counting = SimpleNamespace(decode=lambda tokens, **_: decoded.append(len(tokens)) or "")
    assert not evaluate._make_should_stop(counting, stops)([1] * 5000) and decoded[0] < 2 * STOP_EVERY


def test_the_continuation_of_a_function_is_run_below_its_head(scripted, tokenizer, model):
    wide = dataclasses.replace(model[0], spec=dataclasses.replace(model[0].spec, max_position_embeddings=9000))
    prompt = (
        'Complete this Python function, and write it out in full.\n\n```python\ndef f(x):\n    """Doubles x."""\n```'
    )
    problem = dataclasses.replace(make_problem(1, tests="assert f(2) == 4\n"), prompt=prompt)
    task = TASKS["humaneval"]
    scripted(["    return 2 * x\n\ndef g():\n    oops(", "    return 3 * x<|im_end|>"])
    other = dataclasses.replace(problem, id="id-2")
    few_shot = settings(protocol="few-shot")
    right, wrong = run((wide, model[1]), [problem, other], tokenizer, few_shot, task=task)
    assert right["prompt"] == 'def f(x):\n    """Doubles x."""\n' and right["completion"] == "    return 2 * x\n"
    assert (right["verdict"], right["how"], right["detail"]) == ("correct", "program", "")
    assert wrong["verdict"] == "wrong" and wrong["detail"]
    scripted(["<think>\n\n</think>\n\n```python\ndef f(x):\n    return x + x\n```<|im_end|>", "I cannot.<|im_end|>"])
    right, none = run((wide, model[1]), [problem, other], tokenizer, task=task)
    assert (right["verdict"], none["verdict"], none["how"]) == ("correct", "unparsed", None)


def test_a_task_without_examples_and_a_template_without_the_switch_are_refused(tokenizer, model, monkeypatch):
    with pytest.raises(UserError, match='"few-shot" has no examples for toy; they are there for gsm8k, math'):
        evaluate.pose(TOY, [make_problem(1)], tokenizer, settings(protocol="few-shot"), model[0])
    monkeypatch.setattr(chat, "render_prompt", lambda tokenizer, prompt, thinking=True: prompt)
    with pytest.raises(UserError, match="eval.thinking=False changes nothing"):
        evaluate.pose(TOY, [make_problem(1)], tokenizer, settings(thinking=False), model[0])


def test_a_prompt_that_leaves_no_room_is_refused_with_the_remedy(tokenizer, model):
    room = 64 - len(chat.encode_prompts(tokenizer, ["What is 1?"])[0])
    with pytest.raises(UserError, match=f"id-1 has {64 - room} tokens.* 64 positions.*to {room} or less"):
        evaluate.pose(TOY, [make_problem(1)], tokenizer, settings(max_new_tokens=room + 1), model[0])
    endless = Problem("long", "logic", 1, "?" * 80, "", "", "test")
    with pytest.raises(UserError, match="problem long has .* positions: remove the problem"):
        evaluate.pose(TOY, [endless], tokenizer, settings(), model[0])


def test_what_cannot_be_judged_or_breaks_the_format_is_never_put(monkeypatch, tokenizer, model):
    def missing():
        raise UserError("no Landlock here")

    monkeypatch.setattr(judge, "require_sandbox", missing)
    with pytest.raises(UserError, match="1 of 2 problems of toy.*id-2.*no Landlock here"):
        problems = [make_problem(1), make_problem(2, tests="assert f(1) == 2")]
        evaluate.pose(TOY, problems, tokenizer, settings(), model[0])
    with pytest.raises(UserError, match=r"a prompt of toy contains the special token '<\|im_end\|>'"):
        evaluate.pose(TOY, [make_problem("<|im_end|>")], tokenizer, settings(), model[0])


# --- going on -------------------------------------------------------------------------------------


class Stopped(Exception):
    pass


def test_stopped_and_started_again_asks_only_for_what_is_missing(tmp_path, monkeypatch, tokenizer, model):
    problems, config = [make_problem(n) for n in range(5)], settings(num_samples=3, temperature=1.0)
    whole = run(model, problems, tokenizer, config)
    real, asked = evaluate.generate, []

    def dying(model_def, params, requests, **given):
        asked.append(len(requests))
        for number, one in enumerate(real(model_def, params, requests, **given)):
            if number == 4:
                raise Stopped
            yield one

    for _ in range(3):
        with (
            Journal(tmp_path, "toy", {"seed": 4}) as journal,
            pytest.raises(Stopped),
            monkeypatch.context() as patch,
        ):
            patch.setattr(evaluate, "generate", dying)
            run(model, problems, tokenizer, config, journal=journal)
        with journal.path.open("a") as file:
            file.write('{"key": "torn')
    assert asked == [15, 11, 7]
    with Journal(tmp_path, "toy", {"seed": 4}) as journal:
        assert run(model, problems, tokenizer, config, journal=journal) == whole
    lines = journal.path.read_text().splitlines()
    assert len(lines) == 1 + 15 and len({json.loads(line)["key"] for line in lines[1:]}) == 15


def test_another_grader_judges_again_and_asks_nothing(tmp_path, monkeypatch, scripted, tokenizer, model):
    problems = [make_problem(1), make_problem(2)]
    calls = scripted(["\\boxed{7}<|im_end|>", "\\boxed{8}<|im_end|>"])
    for version, verdicts in (("1", ["correct", "wrong"]), ("2", ["wrong", "wrong"])):
        monkeypatch.setattr(answers, "VERSION", version)
        if version == "2":
            monkeypatch.setattr(answers, "grade", lambda text, answer: answers.Verdict.WRONG)
        with Journal(tmp_path, "toy", {}) as journal:
            samples = run(model, problems, tokenizer, journal=journal)
        assert [sample["verdict"] for sample in samples] == verdicts
        assert {sample["grader"] for sample in samples} == {version}
    assert [len(requests) for requests, _ in calls] == [2, 0]


def test_another_prompt_or_protocol_is_asked_anew(tmp_path, scripted, tokenizer, model):
    calls = scripted(["\\boxed{7}<|im_end|>"] * 2)
    for config, task in ((settings(), TOY), (settings(thinking=False), TOY), (settings(), TOY)):
        with Journal(tmp_path, "toy", {}) as journal:
            run(model, [make_problem(1)], tokenizer, config, task=task, journal=journal)
    with Journal(tmp_path, "toy", {}) as journal:
        run(model, [make_problem(1), make_problem(2)], tokenizer, journal=journal)
    assert [len(requests) for requests, _ in calls] == [1, 1, 0, 1]


# --- which problems -------------------------------------------------------------------------------


def test_problems_are_chosen_evenly_and_not_from_the_beginning():
    grid = [(category, difficulty) for category in CATEGORIES[:3] for difficulty in DIFFICULTIES]
    problems = [make_problem(f"{c}-{d}-{i}", c, d) for c, d in grid for i in range(20)]
    chosen = evaluate.select_problems(problems, 45)
    counts = Counter((problem.category, problem.difficulty) for problem in chosen)
    assert counts == dict.fromkeys(grid, 3)
    assert evaluate.select_problems(problems[::-1], 45) == chosen
    assert evaluate.select_problems(problems, 50)[:45] == chosen
    first = [problem for problem in problems if int(problem.id.split("-")[-1]) < 3]
    assert set(chosen) != set(first)
    # Where a group runs out the others give more; where all run out there are all.
    few = [make_problem(i) for i in range(2)] + [make_problem(10 + i, "logic", 5) for i in range(10)]
    assert Counter(p.category for p in evaluate.select_problems(few, 8)) == {"algebra": 2, "logic": 6}
    assert sorted(evaluate.select_problems(few, 99), key=few.index) == few


def test_a_part_of_a_benchmark_has_the_mixture_of_the_whole():
    problems = [make_problem(i, difficulty=5 if i % 10 else 1) for i in range(1000)]
    chosen = evaluate.select_problems(problems, 300, evenly=False)
    assert 0.06 < sum(problem.difficulty == 1 for problem in chosen) / 300 < 0.14
    assert evaluate.select_problems(problems[::-1], 400, evenly=False)[:300] == chosen
