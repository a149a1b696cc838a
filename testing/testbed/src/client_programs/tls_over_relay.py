# python3 tls_over_relay.py NAME CA RELAY: TLS without a socket of Python's own. The relay resolves
# the name and connects.
import ssl
import subprocess
import sys

name, ca, relay = sys.argv[1:]
pipe = subprocess.PIPE
process = subprocess.Popen([relay, name, "443"], stdin=pipe, stdout=pipe, stderr=pipe)
peer = process.stderr.readline().decode().strip()
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
context = ssl.create_default_context(cafile=ca)
tls = context.wrap_bio(incoming, outgoing, server_hostname=name)


def step(call):
    while True:
        try:
            return call()
        except ssl.SSLWantReadError:
            process.stdin.write(outgoing.read())
            process.stdin.flush()
            data = process.stdout.read1(65536)
            assert data, f"the connection ended: {peer}"
            incoming.write(data)


step(tls.do_handshake)
tls.write(f"GET / HTTP/1.0\r\nHost: {name}\r\n\r\n".encode())
status = step(lambda: tls.read(12)).decode().split()[1]
print("musl", peer.removesuffix(":443"), status)
process.kill()
