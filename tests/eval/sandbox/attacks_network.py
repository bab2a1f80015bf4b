"""Attacks that reach out: sockets of every kind, to this machine or beyond. Each returns True on success."""


def connect_tcp(world):
    """Connects to a TCP port."""
    import socket

    return socket.create_connection(("127.0.0.1", world["tcp"])).fileno() >= 0


def connect_tcp6(world):
    """Makes an IPv6 socket, to connect to anything."""
    import socket

    return socket.socket(socket.AF_INET6).fileno() >= 0


def send_udp(world):
    """Sends a datagram, as a name look-up does."""
    import socket

    socket.socket(type=socket.SOCK_DGRAM).sendto(b"stolen", ("127.0.0.1", world["udp"]))


def listen_tcp(world):
    """Opens a port for others to come in."""
    import socket

    server = socket.create_server(("127.0.0.1", 0))
    return server.getsockname()[1] > 0


def connect_unix(world):
    """Connects to a socket in the file system, as of a container daemon."""
    import socket

    socket.socket(socket.AF_UNIX).connect(world["unix"])
    return True


def connect_abstract(world):
    """Connects to an abstract socket, which no file guards."""
    import socket

    socket.socket(socket.AF_UNIX).connect("\0" + world["abstract"])
    return True


def open_netlink(world):
    """Asks the kernel for the network's set-up over netlink."""
    import socket

    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).fileno() >= 0


def open_raw(world):
    """Forges packets with a raw socket."""
    import socket

    return socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).fileno() >= 0


def open_packet(world):
    """Listens to all traffic with a packet socket."""
    import socket

    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3).fileno() >= 0


def make_socket_pair(world):
    """Makes a pair of sockets, with which descriptors can be passed."""
    import socket

    return len(socket.socketpair()) == 2


def call_socket_directly(world):
    """Makes a socket past Python, with the C library's syscall."""
    import ctypes

    return ctypes.CDLL(None).socket(2, 1, 0) >= 0


def run_event_loop(world):
    """Opens a connection from an event loop."""
    import asyncio

    async def connect():
        await asyncio.open_connection("127.0.0.1", world["tcp"])
        return True

    return asyncio.run(connect())
