"""What is done in a run, step after step. It follows from the seed alone, so a seed repeats it."""

import enum
from collections.abc import Iterator
from random import Random
from typing import NamedTuple


class Role(enum.StrEnum):
    WORKER = "worker"
    FORK_SERVER = "fork server"
    SERVER = "server"
    SUPERVISOR = "supervisor"


class Kill(NamedTuple):
    """KILL the process at `place` among those of the role, modulo their number."""

    role: Role
    place: int


class Freeze(NamedTuple):
    """STOP it, and CONT it so much later."""

    role: Role
    place: int
    seconds: float


class Order(enum.StrEnum):
    HUP = "HUP"
    RELOAD = "reload"
    USR2 = "USR2"
    UPGRADE = "upgrade"
    TTIN = "TTIN"
    TTOU = "TTOU"


class Scale(NamedTuple):
    workers: int


class Pause(NamedTuple):
    """Let it settle, and check everything. `workers` are wanted then."""

    workers: int


Act = Kill | Freeze | Order | Scale | Pause


class Step(NamedTuple):
    """`act` after so many seconds."""

    after_seconds: float
    act: Act


_ROLES = (Role.WORKER, Role.FORK_SERVER, Role.SERVER)
_ROLE_WEIGHTS = (6, 2, 2)
_ORDERS = (Order.HUP, Order.RELOAD, Order.USR2, Order.UPGRADE)
_ORDER_WEIGHTS = (5, 5, 1, 1)
_KILLS_BETWEEN_PAUSES = 40
_LONGEST_FREEZE_SECONDS = 0.4
_HUNG_SECONDS = 10.0  # a server that does not beat for eight is given up
# A supervisor gives a server up that dies again and again soon after its start: so a few times,
# and then it has to live for a while.
_SERVER_DEATHS = 3
_SERVER_REST_SECONDS = 3.0


class Planner:
    """Steps with `kills` kills among them, for a service of `workers` workers."""

    def __init__(self, seed: int, kills: int, workers: int) -> None:
        self._random = Random(seed)
        self._kills_left = kills
        self._initial = self._workers = workers
        self._by_signal = False
        self._deaths = 0
        self._rest_seconds = 0.0

    def steps(self) -> Iterator[Step]:
        since_pause = 0
        while self._kills_left:
            for step in self._some():
                since_pause += isinstance(step.act, Kill)
                yield step
            if since_pause >= _KILLS_BETWEEN_PAUSES:
                since_pause = 0
                yield self._pause()
        yield self._pause()

    def _pause(self) -> Step:
        # Between two pauses the number of workers is changed in one way: orders to the control
        # socket and signals do not come in the order in which they were given.
        self._by_signal = self._random.random() < 0.5
        self._deaths = 0
        return Step(self._delay(), Pause(self._workers))

    def _some(self) -> Iterator[Step]:
        kind = self._random.choices(("kill", "freeze", "order", "both"), (45, 10, 15, 30))[0]
        match kind:
            case "kill":
                yield self._kill(self._delay())
            case "freeze":
                yield self._step(self._delay(), self._freeze())
            case "order":
                yield self._step(self._delay(), self._order())
            case _:  # in the middle of what follows from an order
                yield self._step(self._delay(), self._order())
                yield self._kill(self._random.uniform(0.0, 0.03))

    def _step(self, after_seconds: float, act: Act) -> Step:
        self._rest_seconds += after_seconds
        return Step(after_seconds, act)

    def _delay(self) -> float:
        return min(self._random.expovariate(8.0), 0.5)

    def _victim(self) -> tuple[Role, int]:
        role = self._random.choices(_ROLES, _ROLE_WEIGHTS)[0]
        return role, self._random.randrange(1 << 16)

    def _freeze(self) -> Freeze:
        role, place = self._victim()
        if self._random.random() < 0.15:
            role = Role.SUPERVISOR
        seconds = self._random.uniform(0.01, _LONGEST_FREEZE_SECONDS)
        if role is Role.SERVER and self._random.random() < 0.1:
            seconds = _HUNG_SECONDS
        return Freeze(role, place, seconds)

    def _kill(self, after_seconds: float) -> Step:
        self._kills_left -= 1
        role, place = self._victim()
        self._rest_seconds += after_seconds
        if role is Role.SERVER:
            if self._rest_seconds >= _SERVER_REST_SECONDS:
                self._deaths = 0
            if self._deaths >= _SERVER_DEATHS:
                role = Role.WORKER
            else:
                self._deaths += 1
                self._rest_seconds = 0.0
        return Step(after_seconds, Kill(role, place))

    def _order(self) -> Act:
        if self._random.random() < 0.3:
            return self._scale()
        return self._random.choices(_ORDERS, _ORDER_WEIGHTS)[0]

    def _scale(self) -> Act:
        most = 2 * self._initial
        if not self._by_signal:
            self._workers = self._random.randint(1, most)
            return Scale(self._workers)
        is_more = self._workers == 1 or (self._workers < most and self._random.random() < 0.5)
        self._workers += 1 if is_more else -1
        return Order.TTIN if is_more else Order.TTOU
