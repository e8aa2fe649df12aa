"""What a technique of steering has to do, and what borrowing another's socket takes.

Steering is choosing which sockets of a group get new connections. Imported by all of the package.
"""

import enum
import os
import socket
from collections.abc import Iterator, Set
from contextlib import contextmanager
from typing import Protocol

from sengu.model.passage import Technique
from sengu.passage.group import Look
from sengu.posix import pidfd
from sengu.posix.procfs import holders


class Steered(enum.Enum):
    """What came of it. NOT_YET: others are in the way, who may go; NEVER: it cannot be done."""

    DONE = enum.auto()
    NOT_YET = enum.auto()
    NEVER = enum.auto()


class Steering(Protocol):
    """One technique on one group. It is at rest, holding nothing, or at work since `hold`.

    `name` is what people are told. `migrates`: what waits in a socket's queue when that is closed
    goes to others of the group, by the kernel.
    """

    name: Technique
    migrates: bool

    def try_out(self, look: Look) -> None:
        """See whether it works with those who are there now. Raises OSError when it does not."""

    def hold(self, look: Look) -> None:
        """Begin: others are about to join those who are there now. Raises OSError."""

    def steer(self, look: Look, chosen: Set[int]) -> Steered:
        """Let only `chosen`, by inode, get new connections. Raises OSError."""

    def tend(self, look: Look) -> None:
        """Serve what has come to sockets that nobody else serves."""

    def let_go(self, look: Look) -> bool:
        """End: only those who are to be there are there, and all of them get connections again.

        Whether it is done; else it is to be asked for again. Raises OSError; then it is done, too,
        though perhaps not well.
        """


@contextmanager
def borrowed(inodes: Set[int]) -> Iterator[dict[int, socket.socket]]:
    """Descriptors of our own for sockets that other processes have (pidfd_getfd(2)), by inode.

    They are closed at the end, but for those that are taken out. Raises PermissionError when one of
    those processes is not ours to look into, OSError when it is gone.
    """
    found: dict[int, socket.socket] = {}
    try:
        where = holders(inodes)
        for inode in sorted(inodes):
            if inode not in where:
                raise PermissionError(None, "nobody who may be looked into has the socket")
            found[inode] = _take(inode, *where[inode])
        yield found
    finally:
        for sock in found.values():
            sock.close()


def borrow_one(inodes: Set[int]) -> socket.socket:
    """A descriptor of our own for any of them: one may be closed meanwhile, another stays.

    Raises OSError when there is none to be had.
    """
    problem: OSError = PermissionError(None, "nobody who may be looked into has a socket")
    for inode, (pid, number) in holders(inodes).items():
        try:
            return _take(inode, pid, number)
        except OSError as error:
            problem = error
    raise problem


def _take(inode: int, pid: int, number: int) -> socket.socket:
    process = pidfd.open_pid(pid)
    try:
        taken = socket.socket(fileno=pidfd.take(process, number))
    finally:
        os.close(process)
    if inode_of(taken) != inode:  # that process has put another in its place
        taken.close()
        raise ProcessLookupError(None, "the socket was closed meanwhile")
    return taken


def inode_of(sock: socket.socket) -> int:
    return os.fstat(sock.fileno()).st_ino
