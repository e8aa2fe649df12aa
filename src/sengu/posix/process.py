"""Processes: fork and exec, signals through a pidfd, exit statuses.

A child starts with what a worker's contract promises: a session of its own, default signal
dispositions, an empty signal mask, the placed descriptors and no other, and a parent-death signal.
"""

import contextlib
import os
import signal
from collections.abc import Callable, Mapping

import msgspec

from sengu.posix import descriptors, limits, prctl

_CANNOT_EXECUTE = 126
_NOT_FOUND = 127


class Exec(msgspec.Struct, frozen=True):
    """What to execute. `descriptors` maps a number in the child to one of ours.

    With `names_listen_pid` the child's environment gets LISTEN_PID, which only the child knows.
    `file_limit` is how many descriptors it may have; None is as many as we.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    descriptors: Mapping[int, int]
    directory: str | None = None
    death_signal: int = signal.SIGTERM
    names_listen_pid: bool = False
    file_limit: int | None = None


class Process(msgspec.Struct, frozen=True):
    """A child, known by a pidfd so that its number can not come to mean another process."""

    pid: int
    pidfd: int

    def signal(self, number: int) -> None:
        # It may have exited between poll and signal; its exit will be told.
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        os.close(self.pidfd)


class Children:
    """All children of this process. The only caller of wait(2), so a pid stays ours until read.

    To be made when the signal handlers are set: they are looked up once, not for each child.
    """

    def __init__(self) -> None:
        self._handled = tuple(
            number
            for number in signal.valid_signals()
            if signal.getsignal(number) not in (signal.SIG_DFL, None)
        )
        self._statuses: dict[int, int | None] = {}
        self._awaited_groups: dict[int, Callable[[], None]] = {}
        # Called when a stranger has ended: whoever forks children for us (a fork server) has told
        # of each before it can be ours to reap, so this is the time to hear of it and `adopt`.
        self.on_stranger: Callable[[], None] = lambda: None

    def spawn(self, order: Exec) -> Process:
        """Fork and exec. Raises OSError when the system refuses another process.

        A command that can not be executed is told by the child: a line on its stderr, then exit
        status 127 (not found) or 126.
        """
        parent = os.getpid()
        # A signal between fork and exec would run our handler in the child and write into our
        # wake-up pipe; blocked, it waits and then meets the default disposition.
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, self._handled)
        try:
            pid = os.fork()
            if pid == 0:
                _become(order, parent, self._handled)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        try:
            process = Process(pid, os.pidfd_open(pid))
        except OSError:
            _end_unseen(pid)
            raise
        self._statuses[pid] = None
        return process

    def adopt(self, process: Process) -> None:
        """Take in a process that another has forked and left to us, its subreaper."""
        self._statuses[process.pid] = None

    def discard(self, process: Process) -> None:
        """End a child that was just started and can not be looked after."""
        _end_unseen(process.pid)
        del self._statuses[process.pid]
        process.close()

    def end(self, process: Process) -> None:
        """KILL its group and look away: it is reaped as a stranger, and nobody is told."""
        self.kill_group(process)
        self._statuses.pop(process.pid, None)
        process.close()

    def kill_group(self, process: Process) -> None:
        """KILL the whole of the process group, with its leader if that still lives.

        The group is not awaited any more: nobody can refuse, and a zombie whose parent is a
        stranger may stay in it for ever.
        """
        # Between fork and setsid there is no group yet.
        if self._statuses.get(process.pid, 0) is None:
            process.signal(signal.SIGKILL)
        self.signal_group(process, signal.SIGKILL)
        self._awaited_groups.pop(process.pid, None)

    def has_group(self, process: Process) -> bool:
        """Whether anybody is in the process group. While there is, its number means no other."""
        return _is_inhabited(process.pid)

    def signal_group(self, process: Process, number: int) -> None:
        """Signal those that are in the process group, if there are any."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)

    def await_group(self, process: Process, on_empty: Callable[[], None]) -> None:
        """Call back when nobody is left in the group of `process`, which has exited itself.

        As we are their subreaper, orphans in it become our children, and SIGCHLD tells.
        """
        self._awaited_groups[process.pid] = on_empty

    def reap(self) -> None:
        """Take every exit status there is, strangers' too: orphans whose subreaper we are."""
        with contextlib.suppress(ChildProcessError):  # no children at all
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    break
                if pid not in self._statuses:
                    self.on_stranger()
                if pid in self._statuses:
                    self._statuses[pid] = status
        self._look_at_groups()

    def _look_at_groups(self) -> None:
        for group, on_empty in list(self._awaited_groups.items()):
            if not _is_inhabited(group):
                del self._awaited_groups[group]
                on_empty()

    def exit_of(self, process: Process) -> str | None:
        """How it ended, as in `exit status 1` or `signal KILL`; None while it runs."""
        self.reap()
        status = self._statuses.get(process.pid)
        if status is None:
            return None
        del self._statuses[process.pid]
        return describe_status(status)


def _end_unseen(pid: int) -> None:
    """An unseen child is worse than none. It is not reaped yet, so the number is still its own."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _is_inhabited(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # all of them have become another user
        return True
    return True


def describe_status(status: int) -> str:
    """A wait status in words (wait(2))."""
    if os.WIFSIGNALED(status):
        core = ", core dumped" if os.WCOREDUMP(status) else ""
        return f"signal {signal_name(os.WTERMSIG(status))}{core}"
    return f"exit status {os.WEXITSTATUS(status)}"


def signal_name(number: int) -> str:
    """TERM for 15; real-time signals by number."""
    try:
        return signal.Signals(number).name.removeprefix("SIG")
    except ValueError:  # real-time signals between RTMIN and RTMAX have no name in Python
        return str(number)


def _become(order: Exec, parent: int, handled: tuple[int, ...]) -> None:
    """In the child: turn into the command. Never returns."""
    status = _CANNOT_EXECUTE
    try:
        os.setsid()
        prctl.set_parent_death_signal(order.death_signal)
        if os.getppid() != parent:  # it died before we asked
            return
        signal.set_wakeup_fd(-1)
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
        descriptors.place(order.descriptors)
        if order.file_limit is not None:
            limits.set_file_limit(order.file_limit)
        environment = dict(order.environment)
        if order.names_listen_pid:
            environment["LISTEN_PID"] = str(os.getpid())
        if order.directory is not None:
            os.chdir(order.directory)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(order.argv[0], order.argv, environment)
    except (OSError, ValueError) as error:  # ValueError: what can be in no environment
        status = _NOT_FOUND if isinstance(error, FileNotFoundError) else _CANNOT_EXECUTE
        problem = error.strerror if isinstance(error, OSError) else error
        os.write(2, f"sengu: cannot run {order.argv[0]}: {problem}\n".encode())
    finally:
        os._exit(status)
