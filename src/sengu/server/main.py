"""Puts the server together from its parts and runs it until the service has ended.

What is acquired here is released in reverse order, whatever happens.
"""

import contextlib
import os
import select
import signal
import sys
import time

import msgspec

import sengu
from sengu.config.boot import Boot, Report, unseal
from sengu.config.programs import split_log_command
from sengu.control.listener import ControlListener
from sengu.errors import SenguError, UsageError
from sengu.listeners.listeners import Listeners
from sengu.model import events as ev
from sengu.model.application import Application
from sengu.model.observed import Observed
from sengu.planner.reduce import Fact
from sengu.posix import clock, descriptors, prctl
from sengu.posix.loop import Loop
from sengu.posix.process import Children
from sengu.posix.signals import SignalPipe
from sengu.server.chronicle import Chronicle
from sengu.server.core import Core
from sengu.server.crew import Crew
from sengu.server.desk import CAUGHT, SignalDesk
from sengu.server.execute import Executor
from sengu.server.files import PidFile, StatusFile, make_for_workers
from sengu.server.forkservers import ForkServers
from sengu.server.log_command import LogCommand
from sengu.server.narrate import narrate
from sengu.server.notify import Manager
from sengu.server.output import Sink
from sengu.server.outside import Outside
from sengu.server.requests import RequestWatch
from sengu.server.scoreboard import Scoreboard
from sengu.server.service import RunningService
from sengu.server.stage import Stage
from sengu.server.watcher import Watcher


def run(boot_fd: int) -> int:
    """Run the instance that the boot document describes; returns the exit code."""
    descriptors.fill_standard()
    pipe = SignalPipe(CAUGHT)  # first of all: a TERM that comes early is not to be lost
    boot = unseal(boot_fd)
    descriptors.seal()
    prctl.become_subreaper()
    try:
        with contextlib.ExitStack() as stack:
            return _Instance(boot, pipe, stack).run()
    except SenguError as error:
        _fail(boot, error.exit_code, str(error))
        return error.exit_code


class _Instance:
    """The parts, wired."""

    def __init__(self, boot: Boot, pipe: SignalPipe, stack: contextlib.ExitStack) -> None:
        """Bind and open everything. Raises UsageError; what was opened is closed by `stack`."""
        self._boot = boot
        self._pipe = pipe
        self._loop = Loop()
        self._children = Children()
        self._sink = Sink(self._loop)
        self._chronicle = Chronicle()
        self._core = Core(boot.service, clock.monotonic)
        self._manager = Manager(self._loop, os.environ)
        stack.callback(self._manager.close)
        self._control = ControlListener(self._loop, boot.control, boot.service.name)
        stack.callback(self._control.close)
        if boot.files.pid is not None:
            stack.callback(PidFile(boot.files.pid).remove)
        listeners = Listeners(boot.sockets)
        stack.callback(listeners.close)
        self._stage = Stage(listeners, self._sink, boot.directory)
        self._open_log()
        stack.callback(self._sink.finish)
        status_file = None
        if boot.files.status is not None:
            status_file = StatusFile(boot.files.status, self.warn)
            stack.callback(status_file.remove)
        name = boot.service.name
        self._outside = Outside(name, self._manager, status_file, boot.report_fd)
        if boot.service.application is not None:
            self._stage.scoreboard = Scoreboard(boot.service.application.lanes)
        self._crew = Crew(boot.service, self._loop, self._children, self._stage, self)
        stack.callback(self._crew.close)
        fork_servers = ForkServers(self._loop, self._children, self._stage, self._crew)
        stack.callback(fork_servers.close)
        self._hands = Executor(boot.service, self._crew, fork_servers, self._stage, boot.env_dir)
        self._desk = SignalDesk(pipe, self._children, boot.signals, self)
        self._ended = False

    def run(self) -> int:
        self._core.on_fact(self._outside.on_fact)
        self._core.on_fact(self._tell)
        service = RunningService(self._core, self._crew, self._stage, self._chronicle, self._loop)
        self._control.serve(service)
        self._look_after_application()
        self._loop.watch(self._pipe.fd, select.EPOLLIN, self._on_signal)
        self._log(f"sengu {sengu.__version__}, pid {os.getpid()}, control {self._boot.control}")
        for listener in self._stage.listeners:
            self._log(f"listening on {listener.address}, descriptor {listener.fd} of workers")
        self._core.post(ev.DeployRequested("start"))
        while True:
            self._core.settle(self._hands)
            self._outside.on_settled(self._core.observed)
            if self._ended:
                break
            self._loop.run_once(self._core.wake_at)
        if not self._outside.failure:
            return 0
        self._sink.write(f"sengu: error: {self._outside.failure}\n".encode())
        return 1

    def _tell(self, fact: Fact, before: Observed, after: Observed) -> None:
        text = narrate(fact, before, after)
        if text is not None:
            self._chronicle.write(fact, text)
            self._log(text)
        if isinstance(fact, ev.DeployRequested):
            healed = self._control.heal()
            if healed is not None:
                self.warn(healed)
        self._ended = self._ended or isinstance(fact, ev.ServiceStopped)

    def post(self, fact: Fact) -> None:
        """Take a fact in with the next round."""
        self._core.post(fact)

    def warn(self, text: str) -> None:
        """Tell people, in the log."""
        self._log(f"warning: {text}")

    def reopen_logs(self) -> None:
        """Let all who write to files open them anew."""
        self._reopen_log()
        if self._boot.service.application is not None:
            self._make_files(self._boot.service.application)
            self._crew.signal_all(signal.SIGUSR1)

    def _make_files(self, application: Application) -> None:
        try:
            make_for_workers(application.files, application.privileges)
        except OSError as error:
            self.warn(f"cannot make {error.filename} for the workers: {error.strerror}")

    def _look_after_application(self) -> None:
        application = self._boot.service.application
        if application is None:
            return
        self._make_files(application)
        if application.request_timeout_seconds is not None:
            RequestWatch(self._loop, self._crew, application.request_timeout_seconds, self.post)
        if self._boot.watched:
            watcher = Watcher(self._loop, self._children, self.warn)
            watcher.start(self._boot.control, self._boot.watched)

    def _on_signal(self) -> None:
        for fact in self._desk.read(is_stopping=self._core.observed.stop is not None):
            self._core.post(fact)

    def _log(self, text: str) -> None:
        now = clock.wall()
        moment = time.strftime("%H:%M:%S", time.localtime(now))
        line = f"{moment}.{int(now * 1000) % 1000:03d} sengu[{self._boot.service.name}] {text}\n"
        self._sink.write(line.encode(errors="replace"))

    def _open_log(self) -> None:
        log = self._boot.files.log
        if log is None:
            return
        self._stage.captured = (1, 2)
        words = split_log_command(log)
        if words is not None:
            command = LogCommand(self._loop, self._children, tuple(words), self.warn)
            self._sink.redirect(command.fd)
            return
        try:
            self._sink.reopen(log)
        except OSError as error:
            raise UsageError(
                f"cannot open the log file {log}: {error.strerror}; name another with --log-file"
            ) from error

    def _reopen_log(self) -> None:
        log = self._boot.files.log
        if log is None or split_log_command(log) is not None:
            return
        try:
            self._sink.reopen(log)
        except OSError as error:
            self.warn(f"cannot reopen {log}: {error.strerror}; the old file is kept")


def _fail(boot: Boot, exit_code: int, error: str) -> None:
    """Say why nothing was started, to whoever waits for it and on stderr."""
    if boot.report_fd is not None:
        with contextlib.suppress(BrokenPipeError):  # it has not waited
            os.write(boot.report_fd, msgspec.json.encode(Report(exit_code, error)))
        return
    print(f"sengu: error: {error}", file=sys.stderr)
