"""`--reload`: a process of its own watches files and asks for deploys over the control socket.

It needs libraries that the server is to be spared. Imported by `server.main`.
"""

import os
import select
import sys
from collections.abc import Callable, Sequence

from sengu.posix.loop import Loop
from sengu.posix.process import Children, Exec

_PROGRAM = ("-P", "-m", "sengu.cli.watch")


class Watcher:
    """Runs the watching process; what ends it is told, and it is not started again."""

    def __init__(self, loop: Loop, children: Children, warn: Callable[[str], None]) -> None:
        self._loop = loop
        self._children = children
        self._warn = warn

    def start(self, control: str, directories: Sequence[str]) -> None:
        """Watch `directories`, which are absolute."""
        order = Exec(
            argv=(sys.executable, *_PROGRAM, control, *directories),
            environment=os.environ,
            descriptors={0: os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC), 1: 1, 2: 2},
        )
        try:
            process = self._children.spawn(order)
        except OSError as error:
            self._warn(f"cannot watch files: {error.strerror}; reload by hand: sengu reload")
            return
        finally:
            os.close(order.descriptors[0])

        def on_exit() -> None:
            how = self._children.exit_of(process)
            if how is None:  # a pidfd polls readable a moment before the status can be had
                return
            self._loop.unwatch(process.pidfd)
            process.close()
            self._warn(f"nobody watches files any more: the watcher ended with {how}")

        self._loop.watch(process.pidfd, select.EPOLLIN, on_exit)
