"""The log writer's life: reads its orders, and moves stdin to the file until stdin ends.

Imported by `sengu.logwriter.__main__` only.
"""

import os
import select
import signal
import sys
from collections.abc import Sequence

from sengu.errors import describe_error
from sengu.logwriter.writer import Rules, Writer
from sengu.posix import clock

_STDIN = 0
_RETRY_SECONDS = 0.5

# It ends when all who write to it have: a `kill` of the whole group must not cost their last lines.
_NOT_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR2)


def read_orders(arguments: Sequence[str]) -> tuple[str, Rules]:
    """Path and rules of `PATH [size=BYTES] [age=SECONDS] [keep=N] [compress]`."""
    path, *words = arguments
    given = dict(word.partition("=")[::2] for word in words)
    rules = Rules(
        size=int(given["size"]) if "size" in given else None,
        age=float(given["age"]) if "age" in given else None,
        keep=int(given["keep"]) if "keep" in given else Rules().keep,
        compress="compress" in given,
    )
    return path, rules


def run(arguments: Sequence[str]) -> int:
    """Until stdin has ended; returns the exit code."""
    reopened, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGUSR1, lambda *_: None)  # told by the wake-up pipe
    for number in _NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    path, rules = read_orders(arguments)
    try:
        writer = Writer(path, rules, clock.wall, _complain)
    except OSError as error:
        _complain(f"cannot open {path}: {describe_error(error)}")
        return 1
    _move(writer, reopened)
    writer.close()
    return 0


def _move(writer: Writer, reopened: int) -> None:
    both, no_more = select.poll(), select.poll()
    both.register(_STDIN, select.POLLIN)
    both.register(reopened, select.POLLIN)
    no_more.register(reopened, select.POLLIN)
    problem = ""
    while True:
        if problem:
            ready = no_more.poll(_RETRY_SECONDS * 1000)
        else:
            ready = both.poll(writer.wait_seconds() * 1000)
        numbers = [number for number, _ in ready]
        if reopened in numbers:
            os.read(reopened, 64)
            writer.reopen()
        writer.rotate_if_old()
        if not problem and _STDIN not in numbers:
            continue
        try:
            if not writer.take(_STDIN):
                return
            problem = ""
        except OSError as error:  # a full disk: what is in the pipe waits there for better times
            if not problem:
                _complain(f"cannot write: {describe_error(error)}; tried again until it works")
            problem = describe_error(error)


def _complain(text: str) -> None:
    print(f"sengu: log writer: {text}", file=sys.stderr, flush=True)
