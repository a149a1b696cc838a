"""Ways to connect: `clients.py WAY ADDRESS PORT`.

Each prints a line for each connection: the result of getpeername, and the server's greeting.
"""

import ctypes
import errno
import mmap
import os
import select
import socket
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
AF_UNSPEC = 0
IPPROTO_MPTCP = 262
TCP_FASTOPEN_CONNECT = 30
MSG_FASTOPEN = 0x20000000
IP_BIND_ADDRESS_NO_PORT = 24
TCPI_OPT_SYN_DATA = 32


def report(s, words=""):
    """Prints the peer and the greeting of the socket, and closes it."""
    host, port = s.getpeername()[:2]
    print(f"{host}:{port}", s.makefile().read().split()[-1], *words.split(), flush=True)
    s.close()


def new(family=socket.AF_INET, protocol=0):
    s = socket.socket(family, socket.SOCK_STREAM, protocol)
    s.settimeout(10)
    return s


def blocking(address):
    s = socket.socket()
    s.connect(address)
    report(s)


def with_a_timeout(address):
    report(socket.create_connection(address, 10))


def finish(s):
    """Waits for a connect that is in progress."""
    poll = select.poll()
    poll.register(s, select.POLLOUT)
    assert poll.poll(10_000), "no answer"
    error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert error == 0, os.strerror(error)
    s.settimeout(10)


def non_blocking(address):
    s = new()
    s.setblocking(False)
    assert s.connect_ex(address) == errno.EINPROGRESS
    finish(s)
    report(s)


def twice_while_under_way(address):
    """Calls connect again while one is in progress: EALREADY or EISCONN is not another connect."""
    s = new()
    s.setblocking(False)
    assert s.connect_ex(address) == errno.EINPROGRESS
    assert s.connect_ex(address) in (errno.EALREADY, 0)
    finish(s)
    assert s.connect_ex(address) in (errno.EISCONN, 0)
    report(s)


def mapped(address):
    s = new(socket.AF_INET6)
    s.connect(("::ffff:" + address[0], address[1]))
    report(s)


def bound_to_an_address(address):
    s = new()
    s.bind((own(), 0))
    s.connect(address)
    report(s)


def bound_to_an_address_without_a_port(address):
    s = new()
    s.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    s.bind((own(), 0))
    s.connect(address)
    report(s)


def bound_to_a_port(address):
    s = new()
    s.bind(("0.0.0.0", 0))
    s.connect(address)
    report(s)


def bound_to_a_device(address):
    s = new()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    s.connect(address)
    report(s)


def own():
    """This pod's address."""
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.connect(("203.0.113.1", 9))
        return probe.getsockname()[0]


def connected_by_a_child(address):
    s = new()
    child = os.fork()
    if child == 0:
        s.connect(address)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    report(s)


def mptcp(address):
    s = new(protocol=IPPROTO_MPTCP)
    s.connect(address)
    report(s)


def disconnected_and_connected_again(address):
    s = new()
    for _ in range(2):
        s.connect(address)
        print("%s:%d" % s.getpeername(), s.recv(4096).split()[-1].decode(), flush=True)
        nowhere = struct.pack("=H14x", AF_UNSPEC)
        assert LIBC.connect(s.fileno(), nowhere, len(nowhere)) == 0, os.strerror(ctypes.get_errno())
    s.close()


def io_uring(address):
    """Connects with io_uring by system calls (io_uring_setup(2)): one submission, one completion."""
    params = (ctypes.c_uint32 * 30)()
    ring = LIBC.syscall(425, 4, params)
    assert ring >= 0, os.strerror(ctypes.get_errno())
    sq_entries, cq_entries = params[0], params[1]
    _, sq_tail, _, _, _, _, sq_array, _ = params[10:18]
    cq_head, cq_tail, _, _, _, cqes, _, _ = params[20:28]
    rings = mmap.mmap(ring, max(sq_array + 4 * sq_entries, cqes + 16 * cq_entries), offset=0)
    entries = mmap.mmap(ring, 64 * sq_entries, offset=0x10000000)
    s = new()
    s.setblocking(True)
    where = ctypes.create_string_buffer(struct.pack("=H", socket.AF_INET) + struct.pack(">H", address[1]) + socket.inet_aton(address[0]) + bytes(8), 16)
    IORING_OP_CONNECT, IORING_ENTER_GETEVENTS = 16, 1
    struct.pack_into("=BBHiQQIIQ", entries, 0, IORING_OP_CONNECT, 0, 0, s.fileno(), 16, ctypes.addressof(where), 0, 0, 7)
    struct.pack_into("=I", rings, sq_array, 0)
    struct.pack_into("=I", rings, sq_tail, 1)
    assert LIBC.syscall(426, ring, 1, 1, IORING_ENTER_GETEVENTS, None, 0) == 1, os.strerror(ctypes.get_errno())
    head, tail = struct.unpack_from("=I", rings, cq_head)[0], struct.unpack_from("=I", rings, cq_tail)[0]
    data, result = struct.unpack_from("=Qi", rings, cqes)
    assert (head, tail, data) == (0, 1, 7) and result == 0, os.strerror(-result)
    s.settimeout(10)
    report(s)


def sent_with_the_syn(s):
    return "data-in-syn" if s.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 8)[5] & TCPI_OPT_SYN_DATA else "plain"


def fast_open_connect(address):
    """The second one has the server's cookie: its SYN leaves with the first write."""
    for _ in range(2):
        s = new()
        s.setsockopt(socket.SOL_TCP, TCP_FASTOPEN_CONNECT, 1)
        s.connect(address)
        s.sendall(b"?")
        answer = s.recv(4096)
        print("%s:%d" % s.getpeername(), answer.split()[-1].decode(), sent_with_the_syn(s), flush=True)
        s.close()


def fast_open_sendto(address):
    for _ in range(2):
        s = new()
        s.sendto(b"?", MSG_FASTOPEN, address)
        answer = s.recv(4096)
        print("%s:%d" % s.getpeername(), answer.split()[-1].decode(), sent_with_the_syn(s), flush=True)
        s.close()


def fast_open_abandoned(address):
    """A socket with a cookie that connects and never writes: no SYN leaves."""
    for wanted in (b"?", None):
        s = new()
        s.setsockopt(socket.SOL_TCP, TCP_FASTOPEN_CONNECT, 1)
        s.connect(address)
        if wanted:
            s.sendall(wanted)
            s.recv(4096)
        s.close()


def udp_probe(address):
    """Connects a datagram socket and reads its source address, as getaddrinfo does (RFC 3484)."""
    for family, host in ((socket.AF_INET, address[0]), (socket.AF_INET6, "::ffff:" + address[0])):
        for port in (0, 9, 443):
            s = socket.socket(family, socket.SOCK_DGRAM)
            s.connect((host, port))
            peer = s.getpeername() if port else ("", 0)
            assert s.getsockname()[0].endswith(own()), s.getsockname()
            print(peer[0], peer[1], flush=True)


def from_one_port_to_two(address, other):
    """Two sockets on one source port, as SO_REUSEADDR allows while the destinations differ."""
    port, kept = 0, []
    for where in (address, (other, address[1])):
        s = new()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("0.0.0.0", port))
        port = s.getsockname()[1]
        for _ in range(4):
            error = s.connect_ex(where)
            if error == 0:
                break
            print(errno.errorcode[error], flush=True)
        kept.append(s)
    for s in kept:
        if s.getsockname()[0] != "0.0.0.0":
            report(s)


def many(address, count):
    """Connects `count` sockets, 500 at a time, and holds them until its input ends."""
    poll, under_way, all_ = select.epoll(), {}, []
    while len(all_) < count or under_way:
        while len(all_) < count and len(under_way) < 500:
            s = socket.socket()
            s.setblocking(False)
            error = s.connect_ex(address)
            assert error in (0, errno.EINPROGRESS), errno.errorcode[error]
            all_.append(s)
            under_way[s.fileno()] = s
            poll.register(s, select.EPOLLOUT)
        ready = poll.poll(10)
        assert ready, f"{len(under_way)} of {len(all_)} get no answer"
        for fd, _ in ready:
            s = under_way.pop(fd)
            poll.unregister(fd)
            error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert error == 0, errno.errorcode[error]
    print(sum(s.getpeername() == address for s in all_), flush=True)
    sys.stdin.read()


def hold(address):
    """A server that keeps every connection until its input ends."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(address)
    s.listen(4096)
    print("up", flush=True)
    kept, poll = [], select.poll()
    poll.register(s)
    poll.register(0)
    while True:
        if any(fd == 0 for fd, _ in poll.poll()):
            return
        kept.append(s.accept()[0])


def serve_fast_open(address):
    """A server that reads data from a SYN, and sends a greeting."""
    with open("/proc/sys/net/ipv4/tcp_fastopen", "w") as setting:
        setting.write("3")
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_TCP, socket.TCP_FASTOPEN, 16)
    s.bind(address)
    s.listen(16)
    print("up", flush=True)
    while True:
        connection = s.accept()[0]
        if connection.recv(16):
            connection.sendall(b"fast\n")
        connection.close()


def give(_address, path):
    """Creates a socket, and sends it to the process that requests it."""
    s = socket.socket()
    door = socket.socket(socket.AF_UNIX)
    door.bind(path)
    door.listen(1)
    print("up", flush=True)
    socket.send_fds(door.accept()[0], [b"?"], [s.fileno()])


def take(address, path):
    """Connects a socket that another process created."""
    door = socket.socket(socket.AF_UNIX)
    door.connect(path)
    _, [fd], _, _ = socket.recv_fds(door, 16, 1)
    s = socket.socket(fileno=fd)
    error = s.connect_ex(address)
    if error:
        print(errno.errorcode[error], flush=True)
    else:
        report(s)


def main():
    way, host, port, *more = sys.argv[1:]
    globals()[way]((host, int(port)), *(int(word) if word.isdigit() else word for word in more))


main()
