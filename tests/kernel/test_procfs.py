"""What /proc tells about other processes, with real ones."""

import ctypes
import os
import signal
import socket
import subprocess
from collections.abc import Iterator

import pytest

from sengu.posix.procfs import held_sockets, holders, parent_of, session_members, variable_of
from tests.kernel.children import Child
from tests.kernel.groups import become_nobody

pytestmark = pytest.mark.usefixtures("nothing_left")

_PR_SET_DUMPABLE = 4
_AWKWARD_NAME = b"a) S 1 (b"


@pytest.fixture
def end() -> Iterator[socket.socket]:
    """Some socket; children inherit it."""
    with socket.socket() as end:
        yield end


def _inode(end: socket.socket) -> int:
    return os.fstat(end.fileno()).st_ino


def _holds(pid: int, inode: int) -> bool:
    held = held_sockets(pid, {inode, 1})
    assert held <= {inode}
    return bool(held)


def _stay(child: Child) -> None:
    child.tell("ready")
    child.wait_for_go()


def _stay_with_a_child_of_an_awkward_name(child: Child) -> None:
    pid = os.fork()
    if pid == 0:
        with open("/proc/self/comm", "wb") as name:
            name.write(_AWKWARD_NAME)
    else:
        child.tell(f"child {pid}")
    _stay(child)


def _stay_protected(child: Child) -> None:
    assert ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
    _stay(child)


def _stay_with_a_zombie(child: Child) -> None:
    pid = os.fork()
    if pid == 0:
        with open("/proc/self/comm", "wb") as name:
            name.write(_AWKWARD_NAME)
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    child.tell(f"child {pid}")
    _stay(child)


def _child_of(child: Child) -> int:
    child.wait_to_hear("ready")
    return int(child.wait_to_hear("child "))


def _what_an_ordinary_user_sees(pid: int, inode: int) -> str:
    """The outcome of held_sockets in a process without privileges."""

    def look(child: Child) -> None:
        if os.geteuid() == 0:
            become_nobody()
        try:
            child.tell(f"holds: {_holds(pid, inode)}")
        except PermissionError:
            child.tell("refused")
        child.tell("done")

    with Child(look) as child:
        child.wait_to_hear("done")
        return child.heard()[0]


def test_members_of_a_session_are_all_its_processes_and_no_other() -> None:
    with Child(_stay_with_a_child_of_an_awkward_name) as child, Child(_stay) as other:
        other.wait_to_hear("ready")
        expected = {child.pid, _child_of(child)}
        assert set(session_members(child.pid)) == expected
        assert session_members(other.pid) == [other.pid]


def test_session_outlives_its_leader() -> None:
    def lead(child: Child) -> None:
        pid = os.fork()
        if pid != 0:
            child.tell(f"child {pid}")
            return
        _stay(child)

    with Child(lead) as child:
        left = _child_of(child)
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
        assert left in session_members(child.pid)


def test_ended_session_has_no_members() -> None:
    with Child(_stay) as child:
        child.wait_to_hear("ready")
    assert session_members(child.pid) == []


def test_process_holds_what_it_has_open(end: socket.socket) -> None:
    with Child(_stay) as child:
        child.wait_to_hear("ready")
        assert _holds(child.pid, _inode(end))
        with socket.socket() as later:  # opened after the fork
            assert not _holds(child.pid, _inode(later))
            assert _holds(os.getpid(), _inode(later))


def test_only_the_inodes_in_question_are_told(end: socket.socket) -> None:
    with socket.socket() as asked, socket.socket() as unasked:
        inodes = {_inode(end), _inode(asked)}
        assert held_sockets(os.getpid(), inodes | {1}) == inodes
        assert held_sockets(os.getpid(), {_inode(unasked)}) == {_inode(unasked)}
        assert held_sockets(os.getpid(), set()) == set()


def test_process_does_not_hold_what_it_has_closed(end: socket.socket) -> None:
    def close(child: Child) -> None:
        end.close()
        _stay(child)

    with Child(close) as child:
        child.wait_to_hear("ready")
        assert not _holds(child.pid, _inode(end))


def test_process_that_is_gone_holds_nothing(end: socket.socket) -> None:
    with Child(_stay) as child:
        child.wait_to_hear("ready")
    assert not _holds(child.pid, _inode(end))


def test_process_that_may_not_be_looked_into_is_not_taken_for_one_without_the_socket(
    end: socket.socket,
) -> None:
    with Child(_stay_protected) as child:
        child.wait_to_hear("ready")
        assert _what_an_ordinary_user_sees(child.pid, _inode(end)) == "refused"


def test_zombie_holds_nothing_whoever_looks(end: socket.socket) -> None:
    with Child(_stay_with_a_zombie) as child:
        zombie = _child_of(child)
        assert not _holds(zombie, _inode(end))
        assert _what_an_ordinary_user_sees(zombie, _inode(end)) == "holds: False"


def test_killed_process_holds_nothing_before_it_is_reaped(end: socket.socket) -> None:
    with Child(_stay) as child:
        child.wait_to_hear("ready")
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
        assert not _holds(child.pid, _inode(end))


def test_holder_of_a_socket_is_found_with_its_descriptor(end: socket.socket) -> None:
    def open_one(child: Child) -> None:
        with socket.socket() as own:
            child.tell(f"inode {_inode(own)}")
            child.tell(f"descriptor {own.fileno()}")
            _stay(child)

    with Child(open_one) as child, socket.socket() as ours:
        theirs = int(child.wait_to_hear("inode "))
        descriptor = int(child.wait_to_hear("descriptor "))
        asked = {theirs, _inode(end), _inode(ours), 1}
        # Somebody else is preferred to us, who have both of them.
        assert holders(asked) == {
            theirs: (child.pid, descriptor),
            _inode(end): (child.pid, end.fileno()),
            _inode(ours): (os.getpid(), ours.fileno()),
        }
    assert holders({theirs}) == {}


def test_holders_that_are_not_asked_for_are_left_out(end: socket.socket) -> None:
    with Child(_stay) as child:
        child.wait_to_hear("ready")
        asked = {_inode(end)}
        assert holders(asked, {child.pid}) == {_inode(end): (os.getpid(), end.fileno())}
        assert holders(asked, {child.pid, os.getpid()}) == {}


def test_holder_that_may_not_be_looked_into_is_nobody(end: socket.socket) -> None:
    def look(looker: Child) -> None:
        end.close()
        if os.geteuid() == 0:
            become_nobody()
        looker.tell(f"found {holders({inode})}")

    inode = _inode(end)
    with Child(_stay_protected) as child:
        child.wait_to_hear("ready")
        holds = holders({inode}, {os.getpid()})
        assert holds == ({inode: (child.pid, end.fileno())} if os.geteuid() == 0 else {})
        with Child(look) as looker:
            ours = {} if os.geteuid() == 0 else {inode: (os.getpid(), end.fileno())}
            assert looker.wait_to_hear("found ") == str(ours)


def test_parent_of_a_process_is_told_whatever_its_name() -> None:
    with Child(_stay_with_a_child_of_an_awkward_name) as child:
        assert parent_of(_child_of(child)) == child.pid
        assert parent_of(child.pid) == os.getpid()
    assert parent_of(child.pid) == 0


def test_what_a_process_was_executed_with_is_told_and_nothing_else() -> None:
    environ = {"A": "1", "NAMED_A": "2", "EMPTY": "", "B": "x=y"}
    pipe = subprocess.PIPE
    with subprocess.Popen(["cat"], env=environ, stdin=pipe, stdout=pipe, bufsize=0) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"?")
        process.stdout.read(1)  # it runs: the kernel has its environment only then
        expected = {"A": "1", "NAMED_A": "2", "EMPTY": "", "B": "x=y", "C": "", "NAMED": ""}
        assert {name: variable_of(process.pid, name) for name in expected} == expected
        process.communicate()
    assert variable_of(process.pid, "A") == ""
