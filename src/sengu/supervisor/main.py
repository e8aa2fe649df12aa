"""The supervisor: the main process. It forks, holds, reaps and restarts, and decides nothing else.

`python -I -S main.py [name=TEXT] [NAME=FD…] [ROOM]`: each FD goes into the store, as NAME. ROOM is
blank: the process title is written over the arguments. `server=PATH` runs a script in place of the
server. `state=FD` is how it follows itself in an upgrade, `--check VERSION` whether it could.

It is the parent of every process of the service (fork servers' workers are orphans on purpose), so
all of them outlive the server. It keeps a store of descriptors by name and hands it, and all that
it knows, to each new server. Over a SOCK_SEQPACKET pair a packet is fields joined by NUL, the verb
first, numbers in decimal; descriptors go beside it. `sengu.wire.supervisor` says what they mean.

Only the standard library, and little of it: this process stays small, wakes up for nothing, and
must not depend on a package that is replaced while it runs.
"""

from __future__ import annotations

import array
import ctypes
import errno
import fcntl
import os
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False  # `typing` costs memory as long as we run
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSION = 1
MAX_PACKET_BYTES = 1 << 16
MAX_DESCRIPTORS = 253  # in one packet (SCM_MAX_FD)
DESCRIPTOR_ROOM = socket.CMSG_SPACE(4 * MAX_DESCRIPTORS)
PACKETS_AT_ONCE = 64

FIRST_PASSED_FD = 3
FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)
MAX_UNHEARD = 64
TITLE_ROOM = b" " * 200

GOOD_AFTER_SECONDS = 10.0
MAX_DEATHS = 5
FIRST_DELAY_SECONDS = 0.1
MAX_DELAY_SECONDS = 5.0
LAST_SECONDS = 2.0  # what a server has to exit, or to write down where it is stuck
CHECK_SECONDS = 10.0
PAUSE_SECONDS = 10.0
TRIAL_SECONDS = 30.0

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
CANNOT_EXECUTE = 126
NOT_FOUND = 127

prctl = ctypes.PyDLL(None).prctl  # not releasing the GIL touches fewer pages after a fork
prctl.argtypes = (ctypes.c_int, ctypes.c_ulong)


class Descriptor:
    """Closed when nobody refers to it any more: neither the store nor a packet on its way."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class Log:
    """Lines for people, on stderr. Never waits: a reader that hangs must not hang us."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, text: str) -> None:
        now = time.time()
        moment = time.strftime("%H:%M:%S", time.localtime(now))
        line = f"{moment}.{int(now * 1000) % 1000:03d} sengu[{self._name}] {text}\n"
        try:
            if select.select([], [2], [], 0)[1]:
                os.write(2, line.encode(errors="replace"))
        except OSError:  # nobody reads any more
            return


class Loop:
    """Waits for descriptors and for moments, and calls whom they concern."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._timers: dict[str, tuple[float, Callable[[], None]]] = {}

    def watch(self, fd: int, handler: Callable[[], None], events: int = select.EPOLLIN) -> None:
        if fd in self._handlers:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._handlers[fd] = handler

    def unwatch(self, fd: int) -> None:
        """Before it is closed: others may have it too, and then closing alone changes nothing."""
        if self._handlers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def after(self, seconds: float, name: str, action: Callable[[], None]) -> None:
        self._timers[name] = (time.monotonic() + seconds, action)

    def cancel(self, name: str) -> None:
        self._timers.pop(name, None)

    def run_once(self) -> None:
        timeout = None
        if self._timers:
            first = min(moment for moment, _ in self._timers.values())
            timeout = max(0.0, first - time.monotonic())
        ready = [(fd, self._handlers.get(fd)) for fd, _ in self._epoll.poll(timeout)]
        for fd, handler in ready:
            # One that was called before may have closed it, and the number be another's now.
            if handler is not None and self._handlers.get(fd) is handler:
                handler()
        now = time.monotonic()
        for name, timer in list(self._timers.items()):
            if timer[0] <= now and self._timers.get(name) is timer:
                del self._timers[name]
                timer[1]()


class Signals:
    """Signals to us: each is kept until a server says that it has heard it."""

    def __init__(self) -> None:
        self.unheard: list[int] = []
        self.fd, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGCHLD):
            signal.signal(number, _leave_to_the_pipe)
        # Ignored ones too: Python ignores PIPE, and a child is to begin with the defaults.
        self.handled = tuple(
            number
            for number in signal.valid_signals()
            if signal.getsignal(number) not in (signal.SIG_DFL, None)
        )
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def take(self) -> bytes:
        """The numbers that have come since."""
        try:
            return os.read(self.fd, 4096)
        except BlockingIOError:
            return b""

    def hear(self, number: int) -> None:
        if number in self.unheard:
            self.unheard.remove(number)

    def fork(self, become: Callable[[], int]) -> int:
        """The child turns into something by `become`, or exits with the status it returns."""
        # A signal between fork and exec would write into our pipe; blocked, it waits and then
        # meets the default.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, self.handled)
        try:
            pid = os.fork()
            if pid == 0:
                self._in_child(become)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        return pid

    def _in_child(self, become: Callable[[], int]) -> None:
        status = CANNOT_EXECUTE
        try:
            signal.set_wakeup_fd(-1)
            for number in self.handled:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            status = become()
        finally:
            os._exit(status)


def _leave_to_the_pipe(_number: int, _frame: object) -> None:
    pass


class Store:
    """Descriptors by name, each with a note, in the order in which they were last held."""

    def __init__(self) -> None:
        self._held: dict[bytes, tuple[bytes, Descriptor | None]] = {}

    def hold(self, name: bytes, note: bytes, descriptor: Descriptor | None) -> None:
        self._held.pop(name, None)
        self._held[name] = (note, descriptor)

    def drop(self, name: bytes) -> None:
        self._held.pop(name, None)

    def __iter__(self) -> Iterator[tuple[bytes, bytes, Descriptor | None]]:
        return ((name, note, held) for name, (note, held) in self._held.items())


class Births:
    """Where a fork server's process in between tells of each worker, `KEY PID` and its pidfd.

    It does so before it exits, and only then the worker is ours: whoever finds a strange child and
    reads here afterwards knows whether it is one.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def take(self) -> Iterator[tuple[bytes, int, Descriptor]]:
        while packet := receive(self.socket):
            fields, passed = packet
            try:
                key, pid = fields[0], int(fields[1])
                yield key, pid, passed[0] if passed else Descriptor(os.pidfd_open(pid))
            except (IndexError, ValueError, OSError):  # nothing that we could look after
                continue


class Child:
    """A process of the service. It stays a zombie, so its numbers are its own, until `reap`."""

    __slots__ = ("key", "pid", "pidfd", "status")

    def __init__(self, key: bytes, pid: int, pidfd: Descriptor, status: int | None = None) -> None:
        self.key = key
        self.pid = pid
        self.pidfd = pidfd
        self.status = status

    def signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd.number, number)
        except OSError:  # it has ended, or become another user's
            return

    def kill(self) -> None:
        """KILL it and its process group. It is not reaped, so no other group has that number."""
        self.signal(signal.SIGKILL)
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except OSError:  # it leads no group
            return

    def describe(self) -> list[bytes]:
        return [self.key, digits(self.pid), b"" if self.status is None else digits(self.status)]


class Children:
    """All our children. The only one who waits for them, but for servers and trials (`own`)."""

    def __init__(
        self, loop: Loop, signals: Signals, births: Births, tell: Callable[..., None]
    ) -> None:
        self._loop = loop
        self._signals = signals
        self._births = births
        self._tell = tell
        self._by_key: dict[bytes, Child] = {}
        self._by_pid: dict[int, Child] = {}
        self._ended: list[Child] = []
        self.own: set[int] = set()
        self.has_news = True  # CHLD has come
        loop.watch(births.socket.fileno(), self._take_births)

    def __iter__(self) -> Iterator[Child]:
        return iter(self._by_key.values())

    @property
    def are_gone(self) -> bool:
        return all(child.status is not None for child in self._by_key.values())

    def spawn(self, key: bytes, passed: list[Descriptor]) -> None:
        """Fork and execute what the document `passed[0]` says; tells what has come of it."""
        child = self._by_key.get(key)
        if child is None:
            try:
                child = self._start(key, [descriptor.number for descriptor in passed])
            except OSError as error:
                self._tell(b"refused", key, digits(error.errno or errno.EIO))
                return
        self._tell(b"spawned", key, digits(child.pid), descriptor=child.pidfd)

    def _start(self, key: bytes, fds: list[int]) -> Child:
        if not fds:  # lost on the way: we have no room for more
            raise OSError(errno.EMFILE, "no document")
        parent = os.getpid()
        pid = self._signals.fork(lambda: become_program(fds[0], fds[1:], parent))
        child = Child(key, pid, open_child(pid))
        self.take_in(child)
        return child

    def take_in(self, child: Child) -> None:
        self._by_key[child.key] = child
        self._by_pid[child.pid] = child
        if child.status is None:
            # Once: it stays readable, but the status may be the process in between's for a while.
            events = select.EPOLLIN | select.EPOLLONESHOT
            self._loop.watch(child.pidfd.number, lambda: self._ended.append(child), events)

    def _take_births(self) -> None:
        for key, pid, pidfd in self._births.take():
            child = Child(key, pid, pidfd)
            if key in self._by_key:  # whoever has asked twice knows of one only
                child.kill()
                continue
            self.take_in(child)
            self._tell(b"spawned", key, digits(pid), descriptor=pidfd)

    def reap(self, key: bytes) -> None:
        """Forget it. One that lives is reaped as a stranger, and nobody is told."""
        child = self._by_key.pop(key, None)
        if child is None:
            return
        del self._by_pid[child.pid]
        self._loop.unwatch(child.pidfd.number)
        _wait(child.pid)

    def look(self) -> None:
        """Take the statuses of those that have ended, and reap orphans. Once in a round."""
        if self._ended:
            self._take_statuses()
        if self.has_news:
            self.has_news = False
            if self._reap_strangers():
                self._tell(b"orphans")

    def _take_statuses(self) -> None:
        waiting = []
        for child in self._ended:
            if self._by_pid.get(child.pid) is not child:
                continue
            child.status = _peek_status(child)
            if child.status is None:
                waiting.append(child)
            else:
                self._tell(b"exited", child.key, digits(child.status))
        self._ended = waiting

    def _reap_strangers(self) -> bool:
        found = False
        while (pid := _peek()) is not None:
            if self._is_known(pid):
                # It is not to be reaped yet, and stands in the way of those behind it.
                for listed in _listed_children():
                    found = (not self._is_known(listed) and _wait(listed)) or found
                return found
            found = _wait(pid) or found
        return found

    def _is_known(self, pid: int) -> bool:
        """Only for a child that was seen: births are heard of before they are."""
        if pid in self._by_pid or pid in self.own:
            return True
        self._take_births()
        return pid in self._by_pid


def _wait(pid: int) -> bool:
    """Reap it, if it has ended."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # still the process in between's
        return False


def _peek() -> int | None:
    """A child that has ended. It is not reaped by this."""
    try:
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:  # none at all
        return None
    return found.si_pid if found else None


def _peek_status(child: Child) -> int | None:
    """Its wait status (wait(2)); None if it is not ours yet. It is not reaped by this."""
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    try:
        found = os.waitid(os.P_PIDFD, child.pidfd.number, options)
    except ChildProcessError:  # until the one in between exits; CHLD comes then
        return None
    if found is None:
        return None
    if found.si_code == os.CLD_EXITED:
        return found.si_status << 8
    return found.si_status | (0x80 if found.si_code == os.CLD_DUMPED else 0)


def _listed_children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", "rb") as listing:
            return [int(pid) for pid in listing.read().split()]
    except OSError:  # a kernel without the list: they wait until those before them are reaped
        return []


class Server:
    """One life of the server: its process, and the socket to it."""

    def __init__(self, loop: Loop, log: Log, process: Child, sock: socket.socket) -> None:
        self._loop = loop
        self._log = log
        self._outbox: list[tuple[bytes, Descriptor | None]] = []
        self.process = process
        self.socket = sock
        self.beat: Descriptor | None = None
        self.ready_at: float | None = None
        self.code: int | None = None  # what to exit with, once it has said so
        self.on_readable: Callable[[], None] = lambda: None
        self._hung_up = False

    @property
    def owes(self) -> bool:
        """Whether anything is still to be sent."""
        return bool(self._outbox)

    def send(self, *fields: bytes, descriptor: Descriptor | None = None) -> None:
        """Without waiting, in order."""
        if not self._hung_up:
            self._outbox.append((b"\0".join(fields), descriptor))
            if len(self._outbox) == 1:
                self.flush()

    def flush(self) -> None:
        while self._outbox:
            try:
                send(self.socket, *self._outbox[0])
            except BlockingIOError:
                break
            except (BrokenPipeError, ConnectionResetError):  # it has ended
                self._outbox.clear()
            except OSError as error:  # one that is not told what it must know is of no use
                self._log(f"cannot tell the server: {error.strerror}; killing it")
                self._outbox.clear()
                self.process.signal(signal.SIGKILL)
            else:
                del self._outbox[0]
        self.listen()

    def listen(self) -> None:
        events = select.EPOLLIN | (select.EPOLLOUT if self._outbox else 0)
        self._loop.watch(self.socket.fileno(), self._on_ready, events)

    def _on_ready(self) -> None:
        if self._outbox:
            self.flush()
        self.on_readable()

    def hang_up(self) -> None:
        """It has closed its end: it is about to exit, or of no use."""
        if not self._hung_up:
            self._hung_up = True
            self._outbox.clear()
            self._loop.unwatch(self.socket.fileno())
            self._loop.after(LAST_SECONDS, f"kill {self.process.pid}", self._kill)

    def watch_beat(self, beat: Descriptor | None) -> None:
        """`beat` is a timer that the server keeps winding up: readable when it has run down."""
        if self.beat is not None:
            self._loop.unwatch(self.beat.number)
        self.beat = beat
        if beat is not None:
            self._loop.watch(beat.number, self._on_stuck)

    def _on_stuck(self) -> None:
        self.watch_beat(None)
        self._log(
            f"the server (pid {self.process.pid}) is stuck; its stacks follow, then it is killed"
        )
        self.process.signal(signal.SIGABRT)
        self._loop.after(LAST_SECONDS, f"kill {self.process.pid}", self._kill)

    def _kill(self) -> None:
        self.process.signal(signal.SIGKILL)

    def close(self) -> None:
        """It has ended."""
        self._loop.cancel(f"kill {self.process.pid}")
        self.watch_beat(None)
        self._loop.unwatch(self.process.pidfd.number)
        self._loop.unwatch(self.socket.fileno())
        self.socket.close()
        self.on_readable = lambda: None  # it refers to us: descriptors go when nobody does


class Restarts:
    """When to start the next server, and whether."""

    def __init__(self) -> None:
        self.deaths = 0

    def after_death(self, now: float, ready_at: float | None) -> float | None:
        """Seconds to wait; None to give up. `ready_at`: since when the dead one had been ready."""
        if ready_at is not None and now - ready_at >= GOOD_AFTER_SECONDS:
            self.deaths = 0
        self.deaths += 1
        if self.deaths >= MAX_DEATHS:
            return None
        if self.deaths == 1:
            return 0.0
        return min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** (self.deaths - 2))


class Upgrade:
    """We follow ourselves: the file is tried, we execute it in place, a new server is tried.

    Until that one is ready the old server is only paused, and goes on if anything goes wrong.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._loop = supervisor.loop
        self._phase = ""  # "check", "pause", "trial"
        self._check: Child | None = None

    @property
    def keeps_signals(self) -> bool:
        """Whether signals wait for its outcome, as one server is paused and one on trial."""
        return self._phase in ("pause", "trial")

    @property
    def is_on_trial(self) -> bool:
        return self._phase == "trial"

    def begin(self) -> None:
        if self._phase:
            self._supervisor.log("an upgrade is going on already")
            return
        argv = [*this_program(), b"--check", digits(VERSION)]
        try:
            pid = self._supervisor.signals.fork(lambda: execute(argv))
            self._check = check = Child(b"check", pid, open_child(pid))
        except OSError as error:
            self.fail(f"cannot try {os.fsdecode(argv[3])}: {error.strerror}")
            return
        self._phase = "check"
        self._supervisor.children.own.add(pid)
        self._loop.watch(check.pidfd.number, lambda: self._on_checked(check))
        self._loop.after(CHECK_SECONDS, "upgrade", lambda: check.signal(signal.SIGKILL))

    def _on_checked(self, check: Child) -> None:
        self._check = None
        self._loop.cancel("upgrade")
        self._loop.unwatch(check.pidfd.number)
        self._supervisor.children.own.discard(check.pid)
        _, status = os.waitpid(check.pid, 0)
        if self._phase != "check" or self._supervisor.server is None:
            return
        if status != 0:
            self.fail(f"the new supervisor cannot run ({describe_status(status)})")
            return
        self._phase = "pause"
        self._supervisor.server.send(b"pause")
        late = f"the server did not pause within {PAUSE_SECONDS:g} s"
        self._loop.after(PAUSE_SECONDS, "upgrade", lambda: self.fail(late))

    def on_paused(self) -> None:
        server = self._supervisor.server
        if self._phase != "pause" or server is None:
            return
        self._loop.cancel("upgrade")
        if server.owes:
            self.fail("the server does not listen")
            return
        self._supervisor.log("upgrading: executing the new supervisor")
        self.fail(f"cannot execute it: {execute_anew(self._supervisor)}")

    def try_server(self) -> None:
        """We are the new supervisor: start a server beside the paused one."""
        self._phase = "trial"
        late = f"the new server was not ready within {TRIAL_SECONDS:g} s"
        self._loop.after(TRIAL_SECONDS, "upgrade", lambda: self.fail(late))
        try:
            self._supervisor.start_server()
        except OSError as error:
            self.fail(f"cannot start the new server: {error.strerror}")

    def on_ready(self) -> None:
        """The new server is good."""
        if self._phase != "trial":
            return
        self._loop.cancel("upgrade")
        self._phase = ""
        self._supervisor.log("upgraded: the new server is ready, the old one is killed")
        if self._supervisor.old is not None:
            self._supervisor.old.process.signal(signal.SIGKILL)
        self._supervisor.tell_signals()

    def fail(self, problem: str) -> None:
        """The old server goes on, if there is one."""
        has_paused, self._phase = self.keeps_signals, ""
        self._loop.cancel("upgrade")
        supervisor = self._supervisor
        supervisor.log(f"not upgraded: {problem}; the old server goes on")
        if supervisor.old is not None:
            if supervisor.server is not None:
                supervisor.server.process.signal(signal.SIGKILL)
            supervisor.old, supervisor.server = supervisor.server, supervisor.old
        if has_paused and supervisor.server is not None:
            supervisor.server.send(b"resume")
            supervisor.tell_signals()

    def forget(self) -> None:
        """The server that was to be followed has ended, or the one on trial is left alone."""
        self._phase = ""
        self._loop.cancel("upgrade")
        if self._check is not None:
            self._check.signal(signal.SIGKILL)


class Supervisor:
    """The parts, wired, and what is done for the server."""

    def __init__(self, name: bytes, script: bytes | None, births: Births) -> None:
        self.name = name
        self.script = script
        self.log = Log(os.fsdecode(name))
        self.loop = Loop()
        self.signals = Signals()
        self.store = Store()
        self.births = births
        self.children = Children(self.loop, self.signals, births, self.tell)
        self.restarts = Restarts()
        self.upgrade = Upgrade(self)
        self.server: Server | None = None
        self.old: Server | None = None  # paused, or killed, in an upgrade
        self.policy = (int(signal.SIGTERM), 30.0)
        self._exit_code: int | None = None  # only the children's end is waited for
        self._verbs: dict[bytes, Callable[[Server, list[bytes], list[Descriptor]], None]] = {
            b"spawn": self._spawn,
            b"hold": self._hold,
            b"drop": self._drop,
            b"reap": lambda _server, fields, _passed: self.children.reap(fields[0]),
            b"heard": lambda _server, fields, _passed: self.signals.hear(int(fields[0])),
            b"output": self._output,
            b"policy": self._set_policy,
            b"ready": self._ready,
            b"paused": lambda _server, _fields, _passed: self.upgrade.on_paused(),
            b"end": self._end,
            b"upgrade": lambda _server, _fields, _passed: self.upgrade.begin(),
        }
        self.loop.watch(self.signals.fd, self.take_signals)

    def run(self) -> int:
        while True:
            self.children.look()
            if self._exit_code is not None and self.children.are_gone:
                return self._exit_code
            self.loop.run_once()

    def tell(self, *fields: bytes, descriptor: Descriptor | None = None) -> None:
        """Tell the server; in an upgrade both, as either may be the one that goes on."""
        for server in (self.old, self.server):
            if server is not None:
                server.send(*fields, descriptor=descriptor)

    def tell_signals(self) -> None:
        if self.server is not None:
            for unheard in self.signals.unheard:
                self.server.send(b"signal", digits(unheard))

    def start_server(self) -> None:
        """Raises OSError when the system refuses."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = self.signals.fork(lambda: become_server(theirs.fileno(), self.script))
        server = Server(self.loop, self.log, Child(b"server", pid, open_child(pid)), ours)
        self.look_after(server)
        self.server = server
        server.send(b"hello", digits(VERSION), digits(os.getpid()))
        for name, note, held in self.store:
            server.send(b"held", name, note, descriptor=held)
        for child in self.children:
            server.send(b"child", *child.describe(), descriptor=child.pidfd)
        if not self.upgrade.keeps_signals:
            self.tell_signals()
        server.send(b"begin")

    def look_after(self, server: Server) -> None:
        self.children.own.add(server.process.pid)
        self.loop.watch(server.process.pidfd.number, lambda: self._on_server_end(server))
        server.on_readable = lambda: self._receive(server, PACKETS_AT_ONCE)
        server.listen()

    def take_signals(self) -> None:
        for which in self.signals.take():
            if which == signal.SIGCHLD:
                self.children.has_news = True
            elif self._exit_code is not None:
                if which in (signal.SIGINT, signal.SIGQUIT):  # somebody does not want to wait
                    self._kill_children()
            elif len(self.signals.unheard) < MAX_UNHEARD:
                self.signals.unheard.append(which)
                if self.server is not None and not self.upgrade.keeps_signals:
                    self.server.send(b"signal", digits(which))

    def _receive(self, server: Server, at_most: int) -> None:
        for _ in range(at_most):
            packet = receive(server.socket)
            if packet is None:
                return
            (verb, *fields), passed = packet
            if not verb:
                server.hang_up()
                return
            try:
                self._verbs[verb](server, fields, passed)
            except (IndexError, KeyError, ValueError):
                self.log(f"the server said what we do not understand: {verb!r} {fields!r}")

    def _on_server_end(self, server: Server) -> None:
        self._receive(server, sys.maxsize)  # its last words
        server.close()
        pid, status = os.waitpid(server.process.pid, 0)
        self.children.own.discard(pid)
        how = describe_status(status)
        if server is self.old:
            self.old = None
            return
        self.server = None
        if self.old is not None and self.upgrade.is_on_trial:
            self.upgrade.fail(f"the new server has ended ({how})")
        elif server.code is not None:
            self._finish(server.code)
        else:
            self.upgrade.forget()
            self._restart(f"the server (pid {pid}) has ended ({how})", server.ready_at)

    def _restart(self, what: str, ready_at: float | None) -> None:
        delay = self.restarts.after_death(time.monotonic(), ready_at)
        if delay is None:
            self._give_up(what)
            return
        when = f"in {delay:g} s" if delay else "now"
        self.log(f"{what}; the workers go on, a new one is started {when}")
        if delay:
            self.loop.after(delay, "start", self.start_or_restart)
        else:
            self.start_or_restart()

    def start_or_restart(self) -> None:
        try:
            self.start_server()
        except OSError as error:
            self._restart(f"cannot start the server: {error.strerror}", None)

    def _give_up(self, what: str) -> None:
        number, grace_seconds = self.policy
        name = signal.Signals(number).name.removeprefix("SIG")
        self.log(
            f"{what}, {self.restarts.deaths} times in a row; giving up: all processes get {name}, "
            f"and KILL after {grace_seconds:g} s"
        )
        self._exit_code = 1
        for child in self.children:
            child.signal(number)
        self.loop.after(grace_seconds, "kill", self._kill_children)

    def _finish(self, code: int) -> None:
        self._exit_code = code
        self._kill_children()

    def _kill_children(self) -> None:
        for child in self.children:
            child.kill()

    def _spawn(self, _server: Server, fields: list[bytes], passed: list[Descriptor]) -> None:
        self.children.spawn(fields[0], passed)

    def _hold(self, server: Server, fields: list[bytes], passed: list[Descriptor]) -> None:
        name, note = fields
        held = passed[0] if passed else None
        if name == b"beat":  # of this server's life, not for the next one
            server.watch_beat(held)
        else:
            self.store.hold(name, note, held)

    def _drop(self, server: Server, fields: list[bytes], _passed: list[Descriptor]) -> None:
        if fields[0] == b"beat":
            server.watch_beat(None)
        self.store.drop(fields[0])

    def _output(self, _server: Server, _fields: list[bytes], passed: list[Descriptor]) -> None:
        os.dup2(passed[0].number, 1)
        os.dup2(passed[0].number, 2)

    def _set_policy(self, _server: Server, fields: list[bytes], _: list[Descriptor]) -> None:
        self.policy = (signal.Signals(int(fields[0])), int(fields[1]) / 1000)

    def _ready(self, server: Server, _fields: list[bytes], _passed: list[Descriptor]) -> None:
        server.ready_at = time.monotonic()
        if server is self.server:
            self.upgrade.on_ready()

    def _end(self, server: Server, fields: list[bytes], _passed: list[Descriptor]) -> None:
        server.code = int(fields[0])


def digits(value: int) -> bytes:
    return b"%d" % value


def send(sock: socket.socket, data: bytes, descriptor: Descriptor | None) -> None:
    control = []
    if descriptor is not None:
        rights = array.array("i", [descriptor.number])
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
    sock.sendmsg([data], control, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[list[bytes], list[Descriptor]] | None:
    """One packet's fields and descriptors; None when there is none now, an empty field at EOF."""
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    while True:
        try:
            data, control, _, _ = sock.recvmsg(MAX_PACKET_BYTES, DESCRIPTOR_ROOM, flags)
        except BlockingIOError:
            return None
        except ConnectionResetError:  # killed with our words unread; what it has said comes after
            continue
        fds = array.array("i")
        for _, _, payload in control:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        return data.split(b"\0"), [Descriptor(fd) for fd in fds]


def open_child(pid: int) -> Descriptor:
    """The pidfd of a new child. An unseen child is worse than none: it is ended. Raises OSError."""
    try:
        return Descriptor(os.pidfd_open(pid))
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def describe_status(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"exit status {os.WEXITSTATUS(status)}"
    try:
        return f"signal {signal.Signals(os.WTERMSIG(status)).name.removeprefix('SIG')}"
    except ValueError:  # a real-time signal
        return f"signal {os.WTERMSIG(status)}"


def become_program(document: int, sources: list[int], parent: int) -> int:
    """In a child: turn into what the document says. Returns the exit status if it cannot."""
    program = b"what the server asks for"
    try:
        text = os.pread(document, os.fstat(document).st_size, 0)
        directory, death_signal, names_pid, targets, count, *rest = text.split(b"\0")
        argv, variables = rest[: int(count)], rest[int(count) :]
        program = argv[0]
        os.setsid()
        prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it died before we asked
            return CANNOT_EXECUTE
        place([int(target) for target in targets.split(b",") if target], sources)
        environment = dict(text.split(b"=", 1) for text in variables if text)
        if names_pid == b"1":
            environment[b"LISTEN_PID"] = digits(os.getpid())
        if directory:
            os.chdir(directory)
        os.execvpe(program, argv, environment)
    except (OSError, ValueError, IndexError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        line = f"sengu: cannot run {os.fsdecode(program)}: {problem}\n"
        os.write(2, line.encode(errors="surrogateescape"))
        return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_EXECUTE


def become_server(sock: int, script: bytes | None) -> int:
    """In a child: turn into the server, which tells our end by the end of its socket.

    A group of its own: what the terminal sends to its foreground comes to it through us only.
    """
    os.setpgid(0, 0)
    place([FIRST_PASSED_FD], [sock])
    what = [b"-m", b"sengu.server"] if script is None else [script]
    argv = [os.fsencode(sys.executable), b"-P", *what, digits(FIRST_PASSED_FD), TITLE_ROOM]
    return execute(argv)


def place(targets: list[int], sources: list[int]) -> None:
    """Make each target a copy of its source; first above all of them, so that none is lost."""
    above = max(targets, default=0) + 1
    copies = [fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, above) for source in sources]
    for target, copy in zip(targets, copies, strict=True):
        os.dup2(copy, target)


def execute(argv: list[bytes]) -> int:
    try:
        os.execv(argv[0], argv)
    except OSError as error:
        os.write(2, f"sengu: cannot run {os.fsdecode(argv[0])}: {error.strerror}\n".encode())
    return CANNOT_EXECUTE


def this_program() -> list[bytes]:
    return [os.fsencode(sys.executable), b"-I", b"-S", os.fsencode(os.path.abspath(__file__))]


def execute_anew(supervisor: Supervisor) -> str:
    """Turn into the file as it is now, with all that we have. Returns what is in the way."""
    signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.signals.handled)  # they wait for us there
    supervisor.take_signals()
    fds: list[int] = []
    document = Descriptor(os.memfd_create("sengu-supervisor", 0))
    fds.append(document.number)
    os.write(document.number, write_state(supervisor, fds))
    options = [b"name=" + supervisor.name, b"state=" + digits(document.number)]
    if supervisor.script is not None:
        options.append(b"server=" + supervisor.script)
    argv = [*this_program(), *options, TITLE_ROOM]
    problem = ""
    for fd in fds:
        os.set_inheritable(fd, True)
    try:
        os.execv(argv[0], argv)
    except OSError as error:
        problem = error.strerror or str(error)
    for fd in fds:
        os.set_inheritable(fd, False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return problem


def write_state(supervisor: Supervisor, fds: list[int]) -> bytes:
    """For the one that follows us: records of fields, each with their number before it.

    `fds` is extended by all descriptors named.
    """

    def refer(descriptor: Descriptor | None) -> bytes:
        if descriptor is None:
            return b""
        fds.append(descriptor.number)
        return digits(descriptor.number)

    server = supervisor.server
    assert server is not None, "only a server asks for an upgrade"
    births, sock = supervisor.births.socket.fileno(), server.socket.fileno()
    fds += (births, sock)
    signal_number, grace_seconds = supervisor.policy
    records = [
        [b"births", digits(births)],
        [b"policy", digits(signal_number), digits(int(grace_seconds * 1000))],
        *([b"held", name, note, refer(held)] for name, note, held in supervisor.store),
        *([b"child", *child.describe(), refer(child.pidfd)] for child in supervisor.children),
        *([b"signal", digits(unheard)] for unheard in supervisor.signals.unheard),
        [
            b"server",
            digits(server.process.pid),
            refer(server.process.pidfd),
            digits(sock),
            refer(server.beat),
        ],
    ]
    flat = [field for record in records for field in (digits(len(record)), *record)]
    return b"\0".join([digits(VERSION), *flat])


def read_state(document: int) -> Iterator[list[bytes]]:
    version, *fields = os.pread(document, os.fstat(document).st_size, 0).split(b"\0")
    assert int(version) == VERSION, version
    while fields:
        end = 1 + int(fields[0])
        yield fields[1:end]
        fields = fields[end:]


def follow(name: bytes, script: bytes | None, document: int) -> Supervisor:
    """The supervisor that goes on from another's state."""
    records = list(read_state(document))
    (births,) = (int(fields[0]) for verb, *fields in records if verb == b"births")
    supervisor = Supervisor(name, script, Births(socket.socket(fileno=births)))

    def take(fd: bytes) -> Descriptor | None:
        return Descriptor(int(fd)) if fd else None

    for verb, *fields in records:
        if verb == b"held":
            supervisor.store.hold(fields[0], fields[1], take(fields[2]))
        elif verb == b"child":
            key, pid, status, fd = fields
            known_status = int(status) if status else None
            supervisor.children.take_in(Child(key, int(pid), Descriptor(int(fd)), known_status))
        elif verb == b"signal":
            supervisor.signals.unheard.append(int(fields[0]))
        elif verb == b"policy":
            supervisor.policy = (int(fields[0]), int(fields[1]) / 1000)
        elif verb == b"server":
            process = Child(b"server", int(fields[0]), Descriptor(int(fields[1])))
            sock = socket.socket(fileno=int(fields[2]))
            supervisor.old = Server(supervisor.loop, supervisor.log, process, sock)
            supervisor.look_after(supervisor.old)
            supervisor.old.watch_beat(take(fields[3]))
    os.close(document)
    supervisor.upgrade.try_server()
    return supervisor


def begin(name: bytes, script: bytes | None, held: list[tuple[bytes, int]]) -> Supervisor:
    """The supervisor of a service that begins."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    supervisor = Supervisor(name, script, Births(ours))
    for named, fd in held:
        supervisor.store.hold(named, b"", Descriptor(fd))
    supervisor.store.hold(b"births", b"", Descriptor(theirs.detach()))
    supervisor.start_or_restart()
    return supervisor


def keep_descriptors_ours() -> None:
    """Fill stdin to stderr, and let no child have any other that is not placed for it."""
    while (fd := os.open(os.devnull, os.O_RDWR)) < FIRST_PASSED_FD:
        os.set_inheritable(fd, True)
    os.close(fd)
    for listed in os.listdir("/proc/self/fd"):
        try:
            os.set_inheritable(int(listed), int(listed) < FIRST_PASSED_FD)
        except OSError:  # that of the listing itself
            continue


def set_title(text: str, room: int) -> None:
    """Over our arguments, where ps looks: fields 48 and 49 of /proc/PID/stat."""
    with open("/proc/self/stat", "rb") as stream:
        start, end = (int(field) for field in stream.read().rpartition(b")")[2].split()[45:47])
    if end - start > room:  # else they are not what was given to us
        data = text.encode(errors="replace")[: end - start - 1]
        ctypes.memmove(start, data.ljust(end - start, b"\0"), end - start)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--check"]:
        return int(arguments[1:] != [str(VERSION)])
    keep_descriptors_ours()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    given = [
        os.fsencode(argument).partition(b"=")[::2] for argument in arguments if argument.strip()
    ]
    options = {name: value for name, value in given if name in (b"name", b"server", b"state")}
    held = [(name, int(value)) for name, value in given if name not in options]
    name, script = options.get(b"name", b"sengu"), options.get(b"server")
    if arguments and not arguments[-1].strip():
        set_title(f"sengu: {os.fsdecode(name)}: supervisor", len(arguments[-1]))
    if b"state" in options:
        return follow(name, script, int(options[b"state"])).run()
    return begin(name, script, held).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
