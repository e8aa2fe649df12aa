"""Signals as a descriptor: handlers do nothing, the numbers arrive on a pipe."""

import os
import signal
from collections.abc import Collection

from sengu.posix import descriptors


class SignalPipe:
    """Catches `numbers` for the life of the process; `fd` is readable when some have arrived."""

    def __init__(self, numbers: Collection[int]) -> None:
        self.fd, write_end = descriptors.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _ignore)
        # Whoever started us may have blocked them, and a mask survives exec: we would be deaf.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    def read(self) -> list[int]:
        """Numbers of the signals that arrived since the last call, each once, in order."""
        try:
            return list(dict.fromkeys(os.read(self.fd, 4096)))
        except BlockingIOError:
            return []


def _ignore(_number: int, _frame: object) -> None:
    """The number is in the pipe already."""
