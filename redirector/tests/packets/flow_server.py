"""Serves the load balancers' addresses: "hello" is answered with the own address, "later" after a
pause; everything else is sent back. Prints a line for each connection that was reset."""
import socket, sys, threading, time


def serve(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.create_server((address, port), family=family, backlog=512)
    threading.Thread(target=accept, args=(listener, address), daemon=True).start()


def accept(listener, address):
    while True:
        client, _ = listener.accept()
        threading.Thread(target=converse, args=(client, address), daemon=True).start()


def converse(client, address):
    try:
        while data := client.recv(1 << 16):
            if data == b"hello":
                client.sendall(address.encode())
            elif data == b"later":
                time.sleep(1)
                client.sendall(b"now")
            else:
                client.sendall(data)
    except ConnectionResetError:
        print("reset", flush=True)
    client.close()


for address in sys.argv[1:]:
    serve(address, 443)
print("ready", flush=True)
threading.Event().wait()
