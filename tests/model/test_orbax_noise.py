"""pytest tests/model/test_orbax_noise.py: Orbax's errors are told once, and nobody else's are swallowed."""

import asyncio
import errno
import gc
import logging
import sys
import types

import pytest
from absl import logging as absl_logging

from tiny_reasoning_jax.model import orbax_noise

NOISE = {
    "a full disk": ("absl", OSError(errno.ENOSPC, "No space left on device")),
    "a full disk, by TensorStore": ("absl", ValueError("RESOURCE_EXHAUSTED: Error writing")),
    "a save that never began": ("asyncio", RuntimeError("cannot schedule new futures after shutdown")),
}


@pytest.fixture
def logged():
    """The records that those who print would get."""
    orbax_noise.silence()
    loggers = absl_logging.get_absl_logger(), logging.getLogger("asyncio")
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append
    for logger in loggers:
        logger.addHandler(handler)
    yield records
    for logger in loggers:
        logger.removeHandler(handler)


def log(name, error):
    logging.getLogger(name).error("a thread failed", exc_info=(type(error), error, None))


@pytest.mark.parametrize("kind", NOISE)
def test_drops_what_is_raised_as_well(logged, kind):
    log(*NOISE[kind])
    assert not logged


def test_drops_the_second_array_that_fails(logged):
    async def read():
        raise ValueError("DATA_LOSS")

    async def gives_up_before():
        asyncio.ensure_future(read())
        await asyncio.sleep(0)

    asyncio.run(gives_up_before())
    gc.collect()
    assert not logged


@pytest.mark.parametrize("name", ["absl", "asyncio"])
def test_other_errors_are_logged(logged, name):
    log(name, OSError(errno.EIO, "Input/output error"))
    logging.getLogger(name).error("without an exception")
    assert len(logged) == 2


def test_only_late_answers_are_passed_over(capsys):
    orbax_noise.silence()
    tell = lambda error: sys.unraisablehook(
        types.SimpleNamespace(exc_type=type(error), exc_value=error, exc_traceback=None, err_msg=None, object=None)
    )
    hooked = sys.unraisablehook
    orbax_noise.silence()
    assert sys.unraisablehook is hooked  # once, however often it is asked for
    tell(RuntimeError("Event loop is closed"))
    assert not capsys.readouterr().err
