"""What fork servers are made with, and sent. Imported by `server.forkservers` and who uses that."""

import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from sengu.model.application import Application
from sengu.posix import packets
from sengu.posix.descriptors import close_all
from sengu.posix.loop import Loop
from sengu.posix.title import ROOM
from sengu.server.cgroups import generation_key
from sengu.server.children import Children, Exec
from sengu.server.configurations import Configurations
from sengu.server.core import Reporter
from sengu.server.environment import generation_environment
from sengu.server.link import Link
from sengu.server.stage import Stage
from sengu.wire.forkserver import Load, ToForkServer, encode


class Ears(Reporter, Protocol):
    """Who is told what a fork server has to say: the crew."""

    def unborn(self, generation: int) -> list[int]:
        """Workers that were asked for, and of whose birth nothing was heard."""


class Context(msgspec.Struct, frozen=True):
    """What all fork servers are made with. To `births_fd` they tell whom they have forked."""

    loop: Loop
    link: Link
    children: Children
    stage: Stage
    ears: Ears
    births_fd: int
    configurations: Configurations


class Plan(msgspec.Struct, frozen=True):
    """What a generation's fork server is made from. `inquiry`: as in `PrepareGeneration`."""

    service: str
    generation: int
    application: Application
    environment: dict[str, str]
    inquiry: int = 0


class Letter(msgspec.Struct, frozen=True):
    """What is to be sent, with descriptors of its own."""

    message: ToForkServer
    descriptors: Sequence[int]


def send_load(sock: socket.socket, context: Context, plan: Plan) -> None:
    """The first message of all. Raises OSError."""
    scoreboard = context.stage.scoreboard
    assert scoreboard is not None  # there is one as soon as there is an application
    load = Load(plan.application, plan.service, plan.generation, inquiry=plan.inquiry)
    memory = [scoreboard.fd]
    if plan.application.is_configured:
        # It will run as another user, who is not to decide what we read there.
        memory.append(context.configurations.file(plan.generation).open_to_read())
    try:
        if context.stage.obituaries is not None:
            memory.append(context.stage.obituaries.file.open_to_read())
        packets.send(sock, encode(load), memory)
    finally:
        close_all(memory[1:])


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
