"""The consumer under chaos: it writes down each job that begins and ends. Each line is one job's.

Run by `sengu consume`, with this directory as its own: it imports nothing from beside it. A
message is `NUMBER FAILURES`: so many of its first attempts fail.
"""

import os
import threading
import time

from sengu.consumers import Message, consumer

_record = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND)


def _write(*words: object) -> None:
    who = os.getpid(), threading.get_native_id()
    line = " ".join(map(str, (*words, *who, time.monotonic())))
    os.write(_record, f"{line}\n".encode())


@consumer("numbers", prefetch=20, threads=2, retries=10, backoff=[0.5])
def count(message: Message) -> None:
    number, failures = message.body.decode().split()
    _write("begun", number)
    if message.attempt <= int(failures):
        _write("failed", number)
        raise ValueError("it fails at first, as it was told")
    time.sleep(0.001)  # so that some are in hand whenever somebody dies
    _write("done", number)
