"""What all managers have in common: they start workers of any program."""

from pathlib import Path
from typing import ClassVar, NamedTuple

from bench import processes
from bench.program import Program


class Order(NamedTuple):
    """What a manager is to run. `options` are its own, for its command line; `prefix` is what runs
    the manager itself, for example as another user (`bench.nobody`).
    """

    command: tuple[str, ...]
    workers: int = 1
    port: int | None = None
    options: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()


class Manager(Program):
    """A running manager."""

    max_workers: ClassVar[int | None] = None  # None: as many as wanted

    def __init__(self, directory: Path, order: Order) -> None:
        self.order = order
        super().__init__(directory)

    @property
    def prefix(self) -> tuple[str, ...]:
        return self.order.prefix

    def managing(self) -> list[int]:
        """The manager's own processes: all of its tree but the workers."""
        return processes.managing(self.pid, self.order.command[0])
