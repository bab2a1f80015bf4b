"""What Orbax still prints, with tracebacks, of an error that it has already raised.

It reads and writes many arrays at once and raises the first error. Every other array that fails then finds nobody who
listens: its task ends unheard, its answer meets a closed event loop, and a full disk is logged in each thread. The
error raised says all of it; the rest is noise, and looks to a user as if the program had broken.
"""

import functools
import logging
import sys

from absl import logging as absl_logging

from tiny_reasoning_jax.errors import is_full_disk


@functools.cache
def silence() -> None:
    """Drops that noise for as long as the process lives; call it before Orbax is given work.

    asyncio is Orbax's alone in these processes: whatever task of it ends unheard counts as noise.
    """
    for logger in (absl_logging.get_absl_logger(), logging.getLogger("asyncio")):
        logger.addFilter(_is_news)
    print_unraisable = sys.unraisablehook
    is_late = lambda error: isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
    sys.unraisablehook = lambda unraisable: None if is_late(unraisable.exc_value) else print_unraisable(unraisable)


def _is_news(record: logging.LogRecord) -> bool:
    """False for an array's error after the first, a full disk, and threads of a save that could not begin."""
    error = record.exc_info and record.exc_info[1]
    if not error:
        return True
    unheard = record.name == "asyncio" and "exception was never retrieved" in record.getMessage()
    return not (unheard or is_full_disk(error) or "cannot schedule new futures after" in str(error))
