"""Makes the control socket. Its file is also what makes an instance's name unique: whoever listens
on it has the name.

Light, as the command line does this before it turns into the supervisor: the main process is then
who listens (SO_PEERCRED tells clients). Imported by `cli.become` and `control.listener`.
"""

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator

from sengu.errors import UsageError
from sengu.listeners.bind import is_alive, open_listener
from sengu.model.address import UnixAddress

_BACKLOG = 1024  # connect(2) on a UNIX socket does not wait for room if it has a timeout
_MODE = 0o600
_OTHERS = 0o077


def open_control(path: str, name: str) -> socket.socket:
    """The socket of the instance `name`, with a file of mode 0600. It does not block.

    Bound under a lock on the directory: two that start at once must not both succeed. Raises
    UsageError when another instance has the name, or the path can not be bound.
    """
    directory = os.path.dirname(path)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with _locked(directory):
            if is_alive(path):
                raise UsageError(
                    f"an instance named {name!r} is running already ({path}); "
                    "stop it, or give this one another --name"
                )
            sock = open_listener(UnixAddress(path), _BACKLOG, _MODE)
    except OSError as error:
        raise UsageError(
            f"cannot make the control socket {path}: {error.strerror}; "
            "name another place with --control"
        ) from error
    sock.setblocking(False)
    return sock


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        owner = os.fstat(fd).st_uid
        if owner not in (0, os.geteuid()):  # who owns the directory can replace what is in it
            raise UsageError(
                f"{directory} belongs to another user (uid {owner}); "
                "name another place for the control socket with --control"
            )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # In a directory of our own it is another that starts, and done in a moment. In one
            # that others may open, such as /tmp, anybody can hold it for ever.
            if stat.S_IMODE(os.fstat(fd).st_mode) & _OTHERS == 0:
                fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
