"""What the shops of all frameworks send in pieces."""

from collections.abc import Iterator

TYPE = "text/plain; charset=utf-8"


def pieces(gate: str) -> Iterator[bytes]:
    """The second piece comes when somebody has opened the FIFO for writing, and closed it."""
    yield b"first\n"
    with open(gate, "rb") as stream:
        stream.read()
    yield b"second\n"
