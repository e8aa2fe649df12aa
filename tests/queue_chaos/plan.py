"""What is done in a run, step after step. It follows from the seed alone, so a seed repeats it."""

import enum
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from tests.chaos.plan import Kill, Role


class Deploy(enum.Enum):
    RELOAD = "reload"


class Step(NamedTuple):
    """`act` so many seconds after the beginning."""

    at_seconds: float
    act: Kill | Deploy


_ROLES = (Role.WORKER, Role.FORK_SERVER, Role.SERVER)
_ROLE_WEIGHTS = (6, 2, 1)
_KILLS_PER_SECOND = 1.0
# A supervisor gives a server up that dies again and again soon after its start.
_SERVER_REST_SECONDS = 4.0


def steps(seed: int, deploy_seconds: float) -> Iterator[Step]:
    """For ever."""
    random = Random(seed)
    kill_at = random.expovariate(_KILLS_PER_SECOND)
    deploy_at = deploy_seconds
    server_died_at = 0.0
    while True:
        if deploy_at <= kill_at:
            yield Step(deploy_at, Deploy.RELOAD)
            deploy_at += deploy_seconds
            continue
        role = random.choices(_ROLES, _ROLE_WEIGHTS)[0]
        if role is Role.SERVER:
            if kill_at - server_died_at < _SERVER_REST_SECONDS:
                role = Role.WORKER
            else:
                server_died_at = kill_at
        yield Step(kill_at, Kill(role, random.randrange(1 << 16)))
        kill_at += random.expovariate(_KILLS_PER_SECOND)
