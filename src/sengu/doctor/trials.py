"""What can be known only by doing it: one function for each `Trial`. Returns when it works, raises
the OSError of the kernel when it does not.

They work on things of their own, on loopback where there are clients, and leave nothing behind.
Run by `apart`, in a process that has nothing to lose: a seccomp filter may kill whoever tries.
"""

import errno
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from sengu.doctor.machine import Trial
from sengu.posix import bpf, pidfd, prctl, reuseport, syscalls
from sengu.posix.listening import listening

_LOOPBACK = "127.0.0.1"
_CLIENTS = 4
_CLIENT_SECONDS = 1.0
_SYS_PIDFD_GETFD = 438
_SYS_BPF = {"x86_64": 321}.get(os.uname().machine, 280)
_READERS = (
    ("/bin/sh", "-c", "read line"),
    (sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.read()"),
)
_NO_SUCH_BPF_COMMAND = 9999
_BY_A_FILTER = (errno.EPERM, errno.EACCES, errno.ENOSYS)


def _try_pidfd() -> None:
    os.close(os.pidfd_open(os.getpid()))


def _try_epoll() -> None:
    with ExitStack() as stack:
        poll = stack.enter_context(select.epoll())
        event = os.eventfd(1)
        stack.callback(os.close, event)
        poll.register(event, select.EPOLLIN)
        if not poll.poll(0):
            raise OSError(errno.ENOSYS, "epoll does not tell of what is there")


def _try_subreaper() -> None:
    prctl.become_subreaper()


def _try_sock_diag() -> None:
    with _group() as (first, second):
        known = {one.inode for one in listening(socket.AF_INET, first.getsockname()[1])}
        if not {os.fstat(one.fileno()).st_ino for one in (first, second)} <= known:
            raise OSError(errno.EOPNOTSUPP, "our own sockets are not told of")


def _try_getfd() -> None:
    """With a program executed as a worker is: what we merely fork would show other obstacles."""
    read_end, write_end = os.pipe()
    program = _start_reader(read_end)
    try:
        process = pidfd.open_pid(program.pid)
        taken = pidfd.take(process, 0)
        if os.fstat(taken).st_ino != os.fstat(read_end).st_ino:
            raise OSError(errno.EBADF, "another descriptor was given than the one asked for")
    finally:
        os.close(write_end)
        program.kill()
        program.wait()


def _start_reader(stdin: int) -> "subprocess.Popen[bytes]":
    """A program that waits for the end of its input. There is a shell, or at least a Python."""
    for command in _READERS:
        try:
            return subprocess.Popen(command, stdin=stdin)
        except (FileNotFoundError, PermissionError):  # of the way to the program, not of getfd
            continue
    raise RuntimeError("there is no program that we may run, to try it on")


def _try_bpf() -> None:
    """As for a program that binds by itself: an array of sockets, a choice among them, attached."""
    with _group() as (first, second):
        array = bpf.SocketArray(2)
        array.put(0, first.fileno())
        array.put(1, second.fileno())
        choice = bpf.load_choice(array, range(1))
        bpf.attach(first.fileno(), choice)
        _expect_clients(first, second)


def _try_steering() -> None:
    with _group() as (first, second):
        only_first = reuseport.choose([range(1)], reuseport.Flow.RANDOM, ipv6=False)
        reuseport.attach(first.fileno(), only_first)
        _expect_clients(first, second)


@contextmanager
def _group() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two sockets that listen on one port of loopback, that of nobody else."""
    with _listener(0) as first, _listener(first.getsockname()[1]) as second:
        yield first, second


def _listener(port: int) -> socket.socket:
    made = socket.socket()
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((_LOOPBACK, port))
        made.listen(_CLIENTS)
    except OSError:
        made.close()
        raise
    return made


def _expect_clients(first: socket.socket, second: socket.socket) -> None:
    """Raises when any of a few clients comes to the second, which nobody shall be led to."""
    for _ in range(_CLIENTS):
        with socket.socket() as client:
            client.settimeout(_CLIENT_SECONDS)
            client.connect(first.getsockname())
            ready, _writable, _failed = select.select([first, second], [], [], _CLIENT_SECONDS)
            if ready != [first]:
                raise OSError(errno.EOPNOTSUPP, "it was accepted, but clients are not steered")
            first.accept()[0].close()


def _pass_a_filter(number: int, *arguments: int) -> Callable[[], None]:
    """A call whose arguments the kernel refuses: by another error than a filter would."""

    def call() -> None:
        try:
            syscalls.call(number, *arguments)
        except OSError as error:
            if error.errno in _BY_A_FILTER:
                raise

    return call


TRIALS: dict[Trial, Callable[[], None]] = {
    Trial.PIDFD: _try_pidfd,
    Trial.EPOLL: _try_epoll,
    Trial.SUBREAPER: _try_subreaper,
    Trial.SOCK_DIAG: _try_sock_diag,
    Trial.GETFD: _try_getfd,
    Trial.BPF: _try_bpf,
    Trial.STEERING: _try_steering,
    Trial.CALL_PIDFD_OPEN: _pass_a_filter(434, -1, 0),
    Trial.CALL_PIDFD_GETFD: _pass_a_filter(_SYS_PIDFD_GETFD, -1, -1, 0),
    Trial.CALL_BPF: _pass_a_filter(_SYS_BPF, _NO_SUCH_BPF_COMMAND, 0, 0),
}
