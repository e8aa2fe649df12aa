"""Forks workers: twice, so that they are the supervisor's children, and many at a time.

A process in between forks the whole batch, tells the supervisor of each, and ends; then the
workers' parent is the nearest subreaper, which is the supervisor. Nobody here waits for a worker.
"""

import os
import signal
import socket
import traceback
from collections.abc import Sequence

import msgspec

from sengu.forkserver.life import Heritage, Order, flush_output, live
from sengu.forkserver.load import Everything
from sengu.model.application import Application
from sengu.posix import packets
from sengu.wire import forkserver as wire
from sengu.wire.supervisor import encode_birth
from sengu.worker.runtime import HEARD_SIGNALS

_MAX_PROBLEM_BYTES = 1_000  # with all that JSON may make of it, far below a packet's size


class Ward:
    """Where workers are born. The supervisor is told of each by `births`, the server by `sock` of
    those that could not be."""

    def __init__(self, heritage: Heritage, sock: socket.socket, births: socket.socket) -> None:
        self._heritage = heritage
        self._socket = sock
        self._births = births
        self._last = 0

    def deliver(self, orders: Sequence[Order], everything: Everything | None) -> None:
        """Fork all these workers. None of them ever returns from here."""
        wanted: list[Order] = []
        for order in orders:
            if self._is_new(order) and self._may_be_born(order, everything):
                wanted.append(order)
            else:  # now, so that none of the others is born with its descriptors
                _close(order)
        flush_output()
        try:
            between = os.fork()
        except OSError as error:
            self._report_failure(wanted, error)
        else:
            if between == 0:
                self._fork_all(wanted, everything)
            os.waitpid(between, 0)
        finally:
            for order in wanted:
                _close(order)

    def amend(self, application: Application) -> None:
        """Workers are born for this one from now on."""
        load = msgspec.structs.replace(self._heritage.load, application=application)
        self._heritage = self._heritage._replace(load=load)

    def _is_new(self, order: Order) -> bool:
        is_new = order.fork.worker > self._last
        self._last = max(self._last, order.fork.worker)
        return is_new

    def _may_be_born(self, order: Order, everything: Everything | None) -> bool:
        """Whether the hook has nothing against it. What it raises are the worker's last words."""
        if everything is None:
            return True
        try:
            everything.hooks.before_fork(self._heritage.identity(order))
        except BaseException as error:  # the user's, SystemExit too: the others are no worse for it
            stderr = order.descriptors[order.fork.targets.index(2)]
            os.write(stderr, traceback.format_exc().encode())
            self._report(order, f"the hook before_fork failed: {type(error).__name__}: {error}")
            return False
        return True

    def _fork_all(self, orders: Sequence[Order], everything: Everything | None) -> None:
        """In the process in between: never returns."""
        # What a worker is told before it can hear waits for `Runtime.handle_signals`.
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD_SIGNALS)
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
            self._births.close()
            status = live(self._heritage, orders[position], everything)
        finally:
            # Not by SystemExit: this stack belongs to the fork server.
            os._exit(status)

    def _report_birth(self, order: Order, pid: int) -> None:
        try:
            packets.send(self._births, encode_birth(order.fork.key, pid))
        except OSError as error:  # nobody listens: one that nobody watches is worse than none
            os.kill(pid, signal.SIGKILL)
            self._report_failure((order,), error)

    def _report_failure(self, orders: Sequence[Order], error: OSError) -> None:
        for order in orders:
            self._report(order, f"cannot fork: {error.strerror}")

    def _report(self, order: Order, problem: str) -> None:
        problem = problem.encode()[:_MAX_PROBLEM_BYTES].decode(errors="ignore")
        packets.send(self._socket, wire.encode(wire.ForkFailed(order.fork.worker, problem)))


def _close(order: Order) -> None:
    for fd in order.descriptors:
        os.close(fd)
