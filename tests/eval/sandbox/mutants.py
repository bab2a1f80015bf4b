"""Reference solutions of HumanEval and MBPP made wrong in one place, and a judge that shares nothing with the sandbox.

python tests/eval/sandbox/mutants.py [HOW_MANY_EACH]     counts how many are caught
"""

import ast
import collections
import copy
import json
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[3]
DATA = ROOT.parent / "shared" / "data"
SOURCES = (str(DATA / "humaneval" / "HumanEval.jsonl.gz"), str(DATA / "mbpp" / "mbpp.jsonl"))

COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATIONS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.FloorDiv, ast.FloorDiv: ast.Mult,
              ast.Mod: ast.FloorDiv}  # fmt: skip


def swap_comparison(node: ast.AST) -> bool:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        node.ops = [COMPARISONS[type(node.ops[0])](), *node.ops[1:]]
        return True
    return False


def swap_operation(node: ast.AST) -> bool:
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATIONS:
        node.op = OPERATIONS[type(node.op)]()
        return True
    return False


def add_one(node: ast.AST) -> bool:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        node.value += 1
        return True
    return False


def return_nothing(node: ast.AST) -> bool:
    if isinstance(node, ast.Return) and node.value is not None:
        node.value = ast.Constant(None)
        return True
    return False


def negate_condition(node: ast.AST) -> bool:
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        node.test = ast.UnaryOp(ast.Not(), node.test)
        return True
    return False


MUTATIONS: tuple[Callable[[ast.AST], bool], ...] = (
    swap_comparison, swap_operation, add_one, return_nothing, negate_condition,
)  # fmt: skip


def find_places(program: str) -> list[tuple[int, Callable[[ast.AST], bool]]]:
    """Returns where a program can be made wrong, and how."""
    nodes = enumerate(ast.walk(ast.parse(program)))
    return [(number, mutation) for number, node in nodes for mutation in MUTATIONS if mutation(copy.copy(node))]


def mutate(program: str, number: int, mutation: Callable[[ast.AST], bool]) -> str:
    """Returns the program with one place made wrong."""
    tree = ast.parse(program)
    mutation(list(ast.walk(tree))[number])
    return ast.unparse(tree)


def return_nothing_anywhere(program: str) -> str:
    """Returns the program with every return made one of None."""
    tree = ast.parse(program)
    for node in ast.walk(tree):
        return_nothing(node)
    return ast.unparse(tree)


# Runs each job in a fork of a plain Python, program and tests in one namespace; the exit status is the verdict.
PLAIN_JUDGE = """
import json, os, random, resource, sys
import collections, heapq, itertools, math, re, typing

for program, tests in json.load(sys.stdin):
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (2, 2))
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        null = os.open(os.devnull, os.O_RDWR)
        for fd in range(3):
            os.dup2(null, fd)
        random.seed(0)
        try:
            exec(program + "\\n" + tests, {"__name__": "program"})
        except BaseException:
            os._exit(1)
        os._exit(0)
    print(int(os.waitpid(pid, 0)[1] == 0), flush=True)
"""


def judge_plainly(jobs: list[tuple[str, str]]) -> list[bool]:
    """Returns which programs pass their tests in a plain Python."""
    command, environment = [sys.executable, "-S", "-c", PLAIN_JUDGE], {"PYTHONHASHSEED": "0"}
    done = subprocess.run(
        command, input=json.dumps(jobs), stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    return [line == "1" for line in done.stdout.split()]


def read_references() -> list[tuple[str, str]]:
    """Returns the program and the tests of every problem, through the project's own readers."""
    from tiny_reasoning_jax.data.sources import read_source

    problems = [problem for source in SOURCES for problem in read_source(source)]
    return [(problem.answer.partition("```python\n")[2].rpartition("```")[0], problem.tests) for problem in problems]


def draw_mutants(references: list[tuple[str, str]], count: int) -> list[tuple[str, str, str]]:
    """Returns (mutation, program, tests), up to `count` for each reference."""
    rng, drawn = random.Random(0), []
    for program, tests in references:
        places = find_places(program)
        for number, mutation in rng.sample(places, min(count, len(places))):
            drawn.append((mutation.__name__, mutate(program, number, mutation), tests))
    return drawn


def main(count: int) -> None:
    sys.path.insert(0, str(ROOT))
    from tiny_reasoning_jax.eval.sandbox import Sandbox

    mutants = draw_mutants(read_references(), count)
    jobs = [(program, tests) for _, program, tests in mutants]
    with Sandbox(seconds=2) as sandbox:
        outcomes = sandbox.judge_all(jobs)
    plain = judge_plainly(jobs)
    caught, made = collections.Counter(), collections.Counter()
    for (name, program, tests), outcome, passes in zip(mutants, outcomes, plain, strict=True):
        made[name] += 1
        caught[name] += not outcome.passed
        if outcome.passed != passes:
            print(f"sandbox {outcome}, plain Python {passes}:\n{program}\n{tests}")
    for name in made:
        print(f"{name}: {caught[name]} of {made[name]} caught")
    agree = sum(outcome.passed == passes for outcome, passes in zip(outcomes, plain, strict=True))
    print(f"all: {sum(caught.values())} of {len(jobs)} caught; plain Python agrees on {agree}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
