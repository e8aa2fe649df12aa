"""What must outlive a process that is replaced: descriptors, each with a name and a note.

Who keeps them is behind a port. Imported by the server and its listeners.
"""

from typing import Protocol

import msgspec


class Held(msgspec.Struct, frozen=True):
    """A descriptor that somebody before us has made, and what was noted about it."""

    fd: int
    note: str = ""


class Store(Protocol):
    """Descriptors by name. Whoever takes one owns it from then on; the store keeps its own copy."""

    def take(self, name: str) -> Held | None:
        """What is held under that name; None if nothing is, or it was taken already."""

    def names(self, prefix: str) -> list[str]:
        """Names of those that can be taken and begin like that."""

    def hold(self, name: str, fd: int, note: str = "") -> None:
        """Keep a copy of `fd`, in place of what has that name. Raises OSError."""

    def drop(self, name: str) -> None:
        """Let go of the copy."""
