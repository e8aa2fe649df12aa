"""What became of the worker that had the same in hand before. Imported by engines."""

from sengu.posix.swap_file import SwapFile
from sengu.wire import obituaries
from sengu.wire.obituaries import Obituary
from sengu.wire.scoreboard import request_text

__all__ = ["Obituary", "find"]


def find(swap_file: SwapFile, text: str) -> Obituary | None:
    """The last obituary of a worker that had `text` in hand, by what a lane shows of it.

    `swap_file` is `Runtime.obituaries`. The server writes there before it starts a successor; but
    whoever has lost a connection to a dead worker may know of its death earlier.
    """
    _, data = swap_file.read()
    return obituaries.latest_with(obituaries.decode(data), request_text(text.encode()))
