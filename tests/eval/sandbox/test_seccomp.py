"""Run: pytest tests/eval/sandbox/test_seccomp.py. The filters of both architectures, run by a small machine."""

import errno
import os
import platform
import re
import struct
from pathlib import Path

import pytest

from tiny_reasoning_jax.eval.sandbox import seccomp

MARKS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386 = 0x40000003
ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
# Numbers from the kernel's tables, written down here anew: x86-64, aarch64.
NEEDED = {"read": (0, 63), "write": (1, 64), "mmap": (9, 222), "futex": (202, 98), "exit_group": (231, 94)}
FORBIDDEN = {
    "accept": (43, 202), "accept4": (288, 242), "add_key": (248, 217), "adjtimex": (159, 171), "bind": (49, 200),
    "bpf": (321, 280), "chroot": (161, 51), "connect": (42, 203), "delete_module": (176, 106), "execve": (59, 221),
    "execveat": (322, 281), "fanotify_init": (300, 262), "fchmod": (91, 52), "fchmodat": (268, 53),
    "fchown": (93, 55), "fchownat": (260, 54), "finit_module": (313, 273), "fsopen": (430, 430),
    "init_module": (175, 105), "inotify_init1": (294, 26), "io_setup": (206, 0), "io_uring_enter": (426, 426),
    "io_uring_setup": (425, 425), "kcmp": (312, 272), "kexec_load": (246, 104), "keyctl": (250, 219),
    "kill": (62, 129), "linkat": (265, 37), "listen": (50, 201), "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "mkdirat": (258, 34), "mknodat": (259, 33), "mount": (165, 40), "move_mount": (429, 429), "mq_open": (240, 180),
    "msgget": (68, 186), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265), "open_tree": (428, 428),
    "openat2": (437, 437), "perf_event_open": (298, 241), "personality": (135, 92), "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pipe2": (293, 59), "pivot_root": (155, 41),
    "prctl": (157, 167), "prlimit64": (302, 261), "process_madvise": (440, 440), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "ptrace": (101, 117), "quotactl": (179, 60), "reboot": (169, 142),
    "recvmsg": (47, 212), "request_key": (249, 218), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "sched_setaffinity": (203, 122), "seccomp": (317, 277), "semget": (64, 190), "sendmsg": (46, 211),
    "sendto": (44, 206), "setns": (308, 268), "setpgid": (109, 154), "setpriority": (141, 140),
    "setrlimit": (160, 164), "setsid": (112, 157), "setuid": (105, 146), "setxattr": (188, 5), "shmget": (29, 194),
    "socket": (41, 198), "socketpair": (53, 199), "splice": (275, 76), "swapon": (167, 224), "symlinkat": (266, 36),
    "tgkill": (234, 131), "tkill": (200, 130), "truncate": (76, 45), "umount2": (166, 39), "unshare": (272, 97),
    "userfaultfd": (323, 282), "utimensat": (280, 88), "vmsplice": (278, 75),
}  # fmt: skip
X86_ALONE = {
    "alarm": 37, "chmod": 90, "creat": 85, "fork": 57, "ioperm": 173, "iopl": 172, "link": 86, "mkdir": 83,
    "mknod": 133, "modify_ldt": 154, "open": 2, "pipe": 22, "rmdir": 84, "symlink": 88, "utime": 132, "vfork": 58,
}  # fmt: skip
THREAD = 0x3D0F00  # what glibc passes for a thread: VM, FS, FILES, SIGHAND, THREAD, SYSVSEM, SETTLS and the two TIDs


def run(code: bytes, mark: int, number: int, *arguments: int) -> int:
    """Classic BPF, as far as filters need it."""
    data = struct.pack("iIQ6Q", number, mark, 0, *arguments, *[0] * (6 - len(arguments)))
    steps = list(struct.iter_unpack("HBBI", code))
    accumulator = at = 0
    while True:
        operation, if_true, if_false, operand = steps[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("I", data, operand)[0]
        elif operation == 0x54:
            accumulator &= operand
        elif operation == 0x15:
            at += if_true if accumulator == operand else if_false
        else:
            assert operation == 0x06
            return operand


@pytest.fixture(params=MARKS)
def judge(request):
    """Returns (what the filter says to a call, the column of numbers)."""
    code = seccomp.make_filter(request.param)
    column = list(MARKS).index(request.param)
    return lambda numbers, *arguments: run(code, MARKS[request.param], numbers[column], *arguments)


def test_what_ordinary_programs_need_is_allowed(judge):
    assert {name: judge(numbers) for name, numbers in NEEDED.items()} == dict.fromkeys(NEEDED, ALLOW)


def test_what_reaches_out_is_refused(judge):
    assert {name: judge(numbers) for name, numbers in FORBIDDEN.items()} == dict.fromkeys(FORBIDDEN, EPERM)


def test_old_calls_of_x86_are_refused():
    code = seccomp.make_filter("x86_64")
    assert {name: run(code, MARKS["x86_64"], number) for name, number in X86_ALONE.items()} == dict.fromkeys(
        X86_ALONE, EPERM
    )


def test_a_call_that_is_yet_to_be_invented_is_refused(judge):
    assert all(judge((number, number)) == EPERM for number in range(450, 1024))


@pytest.mark.parametrize("machine", MARKS)
def test_another_architecture_is_killed(machine):
    code = seccomp.make_filter(machine)
    for mark in (I386, *MARKS.values()):
        assert (run(code, mark, 20) == KILL) == (mark != MARKS[machine])


def test_the_third_set_of_numbers_of_x86_is_refused():
    code = seccomp.make_filter("x86_64")
    assert {run(code, MARKS["x86_64"], 0x40000000 | number) for number in range(600)} == {EPERM}


def test_threads_yes_processes_no(judge):
    clone = (56, 220)
    assert judge(clone, THREAD) == ALLOW
    for flags in (17, 0, 0x4111, THREAD & ~0x10000, THREAD | 0x10000000, THREAD | 0x20000, THREAD | 0x40000000):
        assert judge(clone, flags) == EPERM
    assert judge((435, 435)) == ENOSYS  # glibc falls back to clone


def test_truncating_needs_a_right_to_write(judge):
    openat = (257, 56)
    for flags, verdict in ((os.O_RDONLY, ALLOW), (os.O_WRONLY | os.O_CREAT | os.O_TRUNC, ALLOW), (os.O_RDWR, ALLOW)):
        assert judge(openat, 0, 0, flags | os.O_CLOEXEC) == verdict
    assert judge(openat, 0, 0, os.O_RDONLY | os.O_TRUNC) == EPERM
    assert judge(openat, 0, 0, 3) == EPERM


def test_descriptors_cannot_name_a_receiver_of_signals(judge):
    fcntl = (72, 25)
    assert judge(fcntl, 3, 2, 1) == ALLOW  # F_SETFD
    assert {judge(fcntl, 3, command) for command in (8, 10, 15, 1024, 1026, 1031, 1033)} == {EPERM}


def test_devices_are_asked_whether_they_are_terminals_and_nothing_else(judge):
    ioctl = (16, 29)
    assert judge(ioctl, 1, 0x5401) == ALLOW
    assert {judge(ioctl, 1, command) for command in (0x5412, 0x541C, 0x5452, 0x8912, 0x40086602)} == {EPERM}


@pytest.mark.parametrize(
    "machine, header, pattern",
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+)\s+(\d+)"),
        ("aarch64", "/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+)\s+(\d+)"),
    ],
)
def test_numbers_are_the_kernel_headers(machine, header, pattern):
    if not Path(header).exists():
        pytest.skip("no kernel headers here")
    numbers = {name: int(number) for name, number in reversed(re.findall(pattern, Path(header).read_text()))}
    numbers.setdefault("newfstatat", numbers.get("fstatat"))
    column = list(MARKS).index(machine)
    ours = seccomp._FREE | {name: rule[0] for name, rule in seccomp._FILTERED.items()} | NEEDED | FORBIDDEN
    wrong = {name: pair[column] for name, pair in ours.items() if pair[column] not in (None, numbers.get(name))}
    assert not wrong
    assert numbers["clone3"] == 435


def test_this_machine_is_one_of_them():
    assert platform.machine() in seccomp.MACHINES
