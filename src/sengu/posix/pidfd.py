"""Descriptors of processes, and descriptors out of processes: pidfd_open(2), pidfd_getfd(2).

Imported by the server, where it drains sockets of programs that know nothing of it.
"""

import os

from sengu.posix import syscalls

_PIDFD_GETFD = 438  # on every architecture: numbers are shared from 424 on


def open_pid(pid: int) -> int:
    """A descriptor of that process, close-on-exec. Raises ProcessLookupError, OSError."""
    return os.pidfd_open(pid)


def take(pidfd: int, fd: int) -> int:
    """Our own, close-on-exec duplicate of descriptor `fd` of that process.

    Allowed to those who could attach to it by ptrace (PTRACE_MODE_ATTACH_REALCREDS): the same
    user in all three ids, a process that is dumpable, or CAP_SYS_PTRACE. Raises PermissionError
    when it is not allowed, ProcessLookupError when the process has ended, and OSError with EBADF
    when it has no such descriptor, or ENOSYS when a seccomp profile hides the call.
    """
    return syscalls.call(_PIDFD_GETFD, pidfd, fd, 0)
