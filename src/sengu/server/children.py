"""The supervisor's children, as the server knows them: wanted, born, ended, gone.

The supervisor forks and reaps; here is who cares for which. Until it is `gone` a child's number,
and that of its process group, mean no other. Imported by those who have processes made.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from sengu.posix.loop import Loop
from sengu.posix.process import Process, describe_status
from sengu.posix.procfs import has_group
from sengu.server.link import Kin, Link
from sengu.wire import supervisor as wire

_ORPHANS_POLL_SECONDS = 0.1
_UNKNOWN_END = "an unknown status: the supervisor is gone"


class Exec(msgspec.Struct, frozen=True):
    """What to execute. `descriptors` maps a number in the child to one of ours.

    With `names_listen_pid` the child's environment gets LISTEN_PID, which only the child knows.
    It is born in the cgroup of that `cgroup.procs`, if that can be done.
    With `has_old_limit` it may have as many descriptors as we were allowed at first: there are
    programs that look at each number up to that, and select(2) knows 1024 of them.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    descriptors: Mapping[int, int]
    directory: str | None = None
    death_signal: int = signal.SIGTERM
    names_listen_pid: bool = False
    has_old_limit: bool = False
    cgroup: str = ""


class Guardian(Protocol):
    """Who is told of one child. Every child is told of to its end, `gone` being the last."""

    def born(self, process: Process) -> None:
        """It lives."""

    def not_born(self, problem: str) -> None:
        """There will be no process; nothing more is told."""

    def ended(self, how: str) -> None:
        """The process has exited; others may be left in its group. Answer with `reap`."""

    def gone(self) -> None:
        """It was reaped, and nobody is left in its group."""


class _Leaver:
    """Guards one that nobody is interested in any more."""

    def __init__(self, children: "Children", key: str) -> None:
        self._children = children
        self._key = key

    def born(self, process: Process) -> None:
        """It was, long ago."""

    def not_born(self, problem: str) -> None:
        """It was."""

    def ended(self, how: str) -> None:
        self._children.reap(self._key)

    def gone(self) -> None:
        """As was expected."""


class Children:
    """All children by key."""

    def __init__(self, loop: Loop, link: Link) -> None:
        self._loop = loop
        self._link = link
        self._guardians: dict[str, Guardian] = {}
        self._processes: dict[str, Process] = {}
        self._kin: dict[str, Kin] = {}

    @property
    def is_orphaned(self) -> bool:
        """Whether the supervisor is gone: nothing can be started any more."""
        return self._link.is_lost

    def inherit(self, kin: Iterable[Kin]) -> None:
        """Those that were there before us wait to be adopted."""
        self._kin = {child.key: child for child in kin}

    def keys(self) -> list[str]:
        """Those who are cared for: to be born, living, or not gone yet."""
        return list(self._guardians)

    def living(self) -> dict[int, str]:
        """Pids of those that were born and are not gone, with their keys."""
        return {process.pid: key for key, process in self._processes.items()}

    def tell(self, key: str, number: int) -> None:
        """Signal the process alone, if it lives."""
        if key in self._processes:
            self._processes[key].signal(number)

    def names(self, prefix: str) -> list[str]:
        """Keys of those that were not adopted yet and begin like that."""
        return [key for key in self._kin if key.startswith(prefix)]

    def has(self, key: str) -> bool:
        """Whether it can be adopted. Without a pidfd, for which there was no room, it can not."""
        kin = self._kin.get(key)
        return kin is not None and kin.pidfd is not None

    def has_ended(self, key: str) -> bool:
        return self.has(key) and self._kin[key].status is not None

    def adopt(self, key: str, guardian: Guardian) -> None:
        """Take in who was there before us. Its end is told later, also if it has ended already."""
        kin = self._kin.pop(key)
        assert kin.pidfd is not None
        process = Process(kin.pid, kin.pidfd)
        self._guardians[key] = guardian
        self._processes[key] = process
        guardian.born(process)
        status = kin.status
        if status is not None:
            self._loop.call_at(self._loop.now(), lambda: self._end(key, describe_status(status)))

    def end_unwanted(self) -> list[str]:
        """KILL those that nobody has adopted, and forget them; returns who have lived."""
        found = list(self._kin.values())
        self._kin.clear()
        for kin in found:
            self._bury(kin.key, kin.pid, kin.pidfd)
        return [kin.key for kin in found if kin.status is None]

    def spawn(self, key: str, order: Exec, guardian: Guardian) -> None:
        """Have the process made; the guardian hears of it. Raises OSError, ValueError."""
        document = _write_document(order)
        try:
            self._link.send(wire.Spawn(key), (document, *order.descriptors.values()))
        finally:
            os.close(document)
        self.expect(key, guardian)

    def expect(self, key: str, guardian: Guardian) -> None:
        """Somebody else was asked to have it made: a fork server."""
        self._guardians[key] = guardian
        if self._link.is_lost:  # nobody would make it, or see it
            self._loop.call_at(self._loop.now(), lambda: self.give_up(key, "no supervisor"))

    def give_up(self, key: str, problem: str) -> None:
        """Do not wait for its birth any more. If it comes after all, it is ended at once."""
        if key in self._guardians and key not in self._processes:
            self._guardians.pop(key).not_born(problem)

    def reap(self, key: str) -> None:
        """It has ended, and what its status means is recorded; `gone` follows."""
        if self._link.is_lost:
            self._loop.call_at(self._loop.now(), lambda: self._look_at_group(key))
        else:
            self._link.send(wire.Reap(key))

    def end(self, key: str) -> None:
        """KILL it and its group, and look away: nobody is told."""
        self._guardians.pop(key, None)
        process = self._processes.pop(key, None)
        if process is not None:  # else it is ended when it is born
            self._bury(key, process.pid, process.pidfd)

    def leave(self, key: str, seconds: float) -> None:
        """It is about to end by itself; KILL it after `seconds`. Nobody is told."""
        if key not in self._processes:
            self.end(key)
            return
        self._guardians[key] = _Leaver(self, key)
        self._loop.call_at(self._loop.now() + seconds, lambda: self._end_leaver(key))

    def await_leavers(self, seconds: float) -> None:
        """At the end of the service, when the loop has stopped: give them so long together."""
        self._link.flush_all()  # what is held for them is among what they wait for to end
        poll = select.poll()
        keys = [key for key, one in self._guardians.items() if isinstance(one, _Leaver)]
        waited = {self._processes[key].pidfd: key for key in keys if self._processes[key].is_open}
        for pidfd in waited:
            poll.register(pidfd, select.POLLIN)
        end = self._loop.now() + seconds
        while waited and (left := end - self._loop.now()) > 0:
            for pidfd, _events in poll.poll(left * 1000):
                poll.unregister(pidfd)
                del waited[pidfd]
        for key in keys:
            self.end(key)

    def _end_leaver(self, key: str) -> None:
        if isinstance(self._guardians.get(key), _Leaver):
            self.end(key)

    def kill_group(self, process: Process) -> None:
        """KILL the whole of the process group, with its leader if that still lives."""
        process.signal(signal.SIGKILL)  # it may have no group yet
        self.signal_group(process, signal.SIGKILL)

    def signal_group(self, process: Process, number: int) -> None:
        """Signal those that are in the process group, if there are any."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)

    def hear(self, message: wire.FromSupervisor, fd: int | None) -> bool:
        """Take in what the supervisor says of a child; whether it was about one."""
        match message:
            case wire.Spawned(key, pid):
                self._take_birth(key, pid, fd)
            case wire.Refused(key, error):
                self.give_up(key, f"cannot start a process: {os.strerror(error)}")
            case wire.Exited(key, status):
                self._end(key, describe_status(status))
            case wire.Gone(key):
                self._forget(key)
            case _:
                return False
        return True

    def lose_supervisor(self) -> None:
        """It is gone, and with it every status; that a child has ended its pidfd still tells."""
        for key, process in list(self._processes.items()):
            if process.is_open:
                self._watch(key, process)
            else:  # it was to be reaped, which nobody does now
                self._look_at_group(key)
        for key in [key for key in self._guardians if key not in self._processes]:
            self.give_up(key, "no supervisor")

    def _take_birth(self, key: str, pid: int, pidfd: int | None) -> None:
        guardian = self._guardians.get(key)
        if guardian is None or pidfd is None or key in self._processes:
            self._bury(key, pid, pidfd)  # given up meanwhile, or there was no room for its pidfd
            if guardian is not None:
                self.give_up(key, "too many open files to watch it")
            return
        process = self._processes[key] = Process(pid, pidfd)
        guardian.born(process)

    def _end(self, key: str, how: str) -> None:
        guardian, process = self._guardians.get(key), self._processes.get(key)
        if guardian is None or process is None:
            self._link.send(wire.Reap(key))
        elif process.is_open:  # else that was told: the supervisor was lost meanwhile
            self._close(process)
            guardian.ended(how)

    def _forget(self, key: str) -> None:
        if self._processes.pop(key, None) is not None:  # else we have not adopted it
            self._guardians.pop(key).gone()

    def _bury(self, key: str, pid: int, pidfd: int | None) -> None:
        process = Process(pid, -1 if pidfd is None else pidfd)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)  # the number is its own until we say `Reap`
        self.signal_group(process, signal.SIGKILL)
        self._close(process)
        self._link.send(wire.Reap(key))

    def _close(self, process: Process) -> None:
        self._loop.unwatch(process.pidfd)
        process.close()

    def _watch(self, key: str, process: Process) -> None:
        self._loop.watch(process.pidfd, select.EPOLLIN, lambda: self._end(key, _UNKNOWN_END))

    def _look_at_group(self, key: str) -> None:
        """Without a supervisor nobody tells that the group is empty, and perhaps nobody reaps."""
        process = self._processes.get(key)
        if process is None or not has_group(process.pid):
            self._forget(key)
        else:
            again = self._loop.now() + _ORPHANS_POLL_SECONDS
            self._loop.call_at(again, lambda: self._look_at_group(key))


def _write_document(order: Exec) -> int:
    document = wire.Document(
        order.argv,
        order.environment,
        tuple(order.descriptors),
        order.directory,
        order.death_signal,
        order.names_listen_pid,
        order.has_old_limit,
        order.cgroup,
    )
    data = wire.encode_document(document)
    fd = os.memfd_create("sengu-document", os.MFD_CLOEXEC)
    os.write(fd, data)
    return fd
