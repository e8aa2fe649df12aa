"""Instances by name: what one may be called, and where its control socket is.

Light, because every verb of the command line needs it. Only names and paths: nobody is called
here. Imported by `config.launch` and cli.
"""

import os
from collections.abc import Mapping

import msgspec

from sengu.errors import UsageError

_SUFFIX = ".sock"
_MAX_SOCKET_PATH_BYTES = 107  # sun_path holds 108, the last one is NUL (unix(7))
_OTHERS_MAY_WRITE = 0o022


class RunPlaces(msgspec.Struct, frozen=True):
    """Who asks, and from where: what names and paths of instances depend on."""

    uid: int
    cwd: str
    runtime_dir: str | None = None

    @property
    def directories(self) -> tuple[str, ...]:
        """Where this user's control sockets may be; new ones go into the first."""
        if self.uid == 0:
            return ("/run/sengu",)
        fallback = f"/tmp/sengu-{self.uid}"
        return (f"{self.runtime_dir}/sengu", fallback) if self.runtime_dir else (fallback,)


def run_places(environ: Mapping[str, str]) -> RunPlaces:
    """The places of this process. Raises UsageError when its directory is gone."""
    try:
        cwd = os.getcwd()
    except FileNotFoundError:
        raise UsageError("the current directory does not exist any more; cd to another") from None
    runtime_dir = environ.get("XDG_RUNTIME_DIR", "")
    # The specification has relative ones ignored (XDG Base Directory Specification).
    return RunPlaces(os.geteuid(), cwd, runtime_dir if runtime_dir.startswith("/") else None)


def default_name(cwd: str) -> str:
    """The name of an instance that was given none: its directory's."""
    return os.path.basename(cwd) or "root"


def check_name(name: str) -> str:
    """Return `name` if it can be a file's. Raises UsageError."""
    if name in ("", ".", "..") or "/" in name or name.startswith("-") or not name.isprintable():
        raise UsageError(
            f"--name {name!r} cannot name an instance; use one that can be a plain file name"
        )
    return name


def control_path(name: str, directory: str) -> str:
    return f"{directory}/{name}{_SUFFIX}"


def check_control_path(path: str) -> str:
    """Return `path` if a socket can be there. Raises UsageError."""
    length = len(os.fsencode(path))
    if length > _MAX_SOCKET_PATH_BYTES:
        raise UsageError(
            f"control socket {path!r} is {length} bytes long, a socket's path has at most "
            f"{_MAX_SOCKET_PATH_BYTES}; give a shorter --control or --name"
        )
    return path


def check_run_directory(directory: str, uid: int) -> None:
    """Refuse a directory that somebody else made first: in /tmp anybody can. Raises UsageError."""
    if os.path.lexists(directory) and not _is_ours(directory, uid):
        raise UsageError(
            f"{directory} is for control sockets but others may write there, or it is not yours; "
            "remove it, or name another place with --control"
        )


def find_sockets(places: RunPlaces) -> list[tuple[str, str]]:
    """Names and control sockets of this user's instances, alive or not, by name."""
    found: dict[str, str] = {}
    for directory in places.directories:
        for entry in _entries(directory, places.uid):
            name = entry.removesuffix(_SUFFIX)
            if name != entry and not entry.startswith("."):
                found.setdefault(name, f"{directory}/{entry}")
    return sorted(found.items())


def _entries(directory: str, uid: int) -> list[str]:
    """The files in a run directory, if it is ours alone: in /tmp anybody can make one."""
    try:
        return os.listdir(directory) if _is_ours(directory, uid) else []
    except (FileNotFoundError, NotADirectoryError, PermissionError):  # then none of ours is there
        return []


def _is_ours(directory: str, uid: int) -> bool:
    info = os.stat(directory, follow_symlinks=False)
    return info.st_uid == uid and not info.st_mode & _OTHERS_MAY_WRITE
