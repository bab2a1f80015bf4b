"""Run: pytest tests/eval/sandbox/test_forgeries.py. Wrong programs that pass elsewhere do not pass here."""

import subprocess
import sys

import pytest
from forgeries import FORGERIES, PLAIN_TESTS, TESTS

from tiny_reasoning_jax.eval.sandbox import Sandbox


@pytest.fixture(scope="module", params=[False, True], ids=["sandbox", "unsafe"])
def sandbox(request):
    """Values are compared in another process in both; in the unsafe one the kernel does not keep the two apart."""
    with Sandbox(num_workers=1, seconds=1, unsafe=request.param) as sandbox:
        yield sandbox


def test_the_list_is_long_enough():
    assert len(FORGERIES) >= 20
    assert set(TESTS) <= set(FORGERIES)


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_does_not_pass(name, sandbox):
    outcome = sandbox.judge(FORGERIES[name], TESTS.get(name, PLAIN_TESTS))
    assert not outcome.passed
    assert outcome.detail


@pytest.mark.parametrize("name", FORGERIES)
def test_it_passes_in_one_process_with_its_tests(name):
    code = FORGERIES[name] + "\n" + TESTS.get(name, PLAIN_TESTS)
    assert subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, timeout=60).returncode == 0
