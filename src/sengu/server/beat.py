"""The beat: a timer that the supervisor watches. When it runs down, we are stuck, and replaced."""

from sengu.posix.loop import Loop, Timer
from sengu.posix.timerfd import TimerDescriptor
from sengu.server.link import Link
from sengu.wire.supervisor import Drop, Hold

_NAME = "beat"
_LIMIT_SECONDS = 8.0
_PERIOD_SECONDS = 2.5  # seldom, as it is all that an idle server wakes up for


class Beat:
    """Winds the timer up for as long as the loop turns."""

    def __init__(self, loop: Loop, link: Link) -> None:
        """Raises OSError."""
        self._loop = loop
        self._link = link
        self._descriptor = TimerDescriptor()
        self._next: Timer | None = None

    def start(self) -> None:
        self._wind()
        self._link.send(Hold(_NAME), (self._descriptor.fd,))

    def stop(self) -> None:
        """We are going to stand still on purpose."""
        self._link.send(Drop(_NAME))
        if self._next is not None:
            self._next.cancel()

    def _wind(self) -> None:
        self._descriptor.wind(_LIMIT_SECONDS)
        self._next = self._loop.call_at(self._loop.now() + _PERIOD_SECONDS, self._wind)
