"""The environment that a directory of files adds, in the manner of daemontools' envdir.

Each file is a variable and its first line the value, as Server::Starter reads it: hidden files and
files that cannot be read are passed over, and an empty file changes nothing. Imported by
`config.launch`, and by the server, which reads it anew for each generation.
"""

import os

_MAX_VALUE_BYTES = 128 * 1024  # one string of an environment has at most so many (execve(2))


def read_envdir(directory: str) -> dict[str, str]:
    """Variables from the files of `directory`. Raises OSError when it cannot be listed."""
    variables = {}
    for name in sorted(os.listdir(directory)):
        if name.startswith(".") or "=" in name:
            continue
        value = _first_line(os.path.join(directory, name))
        if value is not None:
            variables[name] = value
    return variables


def _first_line(path: str) -> str | None:
    try:
        # A FIFO without a writer would hold us for ever; O_NONBLOCK opens it, and it is empty.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:  # unreadable, or gone since it was listed: the peer passes over it too
        return None
    try:
        data = os.read(fd, _MAX_VALUE_BYTES)
    except OSError:  # a directory
        return None
    finally:
        os.close(fd)
    line = data.partition(b"\n")[0]
    if not data or b"\0" in line:  # no string with a NUL in it can be in an environment
        return None
    return os.fsdecode(line)
