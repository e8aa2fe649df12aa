"""The ladder: which technique steers, found by trying each with those who listen now.

From the one that is surest to none at all. Imported by `passage`.
"""

import socket
from collections.abc import Callable, Set

import msgspec

from sengu.errors import UsageError
from sengu.model.passage import Technique
from sengu.passage.by_index import ByCopies
from sengu.passage.by_member import ByMembers
from sengu.passage.by_socket import BySocket
from sengu.passage.group import Group, Look
from sengu.passage.kept import Kept
from sengu.passage.places import Ground
from sengu.passage.steering import Steered, Steering, borrow_one, inode_of
from sengu.posix.loop import Loop
from sengu.posix.store import Store

_MIGRATE_SYSCTL = "/proc/sys/net/ipv4/tcp_migrate_req"

_CANNOT_BE_DEPLOYED = (
    "the program has not set SO_REUSEPORT, so no new generation can bind this address beside it, "
    "and deploys fail; give it the option for that (docs/self-bound.md)"
)

Rung = tuple[Technique, Callable[[], Steering]]


class Unsteered:
    """Old and new ones get connections until the old ones have closed."""

    def __init__(self, name: Technique, *, migrates: bool) -> None:
        self.name = name
        self.migrates = migrates

    def try_out(self, look: Look) -> None:
        """Whatever is there will do."""

    def hold(self, look: Look) -> None:
        """Nothing."""

    def steer(self, look: Look, chosen: Set[int]) -> Steered:
        return Steered.NEVER

    def tend(self, look: Look) -> None:
        """Nothing: it holds no socket."""

    def let_go(self, look: Look) -> bool:
        return True


class Choice(msgspec.Struct, frozen=True):
    """What steers from now on, and what is to be known about it; empty when all is well."""

    steering: Steering
    remark: str = ""


class Ladder:
    """All techniques for one group."""

    def __init__(self, loop: Loop, group: Group, store: Store, asked: Technique) -> None:
        """Take up what the store has of a passage that was under way."""
        self._ground = Ground(loop, group)
        self._asked = asked
        self._copies = Kept(store, f"passage/copies/{group.address}/")
        self._members = Kept(store, f"passage/members/{group.address}/")
        group.disown(map(inode_of, self._members.sockets.values()))

    def choose(self, look: Look) -> Choice:
        """Try them from the top; only the one that was asked for, if one was.

        Who has begun a passage ends it, so that comes before all.
        """
        if not _others_may_join(look):
            return Choice(Unsteered(Technique.NONE, migrates=False), _CANNOT_BE_DEPLOYED)
        problems = []
        if self._asked is Technique.SYSCTL and not migration_is_on():
            problems.append("sysctl: net.ipv4.tcp_migrate_req is 0; add --set-sysctl")
        for technique, make in self._under_way() or self._rungs():
            if self._asked not in {Technique.AUTO, technique}:
                continue
            steering = make()
            try:
                steering.try_out(look)
            except OSError as error:
                problems.append(f"{technique.value}: {error.strerror or error}")
            else:
                return Choice(steering, _remark(steering, problems))
        nothing = Unsteered(Technique.NONE, migrates=False)
        return Choice(nothing, _remark(nothing, problems))

    def _rungs(self) -> list[Rung]:
        return [
            (Technique.BPF, BySocket),
            *(self._migrating() if migration_is_on() else ()),
            (Technique.DUP, lambda: self._by_copies(Technique.DUP)),
            (Technique.MEMBER, lambda: self._by_members(Technique.MEMBER)),
        ]

    def _migrating(self) -> list[Rung]:
        return [
            (Technique.SYSCTL, lambda: self._by_copies(Technique.SYSCTL)),
            (Technique.SYSCTL, lambda: self._by_members(Technique.SYSCTL)),
            (Technique.SYSCTL, lambda: Unsteered(Technique.SYSCTL, migrates=True)),
        ]

    def _under_way(self) -> list[Rung]:
        technique = Technique.SYSCTL if migration_is_on() else None
        if self._copies.sockets:
            return [(self._asked, lambda: self._by_copies(technique or Technique.DUP))]
        if self._members.sockets:
            return [(self._asked, lambda: self._by_members(technique or Technique.MEMBER))]
        return []

    def _by_copies(self, technique: Technique) -> ByCopies:
        return ByCopies(self._ground, self._copies, technique)

    def _by_members(self, technique: Technique) -> ByMembers:
        return ByMembers(self._ground, self._members, technique)


def migration_is_on() -> bool:
    """Whether the kernel moves the queue of a closed socket to others (tcp_migrate_req)."""
    try:
        with open(_MIGRATE_SYSCTL, encoding="ascii") as stream:
            return stream.read().strip() == "1"
    except OSError:  # Linux before 5.14, or no /proc
        return False


def turn_migration_on() -> None:
    """For all in our network namespace, until it is turned off. Raises UsageError."""
    try:
        with open(_MIGRATE_SYSCTL, "w", encoding="ascii") as stream:
            stream.write("1")
    except OSError as error:
        raise UsageError(
            f"--set-sysctl: cannot set net.ipv4.tcp_migrate_req to 1: {error.strerror}; it takes "
            "Linux 5.14 and CAP_NET_ADMIN, and in a container the engine sets it: "
            "--sysctl net.ipv4.tcp_migrate_req=1"
        ) from error


def _others_may_join(look: Look) -> bool:
    """Whether the kernel lets others bind the same address; also when it is not known."""
    try:
        with borrow_one(look.sockets.keys()) as one:
            return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))
    except OSError:  # nobody may look into that process
        return True


def _remark(steering: Steering, problems: list[str]) -> str:
    if isinstance(steering, Unsteered) and not steering.migrates:
        tried = "; ".join(problems) or "none was to be tried"
        return (
            f"connections that wait when an old worker closes its sockets are lost ({tried}); "
            "see `sengu doctor --for self-bound`"
        )
    return ""
