"""Attacks on files that are not the program's own. Each returns what it stole, or True once it has done damage.

`world` says where things are; see world.py. Each attack stands alone: it is sent as source.
"""


def read_with_open(world):
    """Reads a file outside."""
    return open(world["secret"]).read()


def read_with_io(world):
    """Reads a file outside through the class below open."""
    import io

    return io.FileIO(world["secret"]).readall().decode()


def read_with_os(world):
    """Reads a file outside with descriptors."""
    import os

    return os.read(os.open(world["secret"], os.O_RDONLY), 100).decode()


def read_with_c_library(world):
    """Reads a file outside with the C library's open."""
    import ctypes

    libc, buffer = ctypes.CDLL(None), ctypes.create_string_buffer(100)
    libc.read(libc.open(world["secret"].encode(), 0), buffer, 100)
    return buffer.value.decode()


def read_with_import_system(world):
    """Reads a file outside with an importer's loader."""
    from importlib.machinery import SourceFileLoader

    return SourceFileLoader("secret", world["secret"]).get_data(world["secret"]).decode()


def read_mapped(world):
    """Maps a file outside into memory."""
    import mmap
    import os

    return mmap.mmap(os.open(world["secret"], os.O_RDONLY), 0, prot=mmap.PROT_READ)[:].decode()


def read_through_symlink(world):
    """Reads a file outside through a symbolic link in its own folder."""
    import os

    os.symlink(world["secret"], "link")
    return open("link").read()


def read_through_hard_link(world):
    """Links a file outside into its own folder."""
    import os

    os.link(world["secret"], "link")
    return open("link").read()


def read_after_rename(world):
    """Moves a file outside into its own folder."""
    import os

    os.rename(world["secret"], "mine")
    return open("mine").read()


def read_relative(world):
    """Climbs out of its folder with dots."""
    return open("../" * 20 + world["secret"]).read()


def read_after_chdir(world):
    """Changes the working folder and reads by the bare name."""
    import os

    os.chdir(os.path.dirname(world["secret"]))
    return open(os.path.basename(world["secret"])).read()


def read_from_folder_descriptor(world):
    """Opens a folder outside and reads relative to it."""
    import os

    folder = os.open(os.path.dirname(world["secret"]), os.O_PATH)
    return os.read(os.open(os.path.basename(world["secret"]), os.O_RDONLY, dir_fd=folder), 100).decode()


def read_through_proc_root(world):
    """Reads a file outside by procfs's link to the root."""
    return open("/proc/self/root" + world["secret"]).read()


def read_through_proc_cwd(world):
    """Reads a file outside by procfs's link to the working folder."""
    return open("/proc/self/cwd/" + "../" * 20 + world["secret"]).read()


def read_inherited_descriptor(world):
    """Reads whatever files the evaluating process has left open."""
    import os

    for fd in range(3, 256):
        try:
            text = os.pread(fd, 100, 0).decode()
        except (OSError, ValueError):
            continue
        if "secret" in text:
            return text


def read_by_handle(world):
    """Opens a file outside by its number on the disk, past all folders."""
    import ctypes
    import os

    libc, folder = ctypes.CDLL(None, use_errno=True), os.path.dirname(world["secret"]).encode()
    handle, mount = ctypes.create_string_buffer(b"\x80\0\0\0", 200), ctypes.c_int()
    assert libc.name_to_handle_at(-100, world["secret"].encode(), handle, ctypes.byref(mount), 0) == 0
    fd = libc.open_by_handle_at(os.open(folder, os.O_RDONLY), handle, 0)
    return os.read(fd, 100).decode()


def list_folder(world):
    """Lists a folder outside."""
    import os

    return os.path.basename(world["secret"]) in os.listdir(os.path.dirname(world["secret"]))


def read_environment(world):
    """Looks for keys in its environment."""
    import os

    return os.environ["API_TOKEN"]


def read_first_environment(world):
    """Looks for keys in the environment that the process began with."""
    text = open("/proc/self/environ").read()
    return text.split("API_TOKEN=")[1].split("\0")[0]


def read_other_environment(world):
    """Reads another process's environment."""
    return open(f"/proc/{world['victim']}/environ").read().split("API_TOKEN=")[1].split("\0")[0]


def read_other_descriptor(world):
    """Opens a file that another process has open."""
    return open(f"/proc/{world['victim']}/fd/0").read()


def read_other_memory(world):
    """Reads another process's memory in procfs."""
    start, end = world["stack"]
    with open(f"/proc/{world['victim']}/mem", "rb") as memory:
        memory.seek(start)
        return memory.read(end - start).split(b"API_TOKEN=")[1].split(b"\0")[0].decode()


def write_new_file(world):
    """Leaves a file outside."""
    import os

    open(os.path.join(world["outside"], "new"), "w").close()


def write_own_memory_through_proc(world):
    """Opens its own memory as a file, which writes where protections forbid."""
    return open("/proc/self/mem", "r+b").writable()


def overwrite(world):
    """Overwrites a file outside."""
    with open(world["precious"], "w") as file:
        file.write("mine")


def append(world):
    """Appends to a file outside, as to a shell's start-up file."""
    with open(world["precious"], "a") as file:
        file.write("mine")


def truncate(world):
    """Empties a file outside by its name."""
    import os

    os.truncate(world["precious"], 0)


def truncate_while_opening_to_read(world):
    """Empties a file outside by opening it only to read."""
    import os

    os.open(world["precious"], os.O_RDONLY | os.O_TRUNC)


def delete(world):
    """Deletes a file outside."""
    import os

    os.unlink(world["precious"])


def replace(world):
    """Puts a file of its own in the place of one outside."""
    import os

    open("mine", "w").close()
    os.replace("mine", world["precious"])


def change_mode(world):
    """Makes a file outside readable for all."""
    import os

    os.chmod(world["precious"], 0o777)


def change_owner(world):
    """Gives a file outside away."""
    import os

    os.chown(world["precious"], 1234, 1234)


def change_times(world):
    """Makes a file outside look old."""
    import os

    os.utime(world["precious"], (0, 0))


def make_folder(world):
    """Makes a folder outside."""
    import os

    os.mkdir(os.path.join(world["outside"], "new"))


def make_pipe(world):
    """Makes a named pipe outside."""
    import os

    os.mkfifo(os.path.join(world["outside"], "new"))


def make_symlink(world):
    """Makes a symbolic link outside."""
    import os

    os.symlink("/", os.path.join(world["outside"], "new"))


def make_device(world):
    """Makes itself a device file, the whole memory of the machine."""
    import os
    import stat

    os.mknod("memory", 0o600 | stat.S_IFCHR, os.makedev(1, 1))
    return os.path.exists("memory")


def remove_folder(world):
    """Removes a folder outside."""
    import os

    os.rmdir(world["empty"])


def watch_folder(world):
    """Watches what others do in a folder outside."""
    import ctypes

    libc = ctypes.CDLL(None)
    return libc.inotify_add_watch(libc.inotify_init(), world["outside"].encode(), 0xFFF) >= 0
