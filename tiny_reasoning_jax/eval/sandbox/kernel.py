"""The system calls that Python's library does not have, each one raising OSError when the kernel says no."""

import ctypes
import os

_LIBC = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 36, 38
_CAPABILITY_VERSION_3 = 0x20080522


def call(number: int, *arguments: int) -> int:
    """Makes a system call by its number; arguments are whole machine words."""
    result = _LIBC.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return _check(result, f"system call {number}")


def die_with_parent(signal_number: int) -> None:
    """The kernel sends this signal when the parent's thread ends, whatever ends it."""
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def adopt_orphans() -> None:
    """What descendants leave behind becomes this process's child, where it can be found and ended."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def forbid_inspection() -> None:
    """Other processes of the same user cannot read this one's memory, environment or open files."""
    _prctl(_PR_SET_DUMPABLE, 0)


def forbid_new_privileges() -> None:
    """No program that is started from here gains rights; the kernel asks for this before Landlock and seccomp."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Takes from root what sets it apart from other users; changes nothing for them."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable, 64 bits each
    _check(_LIBC.capset(header, none), "capset")


def install_filter(code: bytes) -> None:
    """Puts a seccomp program (eight bytes an instruction) on this process for good."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))

    program = Program(len(code) // 8, code)
    _prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(program))


def _prctl(option: int, *arguments: int) -> None:
    words = (*arguments, 0, 0, 0)[:4]
    _check(_LIBC.prctl(ctypes.c_int(option), *map(ctypes.c_ulong, words)), f"prctl({option})")


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result
