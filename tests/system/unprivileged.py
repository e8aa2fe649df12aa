"""A sengu that is nobody: another user, without any capability."""

import os
import sys
from pathlib import Path
from shlex import quote

from tests.support import needs_root, requires

NOBODY = 65534
_PRIVILEGES = f"--reuid {NOBODY} --regid {NOBODY} --clear-groups --bounding-set=-all --no-new-privs"
_CHECKOUT = Path(__file__).parents[2]


def as_nobody(directory: Path) -> tuple[str, ...]:
    """A prefix for `Sengu.start`. What is in `directory` is for all to read.

    Python may be below a directory that only root may enter, its home. In a mount namespace that is
    covered by an empty one, in which the path to Python is there again.
    """
    needs_root()
    directory.chmod(0o755)
    needed = {_CHECKOUT, Path(sys.prefix), Path(sys.base_prefix)}
    closed = {path: way for path in needed if (way := _closed(path))}
    script = [
        "set -e",
        f'chown -R {NOBODY} "$(dirname "$NOTIFY_SOCKET")"',
        *(_show(path, f"{directory}/kept{path}") for path in closed),
        *(f"mount -t tmpfs -o mode=755 tmpfs {quote(str(way))}" for way in set(closed.values())),
        *(_show(f"{directory}/kept{path}", path) for path in closed),
        f'exec {requires("setpriv")} {_PRIVILEGES} "$@"',
    ]
    return requires("unshare"), "--mount", "sh", "-c", "\n".join(script), "sh"


def _show(what: Path | str, where: Path | str) -> str:
    what, where = quote(str(what)), quote(str(where))
    return f"mkdir -p {where} && mount --bind {what} {where}"


def _closed(path: Path) -> Path | None:
    """The first directory on the way to it that not everybody may enter."""
    ways = [path, *path.parents][::-1]
    return next((way for way in ways if not os.stat(way).st_mode & 0o001), None)
