"""What a fork server is started with. Imported by `server.forkservers` and `server.execute`."""

import signal
import sys
from collections.abc import Mapping, Sequence

import msgspec

from sengu.model.application import Application
from sengu.posix.title import ROOM
from sengu.server.cgroups import generation_key
from sengu.server.children import Exec
from sengu.server.environment import generation_environment
from sengu.server.stage import Stage


class Plan(msgspec.Struct, frozen=True):
    """What a generation's fork server is made from. `inquiry`: as in `PrepareGeneration`."""

    service: str
    generation: int
    application: Application
    environment: dict[str, str]
    inquiry: int = 0


def fork_server(
    stage: Stage, plan: Plan, outputs: Mapping[int, int], sockets: Sequence[int]
) -> Exec:
    """`sockets` are to us, and to whom it tells of births."""
    layout = stage.layout()
    numbers = [layout.next_fd + position for position in range(1, len(sockets) + 1)]
    arguments = [str(number) for number in numbers]
    environment = generation_environment(plan.environment, plan.service, plan.generation, layout)
    return Exec(
        argv=(sys.executable, "-P", "-m", "sengu.forkserver", *arguments, ROOM),
        environment=environment,
        descriptors={
            0: stage.null_fd,
            1: 1,
            **outputs,
            **layout.descriptors,
            **dict.fromkeys(layout.own, stage.null_fd),  # each worker gets these with its order
            layout.next_fd: stage.lifeline_fd,
            **dict(zip(numbers, sockets, strict=True)),
        },
        directory=stage.directory,
        # It holds nothing that could be lost, and may be in the middle of the application's code.
        death_signal=signal.SIGKILL,
        names_listen_pid="LISTEN_FDS" in layout.environment,
        cgroup=stage.cgroups.assign(generation_key(plan.generation)),
    )
