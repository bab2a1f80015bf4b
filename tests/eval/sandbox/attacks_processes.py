"""Attacks with new processes, on other processes, and through the kernel's odder doors. Each returns True on success.

Numbers of system calls are those of x86-64.
"""


def fork(world):
    """Starts a process by forking."""
    import os

    pid = os.fork()
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)[0] == pid


def fork_twice_and_leave(world):
    """Leaves a process behind, in a session of its own, with no parent to end it."""
    import os
    import time

    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(0.2)
            open(os.path.join(world["outside"], "orphan"), "w").close()
        os._exit(0)
    time.sleep(0.5)


def vfork(world):
    """Starts a process with the old call vfork."""
    import ctypes
    import mmap

    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x3a\0\0\0\x0f\x05\x85\xc0\x75\x09")  # mov eax, 58; syscall; test eax, eax; jnz to ret
    code.write(b"\x31\xff\xb8\x3c\0\0\0\x0f\x05\xc3")  # the child: xor edi, edi; mov eax, 60; syscall. ret
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))() > 0


def clone(world):
    """Starts a process with the raw call clone."""
    import ctypes
    import os

    pid = ctypes.CDLL(None).syscall(56, 17, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    return pid > 0


def clone_with_clone3(world):
    """Starts a process with clone3, whose flags no filter sees."""
    import ctypes
    import os
    import struct

    arguments = ctypes.create_string_buffer(struct.pack("11Q", 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0))
    pid = ctypes.CDLL(None).syscall(435, arguments, 88)
    if pid == 0:
        os._exit(0)
    return pid > 0


def spawn(world):
    """Starts a shell with posix_spawn."""
    import os

    pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"echo > {world['outside']}/new"], {})
    os.waitpid(pid, 0)


def run_subprocess(world):
    """Starts a program with subprocess."""
    import subprocess

    return subprocess.run(["/bin/sh", "-c", "exit 0"], stdin=subprocess.DEVNULL).returncode == 0


def run_shell(world):
    """Starts a shell with os.system."""
    import os

    os.system(f"echo > {world['outside']}/new")


def run_multiprocessing(world):
    """Starts a process with multiprocessing."""
    import multiprocessing

    child = multiprocessing.get_context("fork").Process(target=print)
    child.start()
    child.join()
    return child.exitcode == 0


def execute(world):
    """Becomes another program."""
    import os

    os.execv("/bin/sh", ["sh", "-c", f"echo > {world['outside']}/new"])


def execute_from_memory(world):
    """Becomes a program that lies in memory alone, past all rules for files."""
    import os

    fd = os.memfd_create("program", 0)
    os.write(fd, f"#!/bin/sh\necho > {world['outside']}/new".encode())
    os.execve(fd, ["program"], {})


def execute_at(world):
    """Becomes another program with the raw call execveat."""
    import ctypes

    arguments = (ctypes.c_char_p * 4)(b"sh", b"-c", f"echo > {world['outside']}/new".encode(), None)
    ctypes.CDLL(None).syscall(322, -100, b"/bin/sh", arguments, 0, 0)


def kill(world):
    """Kills another process."""
    import os

    os.kill(world["victim"], 9)


def kill_group(world):
    """Kills another process group."""
    import os

    os.killpg(world["victim"], 9)


def kill_thread(world):
    """Kills another process by one of its threads."""
    import ctypes

    ctypes.CDLL(None).syscall(234, world["victim"], world["victim"], 9)


def kill_by_descriptor(world):
    """Kills another process through a descriptor for it."""
    import os
    import signal

    signal.pidfd_send_signal(os.pidfd_open(world["victim"]), 9)


def queue_signal(world):
    """Kills another process with a queued signal."""
    import ctypes

    ctypes.CDLL(None).sigqueue(world["victim"], 9, 0)


def let_the_kernel_signal(world):
    """Names another process as the one to be signalled when a pipe has data."""
    import fcntl
    import os

    reader, writer = os.pipe()
    fcntl.fcntl(reader, fcntl.F_SETOWN, world["victim"])
    fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC)
    os.write(writer, b"x")


def trace(world):
    """Stops another process as a debugger does."""
    import ctypes

    return ctypes.CDLL(None).ptrace(16, world["victim"], 0, 0) == 0


def read_memory(world):
    """Reads another process's memory."""
    import ctypes

    start, end = world["stack"]
    buffer = ctypes.create_string_buffer(end - start)
    mine = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), end - start)
    theirs = (ctypes.c_size_t * 2)(start, end - start)
    ctypes.CDLL(None).process_vm_readv(world["victim"], mine, 1, theirs, 1, 0)
    return buffer.raw.split(b"API_TOKEN=")[1].split(b"\0")[0].decode()


def steal_descriptor(world):
    """Takes a copy of a file that another process has open."""
    import ctypes
    import os

    return os.pread(ctypes.CDLL(None).syscall(438, os.pidfd_open(world["victim"]), 0, 0), 100, 0).decode()


def limit_other(world):
    """Takes another process's processor time away."""
    import resource

    resource.prlimit(world["victim"], resource.RLIMIT_CPU, (0, 0))
    return True


def slow_other_down(world):
    """Gives another process the lowest priority."""
    import os

    os.setpriority(os.PRIO_PROCESS, world["victim"], 19)
    return True


def pin_other(world):
    """Binds another process to one processor."""
    import os

    os.sched_setaffinity(world["victim"], {min(os.sched_getaffinity(0))})
    return True


def raise_own_limits(world):
    """Lifts its own limits."""
    import resource

    resource.setrlimit(resource.RLIMIT_CPU, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return True


def outlive_parent(world):
    """Asks the kernel not to end it with its parent."""
    import ctypes

    return ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0


def enter_through_32_bits(world):
    """Calls the kernel through the 32-bit entry, where calls have other numbers: getpid."""
    import ctypes
    import mmap
    import os

    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\x53\xb8\x14\0\0\0\xcd\x80\x5b\xc3")  # push rbx; mov eax, 20; int 0x80; pop rbx; ret
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))() == os.getpid()


def set_up_io_uring(world):
    """Sets up io_uring, which makes system calls that no filter sees."""
    import ctypes

    return ctypes.CDLL(None).syscall(425, 4, ctypes.create_string_buffer(120)) >= 0


def add_key(world):
    """Stores a key that outlives it in the kernel's keyring."""
    import ctypes

    return ctypes.CDLL(None).syscall(248, b"user", b"stolen", b"x", 1, -4) >= 0


def make_shared_memory(world):
    """Leaves a segment of shared memory, which outlives it."""
    import ctypes

    libc = ctypes.CDLL(None)
    number = libc.shmget(0, 4096, 0o1600)
    libc.shmctl(number, 0, 0)  # so that this test does not leave it
    return number >= 0


def make_message_queue(world):
    """Leaves a message queue, which outlives it."""
    import ctypes

    libc = ctypes.CDLL(None)
    number = libc.msgget(0, 0o1600)
    libc.msgctl(number, 0, 0)
    return number >= 0


def make_memory_file(world):
    """Makes a file in memory, which counts to no limit."""
    import os

    return os.memfd_create("hidden", 0) >= 0


def handle_page_faults(world):
    """Opens userfaultfd, the favourite help of kernel exploits."""
    import ctypes

    return ctypes.CDLL(None).syscall(323, 1) >= 0


def load_bpf(world):
    """Makes a map for a program that runs in the kernel."""
    import ctypes
    import struct

    attributes = ctypes.create_string_buffer(struct.pack("4I", 2, 4, 4, 1), 128)
    return ctypes.CDLL(None).syscall(321, 0, attributes, 128) >= 0


def count_events(world):
    """Opens the kernel's performance counters, to watch others."""
    import ctypes
    import struct

    attributes = ctypes.create_string_buffer(struct.pack("IIQQ", 1, 128, 1, 0), 128)
    return ctypes.CDLL(None).syscall(298, attributes, 0, -1, -1, 0) >= 0


def leave_namespaces(world):
    """Becomes root in a user namespace of its own, from where more of the kernel can be reached."""
    import ctypes

    return ctypes.CDLL(None).unshare(0x10000000) == 0


def mount(world):
    """Mounts a file system over a folder."""
    import ctypes

    libc = ctypes.CDLL(None)
    mounted = libc.mount(b"none", world["empty"].encode(), b"tmpfs", 0, 0) == 0
    libc.umount(world["empty"].encode())
    return mounted


def change_root(world):
    """Makes another folder the root of all paths."""
    import os

    os.chroot(world["outside"])
    return True


def become_other_user(world):
    """Becomes another user."""
    import os

    os.setuid(1234)
    return os.getuid() == 1234


def change_personality(world):
    """Switches off the random layout of memory for what comes."""
    import ctypes

    return ctypes.CDLL(None).personality(0x0040000) >= 0
