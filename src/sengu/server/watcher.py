"""`--reload`: a process of its own watches files and asks for deploys over the control socket.

It needs libraries that the server is to be spared. Imported by `server.instance`.
"""

import os
import sys
from collections.abc import Callable, Sequence

from sengu.posix.process import Process
from sengu.server.children import Children, Exec

_KEY = "watcher"
_PROGRAM = ("-P", "-m", "sengu.cli.watch")


class Watcher:
    """Runs the watching process; what ends it is told, and it is not started again."""

    def __init__(self, children: Children, warn: Callable[[str], None]) -> None:
        self._children = children
        self._warn = warn

    def start(self, control: str, directories: Sequence[str]) -> None:
        """Watch `directories`, which are absolute."""
        if self._children.has(_KEY):
            self._children.adopt(_KEY, self)
            return
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        order = Exec(
            argv=(sys.executable, *_PROGRAM, control, *directories),
            environment=os.environ,
            descriptors={0: null, 1: 1, 2: 2},
        )
        try:
            self._children.spawn(_KEY, order, self)
        except OSError as error:
            self.not_born(error.strerror or str(error))
        finally:
            os.close(null)

    def born(self, _process: Process) -> None:
        """It watches."""

    def not_born(self, problem: str) -> None:
        self._warn(f"cannot watch files: {problem}; reload by hand: sengu reload")

    def ended(self, how: str) -> None:
        self._warn(f"nobody watches files any more: the watcher ended with {how}")
        self._children.reap(_KEY)

    def gone(self) -> None:
        """Nothing of it is left."""
