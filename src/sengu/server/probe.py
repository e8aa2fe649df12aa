"""Readiness by probe: does *this* worker accept connections, and answer with a good status?

All workers, old and new, share the listener, so a connection may be taken by any of them. The
kernel says which: the inode of the socket that accept() made is looked for among the descriptors
of the worker's session. Decides who took a connection and what that means; the bytes are in
`probe_connection`. Runs inside the server's loop, never blocks. Imported by the server.
"""

import socket
from collections.abc import Callable, Set

import msgspec

from sengu.posix.procfs import held_sockets, session_members
from sengu.server.probe_connection import Phase, ProbeConnection, Target, Timer, Watch
from sengu.server.probe_http import http_request

__all__ = ["Prober", "Target", "Timer", "Watch", "http_request", "probe_target"]

_FIRST_LOOK_SECONDS = 0.001
_LONGEST_LOOK_SECONDS = 0.02
_QUICK_ROUNDS = 4
_QUICK_ROUND_SECONDS = 0.05
_ROUND_SECONDS = 0.1
_FRESH_SECONDS = 1.0  # a connection that waits longer does not hold up the next round
_MEMBERS_SECONDS = 0.05  # how long a list of the session's processes is good
_USUAL_BURST = 8
_MAX_CONNECTIONS = 128  # descriptors that a prober may hold, those that are being closed included


def probe_target(listener: socket.socket) -> Target:
    """Where to connect so that a connection arrives at this bound stream socket.

    A wildcard address is reached on loopback; by IPv4 if the socket takes both versions, because
    hosts without ::1 are more common than hosts without 127.0.0.1. Raises ValueError for sockets
    that have no connections or no address.
    """
    if listener.type != socket.SOCK_STREAM:
        raise ValueError(f"cannot probe {listener!r}: only stream sockets accept connections")
    if listener.family == socket.AF_UNIX:
        path: str | bytes = listener.getsockname()
        if not path:
            raise ValueError(f"cannot probe {listener!r}: it is not bound")
        return Target(socket.AF_UNIX, path)
    if listener.family == socket.AF_INET6:
        host, port, flow, scope = listener.getsockname()
        if host != "::":
            return Target(socket.AF_INET6, (host, port, flow, scope))
        if listener.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            return Target(socket.AF_INET6, ("::1", port, 0, 0))
        return Target(socket.AF_INET, ("127.0.0.1", port))
    host, port = listener.getsockname()
    return Target(socket.AF_INET, ("127.0.0.1" if host == "0.0.0.0" else host, port))


class Burst(msgspec.Struct, frozen=True):
    """The connections of one round. If `held` they all reach the listener in one moment."""

    size: int
    held: bool = False


def burst_of(round_number: int) -> Burst:
    """What a round opens: 1, 2, 4, 8, then 8 with every third round a larger one that is held.

    One is not enough: among idle workers that wait with EPOLLEXCLUSIVE the kernel wakes the first
    one for every connection, and the next only while all before it are just waking up. That is
    rare when connections come one after the other. Held ones come faster than anyone can accept,
    so that as many workers are woken as there are connections.
    """
    if round_number < _QUICK_ROUNDS:
        return Burst(1 << round_number)
    if round_number % 3:
        return Burst(_USUAL_BURST)
    return Burst(2 * _USUAL_BURST << round_number // 3 % 3, held=True)


class Prober:
    """Probes until the worker is found to serve, then calls `on_ready(reason)` once.

    After on_ready the connections that are left close by themselves within some seconds; `cancel()`
    ends everything at once.
    """

    __slots__ = (
        "_blind",
        "_connections",
        "_done",
        "_loop",
        "_members",
        "_members_until",
        "_moved_at",
        "_next_round_at",
        "_on_ready",
        "_problem",
        "_refusal",
        "_request",
        "_round",
        "_target",
        "_timer",
        "_worker_pid",
    )

    def __init__(
        self,
        loop: Watch,
        target: Target,
        worker_pid: int,
        request: bytes | None,
        on_ready: Callable[[str], None],
    ) -> None:
        """Begin at once. The worker leads its own session; `request=None` is satisfied when it
        accepts, a request when the answer's status is 200-399."""
        self._loop = loop
        self._target = target
        self._worker_pid = worker_pid
        self._request = request
        self._on_ready = on_ready
        self._connections: list[ProbeConnection] = []
        self._members: list[int] = []
        self._members_until = self._moved_at = loop.now()
        self._blind = ""
        self._refusal = ""
        self._done = False
        self._round = 0
        self._next_round_at = loop.now()
        self._timer: Timer | None = None
        self._problem = "not probed yet"
        self._tick()

    @property
    def last_problem(self) -> str:
        """What was in the way last. What the worker itself has answered counts more than what was
        seen since: that others took our connections, or that an answer is not there yet."""
        return self._refusal or self._problem

    def cancel(self) -> None:
        """Close every connection and forget the timer. May be called twice."""
        self._done = True
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        self._arm()

    def _tick(self) -> None:
        """Look at what is open, begin a round if it is time, and see to it that this comes again.

        The worker's death or a deadline is not our business: who made this prober cancels it.
        """
        self._timer = None
        now = self._loop.now()
        for connection in list(self._connections):
            connection.expire(now)
        if not self._done:
            self._look(now)
        self._connections = [c for c in self._connections if c.phase is not Phase.CLOSED]
        if not self._done and now >= self._next_round_at and not self._is_round_open(now):
            self._open_round(now)
        self._arm()

    def _is_round_open(self, now: float) -> bool:
        """Whether an answer is under way, or a connection may still be accepted any moment."""
        return any(
            connection.phase is Phase.ASKED
            or (connection.phase is Phase.WAITING and now - connection.look_from < _FRESH_SECONDS)
            for connection in self._connections
        )

    def _open_round(self, now: float) -> None:
        """Open a burst. Connections that still wait are part of it, so that a listener which
        nobody serves yet has a few of ours in its queue and not more with every round."""
        waiting = sum(connection.phase is Phase.WAITING for connection in self._connections)
        burst = burst_of(self._round)
        size = min(burst.size, _USUAL_BURST) - waiting if waiting else burst.size
        size = min(size, _MAX_CONNECTIONS - len(self._connections))
        opened = []
        try:
            for _ in range(size):
                opened.append(ProbeConnection(self._loop, self._target))
        except OSError as error:
            self._problem = f"cannot open a socket: {_text(error)}"
        for connection in opened:  # sockets first: the closer the connects, the more workers wake
            connection.connect(held=burst.held)
            self._problem = connection.problem or self._problem
        self._target.stop_leading()
        self._connections += opened
        self._round += 1
        pause_seconds = _QUICK_ROUND_SECONDS if self._round < _QUICK_ROUNDS else _ROUND_SECONDS
        self._next_round_at = now + pause_seconds

    def _look(self, now: float) -> None:
        """See which of the waiting connections have been accepted, and by whom."""
        taken: dict[int, ProbeConnection] = {}
        for connection in self._connections:
            if connection.phase is not Phase.WAITING or now < connection.look_from:
                continue
            try:
                inode = connection.accepted_inode()
            except ConnectionResetError:
                self._problem = "closed before it could be seen which worker accepted"
                connection.leave()
            except OSError as error:
                self._problem = _text(error)
                connection.close()
            else:
                if inode:
                    taken[inode] = connection
                elif now - connection.look_from >= _FRESH_SECONDS:
                    self._problem = "no worker accepts the connection"
        if taken:
            self._moved_at = now
            self._judge(taken, now)

    def _judge(self, taken: dict[int, ProbeConnection], now: float) -> None:
        """Go on with a connection that this worker has taken, and leave the others.

        A socket that was accepted this very moment may have its inode and not yet a descriptor,
        and seem to be another worker's: then the next round tells.
        """
        self._blind = ""
        holder, ours = self._holder(taken.keys(), now)
        for inode, connection in taken.items():
            if inode not in ours:
                self._problem = self._blind or "answered by another worker"
                connection.leave()
        for inode in ours:
            self._accepted(taken[inode], holder)

    def _holder(self, inodes: Set[int], now: float) -> tuple[int, set[int]]:
        """The worker or else another process in its session that has some of these sockets: its
        pid and which. To find the session one goes through all processes of the machine."""
        ours = self._held(self._worker_pid, inodes)
        if ours:
            return self._worker_pid, ours
        if now >= self._members_until:
            self._members = self._session()
            self._members_until = now + _MEMBERS_SECONDS
        for pid in self._members:
            if ours := self._held(pid, inodes):
                return pid, ours
        return self._worker_pid, set()

    def _held(self, pid: int, inodes: Set[int]) -> set[int]:
        try:
            return held_sockets(pid, inodes)
        except OSError as error:  # not permitted, or the machine is out of files or memory
            self._blind = f"cannot look into /proc/{pid}/fd: {_text(error)}"
            return set()

    def _session(self) -> list[int]:
        try:
            return session_members(self._worker_pid)
        except OSError as error:  # out of files or memory
            self._blind = f"cannot look into /proc: {_text(error)}"
            return []

    def _accepted(self, connection: ProbeConnection, holder: int) -> None:
        if connection.phase is not Phase.WAITING:
            return  # another of ours has settled it, and the callback may have cancelled us
        if self._request is None:
            self._finish(f"connection accepted by pid {holder}")
        elif any(other.phase is Phase.ASKED for other in self._connections):
            connection.leave()  # one question at a time is enough
        else:
            self._problem = "no HTTP answer yet"
            connection.ask(self._request, self._answered)

    def _answered(self, connection: ProbeConnection) -> None:
        status = connection.status
        if self._done:
            return
        if status is None:
            self._problem, self._refusal = connection.problem, ""
        elif 200 <= status < 400:
            self._finish(f"HTTP {status}")
        else:
            self._refusal = f"HTTP {status}"
        self._arm()

    def _finish(self, reason: str) -> None:
        self._done = True
        self._problem = self._refusal = ""
        for connection in self._connections:
            if connection.phase is Phase.WAITING:
                connection.leave()
        self._on_ready(reason)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        when = self._wake_at()
        self._timer = None if when is None else self._loop.call_at(when, self._tick)

    def _wake_at(self) -> float | None:
        now = self._loop.now()
        times = [c.deadline for c in self._connections if c.deadline is not None]
        if not self._done:
            for connection in self._connections:
                if connection.phase is Phase.WAITING:
                    times.append(self._next_look(connection, now))
            if not self._is_round_open(now):
                times.append(max(now, self._next_round_at))
        return min(times, default=None)

    def _next_look(self, connection: ProbeConnection, now: float) -> float:
        """Soon when something has just happened: a worker that serves one connection at a time
        can do nothing else before we leave."""
        if now < connection.look_from:
            return connection.look_from
        quiet_seconds = now - max(connection.look_from, self._moved_at)
        return now + min(max(quiet_seconds, _FIRST_LOOK_SECONDS), _LONGEST_LOOK_SECONDS)


def _text(error: OSError) -> str:
    """Only what is wrong, without the number and the path: "permission denied"."""
    return (error.strerror or str(error)).lower()
