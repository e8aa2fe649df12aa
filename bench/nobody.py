"""A user without any privilege, who can nevertheless run the Python that we run.

An interpreter below /root, as pyenv makes it, is out of his reach: then a mount namespace of his
shows him that directory with nothing in it but what he needs.
"""

import os
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.program import last_line

UID = 65534
_CHECKOUT = Path(__file__).parent.parent
_BECOME = (
    *("setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups"),
    *("--inh-caps", "-all", "--bounding-set", "-all"),
)
_TRY = "import os, sengu; assert os.getuid() == int(sys.argv[1])"


def command_prefix() -> tuple[str, ...]:
    """What to write before a command, so that it is run by him. Raises OSError if it cannot be."""
    if os.getuid() != 0:
        raise PermissionError("only root can become another user")
    for program in ("setpriv", "unshare"):
        if shutil.which(program) is None:
            raise FileNotFoundError(f"{program} is not installed")
    prefix = (*_view(), *_BECOME)
    tried = subprocess.run(
        [*prefix, sys.executable, "-c", f"import sys; {_TRY}", str(UID)],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        raise PermissionError(f"uid {UID} cannot run {sys.executable}: {last_line(tried.stderr)}")
    return prefix


def _view() -> tuple[str, ...]:
    """Nothing, where he can reach all that there is to reach."""
    needed = {Path(os.path.realpath(path)) for path in (sys.base_prefix, sys.prefix, _CHECKOUT)}
    hidden = {path: wall for path in needed if (wall := _wall(path)) is not None}
    if not hidden:
        return ()
    return ("unshare", "--mount", "sh", "-ec", _script(hidden), "sh")


def _wall(path: Path) -> Path | None:
    """The first directory on the way that others may not pass."""
    for directory in reversed(path.parents):
        if not directory.stat().st_mode & stat.S_IXOTH:
            return directory
    return None


def _script(hidden: dict[Path, Path]) -> str:
    """Open what is hidden, cover what hides it, and show it again where it was."""
    paths = sorted(hidden, key=lambda path: (len(path.parts), path))
    lines = [f"exec {fd}<{shlex.quote(str(path))}" for fd, path in enumerate(paths, 3)]
    for wall in _quoted(set(hidden.values())):
        lines.append(f"mount -t tmpfs -o mode=755 tmpfs {wall}")
    for fd, path in enumerate(_quoted(paths), 3):
        lines.append(f"mkdir -p {path}")
        # Without -c, mount(8) would look for the name, which is covered.
        lines.append(f"mount -c --bind /proc/self/fd/{fd} {path}")
        lines.append(f"exec {fd}<&-")
    return "\n".join((*lines, 'exec "$@"'))


def _quoted(paths: Iterable[Path]) -> list[str]:
    return [shlex.quote(str(path)) for path in paths]
