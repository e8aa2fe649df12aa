"""Managers that replace a generation by the next: what a deploy looks like from outside.

Both keep a status file of `generation:pid` lines, replaced by rename, so the end of a deploy is
seen in the same way for both: the file names the new generation and no other.
"""

import time
from abc import abstractmethod
from pathlib import Path

from bench.managers.base import Manager, Order
from bench.session import BenchError

_POLL_SECONDS = 0.0001


class Deploying(Manager):
    """A manager that owns sockets and can deploy."""

    def __init__(self, directory: Path, order: Order) -> None:
        self.status_path = directory / "status"
        super().__init__(directory, order)

    @abstractmethod
    def request_deploy(self) -> None:
        """Ask for a deploy, and do not wait for it longer than the manager makes us."""

    def nudge(self) -> None:
        """Make it look at what it was asked. Raises BenchError: none should need that."""
        raise BenchError(f"{self.label} did nothing upon a request to deploy")

    def generations(self) -> list[int]:
        """Which generations have workers, old ones that are on their way out included."""
        return sorted({generation for generation, _ in self._workers()})

    def old_pids(self) -> set[int]:
        """The workers of all generations but the newest."""
        workers = self._workers()
        return {pid for generation, pid in workers if generation < max(workers)[0]}

    def _workers(self) -> list[tuple[int, int]]:
        """Generation and pid of each."""
        try:
            text = self.status_path.read_text()
        except FileNotFoundError:  # not yet written
            return []
        lines = (line.partition(":") for line in text.splitlines())
        return [(int(generation), int(pid)) for generation, _, pid in lines]

    def wait_generation(self, number: int, timeout_seconds: float = 30.0) -> None:
        """Wait until this generation serves and no other is left. Raises BenchError."""
        deadline = time.monotonic() + timeout_seconds
        while self.generations() != [number]:
            if time.monotonic() > deadline:
                self.check_alive()
                raise BenchError(f"{self.label}: {self.generations()} instead of [{number}]")
            time.sleep(_POLL_SECONDS)
