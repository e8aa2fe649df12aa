"""A worker that tells a test what it finds at its start, and each signal that it gets.

Run by path, so that it stands alone: `witness.py SOCKET [hold] [talk]`. With `hold` a signal
does not end it, with `talk` it writes a line to stdout and to stderr at its start and at USR1.
"""

import json
import os
import re
import signal
import socket
import sys
from typing import Any

_TOLD_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def descriptors() -> dict[int, str]:
    """What each open descriptor is, as /proc spells it."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


def describe_socket(fd: int) -> dict[str, Any]:
    with socket.socket(fileno=os.dup(fd)) as copy:
        described = {
            "family": copy.family.name,
            "type": copy.type.name,
            "address": copy.getsockname(),
            "listens": copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN),
            "SO_REUSEADDR": copy.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR),
            "SO_REUSEPORT": copy.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT),
            "blocks": os.get_blocking(fd),
        }
        if copy.family is socket.AF_INET6:
            described["V6ONLY"] = copy.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    return described


def describe_self() -> dict[str, Any]:
    fds = descriptors()
    named = re.findall(r"=(\d+)(?:;|$)", os.environ.get("SERVER_STARTER_PORT", ""))
    sockets = {int(fd) for fd in named} | {fd for fd in fds if fds[fd].startswith("socket:")}
    return {
        "env": dict(os.environ),
        "fds": fds,
        "sockets": {fd: describe_socket(fd) for fd in sorted(sockets)},
        "cwd": os.getcwd(),
        "session": os.getsid(0),
        "umask": re.findall(r"Umask:\s*(\d+)", open("/proc/self/status").read())[0],
    }


def main(address: str, *options: str) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _TOLD_SIGNALS)
    found = describe_self()
    test = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    test.connect(address)

    def tell(event: str, **details: Any) -> None:
        if "talk" in options:
            os.write(1, f"{event} on stdout of {os.getpid()}\n".encode())
            os.write(2, f"{event} on stderr of {os.getpid()}\n".encode())
        test.send(json.dumps({"event": event, "pid": os.getpid(), **details}).encode())

    tell("started", **found)
    if manager := os.environ.get("NOTIFY_SOCKET"):
        test_manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        test_manager.sendto(b"READY=1", re.sub("^@", "\0", manager))
    while True:
        number = signal.Signals(signal.sigwait(_TOLD_SIGNALS))
        tell(number.name.removeprefix("SIG"))
        if "hold" not in options and number is not signal.SIGUSR1:
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
