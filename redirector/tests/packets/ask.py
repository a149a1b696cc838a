"""Sends one query for an address and prints the answer's code and address, and who answered.

usage: ask.py NAME SERVER [connected] [mark=N] [offload=off] [tag=VLAN]
"""
import array, fcntl, socket, struct, sys

name, server, options = sys.argv[1], sys.argv[2], sys.argv[3:]
family = socket.AF_INET6 if ":" in server else socket.AF_INET


def option(key):
    return next((text.split("=")[1] for text in options if text.startswith(key + "=")), None)


def question():
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack(">6H", 0x1234, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)


def describe(reply, source):
    code = reply[3] & 15
    address = socket.inet_ntoa(reply[-4:]) if reply[7] else "none"
    authentic = reply[:2] == b"\x12\x34" and reply[2] & 0x80
    print(code if authentic else "foreign", address, source)


def set_offload(device, enabled):
    setting = array.array("B", struct.pack("II", 0x17, enabled))  # ETHTOOL_STXCSUM
    address, _ = setting.buffer_info()
    with socket.socket() as control:
        fcntl.ioctl(control, 0x8946, struct.pack("16sP", device, address))  # SIOCETHTOOL


def tagged(vlan):
    """A frame with a tag, written by hand; the reply's tag is in the auxiliary data."""
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    raw.bind(("eth0", 0))
    raw.setsockopt(263, 8, 1)  # SOL_PACKET, PACKET_AUXDATA
    raw.settimeout(5)
    own = raw.getsockname()[4]
    data = question()
    udp = struct.pack(">4H", 40000, 53, 8 + len(data), 0) + data
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0,
                       socket.inet_aton("10.61.1.2"), socket.inet_aton(server))
    total = sum(struct.unpack(">10H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", total ^ 0xFFFF) + head[12:]
    other = bytes.fromhex(option("mac").replace(":", ""))
    raw.send(other + own + struct.pack(">HHH", 0x8100, vlan, 0x0800) + head + udp)
    while True:
        frame, auxiliary, _, _ = raw.recvmsg(2048, 256)
        if frame[:6] == own and frame[23] == 17 and frame[34:36] == b"\0\x35":
            tag = struct.unpack("IIIHHHH", auxiliary[0][2])[5]
            return describe(frame[42:], "%s tag %d" % (socket.inet_ntoa(frame[26:30]), tag))


if option("offload") == "off":
    set_offload(b"eth0", 0)
if option("tag"):
    tagged(int(option("tag")))
    sys.exit()
client = socket.socket(family, socket.SOCK_DGRAM)
client.settimeout(3)
if option("mark"):
    client.setsockopt(socket.SOL_SOCKET, 36, int(option("mark")))  # SO_MARK
try:
    if "connected" in options:
        client.connect((server, 53))
        client.send(question())
        describe(client.recv(2048), server)
    else:
        client.sendto(question(), (server, 53))
        reply, source = client.recvfrom(2048)
        describe(reply, source[0])
except TimeoutError:
    print("silence")
