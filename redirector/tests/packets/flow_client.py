"""Does what the lines of its input say, and prints one line for each.

connect ADDRESS [PORT]  a connection, kept; from a port of its own
many ADDRESS NUMBER     as many connections, one after the other: how often each server answered
echo                    a round trip on every kept connection
later                   asks the last one for an answer after a pause
last                    a round trip on the last one
close                   closes the last one
tagged ADDRESS VLAN MAC a SYN in a frame with a tag: flags and tag of the answer
"""
import collections, errno, socket, struct, sys

kept = []


def connect(address, port=0):
    client = socket.socket()
    client.settimeout(10 if not port else 3)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind(("", int(port)))
    client.connect((address, 443))
    return client


def say(client, data):
    client.sendall(data)
    return client.recv(64).decode() or "end"


def many(address, number):
    servers = collections.Counter()
    for _ in range(int(number)):
        with connect(address) as client:
            server = say(client, b"hello")
            client.shutdown(socket.SHUT_WR)
            servers[server if client.recv(9) == b"" else "no end"] += 1
    return " ".join("%s=%d" % item for item in sorted(servers.items()))


def checksum(data):
    total = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def tagged(address, vlan, mac):
    """The tag of what is received is in the auxiliary data."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind(("eth0", 0))
    raw.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
    raw.settimeout(2)
    own = raw.getsockname()[4]
    ends = socket.inet_aton("10.61.1.2") + socket.inet_aton(address)
    tcp = struct.pack(">HHIIBBHHH", 40000, 443, 1000, 0, 0x50, 2, 8192, 0, 0)
    tcp = tcp[:16] + struct.pack(">H", checksum(ends + struct.pack(">HH", 6, 20) + tcp)) + tcp[18:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 40, 1, 0, 64, 6, 0) + ends
    head = head[:10] + struct.pack(">H", checksum(head)) + head[12:]
    other = bytes.fromhex(mac.replace(":", ""))
    raw.send(other + own + struct.pack(">HHH", 0x8100, int(vlan), 0x0800) + head + tcp)
    while True:
        frame, auxiliary, _, _ = raw.recvmsg(2048, 256)
        if frame[:6] == own and frame[23] == 6 and frame[34:36] == struct.pack(">H", 443):
            tag = struct.unpack("IIIHHHH", auxiliary[0][2])[5]
            return "flags 0x%02x tag %d" % (frame[47], tag)


def act(command, *arguments):
    if command == "connect":
        client = connect(*arguments)
        kept.append(client)
        return say(client, b"hello") + " " + client.getpeername()[0]
    if command == "tagged":
        return tagged(*arguments)
    if command == "many":
        return many(*arguments)
    if command == "echo":
        return "%d of %d" % (sum(say(client, b"ping") == "ping" for client in kept), len(kept))
    if command == "later":
        return kept[-1].sendall(b"later") or "asked"
    if command == "last":
        return say(kept[-1], b"ping")
    return kept.pop().close() or "closed"


for line in sys.stdin:
    try:
        print(act(*line.split()), flush=True)
    except OSError as error:
        print(errno.errorcode.get(error.errno, type(error).__name__), flush=True)
