"""Runs one container from its start to its removal, whatever becomes of the client meanwhile.

One thread, one wait: signals are blocked, and taken one by one. The client carries the container's
output; when it is killed while the container lives, another one is attached in its place.
"""

import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping

from sengu.container import command
from sengu.container.engine import Engine, EngineFailed, reap
from sengu.container.identity import RUNNER_LABEL, Identity
from sengu.container.order import Order
from sengu.posix import clock
from sengu.posix.notify import notify

_PASSED_ON = (
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_LAST_SECONDS = 2.0  # of the grace: to kill it and to remove it before we are killed ourselves
_RETRY_SECONDS = 0.1
_LOOK_SECONDS = 0.2
_TRIES_BEFORE_GIVING_UP = 10  # to ask a container to stop that is not there yet
_QUESTIONS = 3
_CANNOT_RUN = 125  # what engines exit with when it is not the program that has failed
_NOT_FOUND = 127


def block_signals(stop_signals: Iterable[int]) -> None:
    """From now on they wait until somebody takes them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *_PASSED_ON, *stop_signals})


class Runner:
    """Of one container."""

    def __init__(self, order: Order, identity: Identity) -> None:
        self._order = order
        self._identity = identity
        self._name = identity.name
        self._label = f"{RUNNER_LABEL}={identity.runner}"
        self._waiting: list[int] = []  # signals that the container has not heard yet
        self._tries = 0
        self._retry_at = 0.0
        self._is_stopping = False
        self._kill_at: float | None = None
        self._look_at: float | None = None  # whether it runs, and once that is known: long enough
        self._is_running = False

    def run(self, environ: Mapping[str, str]) -> int:
        """Until nothing is left of it; returns its exit code."""
        environ = {**environ, command.RUNNER: str(os.getpid())}
        self._engine = Engine(self._order.engine, command.client_environment(environ))
        try:
            self._client = self._start(environ)
        except OSError as error:
            engine = self._order.engine[0]
            _tell(f"cannot run {engine}: {error.strerror}; install it, or name another: --engine")
            return _NOT_FOUND
        if self._order.ready_seconds is not None:
            self._look_at = clock.monotonic() + _LOOK_SECONDS
        code = self._follow()
        if code == _CANNOT_RUN and not self._is_stopping:
            engine, image = self._order.engine[0], self._order.image
            _tell(f"{engine} could not run {image}; if that is not there yet, --pull fetches it")
        self._remove(of_none=code == _CANNOT_RUN)
        return code

    def _start(self, environ: Mapping[str, str]) -> int:
        order = self._order
        in_env_dir = [] if order.env_dir is None else sorted(_listed(order.env_dir))
        given = json.loads(environ.get(command.GIVEN, "{}"))
        passed = [n for n in command.passed_names(order, in_env_dir, environ) if n not in given]
        fd = os.memfd_create("sengu-container-env", 0)  # the client has it open, under this number
        try:
            os.write(fd, command.env_file_text(given).encode())
            env_file = f"/proc/self/fd/{fd}"
            words = command.run_words(order, self._identity, passed, env_file)
            return self._engine.spawn(words)
        finally:
            os.close(fd)

    def _follow(self) -> int:
        """Pass signals on until the container has ended; returns its exit code."""
        while True:
            code = reap(self._client)
            if code is None:
                self._take_signal()
                continue
            ended = self._code_of_container(code)
            if ended is not None:
                return ended
            self._attach()

    def _code_of_container(self, of_client: int) -> int | None:
        """None as long as it lives, which its client may not have survived."""
        for _ in range(_QUESTIONS):
            try:
                found = self._engine.find(self._label)
            except EngineFailed:  # it may just be starting again
                self._pause()
                continue
            state = self._engine.state(found[0]) if found else None
            if state is not None and state.lives:
                return None
            if state is None or state.exit_code is None:
                return of_client
            return state.exit_code
        return of_client

    def _attach(self) -> None:
        _tell(f"lost the client of {self._name}, which lives; following it by another")
        self._pause()
        self._client = self._engine.spawn(("attach", "--no-stdin", "--sig-proxy=false", self._name))

    def _take_signal(self) -> None:
        """Wait for a signal, or for what is due."""
        told = self._wait(self._patience())
        if told is not None and told != signal.SIGCHLD:
            self._waiting.append(told)
            if told in self._order.stop_signals and not self._is_stopping:
                self._is_stopping = True
                grace = self._order.grace_seconds
                self._kill_at = clock.monotonic() + max(grace - _LAST_SECONDS, grace / 2)
        now = clock.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            self._force()
        elif self._waiting and now >= self._retry_at:
            self._pass_on()
        elif self._look_at is not None and now >= self._look_at:
            self._look(self._order.ready_seconds or 0.0)

    def _look(self, ready_seconds: float) -> None:
        """Making it takes its time, in which no old one may be stopped yet."""
        if self._is_running:
            self._look_at = None
            notify("READY=1")
            return
        state = self._engine.state(self._name)
        self._is_running = state is not None and state.lives
        wait = ready_seconds if self._is_running else _LOOK_SECONDS
        self._look_at = clock.monotonic() + wait

    def _pass_on(self) -> None:
        """Signal the container. One that is just being made hears nothing: then once more."""
        while self._waiting:
            if not self._engine.signal(self._name, self._waiting[0]):
                self._tries += 1
                self._retry_at = clock.monotonic() + _RETRY_SECONDS
                if self._is_stopping and self._tries >= _TRIES_BEFORE_GIVING_UP:
                    # There is none yet, so what is to be ended is the client that makes it.
                    os.kill(self._client, self._waiting[0])
                return
            self._waiting.pop(0)
            self._tries = 0

    def _force(self) -> None:
        """Its grace is over."""
        _tell(f"{self._name} has not ended in time; killing it")
        self._kill_at = None
        self._waiting = [signal.SIGKILL]
        self._pass_on()

    def _remove(self, of_none: bool) -> None:
        """`of_none`: there was hardly any, so nobody has to know that the engine is silent."""
        try:
            found = self._engine.find(self._label)
            answer = self._engine.remove(*found) if found else None
            if answer is not None and not answer.is_good and self._engine.find(self._label):
                _tell(f"could not remove {self._name}: {answer.problem}")
        except EngineFailed as problem:
            if not of_none:
                _tell(f"cannot see whether {self._name} is removed: {problem}")

    def _patience(self) -> float | None:
        due = [moment for moment in (self._kill_at, self._look_at) if moment is not None]
        if self._waiting:
            due.append(self._retry_at)
        return max(0.0, min(due) - clock.monotonic()) if due else None

    def _wait(self, seconds: float | None) -> int | None:
        expected = {signal.SIGCHLD, *_PASSED_ON, *self._order.stop_signals}
        if seconds is None:
            return signal.sigwaitinfo(expected).si_signo
        info = signal.sigtimedwait(expected, seconds)
        return None if info is None else info.si_signo

    def _pause(self) -> None:
        """Before the engine is asked once more; signals wait."""
        signal.sigtimedwait((), _RETRY_SECONDS)


def _listed(directory: str) -> list[str]:
    """Names in the directory of variables; those that are none are not in our environment."""
    try:
        return os.listdir(directory)
    except OSError:  # gone since it was read: what it held is not known by name any more
        return []


def _tell(text: str) -> None:
    print(f"sengu: container: {text}", file=sys.stderr, flush=True)
