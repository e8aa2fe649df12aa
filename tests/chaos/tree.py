"""The processes of an instance: who they are, whose requests they have in hand, what they hold.

Processes are told apart by what ps shows, as a person would do it, so also while no server answers.
"""

import ctypes
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tests.chaos.plan import Role
from tests.system.puppets import wait_until

_PIDFD_GETFD = 438
_libc = ctypes.CDLL(None, use_errno=True)
_GONE = (FileNotFoundError, ProcessLookupError)


class Process(NamedTuple):
    pid: int
    parent: int
    session: int
    title: str


def below(main_pid: int) -> list[Process]:
    """All living processes of the tree under `main_pid`, without it, by pid."""
    processes = {process.pid: process for process in _all()}
    return sorted(
        process for process in processes.values() if _descends(process, main_pid, processes)
    )


def of_role(main_pid: int, role: Role) -> list[Process]:
    """Those of the role, by pid: the main process and its children."""
    if role is Role.SUPERVISOR:
        return [process for process in _all() if process.pid == main_pid]
    own = os.getsid(main_pid)
    return [
        process
        for process in below(main_pid)
        if process.parent == main_pid and _role(process, own) is role
    ]


def _role(process: Process, own_session: int) -> Role | None:
    if "--check" in process.title:  # the new supervisor is tried
        return None
    if process.session == own_session:
        return Role.SERVER
    if re.search(r" fork server |sengu\.forkserver", process.title):
        return Role.FORK_SERVER
    return Role.WORKER


def _all() -> Iterator[Process]:
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        with suppress(*_GONE):
            stat = Path(entry.path, "stat").read_text(errors="replace")
            state, parent, _group, session = stat.rpartition(")")[2].split()[:4]
            title = Path(entry.path, "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            if state not in "ZX":
                yield Process(int(entry.name), int(parent), int(session), title)


def _descends(process: Process, ancestor: int, processes: dict[int, Process]) -> bool:
    parent = process.parent
    while parent != ancestor and parent in processes:
        parent = processes[parent].parent
    return parent == ancestor


@contextmanager
def standing(pid: int) -> Iterator[int]:
    """Its pidfd while it stands still; what was done to it before has come to an end.

    Raises ProcessLookupError.
    """
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        wait_until(lambda: set(_states(pid)) <= set("TtZX"), f"process {pid} stands still")
        yield pidfd
    finally:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
        os.close(pidfd)


def _states(pid: int) -> Iterator[str]:
    """Of all its threads; none when it has gone."""
    with suppress(*_GONE):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with suppress(*_GONE):
                stat = Path(f"/proc/{pid}/task/{thread}/stat").read_text(errors="replace")
                yield stat.rpartition(")")[2].split()[0]


def in_hand(pid: int, pidfd: int) -> frozenset[int]:
    """The other ends' ports of all TCP connections that the process has."""
    ports = set()
    with suppress(*_GONE):
        for number in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
                    ports.add(_peer_port(pidfd, int(number)))
    return frozenset(ports - {0})


def _peer_port(pidfd: int, number: int) -> int:
    """0 for what is no TCP connection. Raises OSError."""
    fd = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    with socket.socket(fileno=fd) as copy:
        if copy.family != socket.AF_INET:
            return 0
        return int(copy.getpeername()[1])


def holdings(pid: int) -> Counter[str]:
    """How many descriptors of each kind the process has."""
    kinds: Counter[str] = Counter()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(*_GONE):
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            kinds[re.sub(r":\[\d+\]| \(deleted\)", "", target)] += 1
    return kinds
