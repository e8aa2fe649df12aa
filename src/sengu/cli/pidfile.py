"""`sengu start --restart` and `--stop`: an instance known by its pid file, as start_server's is.

It may be a foreign Server::Starter. One of ours is asked through its control socket, because
that tells how the deploy went. Imported by `cli.start`.
"""

import fcntl
import os
import re
import signal

import msgspec

from sengu.cli.deploys import Order, deploy
from sengu.cli.exits import Exit
from sengu.cli.text import say
from sengu.cli.waiting import TimedOutError, wait_for_exit, waiting_for
from sengu.config.instance import find_sockets, run_places
from sengu.control.client import ControlClient
from sengu.control.deadline import Deadline
from sengu.errors import NotRunningError, SenguError, UsageError

_ANSWER_SECONDS = 2.0
_POLL_SECONDS = 0.2


class Place(msgspec.Struct, frozen=True):
    """Where the options say that the instance can be found."""

    pid_file: str | None
    name: str | None
    control: str | None


def restart(place: Place, status_file: str | None, timeout_seconds: float) -> int:
    """Deploy, and wait until only the new generation is left."""
    if place.pid_file is None or status_file is None:
        raise UsageError("--restart needs to know where to look; give --pid-file and --status-file")
    pid = _read_pid(place.pid_file)
    client = _find_ours(pid, place)
    deadline = Deadline(timeout_seconds)
    if client is not None:
        return deploy(client, Order(drained=True), deadline)
    goes_on = f"the restart of process {pid} goes on; see {status_file}"
    with _open_process(pid, place.pid_file) as process, waiting_for(goes_on, deadline):
        wanted = _next_generation(status_file)
        _signal(process, signal.SIGHUP)
        arrived = _await_generation(process, status_file, wanted, deadline)
    say(f"generation {arrived} of process {pid} has taken over")
    return Exit.OK


def stop(place: Place, timeout_seconds: float | None) -> int:
    """Send TERM, and wait until the process is gone."""
    if place.pid_file is None:
        raise UsageError("--stop needs to know whom to stop; give --pid-file")
    pid = _read_pid(place.pid_file)
    deadline = Deadline(timeout_seconds)
    goes_on = f"process {pid} goes on stopping"
    with _open_process(pid, place.pid_file) as process, waiting_for(goes_on, deadline):
        say(f"stopping process {pid}")
        _signal(process, signal.SIGTERM)
        if not wait_for_exit(process.fd, deadline.left()):
            raise TimedOutError(f"process {pid} still runs after {deadline.seconds:g} s; {goes_on}")
    return Exit.OK


class _Process:
    """A process held by a pidfd, so that its number cannot come to mean another."""

    def __init__(self, pid: int, fd: int) -> None:
        self.pid = pid
        self.fd = fd

    def __enter__(self) -> "_Process":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def _read_pid(pid_file: str) -> int:
    try:
        with open(pid_file, encoding="ascii", errors="replace") as stream:
            text = stream.read(64).strip()
    except FileNotFoundError:
        raise NotRunningError(
            f"there is no pid file {pid_file!r}: nothing has been started with it, or it has "
            "stopped; check the path"
        ) from None
    except OSError as problem:
        raise NotRunningError(
            f"the pid file {pid_file!r} cannot be read: {problem.strerror}; check the path"
        ) from problem
    if not re.fullmatch(r"[0-9]{1,9}", text) or (int(text) <= 1 and os.getpid() != 1):
        raise NotRunningError(
            f"the pid file {pid_file!r} holds {text!r} and no pid; check the path"
        )
    return int(text)


def _open_process(pid: int, pid_file: str) -> _Process:
    """Hold the process that has locked the pid file. Raises NotRunningError."""
    stale = NotRunningError(
        f"process {pid} of the pid file {pid_file!r} does not run any more; start it again"
    )
    try:
        process = _Process(pid, os.pidfd_open(pid))
    except (ProcessLookupError, OverflowError):
        raise stale from None
    # The number may be another process's by now. start_server and sengu hold a lock on the file
    # as long as they live, and `pidfd_open` came first: locked now means that it is the holder.
    if not _is_locked(pid_file):
        os.close(process.fd)
        raise stale
    return process


def _is_locked(path: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # removed by now: its owner has stopped
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _signal(process: _Process, number: signal.Signals) -> None:
    try:
        signal.pidfd_send_signal(process.fd, number)
    except ProcessLookupError:
        raise NotRunningError(f"process {process.pid} has just ended; start it again") from None
    except PermissionError:
        raise SenguError(
            f"uid {os.geteuid()} may not signal process {process.pid}; call sengu as its user"
        ) from None


def _find_ours(pid: int, place: Place) -> ControlClient | None:
    """The client of the instance with that pid, if it is a sengu that answers."""
    if place.control is not None:
        paths = [os.path.abspath(place.control)]
    else:
        found = find_sockets(run_places(os.environ))
        paths = [path for name, path in found if place.name in (None, name)]
    for path in paths:
        try:
            if ControlClient(path, _ANSWER_SECONDS).status().pid == pid:
                return ControlClient(path)
        except SenguError:  # dead, or somebody else's: not the one we look for
            continue
    return None


def _generations(status_file: str) -> list[int]:
    """Generations in the status file, ascending. Raises SenguError when it cannot be read."""
    try:
        with open(status_file, encoding="ascii", errors="replace") as stream:
            found = {int(match[1]) for line in stream if (match := re.match(r"(\d{1,9}):", line))}
    except OSError as problem:
        raise SenguError(
            f"the status file {status_file!r} cannot be read: {problem.strerror}; check the path"
        ) from problem
    return sorted(found)


def _next_generation(status_file: str) -> int:
    generations = _generations(status_file)
    if not generations:
        raise SenguError(
            f"the status file {status_file!r} names no generation: nothing is ready yet; "
            "try again later"
        )
    return generations[-1] + 1


def _await_generation(process: _Process, status_file: str, wanted: int, deadline: Deadline) -> int:
    """Wait until the status file has one generation, `wanted` or, after failures, a later one.

    A rename tells nobody, so the file is looked at; the process's exit ends the wait at once.
    """
    while not wait_for_exit(process.fd, min(_POLL_SECONDS, deadline.left() or _POLL_SECONDS)):
        generations = _generations(status_file)
        if len(generations) == 1 and generations[0] >= wanted:
            return generations[0]
        if deadline.is_over():
            raise TimedOutError(
                f"generation {wanted} is not alone after {deadline.seconds:g} s; "
                f"the restart of process {process.pid} goes on"
            )
    raise SenguError(
        f"process {process.pid} ended before generation {wanted} was there; look at its log"
    )
