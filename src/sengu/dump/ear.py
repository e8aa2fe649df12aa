"""Hears CONT, and writes down where the process is: to its stderr, and to the server, if it waits.

faulthandler notes the stacks first, in C, whatever the interpreter is at. When that comes to it, it
notes all the rest, and these stacks count no more. Imported by fork servers and by workers.
"""

import faulthandler
import os
import signal
from collections.abc import Callable, Iterable
from types import FrameType

from sengu.dump import pages
from sengu.dump.report import describe_process

_STDERR = 2


class Ear:
    """Hears for one process, of which `who` tells. `pages_fd` is where the server looks for it.

    `then` is called afterwards: a worker may have a program that it is to be passed on to.
    """

    def __init__(
        self, who: str, pages_fd: int | None, then: Iterable[Callable[[], None]] = ()
    ) -> None:
        self._who = who
        self._pages_fd = pages_fd
        self._then = then
        self._stacks_fd = os.memfd_create(pages.STACKS, os.MFD_CLOEXEC)

    def listen(self) -> None:
        """From now on. Only the main thread may call it."""
        signal.signal(signal.SIGCONT, lambda _number, frame: self._answer(frame))
        faulthandler.register(signal.SIGCONT, self._stacks_fd, all_threads=True, chain=True)

    def succeed(self, who: str, then: Iterable[Callable[[], None]]) -> "Ear":
        """In a child, where CONT is blocked: the ear that it is to have in place of this one."""
        faulthandler.unregister(signal.SIGCONT)
        os.close(self._stacks_fd)
        return Ear(who, self._pages_fd, then)

    def _answer(self, frame: FrameType | None) -> None:
        os.ftruncate(self._stacks_fd, 0)
        os.lseek(self._stacks_fd, 0, os.SEEK_SET)
        text = describe_process(self._who, frame).encode(errors="replace")
        if self._pages_fd is not None:
            pages.write(self._pages_fd, text)
        _say(text)
        for call in self._then:
            call()


def _say(text: bytes) -> None:
    """To stderr, past its buffers, which the interrupted code may be in the midst of."""
    for piece in pages.pieces(text):
        try:
            os.write(_STDERR, piece)
        except OSError:  # nobody reads any more
            return
