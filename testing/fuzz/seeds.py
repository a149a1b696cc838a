"""Writes the seed corpus. Deterministic: running it again changes nothing."""
import pathlib, struct

HERE = pathlib.Path(__file__).parent / "seeds"

def name(text):
    return b"".join(bytes([len(l)]) + l.encode() for l in text.split(".") if l) + b"\0"

def q(text, kind=1, cls=1):
    return name(text) + struct.pack(">HH", kind, cls)

def opt(size=1232, version=0, do=False, options=b""):
    return b"\0" + struct.pack(">HHBBHH", 41, size, 0, version, 0x8000 if do else 0, len(options)) + options

def msg(flags, counts, rest, ident=0x1234):
    return struct.pack(">HHHHHH", ident, flags, *counts) + rest

def rr(owner, kind, data, ttl=60, cls=1):
    return owner + struct.pack(">HHIH", kind, cls, ttl, len(data)) + data

P = b"\xc0\x0c"
QUERIES = {
    "a": msg(0x0100, (1, 0, 0, 0), q("a.test")),
    "case": msg(0x0100, (1, 0, 0, 0), q("A.tEsT")),
    "aaaa-wildcard": msg(0x0100, (1, 0, 0, 1), q("x.a.test", 28) + opt(4096, do=True)),
    "pending": msg(0x0100, (1, 0, 0, 1), q("x.b.c.a.test") + opt()),
    "https": msg(0x0100, (1, 0, 0, 1), q("six", 65) + opt()),
    "any": msg(0x0100, (1, 0, 0, 0), q("six", 255)),
    "ptr4": msg(0x0100, (1, 0, 0, 0), q("1.0.18.198.in-addr.arpa", 12)),
    "ptr6": msg(0x0100, (1, 0, 0, 0), q("3." + "0." * 27 + "0.0.d.f.ip6.arpa", 12)),
    "foreign": msg(0x0130, (1, 0, 0, 1), q("www.example.com", 16) + opt(4096, do=True, options=b"\0\x0a\0\x08cookie!!\0\x03\0\0")),
    "chaos": msg(0x0100, (1, 0, 0, 0), q("version.bind", 16, 3)),
    "axfr": msg(0, (1, 0, 0, 0), q("example.com", 252)),
    "notify": msg(0x2400, (1, 0, 0, 0), q("a.test", 6)),
    "update": msg(0x2800, (1, 0, 1, 0), q("a.test", 6) + rr(P, 1, b"\1\2\3\4")),
    "badvers": msg(0x0100, (1, 0, 0, 1), q("a.test") + opt(version=1)),
    "two-opt": msg(0x0100, (1, 0, 0, 2), q("a.test") + opt() + opt()),
    "two-questions": msg(0x0100, (2, 0, 0, 0), q("a.test") + q("six")),
    "no-question": msg(0x0100, (0, 0, 0, 0), b""),
    "compressed": msg(0x0100, (1, 0, 0, 0), P + b"\0\1\0\1"),
    "long": msg(0x0100, (1, 0, 0, 1), q(".".join(["a" * 63, "b" * 63, "c" * 63, "d" * 61])) + opt()),
    "too-long": msg(0x0100, (1, 0, 0, 0), q(".".join(["a" * 63] * 4))),
    "response": msg(0x8180, (1, 0, 0, 0), q("a.test")),
    "short": b"\x12\x34\1",
    "tsig": msg(0x0100, (1, 0, 0, 1), q("a.test") + rr(name("key"), 250, b"x" * 40, cls=255)),
}
ASKED = msg(0x0100, (1, 0, 0, 1), q("www.example.com", 1) + opt())
BODY = q("www.example.com", 1)
REPLIES = {
    "a": msg(0x8180, (1, 1, 0, 1), BODY + rr(P, 1, b"\1\2\3\4") + opt()),
    "case": msg(0x8180, (1, 1, 0, 0), q("WWW.example.COM", 1) + rr(P, 1, b"\1\2\3\4")),
    "cname": msg(0x8180, (1, 2, 0, 0), BODY + rr(P, 5, b"\4edge\xc0\x10") + rr(b"\xc0\x2d", 1, b"\1\2\3\4")),
    "nxdomain": msg(0x8183, (1, 0, 1, 0), BODY + rr(b"\xc0\x10", 6, name("ns.example.com") + name("h") + b"\0" * 20)),
    "truncated": msg(0x8380, (1, 9, 0, 0), BODY + b"\xc0\x0c\0"),
    "servfail-bare": msg(0x8182, (0, 0, 0, 0), b""),
    "noerror-bare": msg(0x8180, (0, 0, 0, 0), b""),
    "other-id": msg(0x8180, (1, 0, 0, 0), BODY, ident=0x4321),
    "other-question": msg(0x8180, (1, 0, 0, 0), q("www.example.org", 1)),
    "other-type": msg(0x8180, (1, 0, 0, 0), q("www.example.com", 28)),
    "loop": msg(0x8180, (1, 1, 0, 0), BODY + rr(b"\xc0\x21", 1, b"\1\2\3\4")),
    "forward-pointer": msg(0x8180, (1, 1, 0, 0), BODY + rr(b"\xc0\xff", 1, b"\1\2\3\4")),
    "counts": msg(0x8180, (1, 65535, 65535, 65535), BODY),
    "length": msg(0x8180, (1, 1, 0, 0), BODY + P + b"\0\1\0\1\0\0\0\0\xff\xff"),
    "query": ASKED,
    "txt": msg(0x8180, (1, 1, 0, 0), BODY + rr(P, 16, (b"\xff" + b"t" * 255) * 4)),
}

EDGE = rr(P, 5, b"\4edge\xc0\x10")
TO_CDN = rr(P, 5, name("www.cdn.net"), ttl=20)
CDN = q("www.cdn.net")
ANSWERS = {
    "a": [msg(0x8180, (1, 3, 0, 1), BODY + rr(P, 1, b"\1\2\3\4") + rr(P, 1, b"\x7f\0\0\1") + rr(P, 1, b"\xcb\0\x71\7") + opt())],
    "rejected": [msg(0x8180, (1, 2, 0, 0), BODY + rr(P, 1, b"\xa9\xfe\xa9\xfe") + rr(P, 1, b"\xc6\x12\0\7"))],
    "cname": [msg(0x8180, (1, 2, 0, 0), BODY + EDGE + rr(b"\xc0\x2d", 1, b"\1\2\3\4"))],
    "two-queries": [msg(0x8180, (1, 1, 0, 0), BODY + TO_CDN), msg(0x8180, (1, 1, 0, 0), CDN + rr(P, 1, b"\1\2\3\4"))],
    "loop": [msg(0x8180, (1, 1, 0, 0), BODY + rr(P, 5, P))],
    "loop-of-two": [msg(0x8180, (1, 1, 0, 0), BODY + TO_CDN), msg(0x8180, (1, 1, 0, 0), CDN + rr(P, 5, name("www.example.com")))],
    "nxdomain": [REPLIES["nxdomain"]],
    "nodata": [msg(0x8180, (1, 0, 1, 0), BODY + rr(b"\xc0\x10", 6, name("ns.example.com") + name("h") + b"\0" * 20))],
    "referral": [msg(0x8100, (1, 0, 1, 0), BODY + rr(b"\xc0\x10", 2, name("ns.example.com")))],
    "servfail": [REPLIES["servfail-bare"]],
    "aaaa": [msg(0x8180, (1, 1, 0, 0), BODY + rr(P, 28, b"\x20\1\x0d\xb8" + b"\0" * 12))],
    "odd-name": [msg(0x8180, (1, 1, 0, 0), BODY + rr(P, 5, b"\4\x1b[2J\2\xc3\xa9\0")), msg(0x8182, (0, 0, 0, 0), b"")],
    "malformed": [REPLIES["length"]],
    "other-class": [msg(0x8180, (1, 1, 0, 0), BODY + rr(P, 1, b"\1\2\3\4", cls=3))],
}
HOSTS = {
    "plain": b"127.0.0.1 localhost\n10.0.0.9\tgit.internal git # why\n",
    "crlf": b"127.0.0.1 localhost\r\n10.0.0.9 git.internal\r\n",
    "six": b"::1 ip6-localhost ip6-loopback\nfe80::1%eth0 router\n",
    "comments": b"# 10.0.0.8 no\n10.0.0.9#git\n10.0.0.9 #git\n",
    "twice": b"10.0.0.8 git\n10.0.0.9 GIT git\n",
    "no-address": b"git 10.0.0.9\n10.0.0 git\n10.0.0.256 git\n010.0.0.1 git\n",
    "blank": b"\n \n\t\n10.0.0.9\n",
    "no-end": b"10.0.0.9 git",
    "many": b"".join(b"10.0.0.%d host%d\n" % (n, n) for n in range(40)),
    "odd": b"10.0.0.9 \x1b[2J \xc3\xa9 a\x0bb a\x0cb\n",
    "kubernetes": b"# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n10.1.2.3\tjob-0\n",
}
HTTP = {
    "ok": b"\0HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "redirect": b"\0HTTP/1.1 307 Temporary Redirect\r\nlocation:  https://cdn.net:8443/x?y=1#z\r\n\r\n",
    "relative": b"\0HTTP/1.1 302 Found\r\nLocation: ../ui/\r\n\r\n",
    "authority": b"\0HTTP/1.0 301\nLocation: //user@cdn.net/x\n\n",
    "realm": b"\0HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nWww-Authenticate: Bearer service=\"r\",realm=\"https://auth.net/token\"\r\n\r\n",
    "odd-realm": b"\0HTTP/1.1 401 No\r\nWWW-Authenticate: Bearer realm=\"http://[::1]/,scope=\"a,b\"\r\n\r\n",
    "no-http": b"\x00220 smtp\r\n",
    "half": b"\0HTTP/1.1 302 Fo",
    "ssh": b"\1SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    "ssh-behind": b"\1hello\r\nSSH-2.0-x y\nmore",
    "target": b"\2git.internal:22",
    "target-url": b"\2https://u:p@A.internal:8443/v2/?a=b#c",
    "target-scp": b"\2git@a.internal:p/r.git",
    "target-ssh": b"\2ssh://git@a.internal:7999/p/r.git",
    "host": b"\3localhost:9464",
    "host-four": b"\x03127.0.0.1:9464",
    "host-six": b"\3[::1]:9464",
    "host-mapped": b"\3[::ffff:10.0.0.5]",
    "host-rebound": b"\x03127.0.0.1.example:9464",
}

def sized(packets):
    return b"".join(struct.pack(">H", len(packet)) + packet for packet in packets)

for target, seeds in {"query": {k: b"\0" + v for k, v in QUERIES.items()} | {k + "-real": b"\1" + v for k, v in QUERIES.items() if k in ("a", "aaaa-wildcard", "any", "long")},
                      "reply": {k: struct.pack(">H", len(ASKED)) + ASKED + v for k, v in REPLIES.items()},
                      "answer": {k: sized(v) for k, v in ANSWERS.items()},
                      "hosts": HOSTS, "http": HTTP}.items():
    (HERE / target).mkdir(parents=True, exist_ok=True)
    for seed, data in seeds.items():
        (HERE / target / seed).write_bytes(data)
