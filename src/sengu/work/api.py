"""What users subclass: `Worker`, and `Server` for what all workers share.

Imported by users' code, as `sengu.Worker` and `sengu.Server`, and by the engine, which sets the
attributes before it calls anything.
"""

import asyncio
import logging
import os
import select
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sengu.posix.swap_file import SwapFile
from sengu.work.sockets import SocketManager

_FOREVER = -1.0


class StopEvent:
    """Set once, when the worker is asked to stop. Waiting for it ends at once then.

    Safe to be set from a signal handler and to be waited for by any number of threads: it is an
    eventfd(2) that stays readable.
    """

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._is_set = False

    def fileno(self) -> int:
        """Readable once it is set: for select, poll, and event loops."""
        return self._fd

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        if not self._is_set:
            self._is_set = True
            os.eventfd_write(self._fd, 1)

    def wait(self, seconds: float | None = None) -> bool:
        """Sleep until it is set, at most so long; whether it is set."""
        if not self._is_set:
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            poll.poll(_FOREVER if seconds is None else seconds * 1000)
        return self._is_set

    async def async_wait(self, seconds: float | None = None) -> bool:
        """The same in a coroutine: other tasks go on meanwhile."""
        if self._is_set:
            return True
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        # One descriptor has one reader in a loop; a copy lets several tasks wait.
        fd = os.dup(self._fd)
        loop.add_reader(fd, wake)
        try:
            await asyncio.wait_for(woken, seconds)
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        return self._is_set


class Server:
    """What all workers of a generation share. Attributes set here are seen as `worker.server`.

    Lives in the fork server, and by the fork in each worker. `config` is the configuration that the
    generation began with.
    """

    service: str = ""
    generation: int = 0
    config: Mapping[str, Any] = {}
    log: logging.Logger
    _open_sockets: Callable[[], SocketManager] = SocketManager

    @property
    def sockets(self) -> SocketManager:
        """As that of `Worker`: what is asked for here is there before the first worker."""
        return self._open_sockets()

    def before_run(self) -> None:
        """Before the first worker is forked: open sockets, fill caches. Start no threads."""

    def after_start(self) -> None:
        """When the first workers have been forked."""

    def after_run(self) -> None:
        """When the generation has ended, unless it was killed."""


class Worker:
    """Subclass it and write `run`. All other methods are optional.

    In a worker of kind `async`, `run` is a coroutine function, and all but `command` may be.

    `slot` is the worker's place, 0 to the number of workers - 1: it stays when the process is
    replaced. `config` is a new mapping after each `reload`.

    In a worker of kind `spawn`, `says_ready` is for a program that says READY=1 to NOTIFY_SOCKET
    itself, and `reload_signal` for one that takes one in for a changed configuration.
    """

    service: str = ""
    generation: int = 0
    slot: int = 0
    config: Mapping[str, Any] = {}
    server: Any = None
    log: logging.Logger
    stopping: StopEvent
    says_ready: bool = False
    reload_signal: int | None = None
    _open_sockets: Callable[[], SocketManager] = SocketManager
    _beat: Callable[[], None] = staticmethod(lambda: None)
    _worn: Callable[[str], None] = staticmethod(lambda _reason: None)
    _obituaries: SwapFile | None = None
    # Lines of the scoreboard beside that of its beats.
    _lanes: Sequence[Any] = ()

    @property
    def sockets(self) -> SocketManager:
        """Opens sockets at run time, one for all who ask. Raises UsageError where no sengu runs."""
        return self._open_sockets()

    def setup(self) -> Any:
        """In the worker, before it is ready. What it raises ends the worker."""

    def run(self) -> Any:
        """Work until `self.stopping` is set. A worker that returns before is started again.

        In a worker of kind `async` it is a coroutine function.
        """
        raise NotImplementedError(f"{type(self).__name__} has no run(); write one")

    def command(self) -> list[str]:
        """The program of a worker of kind `spawn`, and its arguments."""
        raise NotImplementedError(f"{type(self).__name__} has no command(); write one")

    def stop(self) -> Any:
        """The worker is asked to stop: for what `self.stopping` alone does not wake.

        Called once, in a thread beside `run`; in a worker of kind `async` by the event loop.
        """

    def reload(self) -> Any:
        """`self.config` is another one now. Called as `stop` is."""

    def teardown(self) -> Any:
        """When `run` has ended, however it did."""

    def heartbeat(self) -> None:
        """Say that work goes on. Who has said so once, and does not again for
        `--heartbeat-timeout`, is taken for stuck: its stacks are logged, and it is replaced.
        """
        self._beat()

    def worn(self, reason: str) -> None:
        """Ask to be replaced: another worker is started, then this one is asked to stop.

        Work goes on until then. Asking again changes nothing.
        """
        self._worn(reason)
