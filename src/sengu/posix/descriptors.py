"""File descriptors: who keeps which across exec.

Everything is close-on-exec; a child gets exactly what is placed for it.
"""

import fcntl
import os
from collections.abc import Mapping

FIRST_PASSED_FD = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)


def seal() -> None:
    """Mark whatever our own parent left open, above stderr, as close-on-exec."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd >= FIRST_PASSED_FD:
            try:
                os.set_inheritable(fd, False)
            except OSError:  # the descriptor of the listing itself, closed by now
                continue


def place(plan: Mapping[int, int]) -> None:
    """In a child: make each target descriptor a copy of its source, inheritable.

    Sources are first copied above all targets, so that no target overwrites a source.
    """
    if not plan:
        return
    above = max(plan) + 1
    copies = {
        target: fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, above) for target, source in plan.items()
    }
    for target, copy in copies.items():
        os.dup2(copy, target, inheritable=True)


def pipe() -> tuple[int, int]:
    """A pipe whose read end does not block: (read end, write end)."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read_end, False)
    return read_end, write_end
