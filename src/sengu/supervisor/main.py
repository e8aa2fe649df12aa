"""The supervisor: the main process. It forks, holds, reaps and restarts, and decides nothing else.

`python -I -S PATH name=TEXT [NAME=FD…] [ROOM]`: PATH is that of `__main__.py` or of this file. Each
FD goes into the store, as NAME. ROOM is blank: the process title is written over the arguments.
`server=PATH` runs a script in place of the server. `state=FD` is how it follows itself in an
upgrade, `--check VERSION` whether it could.

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
import resource
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
DESCRIPTOR_ROOM = socket.CMSG_SPACE(4 * MAX_DESCRIPTORS) + socket.CMSG_SPACE(12)  # and ucred
PACKETS_AT_ONCE = 64
BIRTHS_AT_ONCE = 1024  # more than a socket holds, so all that were there
REST_SECONDS_A_CHILD = 0.0001
MAX_LINE_BYTES = 4096  # a pipe that takes anything takes that much (PIPE_BUF)

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
    signal.SIGCONT,
)
END_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
MAX_UNHEARD = 64  # of each: a terminal that is resized must not drown a TERM
TITLE_ROOM = b" " * 200

READY_SECONDS = 30.0
GOOD_AFTER_SECONDS = 2.0  # a server that was ready for so long makes up for those before
MAX_DEATHS = 20
MAX_FAILURES = 5  # of those, in a row without ever having been ready
MAX_FAILURES_WHILE_SERVING = 10  # as long as it takes to replace a package: half a minute
FIRST_DELAY_SECONDS = 0.1
MAX_DELAY_SECONDS = 5.0
SECOND_LOOK_SECONDS = 0.5
LAST_SECONDS = 2.0  # what a server has to exit, or to write down where it is stuck
CHECK_SECONDS = 10.0
PAUSE_SECONDS = 10.0

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
WRONG_USAGE = 2
CANNOT_EXECUTE = 126
NOT_FOUND = 127

SYS_CLONE3 = 435  # on every architecture
CLONE_INTO_CGROUP = 1 << 33

libc = ctypes.PyDLL(None)  # not releasing the GIL touches fewer pages after a fork
prctl = libc.prctl
prctl.argtypes = (ctypes.c_int, ctypes.c_ulong)
libc.syscall.argtypes = (ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t)
libc.syscall.restype = ctypes.c_long


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
                self._write(line.encode(errors="replace")[:MAX_LINE_BYTES])
        except OSError:  # nobody reads any more, or not now
            return

    def _write(self, line: bytes) -> None:
        if not os.isatty(2):
            os.write(2, line)
            return
        # A terminal that is stopped has room for less. And under `stty tostop` it answers who is in
        # the background by TTOU, each time that the write is repeated because of that.
        fd = open_terminal()
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTTOU,))
        try:
            os.write(fd, line)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
            if fd != 2:
                os.close(fd)


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
        self.unheard: dict[int, int] = {}  # by serial number
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

    def keep(self, number: int) -> int | None:
        """Its serial number, which grows from one supervisor to the next; None if it is lost."""
        if sum(number == kept for kept in self.unheard.values()) >= MAX_UNHEARD:
            return None
        serial = time.monotonic_ns()
        self.unheard[serial] = number
        return serial

    def hear(self, number: int) -> None:
        for serial, kept in self.unheard.items():
            if kept == number:
                del self.unheard[serial]
                return

    def fork(self, become: Callable[[], int], fork: Callable[[], int] = os.fork) -> int:
        """The child turns into something by `become`, or exits with the status it returns."""
        # A signal between fork and exec would write into our pipe; blocked, it waits and then
        # meets the default.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, self.handled)
        try:
            pid = fork()
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


class Child:
    """A process of the service. Its number is its own, or its process group's, while it is known.

    It stays a zombie until it is to be reaped, and then known until its group is empty.
    """

    __slots__ = ("is_reaped", "key", "outlives_us", "pid", "pidfd", "status")

    def __init__(self, key: bytes, pid: int, pidfd: Descriptor, status: int | None = None) -> None:
        self.key = key
        self.pid = pid
        self.pidfd = pidfd
        self.status = status
        self.is_reaped = False
        self.outlives_us = False  # what reads our output ends when that does

    def signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd.number, number)
        except OSError:  # it has ended, or become another user's
            return

    def signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except OSError:  # it leads no group, or nobody is left there
            return

    def has_group(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's
            return True
        return True

    def describe(self) -> list[bytes]:
        return [self.key, digits(self.pid), b"" if self.status is None else digits(self.status)]


class Document:
    """What to execute, as the server wrote it down in a memory file."""

    def __init__(self, fd: int) -> None:
        """Raises ValueError for what is none."""
        text = os.pread(fd, os.fstat(fd).st_size, 0)
        self.directory, death_signal, names_pid, targets, limits, self.cgroup, count, *rest = (
            text.split(b"\0")
        )
        self.death_signal = int(death_signal)
        self.names_listen_pid = names_pid == b"1"
        self.targets = [int(target) for target in targets.split(b",") if target]
        self.limits_files = limits == b"1"
        self.argv, variables = rest[: int(count)], rest[int(count) :]
        self.environment = dict(text.split(b"=", 1) for text in variables if text)
        if not self.argv:
            raise ValueError("no program")

    def fork(self) -> int:
        """As fork(2); the child is in the cgroup already, if that can be done."""
        pid = fork_into(self.cgroup) if self.cgroup else -1
        if pid == 0:
            self.cgroup = b""
        return os.fork() if pid < 0 else pid


class Children:
    """All our children. The only one who waits for them, but for servers and trials (`own`)."""

    def __init__(self, supervisor: Supervisor, births: socket.socket) -> None:
        self._supervisor = supervisor
        self._loop = supervisor.loop
        self._tell = supervisor.tell
        self._births = births
        self._by_key: dict[bytes, Child] = {}
        self._by_pid: dict[int, Child] = {}  # not reaped
        self._remnants: dict[int, Child] = {}  # reaped, with somebody left in the group
        self._ended: list[Child] = []  # their status is not known yet
        self._early: list[Child] = []  # and cannot be, until the process in between has gone
        self._last_signal: int | None = None
        self._rests = False
        self.own: set[int] = set()
        self.has_news = True  # CHLD has come
        self._room = open_null()
        self._loop.watch(births.fileno(), self._take_births)

    def __iter__(self) -> Iterator[Child]:
        return iter(self._by_key.values())

    @property
    def are_gone(self) -> bool:
        return all(child.outlives_us for child in self)

    def spawn(self, key: bytes, passed: list[Descriptor]) -> None:
        """Fork and execute what the document `passed[0]` says; tells what has come of it."""
        child = self._by_key.get(key)
        try:
            if child is None:
                child = self._start(key, [descriptor.number for descriptor in passed])
            elif child.status is not None:
                raise OSError(errno.EEXIST, "not gone yet")
        except (OSError, ValueError) as error:
            self.refuse(key, getattr(error, "errno", None) or errno.EINVAL)
        else:
            self._tell(b"spawned", key, digits(child.pid), descriptor=child.pidfd)

    def _start(self, key: bytes, fds: list[int]) -> Child:
        if not fds:
            raise OSError(errno.EINVAL, "no document")
        document, parent = Document(fds[0]), os.getpid()
        if len(document.targets) != len(fds) - 1:
            raise OSError(errno.EINVAL, "not as many descriptors as it says")
        soft_limit = self._supervisor.file_limit if document.limits_files else None
        pid = self._supervisor.signals.fork(
            lambda: become_program(document, fds[1:], parent, soft_limit), document.fork
        )
        child = Child(key, pid, open_child(pid))
        child.outlives_us = document.death_signal == 0
        self.take_in(child)
        return child

    def refuse(self, key: bytes, error: int) -> None:
        self._tell(b"refused", key, digits(error))

    def take_in(self, child: Child) -> None:
        if child.pid in self._remnants:  # so that group is empty
            self._say_gone(self._remnants[child.pid])
        self._by_key[child.key] = child
        if child.is_reaped:
            self._remnants[child.pid] = child
            return
        self._by_pid[child.pid] = child
        if child.status is None:
            # Once: it stays readable, but the status may be the process in between's for a while.
            events = select.EPOLLIN | select.EPOLLONESHOT
            self._loop.watch(child.pidfd.number, lambda: self._ended.append(child), events)

    def _take_births(self) -> None:
        """A fork server's process in between tells of each worker, `KEY PID` and its pidfd.

        It does so before it exits, and only then the worker is ours: whoever finds a strange child
        and reads here afterwards knows whether it is one.
        """
        for _ in range(BIRTHS_AT_ONCE):
            packet = receive(self._births)
            if packet is None:
                return
            fields, passed, sender = packet
            del passed  # its pidfd may be anybody's: an application runs where this comes from
            if len(fields) > 1 and fields[-1].isdigit():
                self._be_told_of(fields[-2], int(fields[-1]), sender)
            elif fields == [b""]:  # nobody will ever tell of any again
                self._loop.unwatch(self._births.fileno())
                return

    def _be_told_of(self, key: bytes, pid: int, sender: int) -> None:
        if pid in self._by_pid or pid in self.own:
            return
        try:
            pidfd = Descriptor(os.pidfd_open(pid))
        except OSError as error:
            if self._is_born_of(sender, pid):
                kill(pid)  # an unseen child is worse than none
            self.refuse(key, error.errno or errno.EIO)
            return
        if not self._is_born_of(sender, pid):
            return
        child = Child(key, pid, pidfd)
        if key in self._by_key:  # whoever has asked twice knows of one only
            child.signal(signal.SIGKILL)
            return
        self.take_in(child)
        self._tell(b"spawned", key, digits(pid), descriptor=child.pidfd)
        if self._last_signal is not None:
            child.signal(self._last_signal)

    def _is_born_of(self, sender: int, pid: int) -> bool:
        """Whether it is a child of who names it, or ours already. For this there is always room."""
        self._room = None
        parent = parent_of(pid)
        self._room = open_null()
        return parent in (sender, os.getpid())

    def reap(self, key: bytes) -> None:
        """Let go of it. One that lives is reaped as a stranger, and nobody is told."""
        child = self._by_key.get(key)
        if child is None:
            return
        if not child.is_reaped:
            del self._by_pid[child.pid]
            self._loop.unwatch(child.pidfd.number)
            _wait(child.pid)
            child.is_reaped = True
            if child.status is None:
                del self._by_key[key]
                return
            self._remnants[child.pid] = child
        if not child.has_group():
            self._say_gone(child)

    def _say_gone(self, child: Child) -> None:
        del self._remnants[child.pid]
        del self._by_key[child.key]
        self._tell(b"gone", child.key)

    def end(self, number: int) -> None:
        """The service is over: each gets this signal, and what it has left in its group too."""
        self._last_signal = number
        for child in list(self):
            if child.outlives_us:
                continue
            child.signal(number)
            if number == signal.SIGKILL:
                child.signal_group(number)
            if child.status is not None:
                self._bury(child, number)

    def _bury(self, child: Child, last_signal: int) -> None:
        child.signal_group(last_signal)
        self.reap(child.key)

    def look(self) -> None:
        """Take the statuses of those that have ended, and reap orphans. Once in a round."""
        ended, self._ended = self._ended, []
        if self.has_news:
            ended += self._early
            self._early = []
        for child in ended:
            if self._by_pid.get(child.pid) is child:
                self._take_status(child)
        if self.has_news and not self._rests:
            self.has_news = False
            if self._reap_strangers():
                for child in list(self._remnants.values()):
                    self.reap(child.key)

    def _take_status(self, child: Child) -> None:
        child.status = _peek_status(child)
        if child.status is None:
            self._early.append(child)
            return
        self._tell(b"exited", child.key, digits(child.status))
        if self._last_signal is not None and not child.outlives_us:
            self._bury(child, self._last_signal)

    def _reap_strangers(self) -> bool:
        found = False
        while (pid := _peek()) is not None:
            if self._is_known(pid):
                # It is not to be reaped yet, and stands in the way of those behind it.
                children = _listed_children()
                for listed in children:
                    found = (not self._is_known(listed) and _wait(listed)) or found
                self._rest(len(children) * REST_SECONDS_A_CHILD)
                return found
            found = _wait(pid) or found
        return found

    def _rest(self, seconds: float) -> None:
        """To look at all costs time for each; many ends, one by one, are not to cost its square."""

        def go_on() -> None:
            self._rests = False

        self._rests = True
        self._loop.after(seconds, "rest", go_on)

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
        self.fault = ""  # what it is killed for
        self.on_readable: Callable[[], None] = lambda: None
        self._hung_up = False
        self._events = 0

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
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:  # it has yet to take those on their way
                    self._loop.after(SECOND_LOOK_SECONDS, f"flush {self.process.pid}", self.flush)
                    return
                # One that is not told what it must know is of no use.
                self._log(f"cannot tell the server: {error.strerror}; killing it")
                self._outbox.clear()
                self.process.signal(signal.SIGKILL)
            else:
                del self._outbox[0]
        self.listen()

    def listen(self) -> None:
        events = select.EPOLLIN | (select.EPOLLOUT if self._outbox else 0)
        if events != self._events:
            self._events = events
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
            self._kill_later()

    def watch_beat(self, beat: Descriptor | None) -> None:
        """`beat` is a timer that the server keeps winding up: readable when it has run down."""
        if self.beat is not None:
            self._loop.unwatch(self.beat.number)
        self.beat = beat
        if beat is not None:
            self._loop.watch(beat.number, self._on_silence)

    def _on_silence(self) -> None:
        """If all was frozen (cgroups(7), a suspended machine), it winds up as soon as it runs."""
        beat = self.beat
        assert beat is not None
        self._loop.unwatch(beat.number)

        def look_again() -> None:
            if self.beat is not beat:
                return
            if select.select([beat.number], [], [], 0)[0]:
                self._dismiss("is stuck")
            else:
                self.watch_beat(beat)

        self._loop.after(SECOND_LOOK_SECONDS, f"beat {self.process.pid}", look_again)

    def await_ready(self) -> None:
        late = f"was not ready within {READY_SECONDS:g} s"
        self._loop.after(READY_SECONDS, f"ready {self.process.pid}", lambda: self._dismiss(late))

    def be_ready(self) -> None:
        self.ready_at = time.monotonic()
        self._loop.cancel(f"ready {self.process.pid}")

    def _dismiss(self, fault: str) -> None:
        """Make it write down where it is, and kill it."""
        self.watch_beat(None)
        self.fault = fault
        pid = self.process.pid
        self._log(f"the server (pid {pid}) {fault}; its stacks follow, then it is killed")
        self.process.signal(signal.SIGABRT)
        self.process.signal(signal.SIGCONT)  # one that was stopped can do it then
        self._kill_later()

    def _kill_later(self) -> None:
        def kill() -> None:
            self.process.signal(signal.SIGKILL)

        self._loop.after(LAST_SECONDS, f"kill {self.process.pid}", kill)

    def close(self) -> None:
        """It has ended."""
        self._loop.cancel(f"kill {self.process.pid}")
        self._loop.cancel(f"ready {self.process.pid}")
        self.watch_beat(None)
        self._loop.unwatch(self.process.pidfd.number)
        self._loop.unwatch(self.socket.fileno())
        self.socket.close()
        self.on_readable = lambda: None  # it refers to us: descriptors go when nobody does


class Restarts:
    """When to start the next server, and whether."""

    def __init__(self) -> None:
        self.deaths = 0  # in a row
        self.failures = 0  # those of them that were never ready, in a row

    def after_death(
        self,
        now: float,
        ready_at: float | None,
        *,
        was_killed: bool = False,
        is_serving: bool = False,
    ) -> float | None:
        """Seconds to wait; None to give up. `ready_at`: since when the dead one had been ready.

        `was_killed`: it was KILLed, and not by us. If it was ready, that is not its fault.
        `is_serving`: there are workers, who need no server for now.
        """
        if ready_at is not None and (was_killed or now - ready_at >= GOOD_AFTER_SECONDS):
            self.deaths = 0
        self.deaths += 1
        self.failures = self.failures + 1 if ready_at is None else 0
        most = MAX_FAILURES_WHILE_SERVING if is_serving else MAX_FAILURES
        if self.failures >= most or self.deaths >= MAX_DEATHS:
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

    def begin(self, server: Server) -> None:
        if self._phase:
            server.send(b"resume", b"an upgrade is going on already")
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
        try:
            self._supervisor.start_server()
        except OSError as error:
            self.fail(f"cannot start the new server: {error.strerror}")

    def on_ready(self) -> None:
        """The new server is good."""
        if self._phase != "trial":
            return
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
        if supervisor.server is None:  # none on trial any more
            supervisor.server, supervisor.old = supervisor.old, None
        if supervisor.server is not None:
            supervisor.server.send(b"resume", problem.encode(errors="replace"))
            if has_paused:
                supervisor.tell_signals()

    def forget(self) -> None:
        """The server that was to be followed has ended, or the one on trial is left alone."""
        self._phase = ""
        self._loop.cancel("upgrade")
        if self._check is not None:
            self._check.signal(signal.SIGKILL)


class Supervisor:
    """The parts, wired, and what is done for the server."""

    def __init__(
        self, name: bytes, script: bytes | None, births: socket.socket, file_limit: int
    ) -> None:
        self.name = name
        self.script = script
        self.births = births
        self.file_limit = file_limit  # the soft one that we were started with
        self.log = Log(os.fsdecode(name))
        self.loop = Loop()
        self.signals = Signals()
        # Descriptors by name, each with a note, in the order in which they were last held.
        self.store: dict[bytes, tuple[bytes, Descriptor | None]] = {}
        self.children = Children(self, births)
        self.restarts = Restarts()
        self.upgrade = Upgrade(self)
        self.server: Server | None = None
        self.old: Server | None = None  # paused, or killed, in an upgrade
        self.policy = (int(signal.SIGTERM), 30.0)
        self._exit_code: int | None = None  # only the children's end is waited for
        self._is_over = False  # and not even that
        self.loop.watch(self.signals.fd, self.take_signals)

    def run(self) -> int:
        while True:
            self.children.look()
            if self._exit_code is not None and (self._is_over or self.children.are_gone):
                return self._exit_code
            self.loop.run_once()

    def tell(self, *fields: bytes, descriptor: Descriptor | None = None) -> None:
        """Tell the server; in an upgrade both, as either may be the one that goes on."""
        for server in (self.old, self.server):
            if server is not None:
                server.send(*fields, descriptor=descriptor)

    def tell_signals(self) -> None:
        if self.server is not None:
            for serial, number in self.signals.unheard.items():
                self.server.send(b"signal", digits(number), digits(serial))

    def take_signals(self) -> None:
        for which in self.signals.take():
            if which == signal.SIGCHLD:
                self.children.has_news = True
            elif self._exit_code is not None:
                if which in (signal.SIGINT, signal.SIGQUIT):  # somebody does not want to wait
                    self._kill_children()
            else:
                serial = self.signals.keep(which)
                if serial and self.server is not None and not self.upgrade.keeps_signals:
                    self.server.send(b"signal", digits(which), digits(serial))

    def start_server(self) -> None:
        """Raises OSError when the system refuses."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            pid = self.signals.fork(lambda: become_server(theirs.fileno(), self.script))
        server = Server(self.loop, self.log, Child(b"server", pid, open_child(pid)), ours)
        self.look_after(server)
        self.server = server
        server.await_ready()
        is_trial = self.upgrade.is_on_trial
        server.send(b"hello", digits(VERSION), digits(os.getpid()), digits(is_trial))
        for name, (note, held) in self.store.items():
            server.send(b"held", name, note, descriptor=held)
        for child in self.children:
            server.send(b"child", *child.describe(), descriptor=child.pidfd)
        if not self.upgrade.keeps_signals:
            self.tell_signals()
        server.send(b"begin")

    def start_or_restart(self) -> None:
        try:
            self.start_server()
        except OSError as error:
            problem = f"cannot start the server: {error.strerror}"
            is_asked_to_end = not END_SIGNALS.isdisjoint(self.signals.unheard.values())
            if self.children.are_gone or is_asked_to_end:
                self._give_up(problem)
            else:  # no fault of the server's, and it may pass
                self._start_in(MAX_DELAY_SECONDS, problem)

    def _start_in(self, seconds: float, problem: str) -> None:
        when = f"in {seconds:g} s" if seconds else "now"
        self.log(f"{problem}; the workers go on, a new one is started {when}")
        self.loop.after(seconds, "start", self.start_or_restart)

    def look_after(self, server: Server) -> None:
        self.children.own.add(server.process.pid)
        self.loop.watch(server.process.pidfd.number, lambda: self._on_server_end(server))
        server.on_readable = lambda: self._receive(server, PACKETS_AT_ONCE)
        server.listen()

    def _on_server_end(self, server: Server) -> None:
        self._receive(server, sys.maxsize)  # its last words
        server.close()
        pid, status = os.waitpid(server.process.pid, 0)
        self.children.own.discard(pid)
        if server is self.old:
            self.old = None
            return
        self.server = None
        how = f"has ended ({describe_status(status)})"
        if self.old is not None and self.upgrade.is_on_trial:
            self.upgrade.fail(f"the new server {server.fault or how}")
        elif server.code is not None:
            self._exit_code = server.code
            self._kill_children()
        else:
            self.upgrade.forget()
            was_killed = status == signal.SIGKILL and not server.fault
            self._restart(f"the server (pid {pid}) {how}", server.ready_at, was_killed=was_killed)

    def _restart(self, problem: str, ready_at: float | None, *, was_killed: bool = False) -> None:
        is_serving = any(child.status is None for child in self.children)
        delay = self.restarts.after_death(
            time.monotonic(), ready_at, was_killed=was_killed, is_serving=is_serving
        )
        if delay is None:
            self._give_up(f"{problem}, as {self.restarts.deaths - 1} before it")
        else:
            self._start_in(delay, problem)

    def _give_up(self, problem: str) -> None:
        number, grace_seconds = self.policy
        name = signal.Signals(number).name.removeprefix("SIG")
        self.log(
            f"{problem}; giving up: all processes get {name}, and KILL after {grace_seconds:g} s"
        )
        self._exit_code = 1
        self.children.end(number)
        self.loop.after(grace_seconds, "kill", self._kill_children)

    def _kill_children(self) -> None:
        self.children.end(signal.SIGKILL)
        self.loop.after(LAST_SECONDS, "leave", self._leave)

    def _leave(self) -> None:
        left = ", ".join(str(child.pid) for child in self.children if not child.outlives_us)
        self.log(f"cannot end the processes of group {left}; left alone")
        self._is_over = True

    def _receive(self, server: Server, at_most: int) -> None:
        for _ in range(at_most):
            packet = receive(server.socket)
            if packet is None:
                return
            (verb, *fields), passed, _ = packet
            if not verb:
                server.hang_up()
                return
            try:
                self._obey(server, verb, fields, passed)
            except (OSError, ValueError) as error:
                self.log(f"cannot do what the server said: {verb!r} {fields!r}: {error}")

    def _obey(
        self, server: Server, verb: bytes, fields: list[bytes], passed: list[Descriptor]
    ) -> None:
        """Raises ValueError for what makes no sense, OSError for what the system refuses."""
        match verb, fields:
            case b"spawn", [key]:
                self.children.spawn(key, passed)
            case b"reap", [key]:
                self.children.reap(key)
            case (b"hold", [b"beat", *_]) | (b"drop", [b"beat"]):  # of this server's own life
                server.watch_beat(passed[0] if passed else None)
            case b"hold", [name, note]:
                self.store.pop(name, None)
                self.store[name] = (note, passed[0] if passed else None)
            case b"drop", [name]:
                self.store.pop(name, None)
            case b"heard", [number]:
                self.signals.hear(int(number))
            case b"notify", [text]:
                notify(text)
            case b"output", [] if passed:
                os.dup2(passed[0].number, 1)
                os.dup2(passed[0].number, 2)
            case b"policy", [number, grace_ms]:
                self.policy = (signal.Signals(int(number)), int(grace_ms) / 1000)
            case b"cut", [verb, name, *_]:  # what was passed found no room here
                if verb == b"spawn":
                    self.children.refuse(name, errno.EMFILE)
                self.store.pop(name, None)  # without what it means it is worse than none
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            case _:
                self._note_how_it_is(server, verb, fields)

    def _note_how_it_is(self, server: Server, verb: bytes, fields: list[bytes]) -> None:
        match verb, fields:
            case b"ready", []:
                server.be_ready()
                if server is self.server:
                    self.upgrade.on_ready()
            case b"paused", []:
                self.upgrade.on_paused()
            case b"end", [code]:
                server.code = int(code)
            case b"upgrade", []:
                self.upgrade.begin(server)
            case _:
                raise ValueError("not understood")


def digits(value: int) -> bytes:
    return b"%d" % value


def send(sock: socket.socket, data: bytes, descriptor: Descriptor | None) -> None:
    control = []
    if descriptor is not None:
        rights = array.array("i", [descriptor.number])
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
    sock.sendmsg([data], control, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[list[bytes], list[Descriptor], int] | None:
    """One packet's fields, descriptors, and its sender's pid where the socket has SO_PASSCRED.

    None when there is none now; an empty field at EOF. When descriptors found no room, "cut" is put
    before the fields.
    """
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    while True:
        try:
            data, control, how, _ = sock.recvmsg(MAX_PACKET_BYTES, DESCRIPTOR_ROOM, flags)
        except BlockingIOError:
            return None
        except ConnectionResetError:  # killed with our words unread; what it has said comes after
            continue
        fds = array.array("i")
        sender = 0
        for _, kind, payload in control:
            if kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
            elif kind == socket.SCM_CREDENTIALS:  # struct ucred begins with the pid
                sender = int.from_bytes(payload[:4], sys.byteorder)
        cut = [b"cut"] if how & socket.MSG_CTRUNC else []
        return [*cut, *data.split(b"\0")], [Descriptor(fd) for fd in fds], sender


def notify(text: bytes) -> None:
    """Tell the service manager (sd_notify(3)), which heeds the main pid only."""
    address = os.environb.get(b"NOTIFY_SOCKET", b"")
    if not address:
        return
    if address.startswith(b"@"):
        address = b"\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text, socket.MSG_DONTWAIT, address)
    except OSError:  # nobody listens, or not now
        return


def parent_of(pid: int) -> int:
    """0 when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return int(stat.read().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:  # it has ended, or become another user's
        return


def open_null() -> Descriptor | None:
    """Takes the place of a descriptor, if there is one left."""
    try:
        return Descriptor(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return None


def open_child(pid: int) -> Descriptor:
    """The pidfd of a child that we have forked. Raises OSError when there is no child."""
    try:
        return Descriptor(os.pidfd_open(pid))
    except OSError:  # an unseen child is worse than none
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def open_terminal() -> int:
    """That on stderr, once more: not waiting for room there concerns us only."""
    try:
        return os.open("/proc/self/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:  # another user's, as after su: then it may make us wait
        return 2


def describe_status(status: int) -> str:
    if not os.WIFSIGNALED(status):
        return f"exit status {os.WEXITSTATUS(status)}"
    try:
        return f"signal {signal.Signals(os.WTERMSIG(status)).name.removeprefix('SIG')}"
    except ValueError:  # a real-time signal
        return f"signal {os.WTERMSIG(status)}"


def become_program(
    document: Document, sources: list[int], parent: int, soft_limit: int | None
) -> int:
    """In a child: turn into what the document says. Returns the exit status if it cannot."""
    program = document.argv[0]
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, document.death_signal)
        if os.getppid() != parent:  # it died before we asked
            return CANNOT_EXECUTE
        place(document.targets, sources)
        if soft_limit is not None:
            limit_files(soft_limit)
        if document.cgroup:
            enter_cgroup(document.cgroup)
        if document.names_listen_pid:
            document.environment[b"LISTEN_PID"] = digits(os.getpid())
        if document.directory:
            os.chdir(document.directory)
        os.execvpe(program, document.argv, document.environment)
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        line = f"sengu: cannot run {os.fsdecode(program)}: {problem}\n"
        os.write(2, line.encode(errors="surrogateescape"))
        return NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_EXECUTE


def limit_files(soft_limit: int) -> None:
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft_limit, hard_limit), hard_limit))


def fork_into(procs: bytes) -> int:
    """Fork a child that is born in the cgroup of that file, by clone3(2); -1 if it cannot be done.

    To enter one costs milliseconds, in which nobody on the machine can fork; this costs nothing.
    Neither glibc nor the interpreter knows of it, which is good enough for a process of one thread
    whose child only executes something.
    """
    try:
        directory = os.open(os.path.dirname(procs), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    # struct clone_args; what is 0 is as with fork(2).
    arguments = array.array("Q", (CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, *[0] * 5, directory))
    address, count = arguments.buffer_info()
    pid: int = libc.syscall(SYS_CLONE3, address, count * arguments.itemsize)
    os.close(directory)
    return pid


def enter_cgroup(procs: bytes) -> None:
    try:
        fd = os.open(procs, os.O_WRONLY)
        os.write(fd, b"0")
        os.close(fd)
    except OSError:  # it runs as well where it is
        return


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
    return [os.fsencode(sys.executable), b"-I", b"-S", os.fsencode(os.path.abspath(sys.argv[0]))]


def execute_anew(supervisor: Supervisor) -> str:
    """Turn into the file as it is now, with all that we have. Returns what is in the way."""
    signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.signals.handled)  # they wait for us there
    supervisor.take_signals()
    fds: list[int] = []
    try:
        document = Descriptor(os.memfd_create("sengu-supervisor", 0))
        fds.append(document.number)
        os.write(document.number, write_state(supervisor, fds))
        options = [b"name=" + supervisor.name, b"state=" + digits(document.number)]
        if supervisor.script is not None:
            options.append(b"server=" + supervisor.script)
        argv = [*this_program(), *options, TITLE_ROOM]
        for fd in fds:
            os.set_inheritable(fd, True)
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

    def write_child(child: Child) -> list[bytes]:
        flags = digits(child.is_reaped), digits(child.outlives_us)
        return [*child.describe(), *flags, refer(child.pidfd)]

    server = supervisor.server
    assert server is not None, "only a server asks for an upgrade"
    births, sock = supervisor.births.fileno(), server.socket.fileno()
    fds += (births, sock)
    signal_number, grace_seconds = supervisor.policy
    records = [
        [b"births", digits(births)],
        [b"limit", digits(supervisor.file_limit)],
        [b"policy", digits(signal_number), digits(int(grace_seconds * 1000))],
        *([b"held", name, note, refer(fd)] for name, (note, fd) in supervisor.store.items()),
        *([b"child", *write_child(child)] for child in supervisor.children),
        *([b"signal", *map(digits, kept)] for kept in supervisor.signals.unheard.items()),
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
    left = iter(fields)
    for count in left:
        yield [next(left) for _ in range(int(count))]


def follow(name: bytes, script: bytes | None, document: int) -> Supervisor:
    """The supervisor that goes on from another's state."""
    records = list(read_state(document))
    given = {verb: fields for verb, *fields in records}
    births = socket.socket(fileno=int(given[b"births"][0]))
    supervisor = Supervisor(name, script, births, int(given[b"limit"][0]))

    def take(fd: bytes) -> Descriptor | None:
        return Descriptor(int(fd)) if fd else None

    for verb, *fields in records:
        if verb == b"held":
            supervisor.store[fields[0]] = (fields[1], take(fields[2]))
        elif verb == b"child":
            key, pid, status, is_reaped, outlives_us, fd = fields
            child = Child(key, int(pid), Descriptor(int(fd)), int(status) if status else None)
            child.is_reaped, child.outlives_us = is_reaped == b"1", outlives_us == b"1"
            supervisor.children.take_in(child)
        elif verb == b"signal":
            supervisor.signals.unheard[int(fields[0])] = int(fields[1])
        elif verb == b"policy":
            supervisor.policy = (int(fields[0]), int(fields[1]) / 1000)
        elif verb == b"server":
            process = Child(b"server", int(fields[0]), Descriptor(int(fields[1])))
            sock = socket.socket(fileno=int(fields[2]))
            supervisor.old = Server(supervisor.loop, supervisor.log, process, sock)
            supervisor.look_after(supervisor.old)
            supervisor.old.watch_beat(take(fields[3]))
            supervisor.old.be_ready()  # else it could not have paused
    os.close(document)
    supervisor.upgrade.try_server()
    return supervisor


def begin(name: bytes, script: bytes | None, held: list[tuple[bytes, bytes]]) -> Supervisor:
    """The supervisor of a service that begins."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    soft_limit, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    supervisor = Supervisor(name, script, ours, soft_limit)
    for named, fd in (*held, (b"births", digits(theirs.detach()))):
        supervisor.store[named] = (b"", Descriptor(int(fd)))
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
    given = [os.fsencode(text).partition(b"=")[::2] for text in arguments if text.strip()]
    options = {name: value for name, value in given if name in (b"name", b"server", b"state")}
    held = [(name, value) for name, value in given if name not in options]
    if b"name" not in options or not all(value.isdigit() for _, value in held):
        os.write(2, b"sengu: this is the supervisor, which needs name=TEXT [NAME=FD...]; ")
        os.write(2, b"start it by `sengu start` or `sengu serve`\n")
        return WRONG_USAGE
    name, script = options[b"name"], options.get(b"server")
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    if not arguments[-1].strip():
        set_title(f"sengu: {os.fsdecode(name)}: supervisor", len(arguments[-1]))
    if b"state" in options:
        return follow(name, script, int(options[b"state"])).run()
    return begin(name, script, held).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
