"""Processes that log through Python's `logging`, and how long that took.

`loggers.py stderr LINES GO`: to stderr, once whoever listens on the socket GO has answered.
`loggers.py queue LINES FILE PROCESSES`: QueueHandler in each, QueueListener with a
RotatingFileHandler in this one. `loggers.py file LINES FILE`: RotatingFileHandler, one process.
The last two print seconds and CPU seconds.
"""

import logging
import logging.handlers
import multiprocessing
import resource
import signal
import socket
import sys
import time
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event

ROTATE_BYTES = 5 << 20
KEEP = 1000
FORMAT = "%(asctime)s %(levelname)s %(process)08d %(message)s"
MESSAGE = "x" * 92 + " %07d"


def log_to(handler: logging.Handler) -> logging.Logger:
    logger = logging.getLogger()
    logger.setLevel(logging.INFO)
    handler.setFormatter(logging.Formatter(FORMAT))
    logger.addHandler(handler)
    return logger


def write(logger: logging.Logger, lines: int) -> None:
    for number in range(lines):
        logger.info(MESSAGE, number)


def to_stderr(lines: int, go: str) -> None:
    logger = log_to(logging.StreamHandler())
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(go)
        link.recv(1)
    write(logger, lines)
    signal.sigwait({signal.SIGTERM})


def to_queue(lines: int, queue: "Queue[logging.LogRecord]", go: Event) -> None:
    logger = log_to(logging.handlers.QueueHandler(queue))
    go.wait()
    write(logger, lines)


def rotating(path: str) -> logging.Handler:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=ROTATE_BYTES, backupCount=KEEP)
    handler.setFormatter(logging.Formatter("%(message)s"))  # QueueHandler has formatted it
    return handler


def through_queue(lines: int, path: str, count: int) -> None:
    queue: Queue[logging.LogRecord] = multiprocessing.Queue()
    go = multiprocessing.Event()
    processes = [
        multiprocessing.Process(target=to_queue, args=(lines, queue, go)) for _ in range(count)
    ]
    for process in processes:
        process.start()
    listener = logging.handlers.QueueListener(queue, rotating(path))
    begin = time.monotonic()
    go.set()
    listener.start()
    for process in processes:
        process.join()
    listener.stop()
    tell(time.monotonic() - begin)


def to_file(lines: int, path: str) -> None:
    logger = log_to(rotating(path))
    begin = time.monotonic()
    write(logger, lines)
    tell(time.monotonic() - begin)


def tell(seconds: float) -> None:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(seconds, sum(one.ru_utime + one.ru_stime for one in used))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["stderr", lines, go]:
            to_stderr(int(lines), go)
        case ["queue", lines, path, count]:
            through_queue(int(lines), path, int(count))
        case ["file", lines, path]:
            to_file(int(lines), path)
        case _:
            sys.exit(__doc__)
