"""Judgements per second on one core, for every form of answer. CPU only.

    python benchmarks/answers.py --gsm8k DIR --math FILE --output benchmarks/results/answers.json

Every reference answer of MATH and GSM8K is judged twice in a completion of about 1,000 characters: in other spelling,
and another answer of its form in its place. What the grader keeps is forgotten after every judgement, so that each
answer is read anew. "math-verify" are questions that only it can answer.
"""

import argparse
import json
import platform
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tiny_reasoning_jax.answers import VERSION, Verdict, extract, grade, latex, quantities, slow, values
from tiny_reasoning_jax.answers.expression import read

STEPS = "So we add what is left to the 12 from before, which gives $3x + 4 = 16$ and therefore a little more. " * 10
PASSES = 5
# The first that is found in an answer is its form.
FORMS = {
    "matrix": r"\\begin",
    "interval": r"\\infty|\\cup|\\in\b|^(\\left)?\s?\[|^(\\left)?\(.*\]$",
    "tuple, set": r"^(\\left)?\s?(\(|\\\{).*,.*(\)|\\\})$",
    "base": r"\d_",
    "equation": r"=|<",
    "percent": r"%",
    "money": r"\\\$",
    "integer": r"^-?\d{1,3}((,|,?\\!|\{,\}|, \\! )?\d{3})*$",
    "list": r",|\\pm|and",
    "choice, word": r"^(\\text|\\mbox|\()?[({]*[A-Za-z][A-Za-z :,.]*[)}]*$",
    "number with a unit": r"\\text|\\mbox|^-?\d+\^.*circ",
    "radical or pi": r"\\sqrt|\\pi",
    "complex": r"\di\b|^i$",
    "polynomial": r"[a-zA-Z]\b(?!\{)(?<!frac)|\^|!",
    "mixed number": r"\d\s?\\frac",
    "fraction": r"frac|/",
    "decimal": r"\d?\.\d",
}
QUESTIONS = [(f"\\int_0^{n} x \\, dx", f"\\frac{{{n * n}}}{{2}}") for n in range(1, 21)]


def find_form(answer: str) -> str:
    return next((form for form, pattern in FORMS.items() if re.search(pattern, answer)), "other")


def respell(answer: str) -> str:
    """The same answer with other spacing and other commands."""
    text = re.sub(r"(?<![\d{]),|,(?=-)", ", ", answer.replace("\\frac", "\\dfrac"))
    return f"${text}$."


def forget() -> None:
    for kept in (latex.clean, quantities.read_quantity, read, values.variables, values._is_rational, values._sample):
        kept.cache_clear()


def measure(golds: list[str]) -> dict:
    """Judges the answers of one form; returns judgements per second of CPU and what they were."""
    others = [*golds[1:], golds[0]]
    asked = [(found, gold) for gold, other in zip(golds, others, strict=True) for found in (respell(gold), other)]
    seconds = 0.0
    for _ in range(PASSES):
        verdicts = []
        start = time.process_time()
        for found, gold in asked:
            verdicts.append(grade(f"{STEPS}</think>\n\\boxed{{{found}}}", gold))
            forget()
        seconds += time.process_time() - start
    correct = [verdict is Verdict.CORRECT for verdict in verdicts]
    return {
        "per_second": round(PASSES * len(asked) / seconds),
        "distinct_answers": len(golds),
        "correct_respelled": sum(correct[::2]),
        "correct_though_another": sum(correct[1::2]),  # the same number or letter in two spellings
    }


def measure_math_verify() -> float:
    slow.ask(*QUESTIONS[0])
    slow.ask.cache_clear()
    start = time.perf_counter()
    assert all(slow.ask(*question) for question in QUESTIONS)
    return len(QUESTIONS) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsm8k", type=Path, required=True)
    parser.add_argument("--math", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    answers = [extract(json.loads(line)["solution"]) for line in args.math.open(encoding="utf-8")]
    for name in ("train", "test"):
        lines = (args.gsm8k / f"{name}.jsonl").open(encoding="utf-8")
        answers += [extract(json.loads(line)["answer"]) for line in lines]
    forms = {}
    for answer in answers:
        forms.setdefault(find_form(answer), []).append(answer)
    results = {
        form: {"records": len(of), **measure(list(dict.fromkeys(of)))}
        for form, of in sorted(forms.items(), key=lambda item: -len(item[1]))
    }
    for form, result in results.items():
        print(
            f"{form}: {result['per_second']:,} a second; {result['records']:,} records, {result['distinct_answers']:,} "
            f"answers, of which respelled {result['correct_respelled']:,} are correct, and "
            f"{result['correct_though_another']} of their neighbours"
        )
    asked_before = slow.counts["asked"]
    facts = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "grader": VERSION,
        "forms": results,
        "asked_of_math_verify": asked_before,
        "math_verify_per_second": round(measure_math_verify(), 1),
    }
    print(f"math-verify: {facts['math_verify_per_second']} a second; asked {asked_before} times by the forms above")
    if args.output:
        args.output.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
