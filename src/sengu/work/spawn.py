"""Kind `spawn`: a worker that looks after a program, which is its child, in its process group.

The program is told to stop by a signal or by a line on its stdin; how it ends is how the worker
ends, so that whoever reads the log sees what became of the program. Imported by `kinds`.
"""

import contextlib
import faulthandler
import os
import resource
import signal
import subprocess
import sys
import threading
from typing import NoReturn

from sengu.posix import prctl
from sengu.posix.descriptors import FIRST_PASSED_FD
from sengu.posix.pidfd import open_pid
from sengu.posix.process import Process
from sengu.work.api import Worker
from sengu.worker.engine import LoadError
from sengu.worker.runtime import Runtime, Stopping

# ServerEngine's words for what its signals say; a line each.
GRACEFUL_STOP = "GRACEFUL_STOP"
IMMEDIATE_STOP = "IMMEDIATE_STOP"
RELOAD = "RELOAD"
DUMP = "DUMP"


class Program:
    """The program of a worker. `has_pipe` is whether it hears by lines, and not by signals."""

    def __init__(self, worker: Worker, has_pipe: bool) -> None:
        """Starts it. Raises LoadError."""
        self._worker = worker
        self._told = Stopping.NO
        self._child = _start(worker, has_pipe)
        self._process = Process(self._child.pid, open_pid(self._child.pid))
        self._pipe = self._child.stdin
        if self._pipe is not None:
            os.set_blocking(self._pipe.fileno(), False)
        # Its descriptors are used from any thread, and by signal handlers amidst their closing.
        self._lock = threading.RLock()
        self._has_ended = False

    def stop(self, how: Stopping) -> None:
        """Tell it, once of each. From any thread and at any moment, as signals come."""
        if how <= self._told:
            return
        self._told = how
        if how is Stopping.STOP:
            self._tell(IMMEDIATE_STOP, signal.SIGQUIT)
        else:
            self._tell(GRACEFUL_STOP, signal.SIGTERM)

    def reload(self) -> None:
        """Tell it that the configuration is another one, if it can hear that."""
        self._tell(RELOAD, self._worker.reload_signal)

    def dump(self) -> None:
        """Tell it to write down where it is, as we have."""
        self._tell(DUMP, signal.SIGCONT)

    def _tell(self, line: str, number: int | None) -> None:
        """The line, or else the signal. Never waits: who does not read its stdin hears no more."""
        problem = None
        with self._lock:
            if self._has_ended:
                return
            if self._pipe is not None:
                problem = _write(self._pipe.fileno(), line)
            elif number is not None:
                self._process.signal(number)
        if problem is not None:
            self._worker.log.warning("the program %s; %s is lost", problem, line)

    def wait(self) -> int:
        """Its exit code, minus the signal's number if it was one."""
        code = self._child.wait()
        with self._lock:
            self._has_ended = True
            self._process.close()
            if self._pipe is not None:
                self._pipe.close()
        return code


def _write(pipe: int, line: str) -> str | None:
    """What is wrong with the program that it does not get the line."""
    try:
        os.write(pipe, f"{line}\n".encode())
    except BlockingIOError:
        return "does not read its stdin"
    except BrokenPipeError:
        return "has closed its stdin"
    return None


def _start(worker: Worker, has_pipe: bool) -> subprocess.Popen[bytes]:
    words = _checked(worker)
    parent = os.getpid()

    def begin() -> None:
        """In the child, where our signal handlers are gone already (`worker.runtime`)."""
        prctl.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != parent:  # it has ended before that could be heard of
            os._exit(1)
        if "LISTEN_FDS" in os.environ:
            os.environ["LISTEN_PID"] = str(os.getpid())

    try:
        return subprocess.Popen(
            words,
            bufsize=0,
            stdin=subprocess.PIPE if has_pipe else subprocess.DEVNULL,
            pass_fds=_passed(),
            preexec_fn=begin,  # noqa: PLW1509 - threads are there, and it takes none of their locks
        )
    except OSError as error:
        raise LoadError(
            f"cannot execute {words[0]!r}: {error.strerror}; check what command() of "
            f"{type(worker).__name__} returns"
        ) from error


def end_as(code: int) -> None:
    """End as the program did. Returns if it succeeded."""
    if code < 0:
        _die_of(-code)
    if code > 0:
        raise SystemExit(code)


def _die_of(number: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads any more
            stream.flush()
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program's own is the one of interest
    if number not in {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # a signal that ends nobody: a shell's way to tell


def _checked(worker: Worker) -> list[str]:
    """Raises LoadError."""
    words: object = worker.command()
    if isinstance(words, list | tuple) and words and all(isinstance(word, str) for word in words):
        return list(words)
    raise LoadError(
        f"command() of {type(worker).__name__} has returned {words!r}; return a list of the "
        "program and its arguments, as in ['./server', '--verbose']"
    )


def _passed() -> tuple[int, ...]:
    """What a worker's contract promises: listeners, and the lifeline."""
    count = int(os.environ.get("LISTEN_FDS", "0"))
    lifeline = os.environ.get("SENGU_LIFELINE_FD")
    listeners = range(FIRST_PASSED_FD, FIRST_PASSED_FD + count)
    return (*listeners, *(() if lifeline is None else (int(lifeline),)))


def run(worker: Worker, runtime: Runtime, has_pipe: bool) -> int:
    """Run the program to its end; how it ended, as `Program.wait` says. Raises LoadError."""
    runtime.enter_cgroup()  # first: what is started before would be left where we came from
    program = Program(worker, has_pipe)
    runtime.on_stop(lambda: program.stop(runtime.stopping))
    runtime.on_reload.append(program.reload)
    runtime.on_dump.append(program.dump)
    runtime.ready(tell=not worker.says_ready)
    return program.wait()
