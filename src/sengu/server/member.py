"""One worker's process, sockets and pipes. Imported by `server.crew` and `server.forkservers`."""

import contextlib
from collections.abc import Mapping

from sengu.model import events as ev
from sengu.model.actions import StartWorker
from sengu.posix.loop import Loop
from sengu.posix.process import Process
from sengu.server.notify import NotifySocket
from sengu.server.output import Relay
from sengu.server.probe import Prober
from sengu.server.stage import Stage


class Member:
    """What belongs to one worker.

    `process` is None until its fork server has told of it. `stop_signal` is what it was asked to
    stop with, 0 when it was not. With `exited` set, what is left of it is its process group, which
    has been asked too. `line` is its first one on the scoreboard.
    """

    __slots__ = ("action", "exited", "line", "notify", "prober", "process", "relays", "stop_signal")

    def __init__(
        self, action: StartWorker, notify: NotifySocket, relays: Mapping[int, Relay]
    ) -> None:
        self.action = action
        self.notify = notify
        self.relays = relays
        self.process: Process | None = None
        self.prober: Prober | None = None
        self.stop_signal = 0
        self.exited: ev.WorkerExited | None = None
        self.line: int | None = None

    @property
    def born(self) -> Process:
        """Its process, where there must be one."""
        assert self.process is not None
        return self.process

    def start_relays(self) -> None:
        """The worker has its ends now, or somebody has who will pass them on."""
        for relay in self.relays.values():
            relay.start()

    def last_words(self) -> str:
        return self.relays[2].last_words()

    def stop_probing(self) -> None:
        if self.prober is not None:
            self.prober.cancel()
            self.prober = None

    def abandon(self) -> None:
        """There is no process, and will be none."""
        self.notify.close()
        for relay in self.relays.values():
            relay.abandon()


def equip(loop: Loop, stage: Stage, action: StartWorker) -> Member:
    """What a worker needs before it is there. Raises OSError; nothing is left then."""
    with contextlib.ExitStack() as undo:
        notify = NotifySocket(loop, str(action.worker))
        undo.callback(notify.close)
        relays = capture(loop, stage)
        undo.pop_all()
    return Member(action, notify, relays)


def capture(loop: Loop, stage: Stage) -> dict[int, Relay]:
    """A pipe for each descriptor that goes through us. Raises OSError; nothing is left then."""
    relays: dict[int, Relay] = {}
    with contextlib.ExitStack() as undo:
        for fd in stage.captured:
            relays[fd] = Relay(loop, stage.sink)
            undo.callback(relays[fd].abandon)
        undo.pop_all()
    return relays
