"""What a run refuses: one class for each exit code, so that a script that started it knows what kind of help it needs.

`main.py` and the converter print these without a traceback (the converter always with exit code 2); any other exception
is our defect and keeps its own.
"""

import errno
import os

# Told to stop by SIGTERM or a first Ctrl-C, whatever was being done, and all that can be kept is: the same command goes
# on. EX_TEMPFAIL of sysexits.h.
STOPPED = 75
# Ctrl-C while training stops, which saves nothing more: 128 + SIGINT, as shells have it.
INTERRUPTED = 130


def is_full_disk(error: BaseException) -> bool:
    """Whether a write failed for want of room, or over a quota. TensorStore's ValueErrors say it in their text."""
    if isinstance(error, OSError) and error.errno:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    told = ("RESOURCE_EXHAUSTED", os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))
    return isinstance(error, ValueError | OSError) and any(text in str(error) for text in told)


class UserError(ValueError):
    """A mistake the user can mend. The message says what was found, what was expected, and what to do."""

    exit_code = 2


class ShortageError(UserError):
    """Disk, memory or the card does not suffice; nothing is wrong with the run."""

    exit_code = 3


class DamagedError(UserError):
    """Files are not what was written: cut off, changed or missing."""

    exit_code = 4


class OtherRunError(UserError):
    """The folder is another run's, another process works in it, or what the run was begun with has changed."""

    exit_code = 5


class NumericsError(UserError):
    """A loss or a gradient is not finite, or the loss diverges."""

    exit_code = 6


class StalledError(UserError):
    """A stage, or a process that feeds it, has made no progress for longer than it may."""

    exit_code = 7
