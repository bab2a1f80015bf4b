"""Run: pytest tests/eval/sandbox/test_attacks.py. Each attack is stopped, and works where there is no sandbox."""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from world import ATTACKS, OPTIONAL, ROOT_ONLY, SECRET, SLOW, World, make_program, make_tests, run_without_sandbox

from tiny_reasoning_jax.eval.sandbox import Sandbox

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="attacks use x86-64's numbers of system calls")


@pytest.fixture
def world():
    with World() as world:
        yield world


@pytest.fixture(scope="module")
def sandboxed_world():
    """One world for all attacks: none may change it. Its secrets are there when the sandbox starts."""
    with pytest.MonkeyPatch.context() as patch, World() as world:
        patch.setenv("API_TOKEN", SECRET)
        with Sandbox(num_workers=1, seconds=1) as sandbox:
            yield world, sandbox


def test_there_are_many_and_each_says_what_it_tries():
    assert len(ATTACKS) >= 40
    assert all(function.__doc__ for function in ATTACKS.values())


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_stopped(name, sandboxed_world, capfd):
    world, sandbox = sandboxed_world
    outcome = sandbox.judge(make_program(name), make_tests(world.facts))
    alive = sandbox.judge("def f(): return 1", "assert f() == 1")
    assert not outcome.passed
    assert outcome.detail
    assert not world.is_touched()
    assert SECRET not in outcome.detail.replace(repr(SECRET), "")
    assert len("".join(capfd.readouterr())) < 1000
    assert alive.passed, "the worker did not survive"


@pytest.mark.parametrize("name", ATTACKS)
def test_the_attack_works_without_a_sandbox(name, world):
    if name in ROOT_ONLY and os.getuid():
        pytest.skip("needs root to work at all")
    succeeded, report = run_without_sandbox(name, world)
    if not succeeded and name in OPTIONAL:
        pytest.skip(f"this kernel does not offer it: {report}")
    assert succeeded, report


NOBODY = 65534
ROOT = Path(__file__).parents[3]
WORKS_FOR_ANYONE = "read_with_open,overwrite,connect_tcp,connect_abstract,fork,kill,execute,make_shared_memory"


def test_every_attack_is_stopped_for_a_user_without_rights_too():
    """Root is not needed. The interpreter of these tests may lie where only root can go; then the system's is taken."""
    if os.getuid():
        pytest.skip("the other tests have just shown it: they are not run by root")
    user = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}
    for python in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin") or sys.executable):
        version = "import sys; sys.exit(sys.version_info < (3, 11))"
        try:
            usable = subprocess.run([python, "-c", version], **user).returncode == 0
        except PermissionError:
            continue
        if usable:
            break
    else:
        pytest.skip("no Python 3.11 that another user can run")
    command = [python, str(Path(__file__).with_name("world.py")), WORKS_FOR_ANYONE]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}, **user)
    assert done.returncode == 0, done.stderr
    uid, outcomes, plain = json.loads(done.stdout)
    assert uid == NOBODY
    assert set(outcomes) == set(ATTACKS) - SLOW
    assert not {name: outcome for name, outcome in outcomes.items() if outcome[0] or outcome[2]}
    assert all(succeeded for succeeded, _ in plain.values()), plain
