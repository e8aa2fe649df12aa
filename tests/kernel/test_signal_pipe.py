"""Signals that arrive as bytes on a pipe."""

import os
import select
import signal

from sengu.posix.signals import SignalPipe
from tests.kernel.children import in_child


def raise_signals(*numbers: signal.Signals) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def test_signals_are_read_once_each_in_their_order() -> None:
    def body() -> None:
        pipe = SignalPipe([signal.SIGUSR1, signal.SIGHUP, signal.SIGTERM])
        assert pipe.read() == []
        raise_signals(signal.SIGHUP, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
        assert select.select([pipe.fd], [], [], 5)[0]
        assert pipe.read() == [signal.SIGHUP, signal.SIGTERM, signal.SIGUSR1]
        assert pipe.read() == []

    in_child(body)


def test_a_flood_of_signals_neither_blocks_nor_hides_that_there_were_some() -> None:
    def body() -> None:
        pipe = SignalPipe([signal.SIGHUP])
        for _ in range(70_000):  # more than the pipe can hold
            signal.raise_signal(signal.SIGHUP)
        assert pipe.read() == [signal.SIGHUP]

    in_child(body)


def test_signals_that_were_blocked_by_our_parent_are_heard() -> None:
    def body() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        raise_signals(signal.SIGTERM)
        pipe = SignalPipe([signal.SIGTERM])
        assert select.select([pipe.fd], [], [], 5)[0]
        assert pipe.read() == [signal.SIGTERM]

    in_child(body)


def test_the_pipe_does_not_survive_exec() -> None:
    def body() -> None:
        assert not os.get_inheritable(SignalPipe([signal.SIGHUP]).fd)

    in_child(body)
