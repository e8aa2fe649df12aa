"""What a crashed worker leaves in its process group: asked to end, killed when it does not.

A replacement takes over at once; remnants would go on beside it, on the same listeners, for ever.
Imported by `server.crew`.
"""

import signal

from sengu.model.service import StopPolicy
from sengu.posix.loop import Loop, Timer
from sengu.posix.process import Process
from sengu.server.children import Children
from sengu.server.member import worker_key


class Remnants:
    """Process groups without their leader and without a slot, by worker id."""

    def __init__(self, loop: Loop, children: Children, stop: StopPolicy) -> None:
        self._loop = loop
        self._children = children
        self._stop = stop
        self._left: dict[int, tuple[Process, Timer]] = {}

    def end(self, worker: int, process: Process) -> None:
        """Ask what is left of the group of `process`, which has exited, to end."""
        deadline = self._loop.now() + self._stop.grace_seconds
        timer = self._loop.call_at(deadline, lambda: self._children.kill_group(process))
        self._left[worker] = process, timer
        self._children.signal_group(process, self._stop.signal)
        self._children.reap(worker_key(worker))

    def forget(self, worker: int) -> None:
        """Nobody is left."""
        if worker in self._left:
            self._left.pop(worker)[1].cancel()

    def kill(self) -> None:
        """The service has ended: nothing of it stays."""
        for process, _timer in self._left.values():
            self._children.signal_group(process, signal.SIGKILL)
