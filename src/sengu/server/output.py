"""Output: our own lines and the workers', written so that nobody is ever made to wait.

A worker writes into a pipe; complete lines go on to our stderr. A reader that can not keep up, or
a full disk, costs lines, and their number is told, but never blocks a worker or the loop. A sink
that `waits` has the pipes left unread instead, so that workers wait when theirs is full.
"""

import os
import select
import stat
from collections.abc import Callable

from sengu.posix import descriptors
from sengu.posix.loop import Loop
from sengu.posix.store import Store

_STDERR = 2
_NEWLINE = 10
_QUEUE_BYTES = 1 << 20
_PIECE_BYTES = 4096  # PIPE_BUF: a pipe that polls writable takes that much at once (pipe(7))
_READ_BYTES = 1 << 16
_TAIL_BYTES = 8192
_FINISH_SECONDS = 1.0
_TAIL_LINES = 40
_LAST_READS = 16  # a pipe holds a million bytes at most (pipe-max-size in proc(5))


class Sink:
    """Writes to our stderr, in order, without waiting."""

    def __init__(self, loop: Loop, *, waits: bool = False) -> None:
        self._loop = loop
        self._waits = waits
        self._held: list[Callable[[], None]] = []
        self._queue = bytearray()
        self._lost_lines = 0
        self._is_mid_line = False  # the last byte written was not the end of a line
        self._fd = _STDERR
        self._look()

    def write(self, data: bytes) -> None:
        """Write whole lines."""
        if len(self._queue) + len(data) > _QUEUE_BYTES and not self._waits:
            self._lost_lines += data.count(b"\n")
            return
        if self._is_mid_line and not self._queue:  # the rest of that line is lost
            self._queue += b"\n"
        self._queue += data
        self.flush()

    def holds(self, resume: Callable[[], None]) -> bool:
        """Whether nothing more is to be read now; `resume` is called when it is again."""
        if not self._waits or not self._queue:
            return False
        self._held.append(resume)
        return True

    def reopen(self, path: str) -> None:
        """Let stdout and stderr be the file `path` from now on. Raises OSError."""
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self.redirect(fd)
        os.close(fd)

    def redirect(self, fd: int) -> None:
        """Let stdout and stderr be `fd` from now on."""
        self._loop.unwatch(self._fd)
        if self._fd != _STDERR:
            os.close(self._fd)
            self._fd = _STDERR
        os.dup2(fd, 1)
        os.dup2(fd, _STDERR)
        self._look()
        self.flush()

    def flush(self) -> None:
        """Write what can be written now; the rest when there is room."""
        while self._queue and self._is_writable():
            try:
                written = os.write(self._fd, self._piece())
            except BlockingIOError:
                break
            except OSError:  # disk full, reader or terminal gone: nothing will come of waiting
                self._lose_queue()
                return
            self._is_mid_line = self._queue[written - 1] != _NEWLINE
            del self._queue[:written]
        if self._queue:
            self._loop.watch(self._fd, select.EPOLLOUT, self.flush)
            return
        self._loop.unwatch(self._fd)
        self._release()
        if self._lost_lines:
            lost, self._lost_lines = self._lost_lines, 0
            self.write(b"sengu: %d lines of output were lost: it could not be written\n" % lost)

    def finish(self) -> None:
        """At the end of the process: give what is left a last, bounded chance."""
        end = self._loop.now() + _FINISH_SECONDS
        while self._queue and (left := end - self._loop.now()) > 0:
            if not self._never_blocks and not self._poll.poll(left * 1000):
                return
            self.flush()

    def _piece(self) -> bytes:
        """What to write next: whole lines if it can be, as we may be killed after any piece."""
        piece = bytes(self._queue[: self._piece_bytes])
        return piece[: piece.rfind(b"\n") + 1] or piece

    def _lose_queue(self) -> None:
        self._lost_lines += self._queue.count(b"\n")
        self._queue.clear()
        self._loop.unwatch(self._fd)
        self._release()

    def _release(self) -> None:
        held, self._held = self._held, []
        for resume in held:
            resume()

    def _look(self) -> None:
        """Find out what stderr is now: a file never blocks, anything else may."""
        self._never_blocks = stat.S_ISREG(os.fstat(_STDERR).st_mode)
        self._piece_bytes = _QUEUE_BYTES if self._never_blocks else _PIECE_BYTES
        if os.isatty(_STDERR):
            self._fd = _open_terminal()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)

    def _is_writable(self) -> bool:
        return self._never_blocks or bool(self._poll.poll(0))


def _open_terminal() -> int:
    """The terminal on stderr, opened once more so that it can be non-blocking for us alone.

    One that is stopped (^S), or that nobody draws, polls writable while it has room for one byte.
    """
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{_STDERR}", flags)
    except OSError:  # another user's, as after su: then it may make us wait
        return _STDERR


class Relay:
    """The read end of a worker's stdout or stderr. Forwards whole lines, remembers the last.

    It is held as `name` until all who had the other end are gone. `write_end` is -1 when it is not
    ours any more.
    """

    def __init__(self, loop: Loop, sink: Sink, store: Store, name: str) -> None:
        """Raises OSError."""
        self._loop = loop
        self._sink = sink
        self._store = store
        self._name = name
        self._rest = b""
        self._tail = b""
        self.write_end = -1
        held = store.take(name)
        if held is not None:
            self._fd = held.fd
            return
        self._fd, self.write_end = descriptors.pipe()
        store.hold(name, self._fd)

    def open_again(self) -> None:
        """Make a write end, if the one there was is lost. Raises OSError."""
        if self.write_end < 0:
            self.write_end = descriptors.write_end_of(self._fd)

    def start(self) -> None:
        """The worker has its end now: give up ours, so that its death is an EOF."""
        if self._fd >= 0:
            self._loop.watch(self._fd, select.EPOLLIN, self._on_readable)
        self._close_write_end()

    def abandon(self) -> None:
        """There will be no worker."""
        self._close_write_end()
        self._close()

    def _close_write_end(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def _close(self) -> None:
        if self._fd >= 0:
            self._store.drop(self._name)
            self._loop.unwatch(self._fd)
            os.close(self._fd)
            self._fd = -1

    def last_words(self) -> str:
        """The end of what was written, everything that is in the pipe by now included."""
        for _ in range(_LAST_READS):  # a child of the worker may go on writing for ever
            if self._fd < 0 or not self._read():
                break
        lines = self._tail.decode(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    def _on_readable(self) -> None:
        if self._sink.holds(self._resume):
            self._loop.unwatch(self._fd)
        else:
            self._read()

    def _resume(self) -> None:
        if self._fd >= 0:
            self._loop.watch(self._fd, select.EPOLLIN, self._on_readable)

    def _read(self) -> bool:
        """Take one piece; whether there may be more."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        if not data:  # EOF: all who had it are gone
            self._forward(self._rest + b"\n" if self._rest else b"")
            self._rest = b""
            self._close()
            return False
        whole, newline, self._rest = (self._rest + data).rpartition(b"\n")
        self._forward(whole + newline)
        if len(self._rest) > _READ_BYTES:  # a line without end: do not hoard it
            self._forward(self._rest + b"\n")
            self._rest = b""
        return True

    def _forward(self, lines: bytes) -> None:
        if lines:
            self._sink.write(lines)
