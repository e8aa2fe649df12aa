"""The end of a wait. Imported by `control.client` and cli."""

from sengu.posix import clock

_LEAST_SECONDS = 0.001  # a socket with a timeout of 0 would not wait but refuse to


class Deadline:
    """The end of all waiting for one thing, `seconds` from now; None is never."""

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._at = None if seconds is None else clock.monotonic() + seconds

    def left(self) -> float | None:
        """Seconds left, a little more than none when it is over; None for ever."""
        return None if self._at is None else max(_LEAST_SECONDS, self._at - clock.monotonic())

    def is_over(self) -> bool:
        return self._at is not None and self._at <= clock.monotonic()
