"""A worker's life, from its birth to its last word. Imported by `forkserver.births`.

What the worker's contract promises (docs/worker-contract.md) is made true here for a forked worker,
as `posix.process` does for an executed one.
"""

import atexit
import faulthandler
import os
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from sengu.dump.ear import Ear
from sengu.forkserver.load import Everything, load
from sengu.posix.descriptors import FIRST_PASSED_FD
from sengu.posix.swap_file import SwapFile
from sengu.wire import forkserver as wire
from sengu.worker.board import Board
from sengu.worker.engine import LoadError, Prepared
from sengu.worker.identity import Identity
from sengu.worker.runtime import Runtime
from sengu.worker.ticker import Ticker

_FAILED = 1


class Order(NamedTuple):
    """A worker that is wanted, and what it was sent with, as `fork` says."""

    fork: wire.Fork
    descriptors: Sequence[int]

    @property
    def cgroup_fd(self) -> int | None:
        return self.descriptors[-1] if self.fork.enters_cgroup else None


class Heritage(NamedTuple):
    """What all workers of a generation are born with; `memory` is the scoreboard, `ear` the fork
    server's own, `configuration` where workers find that, if they have one, and `obituaries` where
    they find those, if they read any.
    """

    load: wire.Load
    prepared: Prepared
    memory: memoryview
    ear: Ear
    configuration: SwapFile | None = None
    obituaries: SwapFile | None = None

    def identity(self, order: Order, pid: int = 0) -> Identity:
        return Identity(self.load.service, self.load.generation, order.fork.slot, pid)


def live(heritage: Heritage, order: Order, everything: Everything | None) -> int:
    """Live the whole life, and return the exit status."""
    os.setsid()
    _take_descriptors(order)
    identity = _take_identity(heritage, order)
    # On ABRT all stacks go to stderr, even when no Python code runs any more.
    faulthandler.enable(all_threads=True)
    try:
        _run(heritage, order, identity, everything)
        status = 0
    except LoadError as error:
        print(f"{error.details}sengu: error: {error}", file=sys.stderr)
        status = _FAILED
    except SystemExit as ending:  # what an application does to its process is its own affair
        status = _status_of(ending)
    except BaseException:  # the last frame: nobody else would tell
        traceback.print_exc()
        status = _FAILED
    # The rest of what an interpreter does at its end would tear down what the fork server shares.
    atexit._run_exitfuncs()
    flush_output()
    return status


def flush_output() -> None:
    """Write what was printed so far: before a fork, or the child would say it again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # nobody reads any more
            continue


def _status_of(ending: SystemExit) -> int:
    """As the interpreter has it (sys.exit): a number, nothing, or something to be shown."""
    if ending.code is None or isinstance(ending.code, int):
        return ending.code or 0
    print(ending.code, file=sys.stderr)
    return _FAILED


def _run(
    heritage: Heritage, order: Order, identity: Identity, everything: Everything | None
) -> None:
    application = heritage.load.application
    board = Board(heritage.memory, order.fork.line, application.lanes)
    runtime = Runtime(identity, application, _listeners(), board)
    runtime.configuration = heritage.configuration
    runtime.obituaries = heritage.obituaries
    who = f"{identity.service} worker {identity.slot} gen {identity.generation}"
    ear = heritage.ear.succeed(who, runtime.on_dump)
    ear.listen()
    runtime.dump = ear.answer
    runtime.handle_signals()
    loaded, hooks = everything or load(application, heritage.prepared)
    Ticker(runtime, hooks, int(os.environ["SENGU_LIFELINE_FD"]), order.cgroup_fd).start()
    hooks.after_fork(identity)
    runtime.on_ready.append(lambda: hooks.worker_ready(identity))
    loaded.run(runtime)
    hooks.worker_exit(identity)


def _take_descriptors(order: Order) -> None:
    targets = order.fork.targets
    for target, source in zip(targets, order.descriptors[: len(targets)], strict=True):
        os.dup2(source, target, inheritable=target < FIRST_PASSED_FD)
        os.close(source)
    for stream in (sys.stdout, sys.stderr):
        # Whole lines, at once: what a worker says is seen when it says it, and apart from what
        # others say (PYTHONUNBUFFERED would have text and line end written separately).
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, write_through=False)


def _take_identity(heritage: Heritage, order: Order) -> Identity:
    pid = os.getpid()
    os.environ["SENGU_SLOT"] = str(order.fork.slot)
    os.environ["NOTIFY_SOCKET"] = order.fork.notify_socket
    if "LISTEN_FDS" in os.environ:
        os.environ["LISTEN_PID"] = str(pid)
    return heritage.identity(order, pid)


def _listeners() -> list[socket.socket]:
    """The listeners, by the numbers that they were passed at (sd_listen_fds(3)).

    They do not block: of all workers that are woken for a connection, one gets it.
    """
    count = int(os.environ.get("LISTEN_FDS", "0"))
    listeners = [socket.socket(fileno=FIRST_PASSED_FD + number) for number in range(count)]
    for listener in listeners:
        listener.setblocking(False)
    return listeners
