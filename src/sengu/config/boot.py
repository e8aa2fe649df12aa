"""The boot document: all that the server is told when it starts.

The command line assembles it, and puts it into a memory file that the supervisor holds. Each server
reads it: so the long-lived processes never carry the command line's libraries. Nothing of the
user's environment is in it; that is inherited as it always was.
"""

import os

import msgspec

from sengu.model.address import Sockets
from sengu.model.service import ServiceSpec, SignalProfile


class Rotation(msgspec.Struct, frozen=True):
    """When a log file is complete, and how many of those are kept."""

    size_bytes: int | None = None
    age_seconds: float | None = None
    keep: int = 5
    compress: bool = False


class Files(msgspec.Struct, frozen=True):
    """Files that the server keeps. Paths are absolute; `log` may also be `| command`.

    With `rotation` the log is a file that the log writer writes. `log_waits`: workers are held up
    rather than that output is lost.
    """

    pid: str | None = None
    status: str | None = None
    log: str | None = None
    rotation: Rotation | None = None
    log_waits: bool = False


class Boot(msgspec.Struct, frozen=True):
    """One instance. A change of a file below one of `watched` is a deploy. `makes_cgroups`: one
    for each worker, where that can be done. `given` are settings and their texts, where others may
    come beside them later (`config.tuning`).
    """

    service: ServiceSpec
    control: str
    sockets: Sockets = Sockets()
    files: Files = Files()
    directory: str | None = None
    env_dir: str | None = None
    signals: SignalProfile = SignalProfile.DEFAULT
    watched: tuple[str, ...] = ()
    makes_cgroups: bool = True
    given: dict[str, tuple[str, ...]] = {}


class Report(msgspec.Struct, frozen=True):
    """How starting went: exit code 0, or another and the error to print. As JSON, once, to the
    pipe on which somebody waits for the first deploy's outcome (`--daemonize`).
    """

    exit_code: int
    error: str = ""


def seal(boot: Boot) -> int:
    """Put the document into a memory file and return its descriptor."""
    fd = os.memfd_create("sengu-boot", os.MFD_CLOEXEC)
    os.write(fd, msgspec.json.encode(boot))
    return fd


def unseal(fd: int) -> Boot:
    """Read the document from a descriptor made by `seal` and close that.

    Not from where it stands: other servers have read it, and others will.
    """
    try:
        return msgspec.json.decode(os.pread(fd, os.fstat(fd).st_size, 0), type=Boot)
    finally:
        os.close(fd)
