"""The boot document: all that the server is told when it starts.

The command line assembles it, puts it into a memory file and executes the server, which reads it:
so the long-lived process never carries the command line's libraries. Nothing of the user's
environment is in it; that is inherited as it always was.
"""

import os

import msgspec

from sengu.model.address import Sockets
from sengu.model.service import ServiceSpec, SignalProfile


class Files(msgspec.Struct, frozen=True):
    """Files that the server keeps. Paths are absolute; `log` may also be `| command`."""

    pid: str | None = None
    status: str | None = None
    log: str | None = None


class Boot(msgspec.Struct, frozen=True):
    """One instance.

    `report_fd` is a pipe on which somebody waits for the first deploy's outcome (`--daemonize`):
    one JSON `Report`, then it is closed. A change of a file below one of `watched` is a deploy.
    """

    service: ServiceSpec
    control: str
    sockets: Sockets = Sockets()
    files: Files = Files()
    directory: str | None = None
    env_dir: str | None = None
    report_fd: int | None = None
    signals: SignalProfile = SignalProfile.DEFAULT
    watched: tuple[str, ...] = ()


class Report(msgspec.Struct, frozen=True):
    """How starting went: exit code 0, or another and the error to print."""

    exit_code: int
    error: str = ""


def seal(boot: Boot) -> int:
    """Put the document into a memory file and return its descriptor, inheritable, at offset 0."""
    fd = os.memfd_create("sengu-boot", os.MFD_CLOEXEC)
    os.write(fd, msgspec.json.encode(boot))
    os.lseek(fd, 0, os.SEEK_SET)
    os.set_inheritable(fd, True)
    return fd


def unseal(fd: int) -> Boot:
    """Read the document from a descriptor made by `seal` and close it."""
    with open(fd, "rb") as stream:
        return msgspec.json.decode(stream.read(), type=Boot)
