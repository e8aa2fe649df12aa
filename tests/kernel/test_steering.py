"""Sockets of ours in a group that programs have made by themselves, and what reaches them."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from sengu.model.address import InetAddress, SelfBound
from sengu.model.observed import Observed, Phase, Worker
from sengu.model.passage import Technique
from sengu.passage.by_index import ByCopies
from sengu.passage.by_member import ByMembers
from sengu.passage.kept import Kept
from sengu.passage.ladder import turn_migration_on
from sengu.passage.passage import SelfPassage, Tell
from sengu.passage.places import Ground
from sengu.passage.relay import pass_on
from sengu.passage.steering import Steered, Steering, borrow_one
from sengu.posix.loop import Loop
from tests import netns
from tests.kernel.children import Child
from tests.kernel.grounds import (
    HOST,
    PATIENCE_SECONDS,
    Living,
    ground,
    program,
    relays_that_end,
    see,
    waiting,
)
from tests.kernel.groups import PORT, become_nobody, connect, member, shares
from tests.kernel.shelf import Shelf


def by_copies(where: Ground, shelf: Shelf) -> Steering:
    return ByCopies(where, Kept(shelf, "copies/"), Technique.DUP)


def by_members(where: Ground, shelf: Shelf) -> Steering:
    return ByMembers(where, Kept(shelf, "members/"), Technique.MEMBER)


@pytest.mark.parametrize("make", [by_copies, by_members])
@netns.isolated
def test_who_lives_gets_connections_when_all_who_should_have_died(
    make: Callable[[Ground, Shelf], Steering],
) -> None:
    with ground() as where, Shelf() as shelf:
        steering = make(where, shelf)
        with program(1):
            look = see(where)
            steering.hold(look)
            assert steering.steer(look, look.sockets.keys()) is Steered.DONE
        with program(1) as candidate:
            newcomers = _held_by(candidate, where)
            assert steering.steer(see(where), frozenset()) is not Steered.DONE
            with relays_that_end(where):
                clients = [connect(HOST) for _ in range(20)]
                for _ in range(50):  # what comes to ours another time is relayed once more
                    steering.tend(see(where))
                assert waiting(where, newcomers) >= len(clients)
                candidate.go()
                for client in clients:
                    client.close()
        while not steering.let_go(see(where)):
            pass


@contextmanager
def passage(
    loop: Loop, shelf: Shelf, crew: Living, technique: Technique = Technique.DUP
) -> Iterator[SelfPassage]:
    """One that says neither a fact nor a warning."""
    said: list[object] = []
    address = InetAddress(HOST, PORT)
    bound = SelfBound((address,), technique, settle_seconds=0.0, says_ready=True)
    yield SelfPassage(loop, shelf, crew, bound, Tell(said.append, lambda line: None, said.append))
    assert said == []


def _held_by(child: Child, where: Ground) -> set[int]:
    descriptors = f"/proc/{child.pid}/fd"
    links = {os.readlink(f"{descriptors}/{name}") for name in os.listdir(descriptors)}
    return {inode for inode in see(where).sockets if f"socket:[{inode}]" in links}


@netns.isolated
def test_relay_that_leads_back_to_where_it_comes_from_ends() -> None:
    with ground() as where, member(HOST) as ours, relays_that_end(where):
        clients = [connect(HOST) for _ in range(3)]
        assert pass_on(where.loop, ours, where.group.connect) == len(clients)
        for client in clients:
            client.close()
        ours.close()


@pytest.mark.parametrize("is_only", [False, True])
@netns.isolated
def test_socket_of_ours_is_in_the_group_of_those_that_take_ipv4_too_and_of_those_that_do_not(
    is_only: bool,
) -> None:
    with ground("::") as where, socket.socket(socket.AF_INET6) as theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        theirs.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, is_only)
        theirs.setblocking(False)
        theirs.bind(("::", PORT))
        theirs.listen(100)
        with where.group.bind_beside(see(where)) as ours:
            ours.setblocking(False)
            ours.listen(100)
            steering = shares([theirs, ours], ["::1"], 40)
            assert set(steering) == {0, 1}
            if not is_only:
                assert set(shares([theirs, ours], ["127.0.0.1"], 40)) == {0, 1}


@netns.isolated
def test_who_is_connected_to_another_address_is_nobodys_client() -> None:
    with (
        ground() as where,
        ground("0.0.0.0") as everywhere,
        member(HOST),
        socket.create_server(("127.0.0.2", PORT)),
        connect(HOST) as ours,
        socket.create_connection(("127.0.0.2", PORT)) as anothers,
    ):
        assert where.group.clients().keys() == {ours.getsockname()}
        assert everywhere.group.clients().keys() == {ours.getsockname(), anothers.getsockname()}


@netns.isolated
def test_store_that_may_not_be_looked_at_has_let_go_by_the_next_look() -> None:
    with Shelf() as shelf, member(HOST) as one:
        kept = Kept(shelf, "kept/")
        kept.keep("0", one.dup())
        become_nobody()
        assert not kept.are_only_ours()
        assert kept.are_only_ours()
        assert shelf.held == {}
        kept.forget()


@netns.isolated
def test_one_of_many_sockets_is_borrowed_though_nobody_has_another_any_more() -> None:
    with ground() as where, program(1), member(HOST) as gone:
        inodes = {*see(where).sockets, 1}
        gone.close()
        with borrow_one(inodes) as found:
            assert found.getsockname() == (HOST, PORT)
    with pytest.raises(PermissionError):
        borrow_one({1})


@netns.isolated
def test_copies_that_a_server_left_behind_are_let_go_though_nobody_is_to_go_any_more() -> None:
    with ground() as where, Shelf() as shelf, program(1) as living:
        with program(1):
            ByCopies(where, Kept(shelf, f"passage/copies/{HOST}:{PORT}/"), Technique.DUP).hold(
                see(where)
            )
        assert len(see(where).sockets) == 2
        shelf.pass_on()
        with passage(where.loop, shelf, Living({1: living.pid})) as it:
            it.follow(Observed(wanted=1, current=1, workers={1: _worker(1, living.pid)}))
            end = where.loop.now() + PATIENCE_SECONDS
            while shelf.held or len(see(where).sockets) > 1:
                assert where.loop.now() < end
                where.loop.run_once(end)


@pytest.mark.parametrize("make", [by_copies, by_members])
@netns.isolated
def test_what_the_store_was_told_to_let_go_is_held_again_when_others_come_meanwhile(
    make: Callable[[Ground, Shelf], Steering],
) -> None:
    with ground() as where, Shelf() as shelf, program(1):
        steering = make(where, shelf)
        steering.hold(see(where))
        assert shelf.held
        assert not steering.let_go(see(where))
        assert not shelf.held
        steering.hold(see(where))
        assert shelf.held
        while not steering.let_go(see(where)):
            pass


def _worker(number: int, pid: int, phase: Phase = Phase.READY) -> Worker:
    return Worker(number, 1, number - 1, pid, phase, started_at=0.0)


@netns.isolated
def test_who_may_have_moved_is_not_left_waiting_while_the_old_one_lives() -> None:
    """Some kernels wake nobody for such a connection, but they do for a new one."""
    turn_migration_on()
    with (
        ground() as where,
        Shelf() as shelf,
        program(1) as new,
        passage(where.loop, shelf, Living({1: new.pid}), Technique.SYSCTL) as it,
        connect(HOST),
    ):
        workers = {1: _worker(1, new.pid), 2: _worker(2, os.getpid(), Phase.STOPPING)}
        it.follow(Observed(wanted=1, current=1, workers=workers))
        end = where.loop.now() + PATIENCE_SECONDS
        while sum(one.queue for one in see(where).sockets.values()) < 2:
            assert where.loop.now() < end
            where.loop.run_once(end)


class HandLoop(Loop):
    """One whose time is put forward by hand."""

    moment = 0.0

    def now(self) -> float:
        return self.moment


@netns.isolated
def test_who_takes_time_to_go_is_looked_at_seldom() -> None:
    with (
        closing(HandLoop()) as loop,
        Shelf() as shelf,
        program(1) as new,
        passage(loop, shelf, Living({1: new.pid})) as it,
    ):
        workers = {1: _worker(1, new.pid), 2: _worker(2, os.getpid(), Phase.STOPPING)}
        it.follow(Observed(wanted=1, current=1, workers=workers))
        loop.moment = 10.0
        loop.run_once(None)
        pause = loop._timeout(None)
        assert pause is not None
        assert pause > 0.15


@netns.isolated
def test_who_listens_is_not_looked_at_with_every_turn_of_the_loop() -> None:
    """Also, looks in a row would be none if nothing was between them."""
    with ground() as where, Shelf() as shelf, program(1) as new:
        crew = Living({1: new.pid})
        with passage(where.loop, shelf, crew) as it:
            worker = _worker(1, new.pid, Phase.STARTING)
            for _ in range(100):
                it.follow(Observed(wanted=1, workers={1: worker}))
            assert crew.asked == 1
            where.loop.run_once(None)
            assert crew.asked == 2
