"""A record of each foreign format, for the tests that read them."""

from tiny_reasoning_jax.data.formats import parse_record
from tiny_reasoning_jax.data.problems import Dropped, Problem


def turns(*texts, role="role", text="content", names=("user", "assistant")):
    return [{role: name, text: content} for name, content in zip(names, texts, strict=True)]


def sharegpt_turns(*texts, names=("human", "gpt")):
    return turns(*texts, role="from", text="value", names=names)


THOUGHT = "<think>\nTwo and two are 4.\n</think>\n\nSo \\boxed{4}."
MARKED = (
    "<|begin_of_thought|>\n\nTwo and two are 4.\n\n<|end_of_thought|>\n\n"
    "<|begin_of_solution|>\n\nSo \\boxed{4}.\n\n<|end_of_solution|>"
)
OPENTHOUGHTS_SYSTEM = (
    "Your role as an assistant involves thoroughly exploring questions through a systematic long thinking process "
    "before providing the final precise and accurate solutions. Please structure your response into two main sections."
)
GSM8K = {"question": "How many?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}
MATH = {
    "problem": "What is $2+2$?",
    "level": "Level 3",
    "type": "Counting & Probability",
    "solution": "It is $\\boxed{\\text{x} + {4}}$.",
}
MBPP = {
    "text": "Write a function to add.",
    "code": "def add(a, b):\r\n\treturn a + b",
    "task_id": 1,
    "test_setup_code": "",
    "test_list": ["assert add(1, 2) == 3", "assert add(2, 2) == 4"],
    "challenge_test_list": [],
}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def add(a, b):\n    """ Adds. """\n',
    "entry_point": "add",
    "canonical_solution": "    return a + b\n",
    "test": "\n\ndef check(candidate):\n    assert candidate(1, 2) == 3\n\n",
}
PROGRAM = {"prompt": "Write f that gives 1.", "tests": ["import math", "assert f() == 1"], "solution": "f = lambda: 1"}
PLAIN = {"question": "How many?", "answer": 4}
MESSAGES = {"messages": turns("How many?", THOUGHT)}
SHAREGPT = {"conversations": sharegpt_turns("How many?", THOUGHT)}
OPENTHOUGHTS = {
    "system": OPENTHOUGHTS_SYSTEM,
    "conversations": sharegpt_turns(
        "Return your final response within \\boxed{}. How many?", MARKED, names=("user", "assistant")
    ),
}
OPENTHOUGHTS_METADATA = {
    "problem": "How many?",
    "deepseek_reasoning": "Two and two are 4.",
    "deepseek_solution": "So \\boxed{4}.",
    "ground_truth_solution": "By counting, $\\boxed{4}$.",
    "domain": "math",
    "source": "numina_math",
    "test_cases": None,
    "starter_code": None,
}
PROMPT_COMPLETION = {"prompt": "How many?", "completion": THOUGHT}
PROMPT_COMPLETION_TURNS = {
    "prompt": turns("How many?", names=("user",)),
    "completion": turns(THOUGHT, names=("assistant",)),
}
VERL = {
    "data_source": "train-math",
    "prompt": turns(
        "How many? Let's think step by step and output the final answer within \\boxed{}.", names=("user",)
    ),
    "ability": "math",
    "reward_model": {"style": "rule", "ground_truth": '["4"]'},
    "extra_info": {"index": 7, "model_difficulty": {"1.5B": 16, "7B": 8, "32B": 0}},
}
OPENR1 = {
    "problem": "How many?",
    "solution": "By counting.",
    "answer": "4",
    "problem_type": "Number Theory",
    "question_type": "math-word-problem",
    "is_reasoning_complete": [True, False, True, True],
    "generations": [
        "<think>\nIt is 5.\n</think>\n\\boxed{5}",
        "<think>\nCut 4.\n</think>\\boxed{4}",
        THOUGHT,
        "<think>\n</think>\\boxed{4}",
    ],
    "correctness_math_verify": [False, True, True, True],
    "correctness_llama": None,
    "messages": turns("How many?", THOUGHT),
}
SAMPLES = [
    ("gsm8k", GSM8K),
    ("math", MATH),
    ("mbpp", MBPP),
    ("humaneval", HUMANEVAL),
    ("program", PROGRAM),
    ("plain", PLAIN),
    ("messages", MESSAGES),
    ("sharegpt", SHAREGPT),
    ("openthoughts", OPENTHOUGHTS),
    ("openthoughts", OPENTHOUGHTS_METADATA),
    ("prompt_completion", PROMPT_COMPLETION),
    ("prompt_completion", PROMPT_COMPLETION_TURNS),
    ("verl", VERL),
    ("openr1", OPENR1),
]


def parse(record, format="auto") -> Problem | Dropped:
    return parse_record(record, "file:1", "file", format)


def read(record, format="auto") -> Problem:
    problem = parse(record, format)
    assert isinstance(problem, Problem), problem
    return problem
