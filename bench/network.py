"""A network namespace of our own: its ports, sysctls and listeners are nobody else's."""

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_INTERFACE = struct.Struct("16sh14x")  # struct ifreq with its flags (netdevice(7))
_IFF_UP = 1


@contextmanager
def own_network() -> Iterator[bool]:
    """This thread, and whatever it starts, has only a loopback of its own, without any sysctl set.

    False if that is not allowed: then all is as before.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        is_own = libc.unshare(_CLONE_NEWNET) == 0
        if is_own:
            _raise_loopback()
        try:
            yield is_own
        finally:
            if is_own and libc.setns(before, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "cannot go back to the network of before")
    finally:
        os.close(before)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, _INTERFACE.pack(b"lo", 0))
        name, flags = _INTERFACE.unpack(answer)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _INTERFACE.pack(name, flags | _IFF_UP))
