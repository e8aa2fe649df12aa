"""Descriptors out of other processes, which know nothing of it."""

import ctypes
import errno
import os
import signal
import socket

import pytest

from sengu.posix import pidfd
from tests.kernel.children import Child, in_child
from tests.kernel.groups import become_nobody
from tests.support import needs_root

pytestmark = pytest.mark.usefixtures("nothing_left")

_PR_SET_DUMPABLE = 4


def _listen(child: Child) -> None:
    """Like a server that knows nothing of us: its socket is made after the fork."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child.tell(f"fd {listener.fileno()}")
        child.wait_for_go()


def _stay(child: Child) -> None:
    child.tell("fd 0")
    child.wait_for_go()


def _take_and_accept(child: Child) -> None:
    fd = int(child.wait_to_hear("fd "))
    process = pidfd.open_pid(child.pid)
    taken = pidfd.take(process, fd)
    os.close(process)
    assert not os.get_inheritable(taken)
    _accept(taken)


def _accept(fd: int) -> None:
    with (
        socket.socket(fileno=fd) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        listener.accept()[0].close()


def test_listener_of_a_child_is_taken() -> None:
    with Child(_listen) as child:
        _take_and_accept(child)


def test_taken_listener_outlives_its_process() -> None:
    with Child(_listen) as child:
        fd = int(child.wait_to_hear("fd "))
        taken = pidfd.take(child.pidfd, fd)
        signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
        child.reap()
        _accept(taken)


def test_user_without_any_capability_takes_from_its_child() -> None:
    needs_root()

    def be_a_supervisor() -> None:
        become_nobody()
        # Whoever has changed its user is not dumpable until it executes something, as servers do.
        assert ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0) == 0
        with Child(_listen) as child:
            _take_and_accept(child)

    in_child(be_a_supervisor)


def test_another_users_process_is_refused() -> None:
    needs_root()
    with Child(_stay) as child:
        child.wait_to_hear("fd")

        def try_it() -> None:
            become_nobody()
            process = pidfd.open_pid(child.pid)
            with pytest.raises(PermissionError):
                pidfd.take(process, 0)

        in_child(try_it)


def test_process_that_is_not_dumpable_is_refused() -> None:
    needs_root()

    def hide(child: Child) -> None:
        assert ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0
        _stay(child)

    def be_a_supervisor() -> None:
        become_nobody()
        with Child(hide) as child:
            child.wait_to_hear("fd")
            with pytest.raises(PermissionError):
                pidfd.take(child.pidfd, 0)

    in_child(be_a_supervisor)


def test_process_that_has_ended_has_nothing_to_take() -> None:
    with Child(_stay) as child:
        child.wait_to_hear("fd")
        child.go()
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessLookupError):
            pidfd.take(child.pidfd, 0)


def test_descriptor_that_is_not_open_is_told() -> None:
    with Child(_stay) as child:
        child.wait_to_hear("fd")
        with pytest.raises(OSError) as caught:
            pidfd.take(child.pidfd, 999_999)
        assert caught.value.errno == errno.EBADF


def test_process_that_is_gone_cannot_be_opened() -> None:
    with Child(_stay) as child:
        pass
    with pytest.raises(ProcessLookupError):
        pidfd.open_pid(child.pid)


def test_process_is_opened_close_on_exec() -> None:
    own = pidfd.open_pid(os.getpid())
    assert not os.get_inheritable(own)
    os.close(own)
