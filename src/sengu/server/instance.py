"""Puts the server together from its parts, and runs it until the service has ended.

Each part takes what outlives a server from the supervisor's hands, or makes it: so the first server
and one that takes over are put together in the same way. Imported by `server.main`.
"""

import contextlib
import functools
import os
import signal
import socket

import sengu
from sengu.config.boot import Boot
from sengu.control.listener import ControlListener
from sengu.listeners.listeners import Listeners
from sengu.model import events as ev
from sengu.model.application import Application
from sengu.model.service import OnServerLoss
from sengu.planner.reduce import Fact
from sengu.posix import clock
from sengu.posix.loop import Loop
from sengu.server.adopt import Adoption, Parts, lines_taken
from sengu.server.askers import Askers
from sengu.server.beat import Beat
from sengu.server.cgroups import find_cgroups
from sengu.server.children import Children
from sengu.server.chronicle import Chronicle
from sengu.server.configurations import find_tuner, tuned_spec
from sengu.server.containers import Containers
from sengu.server.core import Core, Turn
from sengu.server.crew import Crew
from sengu.server.desk import SignalDesk
from sengu.server.dumps import Dumps
from sengu.server.execute import Executor
from sengu.server.files import PidFile, StatusFile, make_for_workers
from sengu.server.groundwork import Site, lay_groundwork
from sengu.server.link import Inheritance, Link
from sengu.server.log import Log
from sengu.server.memory import Memory
from sengu.server.narrate import LOSS, narrate
from sengu.server.notify import Manager
from sengu.server.output import Sink
from sengu.server.outside import Outside, conclude
from sengu.server.passages import Passenger, find_passage
from sengu.server.requests import RequestWatch
from sengu.server.service import Identity, RunningService
from sengu.server.socket_manager import SocketManager
from sengu.server.stage import Stage
from sengu.server.upgrade import Upgrade
from sengu.server.watcher import Watcher
from sengu.wire import supervisor as wire

_FAILED = 1  # exit code when the supervisor is gone
_CONT_SECONDS = 0.05
_LEAVE_SECONDS = 2.0


class Instance:
    """The parts, wired. `let_go` gets what is to be done when the service is over."""

    def __init__(
        self,
        boot: Boot,
        found: Inheritance,
        loop: Loop,
        link: Link,
        let_go: contextlib.ExitStack,
    ) -> None:
        """Bind and open everything. Raises SenguError, OSError."""
        self._boot = boot
        self._found = found
        self._loop = loop
        self._link = link
        self._memory = Memory(link)
        self._children = Children(loop, link)
        self._children.inherit(found.kin)
        self._chronicle = Chronicle()
        self._tuner = find_tuner(boot)
        tune = functools.partial(tuned_spec, self._tuner)
        self._core = Core(boot.service, clock.monotonic, self._memory, tune)
        self._beat = Beat(loop, link)
        self._desk = SignalDesk(boot.signals, self)
        self._upgrade = Upgrade(link, self._beat, self._memory, self)
        self._ended = False
        self._open(let_go)
        self._wire(let_go)

    def _open(self, let_go: contextlib.ExitStack) -> None:
        boot, link = self._boot, self._link
        self._manager = Manager(self._loop, link, os.environ)
        held = link.take("control")
        assert held is not None  # the command line has made it
        device, _, inode = held.note.partition(":")
        self._control = ControlListener(
            self._loop,
            socket.socket(fileno=held.fd),
            boot.control,
            boot.service.name,
            (int(device), int(inode)) if inode else None,
        )
        self._hold_control()
        let_go.callback(self._control.close)
        if boot.files.pid is not None:
            let_go.callback(PidFile(boot.files.pid, link, self._found.main_pid).remove)
        listeners = Listeners(boot.sockets, link, boot.service.workers)
        let_go.callback(listeners.close)
        sink = Sink(self._loop, waits=boot.files.log_waits)
        let_go.callback(sink.finish)
        self._sink = sink
        cgroups = find_cgroups(self._loop, boot, self._found.main_pid, self._memory.is_new)
        let_go.callback(cgroups.close)
        self._stage = Stage(link, listeners, sink, boot.directory, cgroups)
        self._log = Log(boot.service.name, boot.files, sink, link)
        self._log.open(self._loop, self._children, is_first=self._memory.is_new)
        if boot.service.on_server_loss is OnServerLoss.KEEP:
            self._stage.captured = ()  # a pipe to us would end those who are to outlive us
        elif self._log.has_target:
            self._stage.captured = (1, 2)
        askers = Askers(self._found.main_pid, self._children.living, lambda: self._core.observed)
        self._sockets = SocketManager(self._loop, link, boot.sockets, askers, self._log.write)
        self._stage.sockets = self._sockets
        let_go.callback(self._sockets.close)
        application = boot.service.application
        if application is not None:
            self._stage.share_memory(application, lines_taken(link), lambda: self._core.observed)

    def _wire(self, let_go: contextlib.ExitStack) -> None:
        boot, spec = self._boot, self._boot.service
        status_file = None
        if boot.files.status is not None:
            status_file = StatusFile(boot.files.status, self.warn)
            let_go.callback(status_file.remove)
        self._outside = Outside(
            spec.name, self._manager, status_file, self._link, self._stage.scoreboard
        )
        self._crew = Crew(spec, self._loop, self._children, self._stage, self)
        let_go.callback(self._crew.close)
        self._containers = Containers(spec, self._loop, self._children, self._stage, self)
        site = Site(
            self._loop,
            self._link,
            self._children,
            self._stage,
            self._crew,
            lambda: self._core.observed,
        )
        self._groundwork = lay_groundwork(boot, site, self._tuner)
        let_go.callback(self._children.await_leavers, _LEAVE_SECONDS)
        let_go.callback(self._groundwork.fork_servers.close)
        self._hands = Executor(spec, self._crew, self._stage, self._groundwork)
        self._stage.passage = find_passage(
            boot.sockets, self._loop, self._stage, Passenger(self._crew, self._log, self.post)
        )
        if self._memory.is_new and self._stage.passage is not None:
            self._stage.passage.begin()
        identity = Identity(self._found.main_pid, os.getpid(), boot.files.log or "")
        self._service = RunningService(
            self._core, self._crew, self._stage, self._chronicle, identity
        )
        self._service.dumps = Dumps(
            self._loop, self._children, self._stage, identity.main_pid, lambda: self._core.observed
        )

    def run(self) -> int:
        """Until the service has ended; returns the exit code. Raises SenguError, OSError."""
        self._core.on_fact(self._outside.on_fact)
        self._core.on_fact(self._tell)
        self._core.on_fact(self._service.on_fact)
        self._core.on_fact(self._containers.on_fact)
        bad = self._memory.recall(self._core, self._chronicle, self._service.past)
        if bad:
            self.warn(f"{bad} facts on record are not understood, and left out")
        self._link.listen(self._hear, self._on_loss)
        # One who was killed before it had asked for the first generation has left nothing to do.
        if self._core.observed.last_generation == 0:
            self._begin()
        else:
            self._take_over()
        self._beat.start()
        self._manager.start(self._found.main_pid)
        self._control.serve(self._service)
        self._sockets.start()
        self._look_after_application()
        for signal_before in self._found.signals:
            self._on_signal(signal_before)
        if not self._memory.is_new:  # what has been said meanwhile counts, before deadlines do
            self._loop.run_once(self._loop.now())
        while not self._ended:
            self._core.settle(self._hands)
            if self._stage.passage is not None:
                self._stage.passage.follow(self._core.observed)
            self._sockets.follow(self._core.observed)
            self._outside.on_settled(self._core.observed)
            self._service.on_settled()
            self._memory.shorten(self._core, self._chronicle, self._service.past)
            if not self._ended:
                self._loop.run_once(self._core.wake_at)
        self._containers.finish()
        code = conclude(self._core.observed, self._sink)
        return _FAILED if self._link.is_lost else code

    def _begin(self) -> None:
        self._send_policy()
        self._say_ready()
        where = f"pid {self._found.main_pid}, control {self._boot.control}"
        self._log.write(f"sengu {sengu.__version__}, {where}")
        for listener in self._stage.listeners:
            own = "" if listener.slots is None else ", a socket for each slot"
            where = f"{listener.address}, descriptor {listener.fd} of workers{own}"
            self._log.write(f"listening on {where}")
        self._core.post(ev.DeployRequested("start"))

    def _take_over(self) -> None:
        observed = self._core.observed
        parts = Parts(
            self._loop,
            self._link,
            self._children,
            self._stage,
            self._crew,
            self._groundwork,
            self._hands,
        )
        adoption = Adoption(parts, self._boot.service, observed)
        self._say_ready()
        adoption.finish()
        self._send_policy()
        self._ended = observed.stop is not None and observed.stop.is_over
        if self._service.past.upgrading:
            self._upgrade.take_up(self._found)

    def _send_policy(self) -> None:
        stop = self._core.spec.stop
        self._link.send(wire.Policy(stop.signal, int(stop.grace_seconds * 1000)))

    def _say_ready(self) -> None:
        self._link.send(wire.Ready())
        self._upgrade.note_version()
        self._link.flush_all()

    def _hear(self, message: wire.FromSupervisor, fd: int | None) -> None:
        if self._children.hear(message, fd):
            return
        if fd is not None:
            os.close(fd)
        match message:
            case wire.Signal():
                self._on_signal(message)
            case wire.Pause():
                self._upgrade.stand_still()
            case wire.Resume(problem):
                self._upgrade.fail(problem)
            case _:
                pass

    def _on_signal(self, told: wire.Signal) -> None:
        if self._memory.is_news(told.serial):
            is_stopping = self._core.observed.stop is not None
            fact = self._desk.read(told.number, is_stopping=is_stopping)
            if fact is not None:
                self._core.post(fact)
        self._link.send(wire.Heard(told.number))

    def _on_loss(self) -> None:
        """The supervisor is gone, so nothing can be started any more."""
        self._children.lose_supervisor()
        if self._boot.service.on_server_loss is OnServerLoss.KEEP:
            self._log.warn("the supervisor was killed; the workers go on unattended")
            self._stage.cgroups.leave()
            self._stage.listeners.leave()
            self._sockets.leave()
            self._ended = True
        else:
            self._core.post(ev.StopRequested(LOSS, urgent=True))

    def _tell(self, turn: Turn) -> None:
        fact = turn.fact
        text = narrate(fact, turn.before, turn.after)
        if text is not None:
            self._chronicle.write(fact, text, turn.wall)
        if not turn.is_news:
            return
        if text is not None:
            self._log.write(text)
        if isinstance(fact, ev.DeployRequested):
            self._heal_control()
        if isinstance(fact, ev.Configured):
            self._send_policy()
        if isinstance(fact, ev.UpgradeRequested) and not self._service.past.upgrading:
            self._upgrade.request()
        self._ended = self._ended or isinstance(fact, ev.ServiceStopped)

    def _heal_control(self) -> None:
        healed = self._control.heal()
        if healed is not None:
            self.warn(healed)
            self._hold_control()

    def _hold_control(self) -> None:
        identity = self._control.identity
        note = "" if identity is None else f"{identity[0]}:{identity[1]}"
        self._link.hold("control", self._control.socket.fileno(), note)

    def post(self, fact: Fact) -> None:
        """Take a fact in with the next round."""
        self._core.post(fact)

    def warn(self, text: str) -> None:
        """Tell people, in the log."""
        self._log.warn(text)

    def dump(self) -> None:
        """Have all that is Python write down where it is, unless the service is to end.

        systemd and timeout(1) send CONT with the signal that stops; either may come first.
        """
        self._loop.call_at(self._loop.now() + _CONT_SECONDS, self._dump)

    def _dump(self) -> None:
        if self._core.observed.stop is None:
            self._service.dump(lambda _: None)

    def reopen_logs(self) -> None:
        """Let all who write to files open them anew."""
        self._log.reopen()
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
            Watcher(self._children, self.warn).start(self._boot.control, self._boot.watched)
