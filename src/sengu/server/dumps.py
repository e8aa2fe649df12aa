"""Asks all Python processes of the instance where they are, and collects what they write down.

Each writes to its stderr, and so to the log, by itself; the server adds itself, and what there is
of those who do not answer. Imported by `server.instance`.
"""

import os
import signal
from collections.abc import Callable

from sengu.control.api import Dump, ProcessDump
from sengu.dump import pages
from sengu.dump.report import describe_memory, describe_process
from sengu.model.observed import Observed
from sengu.posix.loop import Loop
from sengu.posix.procfs import memory_file_of
from sengu.server.children import Children
from sengu.server.stage import Stage

_PATIENCE_SECONDS = 2.0
_LOOK_SECONDS = 0.02

Tell = Callable[[Dump], None]


class Dumps:
    """One collection at a time: who asks meanwhile is told the same."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        stage: Stage,
        main_pid: int,
        observed: Callable[[], Observed],
    ) -> None:
        self._loop = loop
        self._children = children
        self._stage = stage
        self._main_pid = main_pid
        self._observed = observed
        self._asking: list[Tell] = []
        self._awaited: set[int] = set()
        self._written: dict[int, str] = {}
        self._next_page = 0
        self._until = 0.0
        if stage.scoreboard is not None:
            pages.open_pages(stage.scoreboard.fd)

    def ask(self, tell: Tell) -> None:
        """Have all of them write; `tell` is called when they have, or have not in time."""
        self._asking.append(tell)
        if len(self._asking) > 1:
            return
        if self._stage.scoreboard is not None:
            self._next_page = pages.clear(self._stage.scoreboard.fd)
            for pid, key in self._children.living().items():
                if _is_python(key):
                    self._awaited.add(pid)
                    self._children.tell(key, signal.SIGCONT)
        self._until = self._loop.now() + _PATIENCE_SECONDS
        self._look()

    def _look(self) -> None:
        self._collect()
        missing = self._awaited & self._children.living().keys() - self._written.keys()
        if missing and self._loop.now() < self._until:
            self._loop.call_at(self._loop.now() + _LOOK_SECONDS, self._look)
            return
        self._conclude()

    def _collect(self) -> None:
        scoreboard = self._stage.scoreboard
        if scoreboard is not None:
            written, self._next_page = pages.read(scoreboard.fd, self._next_page)
            self._written.update(written)

    def _conclude(self) -> None:
        found = [self._supervisor(), self._server()]
        for pid, key in self._children.living().items():
            text = self._written.get(pid)
            if text is None:
                text = self._without(pid, key)
                self._log(text)
            found.append(ProcessDump(self._name(key), pid, text))
        asking, self._asking = self._asking, []
        self._awaited.clear()
        self._written.clear()
        if self._stage.scoreboard is not None:
            pages.clear(self._stage.scoreboard.fd)
        for tell in asking:
            tell(Dump(tuple(found)))

    def _supervisor(self) -> ProcessDump:
        """It does nothing but wait for its children and for us: what is of interest is who."""
        living = self._children.living()
        names = ", ".join(f"{self._name(key)} ({pid})" for pid, key in living.items())
        text = (
            f"sengu: main process, pid {self._main_pid}: {describe_memory(self._main_pid)}\n"
            f"  its children: server ({os.getpid()}){', ' if names else ''}{names}\n"
        )
        self._log(text)
        return ProcessDump("main", self._main_pid, text)

    def _server(self) -> ProcessDump:
        text = describe_process("server", None)
        self._log(text)
        return ProcessDump("server", os.getpid(), text)

    def _without(self, pid: int, key: str) -> str:
        """What there is to say of one that has not."""
        head = f"sengu: {self._name(key)}, pid {pid}: {describe_memory(pid)}\n"
        if pid not in self._awaited:
            return head
        head += f"  it has not answered within {_PATIENCE_SECONDS:g} s"
        stacks = memory_file_of(pid, pages.STACKS)
        if not stacks:
            return f"{head}\n"
        lines = "".join(f"  {line}\n" for line in stacks.decode(errors="replace").splitlines())
        return f"{head}; what it was at, the innermost call first:\n{lines}"

    def _log(self, text: str) -> None:
        self._stage.sink.write(text.encode(errors="replace"))

    def _name(self, key: str) -> str:
        kind, _, rest = key.partition("/")
        number = rest.partition("/")[0]
        worker = self._observed().workers.get(int(number)) if number.isdecimal() else None
        if kind == "worker" and worker is not None:
            return f"worker {worker.slot} gen {worker.generation}"
        return f"fork server gen {number}" if kind == "forkserver" else key


def _is_python(key: str) -> bool:
    """Whether it hears CONT as we mean it: of an application's instance, not a step or a log
    command."""
    kind, _, rest = key.partition("/")
    return kind == "forkserver" or (kind == "worker" and rest.isdecimal())
