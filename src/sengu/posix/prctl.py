"""prctl(2): what a process asks of the kernel about its own parent, about orphans, and about who
may look into it."""

import ctypes
import os

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


def set_parent_death_signal(signal: int) -> None:
    """Have the kernel send us `signal` when our parent ends. Survives exec, not fork."""
    _prctl(_PR_SET_PDEATHSIG, signal)


def become_subreaper() -> None:
    """Have orphans below us become our children. Does not survive fork."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def is_dumpable() -> bool:
    """Whether processes of our user may look into us."""
    return bool(_libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0) == 1)


def set_dumpable(value: bool) -> None:
    """Say whether they may; the kernel forgets it with a change of user or group."""
    _prctl(_PR_SET_DUMPABLE, int(value))


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
