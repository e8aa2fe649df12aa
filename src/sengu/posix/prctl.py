"""prctl(2): what a process asks of the kernel about its own parent."""

import ctypes
import os

_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def set_parent_death_signal(signal: int) -> None:
    """Have the kernel send us `signal` when our parent ends. Survives exec, not fork."""
    if _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
