"""Which passage a service needs: for its slots' own sockets, or for those that its programs bind.

What most services do without does not cost them its memory: imports are made here, when one is
needed. Imported by `server.instance`.
"""

from collections.abc import Callable

import msgspec

from sengu.model.address import Sockets
from sengu.planner.reduce import Fact
from sengu.posix.loop import Loop
from sengu.server.crew import Crew
from sengu.server.log import Log
from sengu.server.stage import Passage, Stage


class Passenger(msgspec.Struct, frozen=True):
    """Whose connections are led, and who is told what happens: facts, and lines for people."""

    crew: Crew
    log: Log
    post: Callable[[Fact], None]

    @property
    def warn(self) -> Callable[[str], None]:
        return self.log.warn


def find_passage(
    sockets: Sockets, loop: Loop, stage: Stage, passenger: Passenger
) -> Passage | None:
    """None when workers share their listeners, or have none."""
    if sockets.reuseport:
        from sengu.server.slot_passage import SlotPassage

        return SlotPassage(loop, stage.listeners, passenger)
    if sockets.self_bound is None:
        return None
    from sengu.passage.passage import SelfPassage, Tell

    tell = Tell(passenger.post, passenger.log.write, passenger.warn)
    return SelfPassage(loop, stage.store, passenger.crew, sockets.self_bound, tell)
