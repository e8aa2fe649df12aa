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
from sengu.posix.descriptors import close_at_once
from sengu.posix.loop import Loop
from sengu.posix.store import Store
from sengu.server.link import Link
from sengu.wire import supervisor as wire

_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid (unix(7))
_MESSAGE_BYTES = 4096
_MAX_DESCRIPTORS = 16
_MESSAGES_AT_ONCE = 1024  # more than wait at a time: net.unix.max_dgram_qlen is 10, or 512


class NotifySocket:
    """The socket of one worker: so that who speaks need not be guessed from a pid.

    Its name is in the abstract namespace: no file to leave behind. Such a name can be reached by
    any user, so messages count only from our own uid, root, or a process of the worker's session.
    """

    def __init__(self, loop: Loop, store: Store, label: str, remark: str) -> None:
        """`remark` is what whoever finds the socket in the store is to know. Raises OSError."""
        self._loop = loop
        self._store = store
        self._key = f"notify/{label}"
        self._session = 0
        self._hear: Callable[[Mapping[str, str]], None] = lambda message: None
        held = store.take(self._key)
        if held is not None:
            self._socket = socket.socket(fileno=held.fd)
            self.name, self.remark = held.note.partition(" ")[0], remark_of(held.note)
            return
        self.name = f"@sengu/{os.getpid()}/{label}/{os.urandom(8).hex()}"
        self.remark = remark
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._socket.bind("\0" + self.name[1:])
            store.hold(self._key, self._socket.fileno(), f"{self.name} {remark}")
        except OSError:
            self._socket.close()
            raise

    def start(self, session: int, hear: Callable[[Mapping[str, str]], None]) -> None:
        """Call `hear` with each message from the worker whose session is `session`."""
        self._session = session
        self._hear = hear
        self._loop.watch(self._socket.fileno(), select.EPOLLIN, self.drain)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._store.drop(self._key)
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()

    def drain(self) -> None:
        """Hear everything that has arrived, and not what arrives meanwhile without end.

        Each message is first looked at, and taken out when it has been heard: what it means is on
        record then, so it is not lost with us in between.
        """
        for _ in range(_MESSAGES_AT_ONCE):
            try:
                data, sender = self._peek()
            except BlockingIOError:
                return
            if sender is not None and self._is_trusted(*sender):
                self._hear(parse(data))
            if self._socket.fileno() < 0:  # closed by who has heard it
                return
            self._take_out()

    def _peek(self) -> tuple[bytes, tuple[int, int] | None]:
        """The next message and its sender's (pid, uid). Raises BlockingIOError.

        There is room for nothing but the sender: descriptors beside it would be opened twice.
        """
        room = socket.CMSG_LEN(_CREDENTIALS.size)
        data, control, _flags, _name = self._socket.recvmsg(_MESSAGE_BYTES, room, socket.MSG_PEEK)
        for level, kind, payload in control:
            is_sender = level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS
            if is_sender and len(payload) == _CREDENTIALS.size:
                pid, uid, _gid = _CREDENTIALS.unpack(payload)
                return data, (pid, uid)
        return data, None

    def _take_out(self) -> None:
        room = socket.CMSG_SPACE(_CREDENTIALS.size) + socket.CMSG_SPACE(4 * _MAX_DESCRIPTORS)
        _data, control, _flags, _name = self._socket.recvmsg(_MESSAGE_BYTES, room)
        descriptors = array.array("i")
        for level, kind, payload in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % 4])
        for fd in descriptors:  # closing it is also the answer to BARRIER=1
            close_at_once(fd)

    def _is_trusted(self, pid: int, uid: int) -> bool:
        if uid in (0, os.geteuid()):
            return True
        try:
            return os.getsid(pid) == self._session
        except OSError:  # already gone, or in a pid namespace that we can not see
            return False


class Manager:
    """Our own manager, systemd or another sengu, if NOTIFY_SOCKET was set for the main process.

    It hears the main process only (NotifyAccess= in systemd.exec(5)), so that speaks for us.
    """

    def __init__(self, loop: Loop, link: Link, environment: MutableMapping[str, str]) -> None:
        """Takes its variables out of `environment`: they are not meant for workers."""
        self._loop = loop
        self._link = link
        self._is_there = bool(environment.pop("NOTIFY_SOCKET", ""))
        self._watchdog_usec = environment.pop("WATCHDOG_USEC", "")
        self._watchdog_pid = environment.pop("WATCHDOG_PID", "")

    def start(self, main_pid: int) -> None:
        """Send the beats that it wants."""
        is_for_us = self._watchdog_pid in ("", str(main_pid))
        if self._is_there and is_for_us and self._watchdog_usec.strip("0").isdecimal():
            # Half of it, as sd_watchdog_enabled(3) advises.
            self._beat(int(self._watchdog_usec) / 2e6)

    def say(self, *lines: str) -> None:
        """Send one message; lost without complaint when nobody listens."""
        if self._is_there:
            self._link.send(wire.Notify("\n".join(lines)))

    def say_reloading(self) -> None:
        usec = int(clock.monotonic() * 1_000_000)
        self.say("RELOADING=1", f"MONOTONIC_USEC={usec}")

    def _beat(self, seconds: float) -> None:
        self.say("WATCHDOG=1")
        self._loop.call_at(self._loop.now() + seconds, lambda: self._beat(seconds))


def remark_of(note: str) -> str:
    """The remark in what the store has noted about a `NotifySocket`."""
    return note.partition(" ")[2]


def parse(data: bytes) -> dict[str, str]:
    """The KEY=VALUE lines of a message; lines of another form are left out."""
    lines = (line.partition("=") for line in data.decode(errors="replace").splitlines())
    return {key: value for key, equals, value in lines if equals}
