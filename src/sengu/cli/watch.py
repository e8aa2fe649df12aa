"""`python -m sengu.cli.watch CONTROL DIRECTORY...`: a change of a source file is a deploy.

The server starts it for `--reload`, as a process of its own: what it loads costs the server
nothing. It is a client of the control API like any other, and ends with the instance: by a
parent-death signal, or when the control socket is gone.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from sengu.cli.exits import Exit
from sengu.cli.text import plural, printable, say
from sengu.control.client import ControlClient
from sengu.errors import NotRunningError, SenguError

# Code, templates and configuration. Not all that changes is source: a database, a log or our own
# pid file in the same directory would have a deploy follow the other.
_SUFFIXES = frozenset(
    (".py", ".so", ".html", ".htm", ".jinja", ".jinja2", ".j2", ".mako", ".toml", ".yaml", ".yml",
     ".ini", ".cfg")
)  # fmt: skip
_OTHERS_DIRECTORIES = frozenset(("__pycache__", "node_modules", "site-packages"))
_POLL_SECONDS = 0.5
_SETTLING_MILLISECONDS = 100  # an editor, or git, writes several files in one go
_LONGEST_SETTLING_MILLISECONDS = 1600
_LOOK_MILLISECONDS = 1000


def main(arguments: Sequence[str]) -> int:
    """Watch until the instance is gone."""
    control, *directories = arguments
    # What is below a symbolic link is told by its real path.
    directories = [os.path.realpath(directory) for directory in directories]
    client = ControlClient(control)
    for paths in _changes(directories):
        if not os.path.exists(control):
            break
        if not paths:
            continue
        say(f"changed: {_describe(paths)}; deploying")
        try:
            client.reload()
        except NotRunningError:
            break
        except SenguError as problem:
            say(f"not deployed: {problem}")
    return Exit.OK


def is_source(path: str, directories: Iterable[str]) -> bool:
    """Whether a change of that file, below one of the directories, is worth a deploy."""
    return any(
        path.startswith(directory.rstrip("/") + "/")
        and _is_source(os.path.relpath(path, directory))
        for directory in directories
    )


def _is_source(path: str) -> bool:
    *folders, name = path.split("/")
    return (
        not name.startswith(".")
        and os.path.splitext(name)[1] in _SUFFIXES
        and all(map(_is_ours, folders))
    )


def _is_ours(folder: str) -> bool:
    return not folder.startswith(".") and folder not in _OTHERS_DIRECTORIES


def _describe(paths: Sequence[str]) -> str:
    first = printable(os.path.relpath(paths[0]))
    return first if len(paths) == 1 else f"{first} and {plural(len(paths) - 1, 'other file')}"


def _changes(directories: Sequence[str]) -> Iterator[Sequence[str]]:
    """Source files that have changed, each once and in order; now and then none. Never ends."""
    try:
        yield from _told_by_kernel(directories)
    except ImportError:
        say("no watchfiles; looking at all files twice a second: pip install 'sengu[reload]'")
    except OSError as problem:  # too many directories for inotify(7), or one is not ours to read
        say(f"cannot watch ({problem.strerror or problem}); looking at all files twice a second")
    yield from poll(directories)


def _told_by_kernel(directories: Sequence[str]) -> Iterator[Sequence[str]]:
    from watchfiles import watch

    for batch in watch(
        *directories,
        watch_filter=lambda _change, path: is_source(path, directories),
        step=_SETTLING_MILLISECONDS,
        debounce=_LONGEST_SETTLING_MILLISECONDS,
        rust_timeout=_LOOK_MILLISECONDS,
        yield_on_timeout=True,
    ):
        yield sorted({path for _change, path in batch})


def poll(directories: Sequence[str], seconds: float = _POLL_SECONDS) -> Iterator[Sequence[str]]:
    """The same without help: what differs from the last look."""
    before = _look(directories)
    while True:
        time.sleep(seconds)
        after = _look(directories)
        # A file that was changed differs twice: as it was, and as it is.
        yield sorted({path for path, _version in before.items() ^ after.items()})
        before = after


def _look(directories: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Each source file's time of change and size."""
    found = {}
    for directory in directories:
        for folder, folders, files in os.walk(directory):
            folders[:] = filter(_is_ours, folders)  # the others are not even entered
            for path in (f"{folder}/{file}" for file in files if _is_source(file)):
                try:
                    info = os.stat(path)
                except OSError:  # gone since it was listed, or a link to nothing
                    continue
                found[path] = (info.st_mtime_ns, info.st_size)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
