"""Who is at the other end of a UNIX socket, and acting with no more rights than that."""

import errno
import os
import socket
from typing import cast

import pytest

from sengu.posix import prctl
from sengu.posix.peer import Peer, acting_as, has_ended, peer_of
from tests.kernel.children import Child, in_child
from tests.support import needs_root

NOBODY = 65534


def test_who_has_connected_is_told_with_its_groups() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
    assert peer == Peer(os.getpid(), os.geteuid(), os.getegid(), tuple(os.getgroups()))


def test_a_process_that_has_connected_and_ended_is_known_to_have_ended() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("")
        listener.listen()

        def connect(child: Child) -> None:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            client.connect(listener.getsockname())
            child.tell("connected")
            child.wait_for_go()

        with Child(connect) as child:
            child.wait_to_hear("connected")
            sock, _ = listener.accept()
            with sock:
                assert not has_ended(sock)
                child.go()
                child.reap()
                release = tuple(map(int, os.uname().release.split(".")[:2]))
                assert has_ended(sock) == (release >= (6, 5))


class OlderKernel:
    """A socket as it was before kernels told of processes that were reaped."""

    def __init__(self, number: int) -> None:
        self._number = number

    def getsockopt(self, *_: int) -> bytes:
        raise OSError(self._number, os.strerror(self._number))


@pytest.mark.parametrize(
    ("number", "ended"),
    [(errno.EINVAL, True), (errno.ESRCH, True), (errno.ENOPROTOOPT, False)],
)
def test_older_kernels_tell_in_their_own_ways_that_a_process_was_reaped(
    number: int, ended: bool
) -> None:
    assert has_ended(cast(socket.socket, OlderKernel(number))) is ended


def test_what_is_made_while_acting_as_another_user_is_theirs_and_then_we_are_ourselves() -> None:
    needs_root()

    def body() -> None:
        path = f"/tmp/sengu-peer-{os.getpid()}"
        before = os.geteuid(), os.getegid(), os.getgroups(), prctl.is_dumpable()
        with acting_as(Peer(1, NOBODY, NOBODY)):
            assert os.getgroups() == []
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            with socket.socket() as sock, pytest.raises(PermissionError):
                sock.bind(("127.0.0.1", 84))
        found = os.stat(path)
        os.unlink(path)
        assert (found.st_uid, found.st_gid) == (NOBODY, NOBODY)
        assert (os.geteuid(), os.getegid(), os.getgroups(), prctl.is_dumpable()) == before

    in_child(body)


def test_an_error_while_acting_as_another_user_leaves_us_ourselves() -> None:
    needs_root()

    def body() -> None:
        with pytest.raises(KeyError), acting_as(Peer(1, NOBODY, NOBODY)):
            raise KeyError
        assert os.geteuid() == 0

    in_child(body)
