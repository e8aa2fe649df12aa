"""Whether files can be kept where they are to be: pid file, status file, log, socket files.

Looks and does not write, so that a refused start has changed nothing. A full disk is found out by
whoever writes. Imported by config.
"""

import os

from sengu.errors import UsageError


def check_directory(label: str, path: str) -> None:
    """Refuse what is not a directory that can be entered. Raises UsageError."""
    if not os.path.exists(path):
        raise UsageError(f"{label} {path!r} does not exist; create it first: mkdir -p {path}")
    if not os.path.isdir(path):
        raise UsageError(f"{label} {path!r} is not a directory; name one")
    if not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
        raise UsageError(
            f"{label} {path!r} may not be read by uid {os.geteuid()}; grant it r and x"
        )


def check_replaceable(label: str, path: str) -> None:
    """Refuse a file that cannot be replaced by one written beside it. Raises UsageError."""
    _check_parent(label, path)
    if os.path.isdir(path):
        raise UsageError(f"{label} {path!r} is a directory; name a file in it")
    parent = os.path.dirname(path)
    if not _is_writable(parent):
        raise UsageError(
            f"{label} {path!r}: uid {os.geteuid()} may not create files in {parent}; "
            "grant it write permission there or use another directory"
        )


def check_writable(label: str, path: str) -> None:
    """Refuse a file that can neither be opened for writing nor be created. Raises UsageError."""
    if not os.path.exists(path):
        check_replaceable(label, path)
        return
    if os.path.isdir(path):
        raise UsageError(f"{label} {path!r} is a directory; name a file in it")
    if not _is_writable(path):
        raise UsageError(
            f"{label} {path!r} may not be written by uid {os.geteuid()}; "
            "grant it write permission or use another file"
        )


def _check_parent(label: str, path: str) -> None:
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        raise UsageError(
            f"{label} {path!r}: there is no directory {parent}; create it first: mkdir -p {parent}"
        )


def _is_writable(path: str) -> bool:
    need = os.W_OK | os.X_OK if os.path.isdir(path) else os.W_OK
    return os.access(path, need, effective_ids=True)
