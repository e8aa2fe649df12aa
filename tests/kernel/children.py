"""Children for the tests of this tier: forked, in a session of their own, surely ended.

A child tells what it does as lines in a pipe, so a test waits for a line and never for a time.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from sengu.posix.loop import Loop

_PATIENCE_SECONDS = 20.0

Body = Callable[["Child"], object]


class Child:
    """A process that runs `body(self)`. `tell` is its side of the pipe, `heard` is the test's."""

    def __init__(self, body: Body) -> None:
        self.lines: list[str] = []
        self._buffer = b""
        self._has_ended = False
        self._is_reaped = False
        self._read_end, self._write_end = os.pipe()
        self._go_read_end, self._go_write_end = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(body)
        os.close(self._write_end)
        os.close(self._go_read_end)
        os.set_blocking(self._read_end, False)
        self.pidfd = os.pidfd_open(self.pid)

    def _run(self, body: Body) -> None:
        status = 1
        try:
            os.setsid()
            os.close(self._read_end)
            os.close(self._go_write_end)
            body(self)
            status = 0
        except BaseException as error:
            self.tell(f"failed {error!r}")
        finally:
            os._exit(status)

    def tell(self, line: str) -> None:
        """In the child: say something."""
        os.write(self._write_end, f"{line}\n".encode())

    def wait_for_go(self) -> None:
        """In the child: wait until the test calls `go`, or is gone."""
        os.read(self._go_read_end, 1)

    def go(self) -> None:
        """In the test: let the child pass its `wait_for_go`."""
        os.write(self._go_write_end, b"g")

    def heard(self) -> list[str]:
        """In the test: all lines so far, without waiting."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self._read_end, 65536):
                self._buffer += data
            self._has_ended = True
        *lines, self._buffer = self._buffer.split(b"\n")
        self.lines += [line.decode() for line in lines]
        return self.lines

    def wait_to_hear(self, start: str) -> str:
        """In the test: wait until the child has said a line that begins so; the rest of it."""
        end = time.monotonic() + _PATIENCE_SECONDS
        poll = select.poll()
        poll.register(self._read_end, select.POLLIN)
        while True:
            for line in self.heard():
                if line.startswith(start):
                    return line.removeprefix(start)
            left = end - time.monotonic()
            assert left > 0, f"child has not said {start!r} but {self.lines}"
            assert not self._has_ended, f"child has ended without {start!r}: {self.lines}"
            poll.poll(left * 1000)

    def reap(self) -> None:
        """In the test: wait for its end, and let its number go."""
        os.waitpid(self.pid, 0)
        self._is_reaped = True

    def __enter__(self) -> "Child":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        # What the child has started is in its process group, which lasts until we reap the child.
        if not self._is_reaped:
            with contextlib.suppress(ProcessLookupError):  # killed before its setsid
                os.killpg(self.pid, signal.SIGKILL)
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            self.reap()
        with contextlib.suppress(ChildProcessError):  # orphans come to us if we are a subreaper
            while os.waitpid(-self.pid, 0):
                pass
        for fd in (self.pidfd, self._read_end, self._go_write_end):
            os.close(fd)


def open_descriptors() -> set[str]:
    """What this process has open, as "number -> target"."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.add(f"{fd} -> {os.readlink(f'/proc/self/fd/{fd}')}")
    return found


@contextlib.contextmanager
def nothing_left_open() -> Iterator[None]:
    """Fails if the body leaves a descriptor behind, or a child."""
    before = open_descriptors(), _children()
    yield
    after = open_descriptors(), _children()
    assert after[0] - before[0] == set()
    assert after[1] - before[1] == set()


def _children() -> set[str]:
    """Those of our session: of others orphans come to us, a test's before or a broker's."""
    found = set()
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with contextlib.suppress(ProcessLookupError):  # reaped by another thread
            if os.getsid(int(pid)) == os.getsid(0):
                found.add(pid)
    return found


def in_child(body: Callable[[], object]) -> None:
    """Runs `body` in a process of its own, for what changes a whole process; it must succeed."""

    def run(child: Child) -> None:
        body()
        child.tell("succeeded")

    with Child(run) as child:
        child.wait_to_hear("succeeded")


def run_until(loop: Loop, condition: Callable[[], object]) -> None:
    """Lets the loop run until something is so."""
    end = loop.now() + _PATIENCE_SECONDS
    while not condition():
        assert loop.now() < end, "it did not come to be"
        loop.run_once(loop.now() + 0.05)
