"""Landlock: the kernel lets a process give up every file but those that a rule names.

What is handled here is all that the running kernel can handle: files since version 1 of its interface, TCP since 4,
signals and abstract sockets since 6. What Landlock cannot handle in old versions (truncating, linking elsewhere) and in
any (modes, owners, times, other sockets) is left to seccomp.
"""

import ctypes
import os
import stat
import struct

from tiny_reasoning_jax.eval.sandbox import kernel

# The same numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH = 1, 1

WRITE_FILE, READ_FILE, READ_DIR, REMOVE_FILE, MAKE_FILE, TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8, 1 << 14
_OF_FILES = WRITE_FILE | READ_FILE | TRUNCATE  # what a rule for something else than a folder may hold
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}  # by the version that brought them
_TCP_BIND_AND_CONNECT, _ABSTRACT_SOCKETS_AND_SIGNALS = 3, 3


def find_version() -> int:
    """Returns the version of the kernel's Landlock interface.

    Raises:
      OSError: the kernel has no Landlock (ENOSYS), it is switched off (EOPNOTSUPP), or a container forbids it (EPERM).
    """
    return kernel.call(_CREATE_RULESET, 0, 0, _VERSION_FLAG)


class Ruleset:
    """What stays allowed. Made once; every child that inherits it can put it on itself."""

    def __init__(self, version: int) -> None:
        self._handled = sum(rights for since, rights in _FILE_RIGHTS.items() if since <= version)
        attributes = struct.pack("Q", self._handled)
        if version >= 4:
            attributes += struct.pack("Q", _TCP_BIND_AND_CONNECT)
        if version >= 6:
            attributes += struct.pack("Q", _ABSTRACT_SOCKETS_AND_SIGNALS)
        buffer = ctypes.create_string_buffer(attributes, len(attributes))
        self._fd = kernel.call(_CREATE_RULESET, ctypes.addressof(buffer), len(attributes), 0)

    def allow(self, path: str, rights: int) -> None:
        """Allows `rights` on a file, or on a folder and all below it."""
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISDIR(os.fstat(target).st_mode):
                rights &= _OF_FILES
            rule = ctypes.create_string_buffer(struct.pack("=Qi", rights & self._handled, target), 12)
            kernel.call(_ADD_RULE, self._fd, _PATH_BENEATH, ctypes.addressof(rule), 0)
        finally:
            os.close(target)

    def enter(self) -> None:
        """From here on this thread, and all that it starts, is held to the rules."""
        kernel.call(_RESTRICT_SELF, self._fd, 0)
