"""`--log-file '| command'`, and the log writer: our output is a program's stdin.

Both ends of the pipe are held, so when the command dies what was written waits for the next one.
"""

import os
from collections.abc import Callable

from sengu.posix.loop import Loop
from sengu.posix.process import Process
from sengu.posix.store import Store
from sengu.server.children import Children, Exec

_KEY = "log"
_RESTART_SECONDS = 1.0


class LogCommand:
    """Keeps the command running. `fd` is where to write, `is_new` whether it was made just now."""

    def __init__(
        self,
        loop: Loop,
        children: Children,
        store: Store,
        argv: tuple[str, ...],
        warn: Callable[[str], None],
    ) -> None:
        """Raises OSError."""
        self._loop = loop
        self._children = children
        self._argv = argv
        self._warn = warn
        self._process: Process | None = None
        names = ("log/read", "log/write", "log/stdout", "log/stderr")
        held = [store.take(name) for name in names]
        self.is_new = None in held
        if self.is_new:
            # Its own output goes where ours went before it became the command's input.
            found = [*os.pipe2(os.O_CLOEXEC), os.dup(1), os.dup(2)]
            for name, fd in zip(names, found, strict=True):
                store.hold(name, fd)
        else:
            found = [entry.fd for entry in held if entry is not None]
        self._read_end, self.fd, self._stdout, self._stderr = found
        if children.has(_KEY):
            children.adopt(_KEY, self)
        else:
            self._start()

    def signal(self, number: int) -> None:
        """Only for who runs; another starts afresh anyway."""
        if self._process is not None:
            self._process.signal(number)

    def born(self, process: Process) -> None:
        self._process = process

    def not_born(self, problem: str) -> None:
        self._warn(f"cannot start the log command: {problem}")
        self._start_later()

    def ended(self, how: str) -> None:
        self._warn(f"the log command exited with {how}; it is started again")
        # What it has left behind would go on reading beside the next one.
        if self._process is not None:
            self._children.kill_group(self._process)
            self._process = None
        self._children.reap(_KEY)

    def gone(self) -> None:
        self._start_later()

    def _start(self) -> None:
        order = Exec(
            self._argv,
            os.environ,
            {0: self._read_end, 1: self._stdout, 2: self._stderr},
            death_signal=0,  # it shall live on to read what we wrote last
            has_old_limit=True,
        )
        try:
            self._children.spawn(_KEY, order, self)
        except OSError as error:
            self.not_born(error.strerror or str(error))

    def _start_later(self) -> None:
        self._loop.call_at(self._loop.now() + _RESTART_SECONDS, self._start)
