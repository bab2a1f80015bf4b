"""Seccomp: which system calls a program may make at all. A list of what ordinary Python needs; all else is refused.

Not on it, so refused with EPERM: sockets, processes, programs, signals to anyone, tracing, other processes' memory,
namespaces, mounts, keys, io_uring, memory files, modes, owners, times and links of files, changes of limits and of the
working folder. A call through another architecture's entry (32 bits on x86-64) kills.
"""

import errno
import struct

# name: number on x86-64 and on aarch64, None where there is no such call
_FREE = {
    # open files
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "lseek": (8, 62),
    "close": (3, 57),
    "ftruncate": (77, 46),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "getdents64": (217, 61),
    "fstat": (5, 80),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    # names: Landlock says which; what it does not guard is whether a name exists, its size and its times
    "stat": (4, None),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "getcwd": (79, 17),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    # memory
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "brk": (12, 214),
    # threads and their end
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # a program's own signal handlers
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    # time and facts
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "getrandom": (318, 278),
}

_CLONE_THREAD = 0x10000
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEWUSER, NEWPID, NEWNET, NEWIPC, NEWUTS, NEWCGROUP, NEWNS and NEWTIME
_O_ACCMODE, _O_RDONLY, _O_WRONLY, _O_RDWR, _O_TRUNC = 3, 0, 1, 2, 0o1000
_ALL = 0xFFFFFFFF
# name: numbers, argument, and what that argument's bits under the mask may be. All are 32-bit arguments to the kernel.
_FILTERED = {
    # Old Landlock does not guard truncating, and a file opened for reading alone can be truncated by opening it.
    "openat": (
        (257, 56),
        2,
        _O_ACCMODE | _O_TRUNC,
        (_O_RDONLY, _O_WRONLY, _O_RDWR, _O_WRONLY | _O_TRUNC, _O_RDWR | _O_TRUNC),
    ),  # fmt: skip # noqa: E501
    "clone": ((56, 220), 0, _CLONE_THREAD | _NEW_NAMESPACES, (_CLONE_THREAD,)),
    # TCGETS (is it a terminal?), FIOCLEX, FIONCLEX, TIOCGWINSZ
    "ioctl": ((16, 29), 1, _ALL, (0x5401, 0x5451, 0x5450, 0x5413)),
    # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC: none that names a receiver of signals
    "fcntl": ((72, 25), 1, _ALL, (0, 1, 2, 3, 4, 1030)),
}
_CLONE3 = 435  # its arguments lie in memory, where no filter sees them; on "no such call" the C library takes clone

_ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}  # the audit mark, and the column of numbers
MACHINES = tuple(_ARCHITECTURES)

_LOAD, _JUMP_IF_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x54, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16


def make_filter(machine: str) -> bytes:
    """Returns the program for the kernel, eight bytes an instruction.

    Args:
      machine: one of MACHINES, as `platform.machine()` has it.
    """
    mark, column = _ARCHITECTURES[machine]
    program = [
        _step(_LOAD, _ARCHITECTURE_OFFSET),
        _step(_JUMP_IF_EQUAL, mark, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER_OFFSET),
    ]
    for numbers in _FREE.values():
        if numbers[column] is not None:
            program += [_step(_JUMP_IF_EQUAL, numbers[column], 0, 1), _step(_RETURN, _ALLOW)]
    program += [_step(_JUMP_IF_EQUAL, _CLONE3, 0, 1), _step(_RETURN, _ERROR | errno.ENOSYS)]
    for numbers, argument, mask, values in _FILTERED.values():
        check = [_step(_LOAD, _ARGUMENTS_OFFSET + 8 * argument), _step(_AND, mask)]
        for value in values:
            check += [_step(_JUMP_IF_EQUAL, value, 0, 1), _step(_RETURN, _ALLOW)]
        check.append(_step(_RETURN, _ERROR | errno.EPERM))
        program += [_step(_JUMP_IF_EQUAL, numbers[column], 0, len(check)), *check]
    program.append(_step(_RETURN, _ERROR | errno.EPERM))
    return b"".join(program)


def _step(code: int, operand: int, jump_if_true: int = 0, jump_if_false: int = 0) -> bytes:
    return struct.pack("HBBI", code, jump_if_true, jump_if_false, operand)
