"""Forks workers: twice, so that they are the server's children, and many at a time.

A process in between forks the whole batch, tells the server of each, and ends; then the workers'
parent is the nearest subreaper, which is the server. Nobody here waits for a worker.
"""

import os
import signal
import socket
from collections.abc import Sequence
from typing import NamedTuple

from sengu.forkserver.life import live
from sengu.forkserver.load import Everything
from sengu.posix import packets
from sengu.wire import forkserver as wire
from sengu.worker.engine import Prepared
from sengu.worker.identity import Identity


class Order(NamedTuple):
    """A worker that is wanted, and what its descriptors `fork.targets` are to be."""

    fork: wire.Fork
    descriptors: Sequence[int]


class Ward:
    """Where workers are born. `memory` is the scoreboard."""

    def __init__(
        self, load: wire.Load, prepared: Prepared, memory: memoryview, sock: socket.socket
    ) -> None:
        self.load = load
        self.prepared = prepared
        self.memory = memory
        self._socket = sock

    def deliver(self, orders: Sequence[Order], everything: Everything | None) -> None:
        """Fork all these workers. In each of them, this does not return but raises SystemExit."""
        if everything is not None:
            for order in orders:
                everything.hooks.before_fork(self.identity(order))
        try:
            between = os.fork()
        except OSError as error:
            self._report_failure(orders, error)
        else:
            if between == 0:
                self._fork_all(orders, everything)
            os.waitpid(between, 0)
        finally:
            for order in orders:
                _close(order)

    def identity(self, order: Order) -> Identity:
        return Identity(self.load.service, self.load.generation, order.fork.slot)

    def _fork_all(self, orders: Sequence[Order], everything: Everything | None) -> None:
        """In the process in between: never returns, but in a worker raises SystemExit."""
        status = 1
        try:
            for position, order in enumerate(orders):
                try:
                    pid = os.fork()
                except OSError as error:
                    self._report_failure(orders[position:], error)
                    break
                if pid == 0:
                    self._become_worker(position, orders, everything)
                self._report_birth(order, pid)
            status = 0
        finally:
            os._exit(status)

    def _become_worker(
        self, position: int, orders: Sequence[Order], everything: Everything | None
    ) -> None:
        status = 1
        try:
            for number, other in enumerate(orders):
                if number != position:
                    _close(other)
            self._socket.close()
            status = live(self, orders[position], everything)
        finally:
            # Not by SystemExit: this stack belongs to the fork server.
            os._exit(status)

    def _report_birth(self, order: Order, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except (
            OSError
        ) as error:  # no descriptor is left: one that nobody watches is worse than none
            os.kill(pid, signal.SIGKILL)
            self._report_failure((order,), error)
            return
        packets.send(self._socket, wire.encode(wire.Forked(order.fork.worker, pid)), (pidfd,))
        os.close(pidfd)

    def _report_failure(self, orders: Sequence[Order], error: OSError) -> None:
        problem = f"cannot fork: {error.strerror}"
        for order in orders:
            packets.send(self._socket, wire.encode(wire.ForkFailed(order.fork.worker, problem)))


def _close(order: Order) -> None:
    for fd in order.descriptors:
        os.close(fd)
