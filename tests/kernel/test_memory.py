"""What a server knows: the next one does, also when it cannot be written down more shortly."""

import os
import resource
from collections.abc import Callable

from sengu.model import events as ev
from sengu.model.observed import Observed
from sengu.model.service import BootPolicy, ReadyByNotify, RestartPolicy, ServiceSpec, StopPolicy
from sengu.server.chronicle import Chronicle
from sengu.server.core import Core, Turn
from sengu.server.memory import Memory
from sengu.server.past import Past
from tests.kernel.children import in_child
from tests.kernel.shelf import Shelf

STOP = StopPolicy(15, 30.0)
SPEC = ServiceSpec(
    name="web",
    command=("program",),
    workers=1,
    boot=BootPolicy(ReadyByNotify(), 60.0, 3),
    retire=STOP,
    stop=STOP,
    restart=RestartPolicy(1.0),
)


def test_a_journal_goes_on_when_there_is_no_room_for_a_shorter_one() -> None:
    def body() -> None:
        with Shelf() as shelf:
            memory, chronicle, past = Memory(shelf), Chronicle(), Past()
            core = Core(SPEC, lambda: 1.0, memory)
            first = os.fstat(shelf.held["journal"].fd).st_ino

            def say(words: str) -> None:
                core.post(ev.WorkerSaid(1, words))

            say("a" * 1_000_000)
            free = os.dup(0)
            os.close(free)
            limits = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
            memory.shorten(core, chronicle, past)
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert os.fstat(shelf.held["journal"].fd).st_ino == first
            say("b" * 1_000_000)
            assert os.dup(0) == free, "nothing is left open"
            memory.shorten(core, chronicle, past)
            assert os.fstat(shelf.held["journal"].fd).st_ino != first

    in_child(body)


class _Distant(Shelf):
    """A shelf that what is said reaches only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self._said: list[Callable[[], None]] = []

    def hold(self, name: str, fd: int, note: str = "") -> None:
        copy = os.dup(fd)

        def arrive() -> None:
            Shelf.hold(self, name, copy, note)
            os.close(copy)

        self._said.append(arrive)

    def then(self, call: Callable[[], None]) -> None:
        self._said.append(call)

    def arrive(self) -> None:
        while self._said:
            self._said.pop(0)()


def _recalled(shelf: Shelf) -> Observed:
    shelf.pass_on()
    memory = Memory(shelf)
    core = Core(SPEC, lambda: 1.0, memory)
    memory.recall(core, Chronicle(), Past())
    return core.observed


def test_a_server_killed_while_the_shorter_journal_is_on_its_way_leaves_nothing_unknown() -> None:
    def body() -> None:
        with _Distant() as shelf:
            memory, chronicle, past = Memory(shelf), Chronicle(), Past()
            core = Core(SPEC, lambda: 1.0, memory)
            shelf.arrive()
            core.take(ev.WorkerStarted(1, 1, 0, 77, "a" * 1_000_000))
            memory.shorten(core, chronicle, past)
            core.take(ev.WorkerReady(1, "said READY=1"))
            assert _recalled(shelf) == core.observed
            shelf.arrive()
            core.take(ev.WorkerSaid(1, "well"))
            assert _recalled(shelf) == core.observed
            assert os.fstat(shelf.held["journal"].fd).st_size < 100_000

    in_child(body)


def test_a_fact_that_ends_whoever_learns_it_is_left_out_by_the_next_server() -> None:
    """Else all servers to come would end of it, and the service with them."""

    def listen(turn: Turn) -> None:
        if turn.fact == ev.WorkerSaid(1, "poison"):
            raise RuntimeError("a mistake of ours")

    def body() -> None:
        with Shelf() as shelf:
            core = Core(SPEC, lambda: 1.0, Memory(shelf))
            for words in ("one", "poison", "two"):
                core.post(ev.WorkerSaid(1, words))
            heard: list[object] = []
            shelf.pass_on()
            memory = Memory(shelf)
            core = Core(SPEC, lambda: 1.0, memory)
            core.on_fact(listen)
            core.on_fact(lambda turn: heard.append(turn.fact))
            assert memory.recall(core, Chronicle(), Past()) == 1
            assert heard == [ev.WorkerSaid(1, "one"), ev.WorkerSaid(1, "two")]

    in_child(body)
