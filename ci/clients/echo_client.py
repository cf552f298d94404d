#!/usr/bin/env python3
"""A client of echo-server on Python's blocking sockets.

usage: echo_client.py ADDRESS PORT
"""

import socket
import sys
import threading


def read_exactly(client, count):
    received = bytearray()
    while len(received) < count:
        part = client.recv(min(65536, count - len(received)))
        if not part:
            sys.exit(f"the server closed after {len(received)} of {count} bytes")
        received += part
    return bytes(received)


def main():
    address = sys.argv[1], int(sys.argv[2])
    with socket.create_connection(address, timeout=20) as client:
        client.sendall(b"first")
        if read_exactly(client, 5) != b"first":
            sys.exit("the first echo differs")
        # More than all buffers on the path can hold, so the server must wait for the client, and the client for it.
        message = bytes(range(256)) * 40960
        writer = threading.Thread(target=lambda: (client.sendall(message), client.shutdown(socket.SHUT_WR)))
        writer.start()
        if read_exactly(client, len(message)) != message:
            sys.exit("the echo of 10 MiB differs")
        writer.join()
        # The half-closed client got its echo. Now the server must close.
        if client.recv(1) != b"":
            sys.exit("the server does not close after the client closed")
    print(f"Python: {len(message) + 5} bytes echoed")


if __name__ == "__main__":
    main()
