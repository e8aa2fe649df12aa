"""What a crashed worker leaves in its process group: asked to end, killed when it does not.

A replacement takes over at once; remnants would go on beside it, on the same listeners, for ever.
Imported by `server.crew`.
"""

import signal

from sengu.model.service import StopPolicy
from sengu.posix.loop import Loop
from sengu.posix.process import Children, Process


class Remnants:
    """Process groups without their leader and without a slot."""

    def __init__(self, loop: Loop, children: Children) -> None:
        self._loop = loop
        self._children = children
        self._left: dict[int, Process] = {}

    def end(self, process: Process, stop: StopPolicy) -> None:
        """Ask what is left of the group of `process`, which has exited, to end."""

        def give_up() -> None:
            self._children.kill_group(process)
            del self._left[process.pid]

        def forget() -> None:
            timer.cancel()
            del self._left[process.pid]

        timer = self._loop.call_at(self._loop.now() + stop.grace_seconds, give_up)
        self._left[process.pid] = process
        self._children.await_group(process, forget)
        self._children.signal_group(process, stop.signal)

    def kill(self) -> None:
        """The service has ended: nothing of it stays."""
        for process in self._left.values():
            self._children.signal_group(process, signal.SIGKILL)
