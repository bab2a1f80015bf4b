"""Attacks on the machine's time and space. Each returns True if it had as much as it wanted.

The tests give a program one second of processor time, one more if it catches the signal, and three on the clock.
"""


def spin_and_catch_everything(world):
    """Computes for longer than it may, and catches whatever is to stop it."""
    import contextlib
    import time

    while time.process_time() < 1.2:
        with contextlib.suppress(BaseException):  # this is the attack: nothing that is raised may end it
            while time.process_time() < 1.2:
                pass
    return True


def spin_without_signals(world):
    """Computes for longer than it may with every signal blocked or handled, timers included."""
    import signal
    import time

    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    while time.process_time() < 2.2:
        pass
    return True


def spin_in_one_call(world):
    """Computes for longer than it may inside one call of C, which no Python signal handler interrupts."""
    import time

    while time.process_time() < 1.2:
        sum(range(3 * 10**7))
    return True


def spin_in_threads(world):
    """Computes for longer than it may, a little in each of many threads."""
    import threading
    import time

    def work():
        while time.process_time() < 1.2:
            sum(range(1000))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return True


def sleep(world):
    """Does nothing for longer than it may."""
    import time

    time.sleep(3.2)
    return True


def allocate(world):
    """Takes two gigabytes of memory."""
    return len(bytes(2 << 30)) > 0


def allocate_piecemeal(world):
    """Takes two gigabytes of memory in maps that are never touched."""
    import mmap

    maps = [mmap.mmap(-1, 16 << 20) for _ in range(128)]
    return len(maps) == 128


def write_large_file(world):
    """Writes one file of 100 MB."""
    with open("large", "wb") as file:
        for _ in range(100):
            file.write(bytes(1 << 20))
    return True


def write_many_files(world):
    """Writes 256 MB in files that are each small enough."""
    for number in range(64):
        with open(f"part{number}", "wb") as file:
            file.write(bytes(4 << 20))
    import time

    time.sleep(0.2)
    return True


def write_many_files_behind_a_decoy(world):
    """Writes 256 MB in small files while others come and go, to upset who counts them."""
    import os
    import threading

    def flicker():
        while True:
            for number in range(20):
                open(f"decoy{number}", "w").close()
            for number in range(20):
                os.unlink(f"decoy{number}")

    for _ in range(2):
        threading.Thread(target=flicker, daemon=True).start()
    for number in range(64):
        with open(f"part{number}", "wb") as file:
            file.write(bytes(4 << 20))
    import time

    time.sleep(0.2)
    return True


def make_many_files(world):
    """Makes 1,500 empty files."""
    for number in range(1500):
        open(f"empty{number}", "w").close()
    import time

    time.sleep(0.2)
    return True


def hide_deleted_files(world):
    """Holds 320 MB in files that are deleted while they are open."""
    import os

    files = []
    for _ in range(40):
        files.append(open("hidden", "wb"))
        files[-1].write(bytes(8 << 20))
        os.unlink("hidden")
    return True


def nest_folders(world):
    """Makes folders so deep that they are hard to remove."""
    import os

    for _ in range(50):
        os.mkdir("deeper")
        os.chdir("deeper")
    return True


def open_many_descriptors(world):
    """Opens 200 files at once."""
    return len([open("/dev/null") for _ in range(200)]) == 200


def start_many_threads(world):
    """Starts 2,000 threads."""
    import threading
    import time

    threading.stack_size(64 << 10)
    for _ in range(2000):
        threading.Thread(target=time.sleep, args=(0.3,), daemon=True).start()
    time.sleep(0.1)
    return True


def print_flood(world):
    """Prints 20 MB, for the evaluating process to hold."""
    for _ in range(20):
        print("x" * (1 << 20))


def print_flood_to_stderr(world):
    """Writes 20 MB to the descriptor of error messages."""
    import os

    for _ in range(20):
        os.write(2, b"x" * (1 << 20))
