"""Runs something in a process of its own, so that nothing that it does or suffers reaches us.

It may be killed by a seccomp filter, hang, or leave descriptors open. Used by `here`.
"""

import errno
import os
import select
import signal
from collections.abc import Callable
from contextlib import suppress

from sengu.doctor.machine import Refusal

_ANSWER_BYTES = 4096
_WORKS = "works"


def attempt(body: Callable[[], None], patience_seconds: float) -> Refusal | None:
    """Run `body` in a forked child; None when it returns, else what it raised or was killed by."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _run(body, writing)
    os.close(writing)
    try:
        has_ended = bool(select.select([reading], [], [], patience_seconds)[0])
        if not has_ended:
            os.kill(pid, signal.SIGKILL)  # ours and not reaped: the number is its own
        answer = os.read(reading, _ANSWER_BYTES).decode(errors="replace") if has_ended else ""
    finally:
        os.close(reading)
        status = os.waitpid(pid, 0)[1]
    if not has_ended:
        return Refusal(0, f"did not end within {patience_seconds:g} s")
    return _understand(answer, status)


def _run(body: Callable[[], None], writing: int) -> None:
    """In the child; never returns."""
    answer = ""
    try:
        body()
        answer = _WORKS
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "error")
        answer = f"{error.errno or 0} {error.strerror or error} ({name})"
    except BaseException as error:  # whatever it is, it is the child's, and told to the parent
        answer = f"0 {error}" if str(error) else f"0 {type(error).__name__}"
    finally:
        with suppress(OSError):  # nobody listens any more
            os.write(writing, answer.encode(errors="replace")[:_ANSWER_BYTES])
        os._exit(0)


def _understand(answer: str, status: int) -> Refusal | None:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGSYS:
            return Refusal(errno.ENOSYS, "a seccomp filter kills whoever tries")
        return Refusal(0, f"killed by {signal.Signals(number).name}")
    if answer == _WORKS:
        return None
    number_word, _, words = answer.partition(" ")
    if not words:
        return Refusal(0, f"exit status {os.WEXITSTATUS(status)}")
    return Refusal(int(number_word), words)
