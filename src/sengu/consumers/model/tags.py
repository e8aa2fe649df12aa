"""Delivery tags of a channel: which are to be acknowledged, with as few frames as can be.

Pure. A tag that is settled out of turn is acknowledged at once, and not kept back until those
before it are: what is done is not to be done again because somebody dies.
"""

from collections import deque
from typing import NamedTuple


class Acknowledgement(NamedTuple):
    """As basic.ack takes it: that tag, or all up to it."""

    tag: int
    multiple: bool


class Tags:
    """Those of one channel, in the order in which they came."""

    def __init__(self) -> None:
        self._in_order: deque[int] = deque()
        self._open: set[int] = set()
        self._settled: list[int] = []

    def __len__(self) -> int:
        """How many are not settled."""
        return len(self._open)

    def add(self, tag: int) -> None:
        self._in_order.append(tag)
        self._open.add(tag)

    def settle(self, tag: int) -> None:
        """It is to be acknowledged."""
        self._open.remove(tag)
        self._settled.append(tag)

    def give_back(self, tag: int) -> None:
        """It was rejected: there is nothing to acknowledge."""
        self._open.remove(tag)

    def take(self) -> list[Acknowledgement]:
        """What to send now for all that were settled since the last time."""
        settled, self._settled = self._settled, []
        if not settled:
            return []
        last = 0
        while self._in_order and self._in_order[0] not in self._open:
            last = self._in_order.popleft()
        within = [tag for tag in settled if tag <= last]
        apart = [Acknowledgement(tag, False) for tag in settled if tag > last]
        if not within:
            return apart
        return [Acknowledgement(max(within), len(within) > 1), *apart]
