"""What a child does to itself before any foreign code runs in it; none of it can be undone."""

import os
import platform
import resource
import signal
import sys

from tiny_reasoning_jax.eval.sandbox import kernel, landlock, seccomp

MEMORY_BYTES = 1 << 30  # of address space; Python itself takes 30 MB
FILE_BYTES = 8 << 20  # of one file; with the number of open files it bounds what unlinked files can hold
OPEN_FILES = 32
_INSTALLED = ("site-packages", "dist-packages")  # inside the library's folder, and no part of it


class Confinement:
    """A child's limits and rules. Made once a worker; a forked child enters it.

    Args:
      folder: the one folder that the child may write in.
      seconds: of processor time.
      unsafe: leave out Landlock, seccomp and the capabilities, and keep the limits.

    Raises:
      OSError: the kernel lacks a part.
    """

    def __init__(self, folder: str, seconds: int, unsafe: bool) -> None:
        self._folder = folder
        self._limits = (
            (resource.RLIMIT_CPU, seconds, seconds + 1),  # SIGXCPU says what happened; who catches it gets SIGKILL
            (resource.RLIMIT_AS, MEMORY_BYTES, MEMORY_BYTES),
            (resource.RLIMIT_FSIZE, FILE_BYTES, FILE_BYTES),
            (resource.RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES),
            (resource.RLIMIT_CORE, 0, 0),
            (resource.RLIMIT_MEMLOCK, 0, 0),
            (resource.RLIMIT_MSGQUEUE, 0, 0),
        )
        self._rules = None if unsafe else _make_rules(folder)
        self._filter = None if unsafe else seccomp.make_filter(platform.machine())

    def enter(self, keep: set[int]) -> None:
        """Gives up everything but `keep`, the descriptors that stay open.

        Raises:
          OSError: a step failed; the child must end without running anything.
        """
        parent = os.getppid()
        kernel.die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            raise ProcessLookupError("the parent ended first")
        os.setsid()
        os.chdir(self._folder)
        os.umask(0o077)
        os.environ.clear()
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):  # there is nothing to read, and what is printed goes nowhere
            os.dup2(nothing, number)
        for name, soft, hard in self._limits:
            resource.setrlimit(name, (soft, hard))
        kernel.forbid_inspection()
        kernel.forbid_new_privileges()
        if self._rules is not None:
            kernel.drop_capabilities()
            self._rules.enter()
        _close_all_but({0, 1, 2} | keep)
        if self._filter is not None:
            kernel.install_filter(self._filter)


def limit_descriptors() -> None:
    """Bounds the numbers that a descriptor of this process can have; `Confinement.enter` closes up to there."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * OPEN_FILES, 2 * OPEN_FILES))


def _close_all_but(keep: set[int]) -> None:
    first = 0
    for number in (*sorted(keep), 2 * OPEN_FILES):
        if first < number:  # an empty range at 0 would close all
            os.closerange(first, number)
        first = number + 1


def _make_rules(folder: str) -> landlock.Ruleset:
    """The child's own folder, Python's own library to read, and the two devices that programs expect."""
    rules = landlock.Ruleset(landlock.find_version())
    write, read = landlock.WRITE_FILE | landlock.TRUNCATE, landlock.READ_FILE
    rules.allow(folder, write | read | landlock.READ_DIR | landlock.REMOVE_FILE | landlock.MAKE_FILE)
    rules.allow(os.devnull, write | read)
    rules.allow("/dev/urandom", read)
    for library in python_libraries():
        rules.allow(library, landlock.READ_DIR)  # imports list the folder; what is installed in it stays closed
        for entry in os.scandir(library):
            if entry.name not in _INSTALLED and os.path.exists(entry.path):
                rules.allow(entry.path, read | landlock.READ_DIR)
    return rules


def python_libraries() -> list[str]:
    """Returns the folders of the standard library: all that a program can import."""
    return [os.path.dirname(os.__file__), *(path for path in sys.path if os.path.basename(path) == "lib-dynload")]
