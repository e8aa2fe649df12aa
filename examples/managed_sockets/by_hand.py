"""The same question asked without sengu's package: one packet of JSON each way, over a UNIX socket.

sengu start -- python3 examples/managed_sockets/by_hand.py 5000
"""

import json
import os
import socket
import sys


def ask(**what: object) -> socket.socket:
    """The socket, or OSError. Ask again on ConnectionError: the server was replaced."""
    name = os.environ["SENGU_SOCKETS"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as manager:
        manager.connect("\0" + name.removeprefix("@"))
        manager.sendall(json.dumps(what).encode())
        packet, descriptors, _, _ = socket.recv_fds(manager, 65536, 1)
    if not packet:
        raise ConnectionError("the connection ended without an answer")
    answer = json.loads(packet)
    if answer["answer"] != "socket":
        raise OSError(answer["errno"], answer["problem"])
    return socket.socket(fileno=descriptors[0])


def main() -> None:
    listener = ask(listen="tcp", host="127.0.0.1", port=int(sys.argv[1]))
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(f"{os.getpid()}\n".encode())


if __name__ == "__main__":
    main()
