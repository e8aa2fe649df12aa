"""The process title: what `ps` shows. Written over our own arguments, which is where ps looks.

Not by the setproctitle package: that imports logging and threading, whose fork hooks make each
fork of the server cost half as much again, and it overwrites the environment in /proc as well.
"""

import ctypes

_ARG_START, _ARG_END = 47, 48  # fields of /proc/PID/stat, counted from 0 (proc_pid_stat(5))
_COMMAND_FIELDS = 2  # pid and (name); the name may have spaces in it

# Passed as one more argument at exec, so that there is room for a title.
ROOM = " " * 200


class Title:
    """The memory of our arguments. Find it once, before anybody writes there."""

    def __init__(self) -> None:
        with open("/proc/self/stat", encoding="utf-8", errors="replace") as stream:
            fields = stream.read().rpartition(")")[2].split()
        self._start = int(fields[_ARG_START - _COMMAND_FIELDS])
        self._room = int(fields[_ARG_END - _COMMAND_FIELDS]) - self._start

    def set(self, text: str) -> None:
        """Show `text`, cut to the room there is; the rest becomes NULs, which ps leaves out."""
        if self._room > 0:
            data = text.encode(errors="replace")[: self._room - 1]
            ctypes.memmove(self._start, data.ljust(self._room, b"\0"), self._room)
