"""python -m pytest tests/data/test_procedural_code.py: laws of the logic and code families that the others lack."""

import ast
import dataclasses
import itertools
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest

from tiny_reasoning_jax.data.problems import DIFFICULTIES, Problem
from tiny_reasoning_jax.data.procedural import FAMILIES, check, checks_code, checks_interpreter, checks_logic, deduction
from tiny_reasoning_jax.data.procedural.families import problems_of
from tiny_reasoning_jax.data.procedural.steps import Draft

ROOM = Path(checks_code.__file__).parent
PROGRAMS = ("assign", "loop", "lists", "strings", "dicts")


def drafts(family: str, difficulty: int, number: int) -> list[Draft]:
    rng = random.Random(f"{family} {difficulty}")
    return [FAMILIES[family][1](rng, difficulty) for _ in range(number)]


def write_problems(number: int = 12) -> list[Problem]:
    return [p for d in DIFFICULTIES for p in itertools.islice(problems_of("test", "write", d, seed=1), number)]


def names_after(program: str) -> dict:
    """What Python itself makes of a program that we wrote."""
    names = {"print": lambda value: names.setdefault("printed", []).append(str(value))}
    exec(program, names)
    return names


# --- the interpreter ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", PROGRAMS)
def test_the_interpreter_prints_what_python_prints(family):
    for difficulty in DIFFICULTIES:
        for draft in drafts(family, difficulty, 60):
            program = draft.prompt.split("\n", 1)[1]
            assert checks_interpreter.run(program).printed == names_after(program)["printed"], program


@pytest.mark.parametrize(
    "program",
    [
        "x=[3,1,2]\ny=x\ny+=[5]\nx.sort()\nprint(x)",
        "for i in range(9):\n    if i%2:\n        continue\n    if i>5:\n        break\nelse:\n    print(1)\nprint(i)",
        "n=0\nwhile True:\n    n+=1\n    if n>4:\n        break\nprint(n if n!=3 else -n)",
        "def f(n):\n    return 1 if n<2 else n*f(n-1)\nprint(f(20))",
        "def f(x):\n    def g(y):\n        return x+y\n    return g(2)\nprint(f(3))",
        "sum=0\nfor v in [1,2]:\n    sum+=v\nprint(sum)",
        "def max(a):\n    return a+1\nprint(max(3))",
        "f=lambda x,y:(x,y)\na,b=f(1,2)\nprint(-a<b<=2 and not a==b or 7)",
        'd={"a":1}\nd["b"]=2\nd["a"]-=5\nprint([k+str(v) for k,v in d.items() if k in d])',
        'print("-".join(["a","b"]).upper()[::-1])\nprint(max([2,9,4]),min(3,1),abs(-4),2**10,17//-5,-17%5)',
        "x=[1,2,3,4]\nx[0],x[-1]=x[-1],x[0]\nprint(x[1:3])\nprint(sum(v*v for v in x if v>1))",
    ],
)
def test_the_interpreter_agrees_with_python_on_every_construct(program, capsys):
    exec(program, {})
    assert "\n".join(checks_interpreter.run(program).printed) == capsys.readouterr().out.strip()


HOSTILE = [
    "", " ", "\x00", "\ud800", "x" * 5000, "(" * 900, "-" * 900 + "x", "[" * 99 + "]" * 99, "x" + "+x" * 400,
    "import os", "__import__('os').system('true')", "open('/etc/passwd')", "().__class__", "x.__class__", "f.scope",
    "exec('1')", "eval('1')", "globals()", "print", "lambda x: x.real", "'{0.__class__}'.format(x)", "f'{x}'",
    "10**10**10", "2**999999", "x**x**x**x", "9" * 900, "'a'*10**9", "[0]*10**9", "range(10**30)", "1<<10**9",
    "list(range(10**8))", "sum(range(10**9))", "1.5*x", "x/2", "1j", "...", "b'a'", "x:=3", "return", "yield x",
    "while True: pass", "while 1:\n    x=x*x", "for i in range(10**9): pass", "return f(x)", "def f(x): return f(x)",
    "def f(x): return f(x-1)+f(x-2)", "f=lambda x: f(x+1)", "def f(x):\n    break", "break", "continue",
    "for i in range(3):\n    f(x)\n    break", "def f(*x): return 1", "def f(x,y=2): return x", "class f: pass",
    "def f(): return 3", "f=3", "f=f", "f=print", "f=len", "lambda x: lambda: x", "raise ValueError", "assert 0",
    "try:\n    x\nexcept: pass", "with x: pass", "del x", "global x", "async def f(x): return 1",
    "@f\ndef f(x): return 1",
    "x=[1]\nx.append(x)\nreturn x", "x=[1]\nfor v in x: x.append(v)", "d={1:2}\nfor k in d: d[k+99]=1",
    "x=[1]\n" + "x=[x,x]\n" * 40 + "return str(x)", "s='ab'\n" + "s=s.replace('a',s*9)\n" * 20 + "return s",
    "s='a'*999\nreturn s.replace('a',s)", "'a'.join(['b'*999]*999)", "x=[9]*999\nwhile 1: x.sort()",
    "return [i*j for i in range(999) for j in range(999)]", "{**x}", "[*x]", "sorted(x,key=f)", "x[0:1]", "x[::0]",
    "return sum([[1],[2]],[])", "3x+2", "\\frac{1}{2}", "x+", "if x:", "d={[1]:2}", "{}[x]", "1//0", "int('a')",
    "elif\n" * 50, "\n".join(" " * i + "if x:" for i in range(40)), "x if x else " * 60 + "x", "not " * 240 + "x",
]  # fmt: skip


def test_no_text_of_a_model_makes_the_check_raise_hang_or_pass():
    for problem in write_problems(2):
        for text in HOSTILE:
            start = time.process_time()
            assert check(dataclasses.replace(problem, answer=text)) is False, text
            assert time.process_time() - start < 1, text


def test_random_damage_never_makes_the_check_raise():
    rng, letters = random.Random(0), "xyvf0123456789+-*/%()[]{}:=<>,.'\" \n\\_#@&|^~!if for in return lambda"
    for problem in write_problems(8):
        for _ in range(30):
            text = list(problem.answer)
            for _ in range(rng.randint(1, 4)):
                text[rng.randrange(len(text))] = "".join(rng.choices(letters, k=rng.randint(0, 3)))
            assert check(dataclasses.replace(problem, answer="".join(text))) in (True, False)


@pytest.mark.parametrize(
    "program",
    [
        "n=0\nwhile n>=0:\n    n+=1",
        "def f(n):\n    return f(n)\nf(1)",
        "x=[1]*2000",
        "x=list(range(900))\nx=x+x",
        's="a"*900\ns=s+s',
        "range(1001)",
        "x=2**120\nx=x*x*x",
        "x=1\n" * 251,
    ],
)
def test_the_limits_end_programs_that_do_not_end(program):
    with pytest.raises(ValueError, match="more than"):
        checks_interpreter.run(program)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("(1).bit_length()", "bit_length is not allowed"),
        ("'{0}'.format(1)", "format is not allowed"),
        ("(3).__add__(4)", "__add__ is not allowed"),
        ("_a=1", "_a is not allowed"),
        ("x=[[1]]", "numbers and texts only"),
        ("def f():\n    break\nfor i in [1,2]:\n    f()", "outside a loop"),
        ("return 1", "wrong place"),
        ("f=lambda *x: 1", "plain parameters"),
        ("print(1.5)", "float"),
        ("print(1/2)", "Div is not allowed"),
    ],
)
def test_constructs_that_python_knows_and_the_interpreter_does_not_are_refused_by_name(program, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        checks_interpreter.run(program)


def test_the_interpreter_hands_no_text_to_python():
    called = {
        node.func.id
        for name in ("checks_interpreter.py", "checks_code.py", "checks_logic.py")
        for node in ast.walk(ast.parse((ROOM / name).read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not called & {"exec", "eval", "compile", "__import__"} and "getattr" in called


def test_checks_import_only_checks():
    for path in ROOM.glob("checks_*.py"):
        for module in re.findall(r"^from (tiny_reasoning_jax\S*) import", path.read_text(), re.M):
            assert module.startswith("tiny_reasoning_jax.data.procedural.checks_"), (path, module)


# --- write a function -----------------------------------------------------------------------------


def test_every_right_form_of_a_function_is_accepted():
    for problem in write_problems():
        code, names = problem.answer, "x,y" if "y" in problem.answer else "x"
        forms = [
            code, f"({code})", f" {code} \n", f"return {code}", f"lambda {names}: {code}", f"f=lambda {names}:{code}",
            f"def f({names}):\n    return {code}", f"r={code}\nreturn r",
            f"```python\ndef f({names}): return {code}\n```",
            f"def g({names}):\n    return {code}\ndef f({names}):\n    return g({names})", f"{code} # done",
        ]  # fmt: skip
        for form in forms:
            assert check(dataclasses.replace(problem, answer=form)), (form, problem)


@pytest.mark.parametrize(
    ("form", "asserts", "answers"),
    [
        ("a*x+b", ["f(2)==8", "f(5)==17"], ["2+x*3", "x+x+x+2", "3*(x+1)-1",
         "if x>3:\n    return 2+3*x\nreturn 3*x+2"]),
        ("a*x+b*y+c", ["f(0,0)==1", "f(1,0)==3", "f(0,1)==5"], ["1+2*(x+2*y)", "s=1\ns+=x*2\ns+=4*y\nreturn s"]),
        ("a*x if x>k else x+b", ["f(3)==5", "f(4)==6", "f(5)==15", "f(7)==21"],
         ["x+2 if x<5 else x*3", "[x+2,3*x][x>4]", "if x>=5: return 3*x\nreturn 2+x"]),
        ("[a*v+b for v in x if v%m==r]", ["f([1])==[5]", "f([3])==[11]", "f([1,2,3,4])==[5,11]"],
         ["t=[]\nfor v in x:\n    if v%2: t.append(3*v+2)\nreturn t", "[2+3*i for i in x if i%2!=0]"]),
    ],
)  # fmt: skip
def test_other_right_programs_are_accepted(form, asserts, answers):
    prompt = "\n".join([f"Write f(x) as {form}.", *(f"assert {test}" for test in asserts)])
    for answer in answers:
        assert checks_code.accepts_function(prompt, answer), answer


def test_wrong_functions_are_rejected_even_if_they_learned_the_asserts_by_heart():
    rejected = 0
    for problem in write_problems():
        for found in re.finditer(r"(?<!%)\d+", problem.answer):
            wrong = problem.answer[: found.start()] + str(int(found[0]) + 1) + problem.answer[found.end() :]
            assert not check(dataclasses.replace(problem, answer=wrong)), (wrong, problem)
            rejected += 1
        cases = re.findall(r"assert f\((.*)\)==(.*)", problem.prompt)
        if "y" not in problem.answer and "[" not in problem.answer:
            table = "{" + ",".join(f"{x}:{value}" for x, value in cases) + "}[x]"
            assert not check(dataclasses.replace(problem, answer=table)), (table, problem)
            rejected += 1
    assert rejected > 100


# --- find the bug ---------------------------------------------------------------------------------


def changed_lines(prompt: str) -> set[str]:
    """The lines that can be wrong: the text is changed sign by sign or number by number and run by Python itself."""
    question, *lines = prompt.split("\n")
    tests = [line for line in lines if line.startswith("assert")]
    tests += [
        "assert " + re.sub(r" should be ", "==", goal) for goal in re.findall(r"[ab-z] should be -?\d+", question)
    ]
    code = [line.split(" ", 1)[1] for line in lines if not line.startswith("assert")]
    found = set()
    for at, line in enumerate(code):
        for part in re.finditer(r"\d+" if "number" in question else r"[-+*]", line):
            if "number" in question:
                others = [str(int(part[0]) - 1), str(int(part[0]) + 1)]
            else:
                others = set("+-*" if "*" in question else "+-") - {part[0]}
            for other in others:
                changed = line[: part.start()] + other + line[part.end() :]
                try:
                    names_after("\n".join([*code[:at], changed, *code[at + 1 :], *tests]))
                except AssertionError:
                    continue
                found.add(str(at + 1))
    with pytest.raises(AssertionError):
        names_after("\n".join([*code, *tests]))
    return found


def test_exactly_one_line_of_a_wrong_program_can_be_wrong():
    for difficulty in DIFFICULTIES:
        for draft in drafts("bug", difficulty, 250):
            assert changed_lines(draft.prompt) == {draft.answer}, draft


def test_a_bug_that_two_lines_explain_is_refused():
    program = "a + or - is wrong: a should be 5. Which line?\n1 a=9\n2 a+={}\n3 a+={}"
    assert checks_code.solve_bug(program.format(2, 3).replace("be 5", "be 8")) == "3"
    with pytest.raises(ValueError, match="lines .*2.*3.* may be wrong"):
        checks_code.solve_bug(program.format(2, 2).replace("be 5", "be 9"))
    with pytest.raises(ValueError, match="nothing is wrong"):
        checks_code.solve_bug(program.format(1, 2).replace("be 5", "be 12"))


# --- logic ----------------------------------------------------------------------------------------


def conclusions(prompt: str, may_be_empty: bool) -> set[str]:
    """What holds about the two kinds in every world of at most four kinds that fits the facts: the strongest of it.

    A world is a number whose bit t says whether it has things of type t; bit k of t, whether these are of kind k.
    """
    facts = [fact.split() for fact in re.findall(r"(?:All|No|Some)[^.]+", prompt)]
    asked = re.search(r"(?:many|Are|unknown:) (\w+) (?:are )?(\w+)", prompt)
    kinds = sorted({word for fact in facts for word in (fact[1], fact[-1])})
    types = np.arange(2 ** len(kinds))
    worlds = np.arange(2 ** len(types), dtype=np.uint32)
    has = lambda kind: types >> kinds.index(kind.strip(".")) & 1 == 1
    count = lambda which: worlds & np.uint32(sum(1 << int(t) for t in types[which])) != 0
    for fact in facts:
        x, y = has(fact[1]), has(fact[-1])
        if fact[0] == "Some":
            worlds = worlds[count(x & (~y if "not" in fact else y))]
        else:
            worlds = worlds[~count(x & (y if fact[0] == "No" else ~y))]
    for kind in kinds if not may_be_empty else ():
        worlds = worlds[count(has(kind))]
    a, c = has(asked[1]), has(asked[2])
    assert len(worlds)
    holds = {"all": ~count(a & ~c), "none": ~count(a & c), "some": count(a & c), "not all": count(a & ~c)}
    found = {word for word, value in holds.items() if value.all()}
    return found & {"all", "none"} or found or {"unknown"}


def test_syllogisms_against_all_worlds():
    num_compared = 0
    for draft in drafts("syllogism", 1, 400) + drafts("syllogism", 2, 300):
        if len(set(re.findall(r"\b\w+s\b", draft.prompt))) <= 4:
            assert conclusions(draft.prompt, True) == conclusions(draft.prompt, False) == {draft.answer}, draft
            num_compared += 1
    assert num_compared > 100


def test_renamed_and_shuffled_facts_are_the_same_syllogism():
    rng, forms = random.Random(0), set()
    for difficulty in DIFFICULTIES:
        for _ in range(100):
            facts = None
            while facts is None:
                facts = deduction._draw_facts(rng, "some", 2 + difficulty, 2)
            others = [0, 1, *rng.sample(range(2, 8), 6)]
            renamed = [(word, others[x], others[y]) for word, x, y in rng.sample(facts, len(facts))]
            assert deduction._canonical(facts) == deduction._canonical(renamed)
            forms.add(deduction._canonical(facts))
    assert len(forms) > 300


def ways(prompt: str) -> list[dict[str, int]]:
    """Every way to fill the seats that fits the clues, as Python reads them."""
    clues = re.search(r"one each\. (.*\.) ", prompt)[1]
    people = sorted(set(re.findall(r"[A-Z][a-z]+", clues)))
    for words, meaning in (
        (r"(\w+) does not have seat (\d)\.", r"\1!=\2,"), (r"(\w+) has seat (\d)\.", r"\1==\2,"),
        (r"(\w+) is not beside (\w+)\.", r"abs(\1-\2)>1,"), (r"(\w+) is beside (\w+)\.", r"abs(\1-\2)==1,"),
        (r"(\w+) is (\d) left of (\w+)\.", r"\1+\2==\3,"), (r"(\w+) is (\d) right of (\w+)\.", r"\1==\2+\3,"),
        (r"(\w+) is left of (\w+)\.", r"\1<\2,"), (r"(\w+) is right of (\w+)\.", r"\1>\2,"),
    ):  # fmt: skip
        clues = re.sub(words, meaning, clues)
    test = compile(f"all(({clues}))", "clues", "eval")
    num_seats = int(re.search(r"1 to (\d)", prompt)[1])
    tried = (
        dict(zip(people, way, strict=True)) for way in itertools.permutations(range(1, num_seats + 1), len(people))
    )
    return [way for way in tried if eval(test, dict(way))]


def test_seats_can_be_filled_in_one_way_only():
    for difficulty in DIFFICULTIES:
        for draft in drafts("seats", difficulty, 40 if difficulty < 4 else 8):
            (way,) = ways(draft.prompt)
            asked = re.search(r"(\w+)[?.]$", draft.prompt)[1]
            assert str(way[asked]) == draft.answer


def test_seats_with_a_clue_too_few_are_refused_where_more_ways_are_left():
    num_refused = 0
    for draft in drafts("seats", 2, 60):
        clue = re.findall(r"[A-Z]\w+ (?:is|has|does)[^.?]*\.", draft.prompt)[-1]
        fewer = draft.prompt.replace(f" {clue}", "", 1)
        if len(ways(fewer)) > 1:
            with pytest.raises(ValueError, match="ways fit"):
                checks_logic.solve_seats(fewer)
            num_refused += 1
    assert num_refused > 10
