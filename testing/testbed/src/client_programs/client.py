# python3 client.py NAME CA: the peer's address, and the status of a request.
import socket
import ssl
import sys
import urllib.request

name, ca = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
plain = socket.create_connection((name, 443), 10)
secured = context.wrap_socket(plain, server_hostname=name)
peer = secured.getpeername()[0]
secured.close()
answer = urllib.request.urlopen(f"https://{name}/", context=context, timeout=10)
print("python", peer, answer.status)
