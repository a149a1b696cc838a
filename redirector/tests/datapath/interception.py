"""Clients and a responder for interception.rs.

`WAY RESOLVER...` sends a query in one way; `serve ADDRESS FIRST COUNT` answers on COUNT ports, from
FIRST on.
"""

import ctypes
import select
import socket
import struct
import sys
import time

TIMEOUT = 5
MARK = 0x35


def udp(family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(TIMEOUT)
    return s


def show(source, answer):
    address, port = source[:2]
    print(f"{address}#{port} {answer.decode()}", flush=True)


def connected(resolver, text=b"ask"):
    s = udp(socket.AF_INET6 if ":" in resolver else socket.AF_INET)
    s.connect((resolver, 53))
    s.send(text)
    answer, source = s.recvfrom(99)
    assert source[:2] == s.getpeername()[:2], (source, s.getpeername())
    show(source, answer)


def unconnected(resolver, text=b"ask"):
    s = udp(socket.AF_INET6 if ":" in resolver else socket.AF_INET)
    s.sendto(text, (resolver, 53))
    answer, source = s.recvfrom(99)
    show(source, answer)


def mapped_connected(resolver):
    connected("::ffff:" + resolver)


def mapped_unconnected(resolver):
    unconnected("::ffff:" + resolver)


def tcp(resolver):
    s = socket.create_connection((resolver, 53), TIMEOUT)
    s.send(b"ask")
    show(s.getpeername(), s.recv(99))


def mapped_tcp(resolver):
    tcp("::ffff:" + resolver)


def marked(resolver):
    s = udp()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    s.connect((resolver, 53))
    s.send(b"ask")
    answer, source = s.recvfrom(99)
    show(source, answer)


def slowly(resolver):
    """Sends a query that the responder answers after three seconds."""
    unconnected(resolver, b"slow")


def both(*resolvers):
    """One socket, not connected, several resolvers in one sendmmsg."""

    class iovec(ctypes.Structure):
        _fields_ = [("base", ctypes.c_char_p), ("len", ctypes.c_size_t)]

    class msghdr(ctypes.Structure):
        _fields_ = [
            ("name", ctypes.c_char_p),
            ("namelen", ctypes.c_uint32),
            ("iov", ctypes.POINTER(iovec)),
            ("iovlen", ctypes.c_size_t),
            ("control", ctypes.c_void_p),
            ("controllen", ctypes.c_size_t),
            ("flags", ctypes.c_int),
        ]

    class mmsghdr(ctypes.Structure):
        _fields_ = [("hdr", msghdr), ("len", ctypes.c_uint)]

    s = udp()
    messages = (mmsghdr * len(resolvers))()
    for message, resolver in zip(messages, resolvers):
        message.hdr.name = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 53) + socket.inet_aton(resolver) + bytes(8)
        message.hdr.namelen = 16
        message.hdr.iov = ctypes.pointer(iovec(b"ask", 3))
        message.hdr.iovlen = 1
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.sendmmsg(s.fileno(), messages, len(resolvers), 0) == len(resolvers), ctypes.get_errno()
    for source, answer in sorted((source, answer) for answer, source in (s.recvfrom(99) for _ in resolvers)):
        show(source, answer)


def elsewhere(resolver):
    """Sends a datagram to a port other than 53."""
    s = udp()
    s.sendto(b"ask", (resolver, 54))
    answer, source = s.recvfrom(99)
    show(source, answer)


def every(prefix, count):
    """Sends queries to PREFIX.1 to PREFIX.COUNT, and waits for no answer."""
    s = udp()
    for number in range(1, int(count) + 1):
        s.sendto(b"ask", (f"{prefix}.{number}", 53))
    print("asked")


def serve(address, first, count, *more):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    ports = [*range(int(first), int(first) + int(count)), *map(int, more)]
    listeners, datagrams, late = [], [], []
    for port in ports:
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.bind((address, port))
        datagrams.append(s)
        s = socket.socket(family, socket.SOCK_STREAM)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((address, port))
        s.listen()
        listeners.append(s)
    print("up", flush=True)
    while True:
        ready, _, _ = select.select(listeners + datagrams, [], [], 0.05)
        while late and late[0][0] <= time.monotonic():
            _, s, client, answer = late.pop(0)
            s.sendto(answer, client)
        for s in ready:
            answer = f"{address}#{s.getsockname()[1]}".encode()
            if s in listeners:
                connection, _ = s.accept()
                connection.recv(99)
                connection.send(answer)
                connection.close()
                continue
            text, client = s.recvfrom(99)
            if text == b"slow":
                late.append((time.monotonic() + 3, s, client, answer))
            else:
                s.sendto(answer, client)


try:
    globals()[sys.argv[1]](*sys.argv[2:])
except OSError as error:
    print(type(error).__name__, error.errno, flush=True)
