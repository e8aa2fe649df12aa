"""NOTIFY_SOCKET, both ways: what workers tell us, and what we tell our own manager.

The protocol is sd_notify(3): datagrams of KEY=VALUE lines.
"""

import array
import os
import select
import socket
import struct
from collections.abc import Callable, Mapping, MutableMapping

from sengu.posix import clock
from sengu.posix.loop import Loop

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))
_NO_LINGER = struct.pack("ii", 0, 0)  # struct linger: on or off, seconds
_MESSAGE_BYTES = 4096
_MAX_DESCRIPTORS = 16
_MESSAGES_AT_ONCE = 1024  # more than wait at a time: net.unix.max_dgram_qlen is 10, or 512


class NotifySocket:
    """The socket of one worker: so that who speaks need not be guessed from a pid.

    Its name is in the abstract namespace: no file to leave behind. Such a name can be reached by
    any user, so messages count only from our own uid, root, or a process of the worker's session.
    """

    def __init__(self, loop: Loop, label: str) -> None:
        self._loop = loop
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.name = f"@sengu/{os.getpid()}/{label}/{os.urandom(8).hex()}"
        self._socket.bind("\0" + self.name[1:])
        self._session = 0
        self._hear: Callable[[Mapping[str, str]], None] = lambda message: None

    def start(self, session: int, hear: Callable[[Mapping[str, str]], None]) -> None:
        """Call `hear` with each message from the worker whose session is `session`."""
        self._session = session
        self._hear = hear
        self._loop.watch(self._socket.fileno(), select.EPOLLIN, self.drain)

    def close(self) -> None:
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()

    def drain(self) -> None:
        """Hear everything that has arrived, and not what arrives meanwhile without end."""
        room = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS)
        for _ in range(_MESSAGES_AT_ONCE):
            try:
                data, control, _flags, _sender = self._socket.recvmsg(_MESSAGE_BYTES, room)
            except BlockingIOError:
                return
            sender, descriptors = _unpack(control)
            for fd in descriptors:  # closing it is also the answer to BARRIER=1
                _close_at_once(fd)
            if sender is not None and self._is_trusted(*sender):
                self._hear(parse(data))

    def _is_trusted(self, pid: int, uid: int) -> bool:
        if uid in (0, os.geteuid()):
            return True
        try:
            return os.getsid(pid) == self._session
        except OSError:  # already gone, or in a pid namespace that we can not see
            return False


class Manager:
    """Our own manager, systemd or another sengu, if NOTIFY_SOCKET was set for us."""

    def __init__(self, loop: Loop, environment: MutableMapping[str, str]) -> None:
        """Takes its variables out of `environment`: they are not meant for workers."""
        self._loop = loop
        self._address = environment.pop("NOTIFY_SOCKET", "")
        self._socket: socket.socket | None = None
        watchdog_usec = environment.pop("WATCHDOG_USEC", "")
        watchdog_pid = environment.pop("WATCHDOG_PID", str(os.getpid()))
        if not self._address:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        if watchdog_usec.strip("0").isdecimal() and watchdog_pid == str(os.getpid()):
            self._beat(int(watchdog_usec) / 2e6)  # half of it, as sd_watchdog_enabled(3) advises

    def say(self, *lines: str) -> None:
        """Send one message; lost without complaint when nobody listens."""
        if self._socket is None:
            return
        address = self._address
        target = "\0" + address[1:] if address.startswith("@") else address
        try:
            self._socket.sendto("\n".join(lines).encode(), target)
        except OSError:  # the manager is gone or its queue full; it is not ours to suffer
            return

    def say_reloading(self) -> None:
        usec = int(clock.monotonic() * 1_000_000)
        self.say("RELOADING=1", f"MONOTONIC_USEC={usec}")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _beat(self, seconds: float) -> None:
        self.say("WATCHDOG=1")
        self._loop.call_at(self._loop.now() + seconds, lambda: self._beat(seconds))


def parse(data: bytes) -> dict[str, str]:
    """The KEY=VALUE lines of a message; lines of another form are left out."""
    lines = (line.partition("=") for line in data.decode(errors="replace").splitlines())
    return {key: value for key, equals, value in lines if equals}


def _close_at_once(fd: int) -> None:
    """Close what somebody sent us: a socket set to linger (socket(7)) would hold us up."""
    try:
        stranger = socket.socket(fileno=fd)
    except OSError:  # no socket
        os.close(fd)
        return
    with stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)


def _unpack(control: list[tuple[int, int, bytes]]) -> tuple[tuple[int, int] | None, list[int]]:
    """The sender's (pid, uid), and descriptors that came along."""
    sender: tuple[int, int] | None = None
    descriptors = array.array("i")
    for level, kind, data in control:
        if level != socket.SOL_SOCKET:
            continue
        if kind == socket.SCM_CREDENTIALS and len(data) == _CREDENTIALS.size:
            pid, uid, _gid = _CREDENTIALS.unpack(data)
            sender = (pid, uid)
        elif kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return sender, list(descriptors)
