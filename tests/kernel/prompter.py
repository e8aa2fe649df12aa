"""The supervisor's end of a link, spoken by the test, line by line."""

import os
import socket
from collections.abc import Mapping
from typing import Self, TypeVar

from sengu.posix import packets
from sengu.posix.loop import Loop
from sengu.posix.store import Held
from sengu.server.children import Children
from sengu.server.link import Link
from sengu.wire import supervisor as wire
from tests.kernel.children import run_until

Message = TypeVar("Message", bound=wire.ToSupervisor)


class Prompter:
    """A link, its loop, and the socket at its other end. Use it as a context manager."""

    def __init__(self, held: Mapping[str, Held] | None = None) -> None:
        self.loop = Loop()
        ours, self.socket = packets.pair()
        self.socket.setblocking(False)
        self.link = Link(self.loop, ours, dict(held or {}))
        self._end = ours
        self._received: list[int] = []

    def make_children(self) -> Children:
        """Children who hear what we say from now on."""
        children = Children(self.loop, self.link)

        def hear(message: wire.FromSupervisor, fd: int | None) -> None:
            assert children.hear(message, fd)

        self.link.listen(hear, children.lose_supervisor)
        return children

    def hear(self, kind: type[Message]) -> Message:
        """What the server says next, which has to be of that kind."""
        return self.hear_with(kind)[0]

    def hear_with(self, kind: type[Message]) -> tuple[Message, list[int]]:
        """Its descriptors are closed with us."""
        heard: list[wire.ToSupervisor] = []
        found: list[int] = []

        def look() -> bool:
            try:
                data, descriptors = packets.receive(self.socket)
            except BlockingIOError:
                return False
            found.extend(descriptors)
            heard.append(wire.decode_to(data))
            return True

        run_until(self.loop, look)
        self._received += found
        message = heard[0]
        assert isinstance(message, kind), message
        return message, found

    def hears_nothing(self) -> bool:
        """The server has nothing to say by now."""
        self.loop.run_once(self.loop.now())
        try:
            packets.receive(self.socket)
        except BlockingIOError:
            return True
        return False

    def say(self, message: wire.FromSupervisor, *fds: int) -> None:
        packets.send(self.socket, wire.encode_from(message), fds)

    def end(self) -> None:
        """The supervisor is killed."""
        self.socket.shutdown(socket.SHUT_RDWR)  # children of the test have it, too
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_problem: object) -> None:
        self.socket.close()
        if not self.link.is_lost:
            self.loop.unwatch(self._end.fileno())
        self._end.close()
        self.loop.close()
        for fd in self._received:
            os.close(fd)
