"""Run: pytest tests/answers/test_slow.py. math-verify in its process: asked from threads, killed, disarmed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tiny_reasoning_jax.answers import equal, slow

TOWER = "5^{5^{5^{5^{5}}}}"
HALF = ("\\int_0^1 x \\, dx", "\\frac{1}{2}")


@pytest.fixture(autouse=True)
def fresh():
    """Every test starts without a process, and without what earlier ones were told."""
    slow.ask.cache_clear()
    slow.counts.clear()
    yield
    slow._worker.stop()


def test_it_knows_what_our_grammar_does_not():
    assert slow.ask(*HALF) and not slow.ask(HALF[0], "\\frac{1}{3}")
    assert equal("\\mathbb{R} \\setminus \\{0\\}", "(-\\infty,0)\\cup(0,\\infty)")
    assert not equal("\\mathbb{R} \\setminus \\{1\\}", "(-\\infty,0)\\cup(0,\\infty)")
    assert slow.counts == {"asked": 4, "equal": 2, "different": 2}


@pytest.mark.parametrize(
    ("found", "answer"),
    [
        ("42", "43"), ("x+1", "1+x"), ("blue", "red"), ("(1,2]", "[1,2]"), ("12:00", "1:00"), ("5 cm", "5 m"),
        ("\\text{blue}", "\\sqrt{2}"), ("1, 2, \\ldots, n", "1, 3, \\ldots, n"), (TOWER, f"{TOWER}+1"), ("1e5", "1e6"),
        ("\\int x dx \\text{ is what was asked for}", "\\int x dx"), ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "(1,3)"),
        ("\\frac{1}{0}", "\\frac{2}{0}"), ("1011_2", "1011_3"), ("x = 5", "x = 6"), ("2 + 3", "5"),
    ],
)  # fmt: skip
def test_it_is_not_asked_what_can_be_told_without_it(found, answer):
    equal(found, answer)
    equal(answer, found)
    assert not slow.counts


def test_a_tower_of_powers_is_ended_and_the_next_question_is_answered():
    assert slow.ask(*HALF)
    process = slow._worker._process
    assert not slow.ask(f"\\int_0^1 {TOWER}^{{x}} dx + {TOWER}!", f"{TOWER}!")
    assert process.poll() == -signal.SIGPROF and slow._worker._process is None
    assert slow.ask(HALF[0], "0.5")
    assert slow.counts == {"asked": 3, "equal": 2, "timeout": 1}


def test_a_crash_is_counted_and_the_next_question_is_answered():
    assert slow.ask(*HALF)
    slow._worker._process.kill()
    assert not slow.ask(HALF[0], "\\frac{1}{4}")
    assert slow.ask(HALF[0], "0.5")
    assert slow.counts == {"asked": 3, "equal": 2, "crash": 1}


def test_a_process_that_does_not_start_is_no_exception(monkeypatch, caplog):
    monkeypatch.setattr(slow.sys, "executable", "/bin/false")
    assert not slow.ask(*HALF)
    assert slow.counts == {"asked": 1, "crash": 1} and "did not start" in caplog.text


def test_threads_may_ask_at_once_after_jax_was_imported():
    import jax

    jax.numpy.zeros(3).block_until_ready()
    answers = {}
    threads = [
        threading.Thread(target=lambda n=n: answers.update({n: slow.ask(f"\\int_0^{n} x dx", f"{n * n / 2}")}))
        for n in range(1, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == dict.fromkeys(range(1, 9), True)


def test_a_forked_copy_starts_a_process_of_its_own():
    script = f"""
import os
from tiny_reasoning_jax.answers import slow
assert slow.ask(*{HALF!r})
pid, child = slow._worker._process.pid, os.fork()
assert slow.ask({HALF[0]!r}, "0.5") and (slow._worker._process.pid == pid) == (child != 0)
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert slow.ask({HALF[0]!r}, "0.50")
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("ending", ["exit", "kill", "kill while it hangs"])
def test_nothing_is_left_behind(ending):
    asks = f"slow.LIMIT_SECONDS = 100; slow.ask('\\\\int_0^1 {TOWER}^{{x}} dx', '{TOWER}')"
    script = f"""
import sys, threading, time
from tiny_reasoning_jax.answers import slow
slow.ask(*{HALF!r})
print(slow._worker._process.pid, flush=True)
if {ending!r} == "exit":
    sys.exit()
if {ending!r} == "kill while it hangs":
    threading.Thread(target=lambda: exec({asks!r}), daemon=True).start()
time.sleep(100)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    if ending != "exit":
        time.sleep(0.5)
        parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(200):
        if not is_alive(pid):
            return
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    raise AssertionError("the process outlived whoever started it")


CODE = [
    "__import__('os').system('touch {mark}')",
    "\\text{{__import__('os').system('touch {mark}')}}",
    "\\mathrm{{__import__('os').system('touch {mark}')}}",
    "\\operatorname{{exec}}(open('{mark}','w'))",
    "open('{mark}','w')",
    "x\\int_0^1 __import__('os').system('touch {mark}') dx",
    "\\int_0^1 x dx + \\text{{exec(\"open('{mark}','w')\")}}",
    "$__import__('os').system('touch {mark}')$",
    "\\(1\\) \\[__import__('os').system('touch {mark}')\\]",
    "1.__class__.__base__.__subclasses__()",
    "lambda: open('{mark}','w')",
    "x_{{__import__('os').system('touch {mark}')}}",
    "\\frac{{open('{mark}','w')}}{{1}}",
    "}}__import__('os').system('touch {mark}'){{",
    "5}}$ __import__('os').system('touch {mark}') ${{",
    "[open('{mark}','w') for _ in (1,)]",
    "'''+open('{mark}','w').name+'''",
    "Integer(open('{mark}','w').fileno())",
    "\\sum_{{k=open('{mark}','w')}}^{{2}} k",
]


def test_text_of_a_model_never_runs(tmp_path):
    mark = tmp_path / "ran"
    for code in CODE:
        text = code.format(mark=mark)
        assert not equal(text, "1") and not equal("x^2", text)
        for found, answer in ((text, "x"), ("x", text), (text, text)):
            slow.ask(found, answer)
        assert not mark.exists(), code
    assert slow.counts["asked"] == 3 * len(CODE) and not slow.counts["crash"]


def test_sympys_eval_is_out_of_reach(tmp_path):
    """Even the reader of plain expressions, which we do not use, and sympify find no interpreter."""
    mark = tmp_path / "ran"
    script = f"""
import sympy
from tiny_reasoning_jax.answers import worker
worker._disarm()
for text in ("open({str(mark)!r}, 'w')", "Symbol('x').__class__", "2+2"):
    try:
        sympy.sympify(text)
    except (ValueError, sympy.SympifyError):
        continue
    raise AssertionError(text)
assert sympy.sympify("2") == 2 and sympy.Number("2.5") == 2.5
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    assert not mark.exists()
