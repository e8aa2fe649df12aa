"""Tests in a network namespace of their own: ports, groups and sysctls that are nobody else's.

    @netns.isolated
    def test_...(family: int) -> None:

runs the test in a forked child, so what it changes ends with it, and so do its sockets. Fixtures
are made and taken down outside. Nothing of sengu is imported.
"""

import ctypes
import errno
import fcntl
import functools
import os
import select
import signal
import socket
import struct
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, ParamSpec

import pytest

from tests.support import give_up

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_INTERFACE = struct.Struct("16sh14x")  # struct ifreq with its flags (netdevice(7))
_IFF_UP = 1
_PATIENCE_SECONDS = 60.0

_Arguments = ParamSpec("_Arguments")


def isolated(test: Callable[_Arguments, object]) -> Callable[_Arguments, None]:
    """Let a test run in a namespace of its own."""

    @functools.wraps(test)
    def run_isolated(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        run(lambda: test(*args, **kwargs))

    return run_isolated


def run(body: Callable[[], object], patience_seconds: float = _PATIENCE_SECONDS) -> None:
    """Run `body` in a child with a network namespace that has only a loopback interface.

    What it raises is raised here, as a failure with the child's own traceback, or as a skip.
    Whom it has forked and left running is killed.
    """
    report = os.memfd_create("report")
    try:
        pid = os.fork()
        if pid == 0:
            _run(body, report)
        _see_it_end(pid, patience_seconds)
        text = os.pread(report, os.fstat(report).st_size, 0).decode(errors="replace")
    finally:
        os.close(report)
    kind, _, rest = text.partition("\n")
    match kind:
        case "done":
            return
        case "skipped":
            pytest.skip(rest)
        case "lacking":
            give_up(rest)
        case "failed":
            pytest.fail(rest, pytrace=False)
        case _:
            pytest.fail("the child in its network namespace was killed, or hung", pytrace=False)


def enter() -> None:
    """Leave this process's network namespace for a new one. Raises OSError.

    It comes without any sysctl set, and its loopback interface is up.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, _INTERFACE.pack(b"lo", 0))
        name, flags = _INTERFACE.unpack(answer)
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, _INTERFACE.pack(name, flags | _IFF_UP))


def _run(body: Callable[[], object], report: int) -> NoReturn:
    """In the child."""
    text = "failed\n"
    try:
        os.setsid()
        text = _outcome(body)
    except BaseException:  # whatever it is, the test has to know
        text = f"failed\n{traceback.format_exc()}"
    finally:
        os.pwrite(report, text.encode(errors="replace"), 0)
        os._exit(0)


def _outcome(body: Callable[[], object]) -> str:
    try:
        enter()
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EACCES, errno.ENOSPC, errno.EINVAL}:
            raise
        return f"lacking\nno network namespace can be made: {error}"
    try:
        body()
    except pytest.skip.Exception as skipped:
        return f"skipped\n{skipped}"
    return "done\n"


def _see_it_end(pid: int, patience_seconds: float) -> None:
    """Wait for the child; then for all of its session to end, by force."""
    pidfd = os.pidfd_open(pid)
    try:
        select.select([pidfd], [], [], patience_seconds)
    finally:
        os.close(pidfd)
        # Not reaped yet, so its number is still its own, and that of its group if it has made one.
        os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with suppress(ChildProcessError):  # orphans come to us if we are a subreaper
            while os.waitpid(-pid, 0):
                pass
