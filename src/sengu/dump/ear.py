"""Hears CONT, and writes down where the process is: to its stderr, and to the server, if it waits.

faulthandler notes the stacks first, in C, whatever the interpreter is at. When that comes to it, it
notes all the rest, and these stacks count no more. Imported by fork servers and by workers.
"""

import faulthandler
import os
import signal
import threading
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
        self._lock = threading.Lock()

    def listen(self) -> None:
        """From now on. Only the main thread may call it."""
        signal.signal(signal.SIGCONT, lambda _number, frame: self.answer(frame))
        faulthandler.register(signal.SIGCONT, self._stacks_fd, all_threads=True, chain=True)

    def succeed(self, who: str, then: Iterable[Callable[[], None]]) -> "Ear":
        """In a child, where CONT is blocked: the ear that it is to have in place of this one."""
        faulthandler.unregister(signal.SIGCONT)
        os.close(self._stacks_fd)
        return Ear(who, self._pages_fd, then)

    def answer(self, frame: FrameType | None = None) -> None:
        """Write it down, unless somebody has: a thread beside the main one may come to it first.

        The kernel may give CONT to any thread, and does not wake the main one then.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            if os.fstat(self._stacks_fd).st_size > 0:
                self._write(frame)
        finally:
            self._lock.release()

    def _write(self, frame: FrameType | None) -> None:
        try:
            text = describe_process(self._who, frame).encode(errors="replace")
        except Exception as error:  # it would be raised in the midst of the application's code
            text = f"sengu: cannot tell where {self._who} is: {error!r}\n".encode(errors="replace")
        if self._pages_fd is not None:
            pages.write(self._pages_fd, text)
        os.ftruncate(self._stacks_fd, 0)
        os.lseek(self._stacks_fd, 0, os.SEEK_SET)
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
