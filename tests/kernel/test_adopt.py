"""A new server takes over: with real parts, and the test as supervisor and fork server."""

import os
import socket
from contextlib import ExitStack
from pathlib import Path

import msgspec

from sengu.listeners.listeners import Listeners
from sengu.model import events as ev
from sengu.model.address import Sockets
from sengu.model.application import Application
from sengu.model.observed import Generation, Observed, Phase, Worker
from sengu.model.service import (
    BootPolicy,
    ReadyByNotify,
    RestartPolicy,
    ServiceSpec,
    StopPolicy,
)
from sengu.planner.reduce import Fact
from sengu.posix import packets
from sengu.posix.store import Held
from sengu.server.adopt import Adoption, Parts, lines_taken
from sengu.server.cgroups import WorkerCgroups
from sengu.server.configurations import Configurations, Surroundings
from sengu.server.crew import Crew
from sengu.server.environment import Environments
from sengu.server.execute import Executor
from sengu.server.fork_plan import Context
from sengu.server.forkservers import ForkServers
from sengu.server.groundwork import Groundwork
from sengu.server.link import Kin
from sengu.server.output import Sink
from sengu.server.pre_deploy import Steps, Tools
from sengu.server.scoreboard import Scoreboard
from sengu.server.stage import Stage
from sengu.wire import forkserver as orders
from sengu.wire import supervisor as wire
from tests.kernel.children import Child, in_child, run_until
from tests.kernel.prompter import Prompter

FORK_SERVER = "forkserver/1/abcd"
STOP = StopPolicy(15, 30.0)
SPEC = ServiceSpec(
    name="web",
    command=(),
    workers=1,
    boot=BootPolicy(ReadyByNotify(), 60.0, 3),
    retire=STOP,
    stop=STOP,
    restart=RestartPolicy(1.0),
    application=Application(engine="engine", target="app:app"),
)


class Ears:
    """Hears what the crew has to tell."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.warnings: list[str] = []

    def post(self, fact: Fact) -> None:
        self.facts.append(fact)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


PROGRAM = msgspec.structs.replace(SPEC, application=None, command=("program",))


def make_parts(
    prompter: Prompter,
    kin: list[Kin],
    ears: Ears,
    spec: ServiceSpec = SPEC,
    env_dir: str | None = None,
) -> Parts:
    loop, link = prompter.loop, prompter.link
    children = prompter.make_children()
    children.inherit(kin)
    stage = Stage(link, Listeners(Sockets(), link), Sink(loop), None, WorkerCgroups(loop, None))
    stage.scoreboard = Scoreboard(1, link)
    stage.scoreboard.claim(lines_taken(link))
    crew = Crew(spec, loop, children, stage, ears)
    environments = Environments(link, env_dir)
    around = Surroundings(link, environments, lambda: Observed(1), ears.post, crew.tell_configured)
    configurations = Configurations(None, around)
    context = Context(loop, link, children, stage, crew, 0, configurations)
    fork_servers = ForkServers(context)
    steps = Steps(Tools(spec, loop, children, stage, environments, ears))
    groundwork = Groundwork(steps, environments, fork_servers, configurations)
    hands = Executor(spec, crew, stage, groundwork)
    return Parts(loop, link, children, stage, crew, groundwork, hands)


def observe(*workers: Worker) -> Observed:
    generations = {1: Generation(1, prepared=True)}
    by_id = {worker.id: worker for worker in workers}
    return Observed(1, current=1, generations=generations, workers=by_id)


def names_dropped(prompter: Prompter) -> list[str]:
    """What the server has let go of by now."""
    prompter.link.flush_all()
    names: list[str] = []
    while True:
        try:
            data, fds = packets.receive(prompter.socket)
        except BlockingIOError:
            return names
        for fd in fds:
            os.close(fd)
        message = wire.decode_to(data)
        if isinstance(message, wire.Drop):
            names.append(message.name)


def notify_socket(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    sock.bind(f"\0{name.removeprefix('@')}")
    return sock


def test_a_worker_that_is_asked_for_again_is_who_was_asked_for() -> None:
    """Its birth may be under way: then it is heard and read by what the first has made for it."""

    def body() -> None:
        name = f"@sengu-test/{os.getpid()}"
        to_us, fork_server = packets.pair()
        read_end, write_end = os.pipe2(os.O_NONBLOCK)
        held = {
            f"socket/{FORK_SERVER}": Held(to_us.detach()),
            "notify/5": Held(notify_socket(name).detach(), f"{name} 7 because"),
            "output/worker/5/2": Held(read_end),
            "notify/4": Held(notify_socket(f"{name}/4").detach(), f"{name}/4 3 because"),
        }
        ears = Ears()
        with ExitStack() as stack:
            child = stack.enter_context(Child(lambda child: child.wait_for_go()))
            newborn = stack.enter_context(Child(lambda child: child.wait_for_go()))
            prompter = stack.enter_context(Prompter(held))
            kin = [Kin(FORK_SERVER, child.pid, os.dup(child.pidfd), None)]
            parts = make_parts(prompter, kin, ears)
            worker = Worker(5, 1, 0, 0, Phase.STARTING, 0.0)
            Adoption(parts, SPEC, observe(worker)).finish()
            assert ears.facts == [ev.ServerAdopted(os.getpid(), 0, 0, 0, 1)]
            assert names_dropped(prompter) == ["notify/4"]
            assert parts.stage.scoreboard is not None
            assert parts.stage.scoreboard.take() == 3
            parts.loop.run_once(parts.loop.now())
            order = orders.decode_order(packets.receive(fork_server)[0])
            assert order == orders.Fork(5, "worker/5", 0, name, 7, (2,))

            prompter.say(wire.Spawned("worker/5", newborn.pid), newborn.pidfd)
            run_until(parts.loop, lambda: len(ears.facts) == 2)
            assert ears.facts[1] == ev.WorkerStarted(5, 1, 0, newborn.pid, "because")
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as worker_end:
                worker_end.sendto(b"READY=1", f"\0{name[1:]}")
            run_until(parts.loop, lambda: len(ears.facts) == 3)
            assert ears.facts[2] == ev.WorkerReady(5, "said READY=1")
            os.write(write_end, b"words")
            os.close(write_end)
            assert parts.crew.last_words(5) == "words"

    in_child(body)


def test_a_fork_server_that_says_what_nobody_understands_ends_no_server() -> None:
    """It is on record before it is taken out of the socket: the next one would end as well."""

    def body() -> None:
        to_us, fork_server = packets.pair()
        ears = Ears()
        with ExitStack() as stack:
            child = stack.enter_context(Child(lambda child: child.wait_for_go()))
            held = {f"socket/{FORK_SERVER}": Held(to_us.detach())}
            prompter = stack.enter_context(Prompter(held))
            kin = [Kin(FORK_SERVER, child.pid, os.dup(child.pidfd), None)]
            parts = make_parts(prompter, kin, ears)
            Adoption(parts, SPEC, observe()).finish()
            fork_server.send(b"x" * packets.MAX_BYTES * 2)
            run_until(parts.loop, lambda: ears.warnings)
            assert "fork server of generation 1 is not understood" in ears.warnings[0]
            assert f"socket/{FORK_SERVER}" in names_dropped(prompter), "so that it ends"

    in_child(body)


def test_workers_that_live_have_ended_or_are_gone_are_told_apart() -> None:
    def body() -> None:
        ears = Ears()
        with ExitStack() as stack:
            living, ended, stranger, fork_server = (
                stack.enter_context(Child(lambda child: child.wait_for_go())) for _ in range(4)
            )
            prompter = stack.enter_context(Prompter({}))
            kin = [
                Kin("worker/1", living.pid, os.dup(living.pidfd), None),
                Kin("worker/2", ended.pid, os.dup(ended.pidfd), 3 << 8),
                Kin("worker/9", stranger.pid, os.dup(stranger.pidfd), None),
                Kin(FORK_SERVER, fork_server.pid, os.dup(fork_server.pidfd), None),
            ]
            parts = make_parts(prompter, kin, ears)
            observed = observe(
                Worker(1, 1, 0, living.pid, Phase.READY, 0.0, ready_at=1.0),
                Worker(2, 1, 1, ended.pid, Phase.READY, 0.0, ready_at=1.0),
                Worker(3, 1, 2, 4_000_001, Phase.READY, 0.0, ready_at=1.0),
                Worker(4, 1, 3, 0, Phase.STOPPING, 0.0),
            )
            Adoption(parts, SPEC, observed).finish()
            assert ears.facts == [
                ev.ServerAdopted(os.getpid(), 1, 1, 1, 1),
                # Without its socket it is of no use.
                ev.GenerationLost(1, "it was not there any more"),
                ev.WorkerExited(3, "an unknown status, while no server was there"),
                ev.WorkerExited(4, "no process: it was not needed any more"),
            ]
            for unwanted in (stranger, fork_server):
                ending = os.waitid(os.P_PIDFD, unwanted.pidfd, os.WEXITED | os.WNOWAIT)
                assert ending is not None
            run_until(parts.loop, lambda: len(ears.facts) == 5)
            assert ears.facts[4] == ev.WorkerExited(2, "exit status 3", "")
            assert list(parts.crew.serving()) == [1]

    in_child(body)


def test_who_can_not_be_asked_for_again_has_not_started() -> None:
    def body() -> None:
        ears = Ears()
        with Prompter({}) as prompter:
            parts = make_parts(prompter, [], ears)
            worker = Worker(5, 1, 0, 0, Phase.STARTING, 0.0)
            Adoption(parts, SPEC, observe(worker)).finish()
            assert ears.facts[1:] == [
                ev.GenerationLost(1, "it was not there any more"),
                ev.WorkerExited(5, "no process: cannot start a process: the fork server is gone"),
            ]
            dropped = names_dropped(prompter)
            assert sorted(dropped) == ["notify/5", "output/worker/5/2"], "what was made is let go"

    in_child(body)


def test_a_program_whose_environment_was_not_held_in_time_is_started_with_that_of_now(
    tmp_path: Path,
) -> None:
    """It was on record that it had been read, but the server was killed before it said `Hold`."""

    def body() -> None:
        (tmp_path / "COLOUR").write_text("blue\n")
        ears = Ears()
        with Prompter({}) as prompter:
            parts = make_parts(prompter, [], ears, PROGRAM, str(tmp_path))
            worker = Worker(5, 1, 0, 0, Phase.STARTING, 0.0)
            Adoption(parts, PROGRAM, observe(worker)).finish()
            assert ears.facts == [ev.ServerAdopted(os.getpid(), 0, 0, 0, 1)]
            assert parts.groundwork.environments.of(1)["COLOUR"] == "blue"
            assert names_dropped(prompter) == []

    in_child(body)


def test_a_program_whose_environment_is_gone_has_not_started(tmp_path: Path) -> None:
    def body() -> None:
        ears = Ears()
        with Prompter({}) as prompter:
            parts = make_parts(prompter, [], ears, PROGRAM, str(tmp_path / "removed"))
            worker = Worker(5, 1, 0, 0, Phase.STARTING, 0.0)
            Adoption(parts, PROGRAM, observe(worker)).finish()
            why = "no process: cannot start a process: the generation's environment is gone"
            assert ears.facts[1:] == [
                ev.GenerationLost(1, "it was not there any more"),
                ev.WorkerExited(5, why),
            ]

    in_child(body)
