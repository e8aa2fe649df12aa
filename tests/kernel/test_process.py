"""Processes that can not be mistaken for others, and how they ended, in words."""

import os
import signal

import pytest

from sengu.posix.process import Process, describe_status, signal_name
from tests.kernel.children import Child, in_child
from tests.support import needs_root

pytestmark = pytest.mark.usefixtures("nothing_left")


def process_of(child: Child) -> Process:
    return Process(child.pid, os.dup(child.pidfd))


def test_a_process_is_signalled() -> None:
    with Child(lambda child: child.wait_for_go()) as child:
        process = process_of(child)
        process.signal(signal.SIGTERM)
        ending = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
        assert ending is not None
        assert ending.si_status == signal.SIGTERM
        process.close()


def test_signalling_a_process_that_has_ended_is_no_error() -> None:
    with Child(lambda _: None) as child:
        process = process_of(child)
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
        process.signal(signal.SIGTERM)
    process.signal(signal.SIGTERM)  # it is reaped, and its number free
    process.close()


def test_signalling_a_process_that_has_become_another_users_is_no_error() -> None:
    needs_root()

    def body() -> None:
        process = Process(os.getppid(), os.pidfd_open(os.getppid()))
        os.setresuid(65534, 65534, 65534)
        with pytest.raises(PermissionError):
            os.kill(process.pid, 0)
        process.signal(0)

    in_child(body)


def test_a_process_that_is_closed_is_let_alone() -> None:
    with Child(lambda child: child.wait_for_go()) as child:
        process = process_of(child)
        process.close()
        process.close()
        assert not process.is_open
        process.signal(signal.SIGKILL)
        child.go()
        ending = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
        assert ending is not None
        assert (ending.si_code, ending.si_status) == (os.CLD_EXITED, 0)


def test_statuses_and_signals_in_words() -> None:
    assert describe_status(0) == "exit status 0"
    assert describe_status(9 << 8) == "exit status 9"
    assert describe_status(signal.SIGKILL) == "signal KILL"
    assert describe_status(signal.SIGSEGV | 0x80) == "signal SEGV, core dumped"
    assert signal_name(signal.SIGTERM) == "TERM"
    assert signal_name(signal.SIGRTMIN + 1) == "35"
