"""timerfd_create(2), which Python has from 3.13 on. Imported by the server."""

import ctypes
import os
import time

_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Setting(ctypes.Structure):
    """struct itimerspec: again after `interval`, at first after `value`."""

    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class TimerDescriptor:
    """A descriptor that is readable when its time is over. Raises OSError."""

    def __init__(self) -> None:
        flags = os.O_CLOEXEC | os.O_NONBLOCK  # TFD_CLOEXEC and TFD_NONBLOCK are the same numbers
        self.fd = _checked(_libc.timerfd_create(time.CLOCK_MONOTONIC, flags))

    def wind(self, seconds: float) -> None:
        """Let its time be over in so many seconds from now; 0: never."""
        whole = int(seconds)
        setting = _Setting(value=_Timespec(whole, int((seconds - whole) * 1e9)))
        _checked(_libc.timerfd_settime(self.fd, 0, ctypes.byref(setting), None))

    def close(self) -> None:
        os.close(self.fd)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
