"""A worker that asks for what its script says, a line each, and then waits for its end.

Lines are `tcp HOST PORT`, `udp HOST PORT`, `unix PATH` and `user UID`. It tells what came of each
in a line: `got` and an inode, or `failed` with number and text of the error.
"""

import os
import signal
import socket
import sys
from pathlib import Path

from sengu.work.sockets import SocketManager


def ask(kind: str, *words: str) -> str:
    manager = SocketManager()
    try:
        match kind:
            case "user":
                os.setgroups([])
                os.setgid(int(words[0]))
                os.setuid(int(words[0]))
                return "changed"
            case "tcp":
                found = manager.listen_tcp(words[0], int(words[1]), backlog=50)
            case "udp":
                found = manager.listen_udp(words[0], int(words[1]))
            case _:
                found = manager.listen_unix(words[0])
    except OSError as error:
        return f"failed {error.errno} {error.strerror}"
    kept.append(found)
    return f"got {os.fstat(found.fileno()).st_ino}"


kept: list[object] = []
for line in Path(sys.argv[1]).read_text().splitlines():
    print(f"asker {line}: {ask(*line.split())}", flush=True)
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.sendto(b"READY=1", "\0" + os.environ["NOTIFY_SOCKET"][1:])
signal.pause()
