"""prctl(2): what a process asks of the kernel about its children and its own parent."""

import ctypes
import errno
import os

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Called in each forked child, where every page that Python touches is copied first: without
# releasing the GIL and saving errno (CDLL) it touches a third of them. Both options only look at
# one argument.
_call = ctypes.PyDLL(None).prctl
_call.argtypes = (ctypes.c_int, ctypes.c_ulong)
_call.restype = ctypes.c_int


def set_parent_death_signal(signal: int) -> None:
    """Have the kernel send us `signal` when our parent ends. Survives exec, not fork."""
    _prctl(_PR_SET_PDEATHSIG, signal)


def become_subreaper() -> None:
    """Orphans among our descendants become our children, as if we were PID 1."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, argument: int) -> None:
    if _call(option, argument) != 0:  # the only way for these two to fail is a bad argument
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
