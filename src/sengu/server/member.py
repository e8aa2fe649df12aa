"""One worker's process, sockets and pipes. Imported by `server.crew` and `server.forkservers`."""

import contextlib
from collections.abc import Mapping

import msgspec

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

    `process` is None until the supervisor has told of it. `stop_signal` is what it was asked to
    stop with, 0 when it was not. With `exited` set, what is left of it is its process group, which
    has been asked too. `line` is its first one on the scoreboard. `was_told`: that it lives was
    told before our time. `said_ready`: it has sent READY=1 in our time. `is_to_look`: its
    configuration has changed since it was asked for.
    """

    __slots__ = (
        "action",
        "exited",
        "is_to_look",
        "line",
        "notify",
        "prober",
        "process",
        "relays",
        "said_ready",
        "stop_signal",
        "was_told",
    )

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
        self.was_told = False
        self.said_ready = False
        self.is_to_look = False

    @property
    def born(self) -> Process:
        """Its process, where there must be one."""
        assert self.process is not None
        return self.process

    @property
    def key(self) -> str:
        return worker_key(self.action.worker)

    def open_outputs(self) -> dict[int, int]:
        """The worker's ends of its outputs, by its descriptor numbers. Raises OSError."""
        for relay in self.relays.values():
            relay.open_again()
        return {fd: relay.write_end for fd, relay in self.relays.items()}

    def start_relays(self) -> None:
        """The worker has its ends now, or somebody has who will pass them on."""
        for relay in self.relays.values():
            relay.start()

    def last_words(self) -> str:
        """Its stderr's; all that is in any of its pipes has been passed on then."""
        return {fd: relay.last_words() for fd, relay in self.relays.items()}.get(2, "")

    def stop_probing(self) -> None:
        if self.prober is not None:
            self.prober.cancel()
            self.prober = None

    def abandon(self) -> None:
        """There is no process, and will be none; what it may have said is lost."""
        self.notify.close()
        for relay in self.relays.values():
            relay.abandon()


def equip(loop: Loop, stage: Stage, action: StartWorker, line: int | None = None) -> Member:
    """What a worker needs before it is there; what was made for it already is taken up.

    `line` is its first one on the scoreboard. Raises OSError; nothing is left then.
    """
    reason = action.reason.replace("\0", " ")  # it may quote what an application has said
    remark = f"{'-' if line is None else line} {reason}"
    with contextlib.ExitStack() as undo:
        notify = NotifySocket(loop, stage.store, str(action.worker), remark)
        undo.callback(notify.close)
        relays = capture(loop, stage, worker_key(action.worker))
        undo.pop_all()
    number, _, reason = notify.remark.partition(" ")
    member = Member(msgspec.structs.replace(action, reason=reason), notify, relays)
    member.line = int(number) if number.isdecimal() else None
    return member


def capture(loop: Loop, stage: Stage, key: str) -> dict[int, Relay]:
    """A pipe for each descriptor of child `key` that goes through us.

    Raises OSError; nothing is left then.
    """
    relays: dict[int, Relay] = {}
    with contextlib.ExitStack() as undo:
        for fd in stage.captured:
            relays[fd] = Relay(loop, stage.sink, stage.store, f"output/{key}/{fd}")
            undo.callback(relays[fd].abandon)
        undo.pop_all()
    return relays


def worker_key(worker: int | str) -> str:
    """What the supervisor knows the worker's process by."""
    return f"worker/{worker}"
