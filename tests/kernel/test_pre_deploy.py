"""Commands that run before a generation is prepared, with the test as supervisor."""

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack

import msgspec

from sengu.model import events as ev
from sengu.model.actions import KillStep, StartStep, StopStep
from sengu.model.observed import Generation, Observed, Step
from sengu.posix import packets
from sengu.posix.store import Held
from sengu.server.adopt import Adoption, Parts
from sengu.server.link import Kin
from sengu.wire import supervisor as wire
from tests.kernel.children import Child, in_child, run_until
from tests.kernel.prompter import Prompter
from tests.kernel.test_adopt import PROGRAM, Ears, make_parts

SPEC = msgspec.structs.replace(PROGRAM, pre_deploy=(("./migrate", "--now"), ("./tell",)))
KEY = "predeploy/2/0"


class Scene:
    """All parts, a process that takes the command's place, and who is told."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.ears = Ears()
        self.child = stack.enter_context(Child(_be_asked))
        self.child.wait_to_hear("listening")
        self.prompter = stack.enter_context(Prompter())
        self.parts = make_parts(self.prompter, [], self.ears, SPEC)

    def hear_spawn(self) -> tuple[wire.Spawn, list[int]]:
        """What the supervisor is asked for, after what is held for it."""
        while True:
            message, fds = _hear_any(self.prompter)
            if isinstance(message, wire.Spawn):
                return message, fds

    def run(self) -> list[int]:
        """Have the first command run; its document and descriptors."""
        fact = self.parts.hands.execute(StartStep(2, 0, "test"))
        assert fact == ev.StepStarted(2, 0, "./migrate --now")
        message, fds = self.hear_spawn()
        assert message.key == KEY
        self.prompter.say(wire.Spawned(KEY, self.child.pid), self.child.pidfd)
        self.parts.loop.run_once(self.parts.loop.now())
        return fds

    def end(self, status: int) -> None:
        """The supervisor tells of its end."""
        self.prompter.say(wire.Exited(KEY, status))
        self.parts.loop.run_once(self.parts.loop.now())

    def adopt(self, kin: list[Kin], step: Step, held: dict[str, Held]) -> Parts:
        """A new server that finds so much."""
        prompter = self._stack.enter_context(Prompter(held))
        parts = make_parts(prompter, kin, self.ears, SPEC)
        observed = Observed(1, generations={2: Generation(2, step=step)})
        Adoption(parts, SPEC, observed).finish()
        self.prompter, self.parts = prompter, parts
        adopted, *self.ears.facts = self.ears.facts
        assert isinstance(adopted, ev.ServerAdopted)
        return parts


def _be_asked(child: Child) -> None:
    asking = {signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, asking)
    child.tell("listening")
    while True:
        signal.sigwait(asking)
        child.tell("asked")


def _hear_any(prompter: Prompter) -> tuple[wire.ToSupervisor, list[int]]:
    heard: list[tuple[bytes, list[int]]] = []

    def look() -> bool:
        try:
            heard.append(packets.receive(prompter.socket))
        except BlockingIOError:
            return False
        return True

    run_until(prompter.loop, look)
    data, fds = heard[0]
    return wire.decode_to(data), fds


def in_scene(body: Callable[[Scene], None]) -> None:
    def run() -> None:
        with ExitStack() as stack:
            body(Scene(stack))

    in_child(run)


def test_it_has_the_generations_environment_and_one_pipe_for_all_that_it_writes() -> None:
    def body(scene: Scene) -> None:
        document, *fds = scene.run()
        text = os.pread(document, 1 << 20, 0)
        for expected in (b"./migrate\0--now\0", b"SENGU_GENERATION=2", b"SENGU_SERVICE=web"):
            assert expected in text
        assert b"LISTEN_FDS" not in text
        _stdin, stdout, stderr, _lifeline = fds
        assert os.path.sameopenfile(stdout, stderr)

    in_scene(body)


def test_one_that_has_done_it_is_told_and_what_it_has_left_is_killed() -> None:
    def body(scene: Scene) -> None:
        scene.run()
        scene.end(0)
        assert scene.ears.facts == [ev.StepEnded(2, 0)]
        ending = os.waitid(os.P_PIDFD, scene.child.pidfd, os.WEXITED | os.WNOWAIT)
        assert ending is not None
        assert ending.si_status == signal.SIGKILL
        assert scene.prompter.hear(wire.Reap).key == KEY

    in_scene(body)


def test_one_that_has_failed_is_told_with_the_end_of_what_it_wrote() -> None:
    def body(scene: Scene) -> None:
        _document, _stdin, stdout, stderr, _lifeline = scene.run()
        os.write(stdout, b"trying\n")
        os.write(stderr, b"no such table\n")
        scene.end(3 << 8)
        words = "trying\nno such table"
        assert scene.ears.facts == [ev.StepEnded(2, 0, "ended with exit status 3", words)]

    in_scene(body)


def test_one_that_cannot_be_made_has_failed() -> None:
    def body(scene: Scene) -> None:
        scene.parts.hands.execute(StartStep(2, 0, "test"))
        scene.hear_spawn()
        scene.prompter.say(wire.Refused(KEY, 11))
        run_until(scene.parts.loop, lambda: bool(scene.ears.facts))
        problem = "was not run: cannot start a process: Resource temporarily unavailable"
        assert scene.ears.facts == [ev.StepEnded(2, 0, problem)]

    in_scene(body)


def test_one_that_is_asked_to_stop_is_over_when_all_its_group_is_gone() -> None:
    def body(scene: Scene) -> None:
        scene.run()
        fact = scene.parts.hands.execute(StopStep(2, 30.0, "test"))
        assert fact == ev.StepStopping(2, 30.0, "test")
        scene.child.wait_to_hear("asked")
        scene.end(15)
        assert scene.prompter.hear(wire.Reap).key == KEY
        assert scene.ears.facts == []
        assert scene.parts.hands.execute(KillStep(2, "late")) == ev.StepKilled(2, "late")
        os.waitid(os.P_PIDFD, scene.child.pidfd, os.WEXITED | os.WNOWAIT)
        scene.prompter.say(wire.Gone(KEY))
        run_until(scene.parts.loop, lambda: bool(scene.ears.facts))
        assert scene.ears.facts == [ev.StepEnded(2, 0, "ended with signal TERM")]

    in_scene(body)


def test_one_that_is_asked_to_stop_before_it_is_there_hears_it_then() -> None:
    def body(scene: Scene) -> None:
        scene.parts.hands.execute(StartStep(2, 0, "test"))
        scene.parts.hands.execute(StopStep(2, 30.0, "test"))
        scene.hear_spawn()
        scene.prompter.say(wire.Spawned(KEY, scene.child.pid), scene.child.pidfd)
        scene.parts.loop.run_once(scene.parts.loop.now())
        scene.child.wait_to_hear("asked")

    in_scene(body)


def test_a_new_server_goes_on_with_one_that_lives() -> None:
    def body(scene: Scene) -> None:
        read_end, write_end = os.pipe2(os.O_NONBLOCK)
        kin = [Kin(KEY, scene.child.pid, os.dup(scene.child.pidfd), None)]
        step = Step(0, "./migrate --now", 0.0)
        scene.adopt(kin, step, {f"output/{KEY}": Held(read_end)})
        os.write(write_end, b"words\n")
        os.close(write_end)
        scene.end(1 << 8)
        assert scene.ears.facts == [ev.StepEnded(2, 0, "ended with exit status 1", "words")]

    in_scene(body)


def test_a_new_server_hears_of_one_that_has_ended_meanwhile() -> None:
    def body(scene: Scene) -> None:
        kin = [Kin(KEY, scene.child.pid, os.dup(scene.child.pidfd), 0)]
        parts = scene.adopt(kin, Step(0, "./migrate --now", 0.0), {})
        run_until(parts.loop, lambda: bool(scene.ears.facts))
        assert scene.ears.facts == [ev.StepEnded(2, 0)]

    in_scene(body)


def test_a_new_server_runs_one_whose_order_never_left() -> None:
    def body(scene: Scene) -> None:
        scene.adopt([], Step(0, "./migrate --now", 0.0), {})
        assert scene.hear_spawn()[0].key == KEY
        assert scene.ears.facts == []

    in_scene(body)


def test_a_new_server_does_not_run_one_that_was_asked_to_stop_meanwhile() -> None:
    def body(scene: Scene) -> None:
        scene.adopt([], Step(0, "./migrate --now", 0.0, kill_at=9.0), {})
        problem = "was not run: it was not needed any more"
        assert scene.ears.facts == [ev.StepEnded(2, 0, problem)]

    in_scene(body)


def test_a_new_server_kills_one_that_it_has_no_room_to_watch_and_does_not_run_it_again() -> None:
    def body(scene: Scene) -> None:
        scene.adopt([Kin(KEY, scene.child.pid, None, None)], Step(0, "./migrate --now", 0.0), {})
        problem = "was lost: there was no room to watch it"
        assert scene.ears.facts == [ev.StepEnded(2, 0, problem)]
        ending = os.waitid(os.P_PIDFD, scene.child.pidfd, os.WEXITED | os.WNOWAIT)
        assert ending is not None
        assert ending.si_status == signal.SIGKILL

    in_scene(body)
