"""The story: a program is started, deployed five times, deployed broken, and loses a worker.

Each step does one thing, waits for what must follow from it, and writes down when it does not
follow. Nothing is waited for by guessing a time; the pauses between the steps are for the reader
and for the picture. Called by `main`.
"""

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack

import msgspec

from sengu.cli.exits import Exit
from sengu.cli.text import plural
from sengu.cli.waiting import wait_for_exit
from sengu.demo.chart import show_seconds
from sengu.demo.child import Child, Command
from sengu.demo.instance import Instance, Said, show
from sengu.demo.ledger import Deploy, Kill, Ledger, Worker
from sengu.demo.request import LoadOrder, Request, decode_line
from sengu.demo.screen import Screen
from sengu.demo.site import Site
from sengu.errors import SenguError
from sengu.posix.loop import Loop

VERSIONS = ("ash", "birch", "cedar", "elm", "fir", "oak")
BROKEN = "broken"
STEPS = len(VERSIONS) + 2
# Every request waits so long, as if for a database: so a worker has one in hand most of the time.
_WORK_SECONDS = 0.005
_BUSY_SHARE = 0.65
_PATIENCE_SECONDS = 20.0


class Cast(msgspec.Struct, frozen=True):
    """How many take part."""

    workers: int
    clients: int

    @property
    def words(self) -> str:
        return (
            f"{plural(self.workers, 'worker')}, {plural(self.clients, 'client')}; a connection "
            f"and {show_seconds(_WORK_SECONDS)} of work for each request"
        )

    @property
    def interval_seconds(self) -> float:
        """How often each client sends a request, so that the workers are well used."""
        return self.clients * _WORK_SECONDS / (_BUSY_SHARE * self.workers)


class Pace(msgspec.Struct, frozen=True):
    """Seconds in which to look at what there is to see."""

    before: float
    between: float
    after: float


FULL = Pace(before=2.0, between=1.8, after=1.8)
QUICK = Pace(before=0.3, between=0.1, after=0.3)


class Stage(msgspec.Struct, frozen=True):
    """Where the story plays: what everything in it shares."""

    loop: Loop
    stack: ExitStack
    site: Site
    ledger: Ledger
    screen: Screen


class Story:
    """What is started here is ended by the stage's stack, whatever happens."""

    def __init__(self, stage: Stage, cast: Cast, pace: Pace) -> None:
        self._stage = stage
        self._cast = cast
        self._pace = pace
        self._ledger = stage.ledger
        self._screen = stage.screen
        self._instance = Instance(stage.loop, stage.stack, stage.site.directory)
        self._load: Child | None = None

    def play(self) -> None:
        """All of it. Raises SenguError when it cannot go on."""
        self._open()
        self._pause(self._pace.before)
        for version in VERSIONS[1:]:
            self._deploy(version)
            self._pause(self._pace.between)
        self._deploy_broken()
        self._pause(self._pace.between)
        self._kill_worker()
        self._pause(self._pace.after)
        self._close()

    def _open(self) -> None:
        self._put_in_place(VERSIONS[0])
        words = self._instance.start_words(self._cast.workers)
        self._screen.begin_step(show(words))
        self._instance.start(self._cast.workers)
        address = self._instance.address
        self._screen.tell(f"generation 1 serves on {address}: version {VERSIONS[0]}")
        self._instance.follow(self._ledger.add_event)
        self._start_load(int(address.rpartition(":")[2]))
        self._expect(
            self._wait(lambda: len(self._ledger.deploys) == 1 and self._ledger.sent is None)
            and self._answers(VERSIONS[0]),
            "the first version does not answer",
        )

    def _start_load(self, port: int) -> None:
        order = LoadOrder(
            port=port,
            target=f"/slow?seconds={_WORK_SECONDS}",
            clients=self._cast.clients,
            interval_seconds=self._cast.interval_seconds,
        )
        argv = (sys.executable, "-P", "-m", "sengu.demo.load", msgspec.json.encode(order).decode())
        command = Command(argv, self._stage.site.directory, os.environ)
        self._load = self._stage.stack.enter_context(
            Child(self._stage.loop, command, self._hear_load)
        )
        self._screen.tell(
            f"{self._cast.clients} clients come, each {1 / self._cast.interval_seconds:.0f} times "
            f"a second on a new connection, for an answer that takes {show_seconds(_WORK_SECONDS)}"
        )

    def _hear_load(self, line: str) -> None:
        try:
            message = decode_line(line)
        except msgspec.MsgspecError:
            raise SenguError(f"the clients failed: {line}") from None
        if isinstance(message, Request):
            self._ledger.add_request(message)
        else:
            self._ledger.sent = message

    def _put_in_place(self, version: str, broken: bool = False) -> None:
        self._ledger.announce(version)
        self._stage.site.build(version, broken)
        self._stage.site.switch(version)

    def _deploy(self, version: str) -> None:
        self._put_in_place(version)
        said, deploy = self._reload(f"version {version}")
        self._screen.tell(said.lines[-1] if said.lines else "")
        if said.exit_code != 0 or deploy is None or not deploy.succeeded:
            self._blame(f"version {version} was not deployed: {' '.join(said.complaint)}")
            return
        self._expect(
            self._wait(lambda: deploy.retired > 0),
            f"workers from before version {version} are still there",
        )
        self._expect(self._answers(version), f"version {version} does not answer")
        self._screen.tell_answers()

    def _deploy_broken(self) -> None:
        good = self._ledger.versions[-1]
        self._put_in_place(BROKEN, broken=True)
        said, deploy = self._reload("a version that cannot even be imported")
        for line in said.complaint:
            self._screen.tell(line, "red")
        if said.exit_code != Exit.FAILED or deploy is None or deploy.succeeded:
            self._blame(f"the broken version was not refused: exit code {said.exit_code}")
        if not any("Traceback" in line for line in said.complaint):
            self._blame("why the broken version was refused was not told")
        # Otherwise a worker that dies would be replaced by the broken version.
        self._stage.site.switch(good)
        self._expect(self._answers(good), f"version {good} does not answer any more")
        self._screen.tell(f"exit code {said.exit_code}; version {good} goes on serving")
        self._screen.tell_answers()

    def _reload(self, what: str) -> tuple[Said, Deploy | None]:
        """Run `sengu reload`; what it said, and the deploy as the events tell it."""
        deploys = self._ledger.deploys
        before = len(deploys)
        words = self._instance.verb_words("reload")
        self._screen.begin_step(f"{show(words)}   # {what}")
        said = self._instance.call(words)
        is_told = self._wait(lambda: len(deploys) > before)
        return said, deploys[max(deploys)] if is_told else None

    def _kill_worker(self) -> None:
        generation = max(d.generation for d in self._ledger.deploys.values() if d.succeeded)
        worker = self._ledger.ready_workers(generation)[0]
        self._screen.begin_step(
            f"$ kill -9 {worker.pid}   # worker {worker.slot} of generation {generation}"
        )
        kill = self._kill(worker)
        self._expect(
            self._wait(lambda: kill.replaced > 0),
            f"the killed worker {worker.slot} was not replaced",
        )
        if kill.replaced:
            took = show_seconds(kill.replaced - kill.at)
            self._screen.tell(f"worker {worker.slot} is there again, ready {took} after the kill")
        self._expect(self._answers(self._ledger.versions[-2]), "nobody answers after the kill")
        self._screen.tell_answers()

    def _kill(self, worker: Worker) -> Kill:
        now = self._stage.loop.now
        pidfd = os.pidfd_open(worker.pid)
        try:
            # Asked for after the pidfd was opened: so it is this process that is the worker.
            if worker.pid not in {w.pid for w in self._instance.control.status().workers}:
                raise SenguError(f"worker {worker.slot} (pid {worker.pid}) ended by itself")
            at = now()
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if not wait_for_exit(pidfd, _PATIENCE_SECONDS):
                raise SenguError(f"process {worker.pid} does not end by KILL")
            kill = Kill(worker, at, now())
        finally:
            os.close(pidfd)
        self._ledger.kills.append(kill)
        return kill

    def _close(self) -> None:
        """The clients finish first: who is still asking must be answered."""
        load = self._load
        assert load is not None
        load.end_input()
        self._expect(self._wait(lambda: load.is_over), "the clients did not come to an end")
        words = self._instance.verb_words("stop")
        self._screen.begin_step(show(words))
        code = self._instance.stop(words)
        self._expect(code == 0, f"sengu start ended with exit code {code}")
        self._screen.tell(f"exit code {code}")

    def _answers(self, version: str) -> bool:
        """Whether that version answers a request that begins now."""
        now = self._stage.loop.now()
        return self._wait(lambda: self._ledger.has_answer(version, now))

    def _wait(self, condition: Callable[[], bool]) -> bool:
        return self._instance.wait(condition, _PATIENCE_SECONDS)

    def _pause(self, seconds: float) -> None:
        self._instance.wait(lambda: False, seconds)

    def _expect(self, is_so: bool, problem: str) -> None:
        if not is_so:
            self._blame(problem)

    def _blame(self, problem: str) -> None:
        self._ledger.problems.append(problem)
        self._screen.tell(problem, "bold red")
