"""Each technique of the passage, step by step, with the sockets of programs that are processes."""

import codecs
import ctypes
import functools
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from sengu.errors import UsageError
from sengu.model.address import InetAddress
from sengu.model.passage import Technique
from sengu.passage.group import Group, Look
from sengu.passage.ladder import Ladder, turn_migration_on
from sengu.passage.steering import Steered, Steering, borrow_one
from sengu.posix.loop import Loop
from tests import netns
from tests.kernel.children import Child, nothing_left_open, run_until
from tests.kernel.groups import PORT, become_nobody, connect, group, member
from tests.kernel.shelf import Shelf

HOST = "127.0.0.1"
OLD, NEW, LATER = 1, 2, 3  # workers
TECHNIQUES = [Technique.BPF, Technique.SYSCTL, Technique.DUP, Technique.MEMBER]
CHANGES = [(3, 3), (4, 2), (2, 4), (1, 1)]
PR_SET_DUMPABLE = 4


class Programs:
    """Implements `group.Processes`: workers are children with sockets, which accept nobody."""

    def __init__(self) -> None:
        self.children: dict[int, Child] = {}

    def start(self, worker: int, count: int, before: Callable[[], object] = int) -> None:
        def listen(child: Child) -> None:
            close_sockets()
            before()
            members = group(HOST, count)
            child.tell("listens")
            child.wait_for_go()
            del members

        self.children[worker] = Child(listen)
        self.children[worker].wait_to_hear("listens")

    def end(self, worker: int) -> None:
        child = self.children.pop(worker)
        with child:
            child.go()
            child.reap()

    def pid_of(self, worker: int) -> int | None:
        return self.children[worker].pid if worker in self.children else None

    def said_ready(self, worker: int) -> bool:
        return False


def close_sockets() -> None:
    """In a child, as it is forked and nothing is executed: those of the server."""
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of the listing itself
            if os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                os.close(int(fd))


class Scene(NamedTuple):
    """A group, and the steering of it that a server has, and the next one."""

    programs: Programs
    group: Group
    shelf: Shelf
    loop: Loop

    def look(self) -> Look:
        return self.group.look(sorted(self.programs.children), None)

    def ladder(self, technique: Technique) -> Ladder:
        return Ladder(self.loop, self.group, self.shelf, technique)

    def steering(self, technique: Technique) -> Steering:
        choice = self.ladder(technique).choose(self.look())
        assert (choice.steering.name, choice.remark) == (technique, "")
        return choice.steering

    def next_server(self, ladder: Ladder, technique: Technique) -> tuple["Scene", Steering]:
        """Of a server that comes after one with that ladder, which was killed."""
        for kept in (ladder._copies, ladder._members):
            for sock in kept.sockets.values():
                sock.close()
        self.shelf.pass_on()
        it = self._replace(group=Group(self.group.address, self.programs))
        return it, it.steering(technique)

    def of(self, worker: int) -> frozenset[int]:
        return self.look().of([worker])

    def takers(self, count: int = 60) -> set[int]:
        """The sockets of programs that get so many clients; these are accepted for them."""
        self.empty()  # of those that a technique has sent to look for places
        clients = [connect(HOST) for _ in range(count)]
        waiting = self.empty()
        for client in clients:
            client.close()
        assert sum(waiting.values()) == count
        return set(waiting)

    def empty(self) -> dict[int, int]:
        """Accept whoever waits at a program's sockets; how many that were, by inode."""
        waiting = {inode: one.queue for inode, one in self.look().sockets.items() if one.queue}
        for inode, queue in waiting.items():
            with borrow_one({inode}) as listener:
                for _ in range(queue):
                    listener.accept()[0].close()
        return waiting

    def steer(self, steering: Steering, worker: int) -> None:
        assert steering.steer(self.look(), self.of(worker)) is Steered.DONE
        steering.tend(self.look())

    def let_go(self, steering: Steering) -> None:
        run_until(self.loop, lambda: steering.let_go(self.look()))


@contextmanager
def scene() -> Iterator[Scene]:
    """At its end the group is as if nobody had ever steered it."""
    with nothing_left_open(), Shelf() as shelf, closing(Loop()) as loop:
        programs = Programs()
        it = Scene(programs, Group(InetAddress(HOST, PORT), programs), shelf, loop)
        yield it
        assert shelf.held == {}
        programs.start(LATER, 2)
        sockets = it.look().sockets
        assert it.group.count() == len(sockets)
        assert it.takers(60 * len(sockets)) == set(sockets), "nothing is left attached"
        for worker in list(programs.children):
            programs.end(worker)


@pytest.mark.parametrize("technique", TECHNIQUES)
@pytest.mark.parametrize(("before", "after"), CHANGES)
@netns.isolated
def test_connections_go_to_the_old_ones_and_then_to_the_new_ones(
    technique: Technique, before: int, after: int
) -> None:
    turn_migration_on_for(technique)
    with scene() as it:
        it.programs.start(OLD, before)
        steering = it.steering(technique)
        steering.hold(it.look())
        it.steer(steering, OLD)
        it.programs.start(NEW, after)
        it.steer(steering, OLD)
        assert it.takers() <= it.of(OLD)
        it.steer(steering, NEW)
        assert it.takers() == it.of(NEW)
        it.programs.end(OLD)
        it.steer(steering, NEW)
        assert it.takers() == it.of(NEW)
        it.let_go(steering)
        assert it.takers() == it.of(NEW)


@pytest.mark.parametrize("technique", [Technique.SYSCTL, Technique.DUP, Technique.MEMBER])
@pytest.mark.parametrize("stage", ["held", "joined", "turned", "gone"])
@netns.isolated
def test_server_that_comes_after_one_that_was_killed_goes_on(
    technique: Technique, stage: str
) -> None:
    """It knows what the store holds, and nothing else."""
    turn_migration_on_for(technique)
    with scene() as it:
        it.programs.start(OLD, 3)
        ladder = it.ladder(technique)
        steering = ladder.choose(it.look()).steering
        steering.hold(it.look())
        it.steer(steering, OLD)
        if stage != "held":
            it.programs.start(NEW, 2)
            it.steer(steering, OLD)
        if stage in {"turned", "gone"}:
            it.steer(steering, NEW)
        if stage == "gone":
            it.programs.end(OLD)
        later, steering = it.next_server(ladder, technique)
        steering.hold(later.look())
        if stage == "held":
            it.programs.start(NEW, 2)
        if stage != "gone":
            later.steer(steering, OLD if stage != "turned" else NEW)
            later.steer(steering, NEW)
            assert later.takers() == later.of(NEW)
            it.programs.end(OLD)
        later.steer(steering, NEW)
        assert later.takers() == later.of(NEW)
        later.let_go(steering)
        assert later.takers() == later.of(NEW)


@netns.isolated
def test_clients_who_wait_when_an_old_program_ends_are_passed_on_from_copies() -> None:
    with scene() as it:
        it.programs.start(OLD, 1)
        steering = it.steering(Technique.DUP)
        steering.hold(it.look())
        it.steer(steering, OLD)
        with connect(HOST) as client:
            client.sendall(b"hello")
            it.programs.start(NEW, 1)
            it.steer(steering, NEW)
            it.programs.end(OLD)
            run_until(it.loop, lambda: _tended(it, steering, NEW))
            (inode,) = it.of(NEW)
            with borrow_one({inode}) as listener, listener.accept()[0] as served:
                run_until(it.loop, lambda: _came(served, b"hello"))
                served.sendall(b"welcome")
                served.shutdown(socket.SHUT_WR)
                run_until(it.loop, lambda: _came(client, b"welcome"))
        it.loop.run_once(it.loop.now() + 0.1)
        it.let_go(steering)


def _tended(it: Scene, steering: Steering, worker: int) -> bool:
    it.steer(steering, worker)
    return bool(it.look().waiting([worker]))


def _came(client: socket.socket, text: bytes) -> bool:
    client.setblocking(False)
    try:
        return client.recv(100) == text
    except BlockingIOError:
        return False


# --- the ladder ---


def offered(it: Scene, technique: Technique = Technique.AUTO) -> tuple[Technique, str]:
    choice = it.ladder(technique).choose(it.look())
    return choice.steering.name, choice.remark


@netns.isolated
def test_ladder_begins_with_what_is_surest() -> None:
    with scene() as it:
        it.programs.start(OLD, 1)
        assert offered(it) == (Technique.BPF, "")


def become_nobody_who_can_read() -> None:
    for encoding in ("ascii", "idna"):
        codecs.lookup(encoding)  # nobody may be unable to import more of Python
    become_nobody()


def as_nobody(body: Callable[[Scene], object], before: Callable[[], object] = int) -> None:
    """In a child without any capability, whose programs have called `before`."""

    def run(child: Child) -> None:
        become_nobody_who_can_read()
        with scene_of_nobody(before) as it:
            body(it)
        child.tell("succeeded")

    with Child(run) as child:
        child.wait_to_hear("succeeded")


@contextmanager
def scene_of_nobody(before: Callable[[], object]) -> Iterator[Scene]:
    with Shelf() as shelf, closing(Loop()) as loop:
        programs = Programs()
        programs.start(OLD, 1, before)
        yield Scene(programs, Group(InetAddress(HOST, PORT), programs), shelf, loop)
        programs.end(OLD)


@netns.isolated
def test_nobody_gets_what_needs_no_privilege() -> None:
    as_nobody(lambda it: equal(offered(it), (Technique.DUP, "")), show)
    turn_migration_on()
    as_nobody(lambda it: equal(offered(it), (Technique.SYSCTL, "")), show)


@netns.isolated
def test_nobody_gets_sockets_beside_those_of_a_program_that_cannot_be_looked_into() -> None:
    as_nobody(lambda it: equal(offered(it), (Technique.MEMBER, "")), hide)


@netns.isolated
def test_nobody_can_steer_nothing_that_is_another_users_and_is_told_why() -> None:
    with member(HOST):

        def body(it: Scene) -> None:
            technique, remark = offered(it)
            assert technique is Technique.NONE
            assert remark.startswith("connections that wait when an old worker closes its sockets")
            for name in ("bpf", "dup", "member"):
                assert f"{name}: " in remark
            assert remark.endswith("see `sengu doctor --for self-bound`")

        def run(child: Child) -> None:
            close_sockets()
            become_nobody_who_can_read()
            with Shelf() as shelf, closing(Loop()) as loop:
                programs = Programs()
                body(Scene(programs, Group(InetAddress(HOST, PORT), programs), shelf, loop))
            child.tell("succeeded")

        with Child(run) as child:
            child.wait_to_hear("succeeded")


@netns.isolated
def test_a_program_that_lets_nobody_listen_beside_it_is_told_of() -> None:
    with scene() as it, socket.create_server((HOST, PORT)):
        name, remark = offered(it, Technique.AUTO)
        assert (name, "has not set SO_REUSEPORT" in remark) == (Technique.NONE, True)


def test_whoever_may_not_set_the_sysctl_is_told_what_it_takes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = str(tmp_path / "gone" / "tcp_migrate_req")
    monkeypatch.setattr("sengu.passage.ladder._MIGRATE_SYSCTL", missing)
    with pytest.raises(UsageError, match="CAP_NET_ADMIN"):
        turn_migration_on()


@netns.isolated
def test_only_the_technique_that_was_asked_for_is_tried() -> None:
    with scene() as it:
        it.programs.start(OLD, 1)
        for technique in (Technique.BPF, Technique.DUP, Technique.MEMBER):
            assert offered(it, technique) == (technique, "")
        name, remark = offered(it, Technique.SYSCTL)
        assert (name, "add --set-sysctl" in remark) == (Technique.NONE, True)
        turn_migration_on()
        assert offered(it, Technique.SYSCTL) == (Technique.SYSCTL, "")
        name, remark = offered(it, Technique.NONE)
        assert (name, bool(remark)) == (Technique.NONE, True)


def equal(found: object, expected: object) -> None:
    assert found == expected


def show() -> None:
    """As after exec(2): let those of the same user look in (prctl(2))."""
    assert ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) == 0


def hide() -> None:
    assert ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) == 0


# --- whose sockets ---


@netns.isolated
def test_sockets_are_those_of_the_worker_that_has_started_the_process() -> None:
    """Whether it has them, its child has, or that one's child in a session of its own."""

    def start(child: Child, depth: int) -> None:
        if depth and os.fork():
            os.wait()
            return
        if depth == 2 and os.fork():
            os.wait()
            return
        if depth == 2:
            os.setsid()
        members = group(HOST, 1)
        child.tell("listens")
        child.wait_for_go()
        del members

    for depth in (0, 1, 2):
        programs = Programs()
        with Child(functools.partial(start, depth=depth)) as child:
            child.wait_to_hear("listens")
            programs.children[OLD] = child
            look = Group(InetAddress(HOST, PORT), programs).look([OLD], None)
            assert list(look.owners.values()) == [OLD]
            child.go()
            child.reap()


class Unknown(Programs):
    """Whose workers' processes are hidden, as a container's are."""

    def pid_of(self, worker: int) -> int | None:
        return None


@netns.isolated
def test_sockets_of_nobody_who_is_known_are_of_the_newest_once_there_is_one() -> None:
    with scene() as it:
        it.programs.start(OLD, 1)
        hidden = Group(InetAddress(HOST, PORT), Unknown())
        assert hidden.look([OLD], None).owners == {}
        assert set(hidden.look([OLD], OLD).owners.values()) == {OLD}
        assert set(hidden.look([OLD, NEW], NEW).owners.values()) == {OLD}, "it was known before"


def turn_migration_on_for(technique: Technique) -> None:
    if technique is Technique.SYSCTL:
        turn_migration_on()
