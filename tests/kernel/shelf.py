"""A store by hand: what a supervisor holds, for one server after another."""

import os
from collections.abc import Callable
from typing import Self

from sengu.posix.store import Held


class Shelf:
    """Implements `posix.store.Store`. Use it as a context manager: it closes its copies."""

    def __init__(self) -> None:
        self.held: dict[str, Held] = {}
        self._untaken: set[str] = set()

    def take(self, name: str) -> Held | None:
        if name not in self._untaken:
            return None
        self._untaken.remove(name)
        held = self.held[name]
        return Held(os.dup(held.fd), held.note)

    def names(self, prefix: str) -> list[str]:
        return [name for name in self.held if name in self._untaken and name.startswith(prefix)]

    def hold(self, name: str, fd: int, note: str = "") -> None:
        self.drop(name)
        self.held[name] = Held(os.dup(fd), note)

    def drop(self, name: str) -> None:
        self._untaken.discard(name)
        if name in self.held:
            os.close(self.held.pop(name).fd)

    def then(self, call: Callable[[], None]) -> None:
        """All that was said has arrived."""
        call()

    def pass_on(self) -> None:
        """From now on there is another server, which may take all that is held."""
        self._untaken = set(self.held)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_problem: object) -> None:
        for name in list(self.held):
            self.drop(name)
