"""Exit codes of every verb, declared once: help and the reference show this table.

Nothing else lives here. Imported by cli and by what writes the reference.
"""

import enum


class Exit(enum.IntEnum):
    """What a script can tell from the exit code."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_RUNNING = 3
    SUPERSEDED = 4
    TIMED_OUT = 5
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Exit.OK: "Done.",
    Exit.FAILED: "Refused; the deploy was aborted or rolled back; the upgrade or the first "
    "start failed; the doctor misses something that is needed; the instance does not take requests "
    "(status --ready); a message was not published.",
    Exit.USAGE: "Bad input; nothing was changed.",
    Exit.NOT_RUNNING: "There is no such instance.",
    Exit.SUPERSEDED: "The deploy was superseded by a later one.",
    Exit.TIMED_OUT: "Timed out while waiting; what was asked for goes on.",
    Exit.INTERRUPTED: "Interrupted while waiting; what was asked for goes on.",
}
