"""System calls and socket options that the standard library does not have, by number.

Only the way to the kernel: what they mean is said by `pidfd`, `bpf` and `reuseport`, which import
this, as does the doctor, who sees whether a filter lets them pass.
"""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def call(number: int, *arguments: int) -> int:
    """syscall(2). Arguments are numbers: of a buffer its address. Raises OSError."""
    return _checked(_libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)))


def set_option(fd: int, level: int, option: int, value: bytes) -> None:
    """setsockopt(2) on a descriptor that no `socket` owns. Raises OSError."""
    _checked(_libc.setsockopt(fd, level, option, value, len(value)))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
