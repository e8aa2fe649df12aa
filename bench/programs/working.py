"""What a worker class pays for its heartbeat, and how fast a program hears lines of its pipe.

`working.py beat CALLS`: prints nanoseconds a call. `working.py pipe LINES`: seconds for so many
lines, each answered by the program before the next one is written.
"""

import os
import sys
import time

import sengu
from sengu.model.work import LogForm
from sengu.work.life import Beat
from sengu.work.logs import make_logger
from sengu.work.spawn import Program
from sengu.worker.board import Lane
from sengu.worker.identity import Identity

ANSWERING = "import os, sys\nfor line in sys.stdin.buffer: os.write(1, b'.')"


class Worker(sengu.Worker):
    def command(self) -> list[str]:
        return [sys.executable, "-S", "-c", ANSWERING]


def beat(calls: int) -> float:
    worker = Worker()
    worker._beat = Beat(Lane(memoryview(bytearray(256)), 0))
    worker.heartbeat()
    begin = time.perf_counter()
    for _ in range(calls):
        worker.heartbeat()
    taken = time.perf_counter() - begin
    begin = time.perf_counter()
    for _ in range(calls):
        pass
    return (taken - (time.perf_counter() - begin)) / calls * 1e9


def pipe(lines: int) -> float:
    worker = Worker()
    worker.log = make_logger(Identity("bench", 1, 0), "info", LogForm.TEXT)
    reader, writer = os.pipe()
    shown = os.dup(1)
    os.dup2(writer, 1)
    program = Program(worker, True)
    os.dup2(shown, 1)
    program.reload()
    os.read(reader, 1)  # it runs
    begin = time.perf_counter()
    for _ in range(lines):
        program.reload()
        os.read(reader, 1)
    return time.perf_counter() - begin


if __name__ == "__main__":
    print({"beat": beat, "pipe": pipe}[sys.argv[1]](int(sys.argv[2])))
