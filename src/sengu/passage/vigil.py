"""Those who were clients of an address when it was given to others, until each has its answer.

From that moment on nobody new comes to the old sockets: so whoever was connected then, or about to
be, is all that the old ones have to serve. There are servers that break off what they have in hand
when they are asked to stop, so they are not asked before. Imported by `crossing`.
"""

from collections.abc import Callable, Mapping

from sengu.posix.listening import Peer, Traffic

_LOOKS = 3  # in a row: between two of them a handshake may end
_SILENCE_SECONDS = 1.0  # how long one who has said nothing yet is waited for


class Vigil:
    """`ask` tells who is connected now."""

    def __init__(self, ask: Callable[[], Mapping[Peer, Traffic]], now: float) -> None:
        self._ask = ask
        self._since = now
        found = ask()
        self._left = {peer: one for peer, one in found.items() if not one.is_answered}
        self._calm = 0

    def is_over(self, waiting: int, now: float) -> bool:
        """Look once more; `waiting` is how many the old sockets have in their queues."""
        if self._left and not waiting:
            found = self._ask()
            self._left = {
                peer: before
                for peer, before in self._left.items()
                if peer in found and self._is_open(before, found[peer], now)
            }
        self._calm = 0 if self._left or waiting else self._calm + 1
        return self._calm >= _LOOKS

    def _is_open(self, before: Traffic, traffic: Traffic, now: float) -> bool:
        """Whether it has no answer yet. What else it asks for on a connection that is kept is its
        own risk, and that of a server that breaks that off."""
        if not traffic.received:
            return now < self._since + _SILENCE_SECONDS
        return not (traffic.sent > before.sent and traffic.is_answered)
