"""A fork server under test: the real program, with the test in the server's place.

And in the supervisor's: it is told of births, and the workers, as orphans, become its children.

Its engine is a file that the test writes (`ENGINE`): what it shall do is written into the options.
"""

import json
import mmap
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from sengu.model.application import Application
from sengu.posix import packets
from sengu.posix.title import ROOM
from sengu.wire import forkserver as wire
from sengu.wire import scoreboard
from tests.processes import become_subreaper, wait_gone
from tests.support import environment
from tests.system.puppets import children

PATIENCE_SECONDS = 20.0

# A worker says `born` and does what its options say, until it is to stop.
ENGINE = """
import json, os, select, sys, threading, time
from sengu.worker import engine
from sengu.worker.engine import LoadError

class Loaded(engine.Loaded):
    def __init__(self, options):
        self.options = options
        self.module = sys.modules[__name__]

    def run(self, runtime):
        print("born", runtime.identity.slot, len(runtime.listeners), file=sys.stderr, flush=True)
        exec(self.options.get("run", ""), {**globals(), "runtime": runtime})
        runtime.ready()
        poll = select.poll()
        poll.register(runtime.wake_fd, select.POLLIN)
        while not runtime.stopping:
            poll.poll()
            runtime.calm()
        print("stopping", runtime.stopping.name, file=sys.stderr, flush=True)

class Prepared(engine.Prepared):
    def __init__(self, application):
        self.options = json.loads(bytes(application.options))

    def load(self):
        exec(self.options.get("load", ""), globals())
        return Loaded(self.options)

prepare = Prepared
"""


class Baby(NamedTuple):
    """A worker and what it writes to stderr."""

    pid: int
    pidfd: int
    stderr: int


class Birth(NamedTuple):
    """What is told of one."""

    key: str
    pid: int


class Nursery:
    """Runs `python -m sengu.forkserver`. Use it as a context manager."""

    def __init__(self, directory: Path, listeners: int = 0, **changes: Any) -> None:
        become_subreaper()
        self._others = children(os.getpid())  # of this process, for other tests
        (directory / "fake_engine.py").write_text(ENGINE)
        options = changes.pop("options", {})
        self.application = msgspec.structs.replace(
            Application(engine="fake_engine", target="fake:app"),
            options=msgspec.Raw(json.dumps(options).encode()),
            **changes,
        )
        self.socket, theirs = packets.pair()
        self.births, their_births = packets.pair()
        self.memory_fd = os.memfd_create("scoreboard")
        os.ftruncate(self.memory_fd, scoreboard.SIZE_BYTES)
        self.memory = mmap.mmap(self.memory_fd, scoreboard.SIZE_BYTES)
        self.lifeline, self._lifeline_write = os.pipe()
        self._listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(listeners)]
        self._babies: list[Baby] = []
        self._next = 1
        self.stderr = directory / "stderr"
        with theirs, their_births:
            self.process = self._start(directory, theirs.fileno(), their_births.fileno())
        self.socket.settimeout(PATIENCE_SECONDS)
        self.births.settimeout(PATIENCE_SECONDS)

    def _start(self, directory: Path, *sockets: int) -> subprocess.Popen[bytes]:
        """By way of a shell-less child that places the descriptors from 3 on."""
        sources = [*(sock.fileno() for sock in self._listeners), self.lifeline, *sockets]
        own = 3 + len(self._listeners)
        variables = {"SENGU_LIFELINE_FD": str(own), "PYTHONPATH": str(directory)}
        if self._listeners:
            variables["LISTEN_FDS"] = str(len(self._listeners))
        code = (
            "import os, sys\n"
            "sources = [int(text) for text in sys.argv[1].split(',')]\n"
            "high = [os.dup2(fd, 900 + n) for n, fd in enumerate(sources)]\n"
            "for n, fd in enumerate(high): os.dup2(fd, 3 + n)\n"
            "os.closerange(3 + len(high), 999)\n"
            f"os.execv(sys.executable, [sys.executable, '-P', '-m', 'sengu.forkserver',"
            f" '{own + 1}', '{own + 2}', {ROOM!r}])\n"
        )
        with self.stderr.open("wb") as stderr:
            return subprocess.Popen(
                [sys.executable, "-c", code, ",".join(map(str, sources))],
                cwd=directory,
                env=environment(variables),
                stdin=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=sources,
                start_new_session=True,
            )

    def load(self) -> wire.FromForkServer:
        """Have the application loaded; the report of it."""
        order = wire.Load(self.application, "fake", 1)
        packets.send(self.socket, wire.encode(order), (self.memory_fd,))
        return self.report()

    def report(self) -> wire.FromForkServer:
        data, _ = packets.receive(self.socket)
        assert data, self.stderr.read_text()
        report: wire.FromForkServer = wire.decode_report(data)
        return report

    def birth(self) -> Birth:
        """What the supervisor is told of the next worker."""
        data, _ = packets.receive(self.births)
        assert data, self.stderr.read_text()
        key, pid = data.decode().split("\0")
        return Birth(key, int(pid))

    def order(self, slot: int = 0, notify: str = "", worker: int = 0) -> int:
        """Ask for a worker, the next one if it is not `worker`; the read end of its stderr."""
        read_end, write_end = os.pipe()
        worker = worker or self._next
        self._next = max(self._next, worker + 1)
        line = (worker - 1) * self.application.lanes
        fork = wire.Fork(worker, f"worker/{worker}", slot, notify, line, (2,))
        packets.send(self.socket, wire.encode(fork), (write_end,))
        os.close(write_end)
        return read_end

    def fork(self, slot: int = 0, notify: str = "") -> Baby:
        """A worker, when it is born."""
        worker = self._next
        stderr = self.order(slot, notify)
        birth = self.birth()
        assert birth.key == f"worker/{worker}"
        baby = Baby(birth.pid, os.pidfd_open(birth.pid), stderr)
        self._babies.append(baby)
        return baby

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_problem: object) -> None:
        self.socket.close()
        self.births.close()
        self.process.kill()
        self.process.wait()
        os.close(self._lifeline_write)
        os.close(self.lifeline)
        for baby in self._babies:
            if not exited(baby, 0):
                os.kill(baby.pid, 9)
        wait_gone([baby.pid for baby in self._babies], PATIENCE_SECONDS)
        for baby in self._babies:
            os.close(baby.pidfd)
            os.close(baby.stderr)
        for sock in self._listeners:
            sock.close()
        self.memory.close()
        os.close(self.memory_fd)

    def reap_stranger(self) -> None:
        """Take in the one child of ours that was not heard of, when it is there."""
        until = time.monotonic() + PATIENCE_SECONDS
        known = self._others | {self.process.pid}
        while not (strangers := children(os.getpid()) - known):
            assert time.monotonic() < until, "it never became our child"
        os.waitpid(strangers.pop(), 0)

    def cut_lifeline(self) -> None:
        os.close(self._lifeline_write)
        self._lifeline_write = os.dup(self.memory_fd)


def exited(baby: Baby, seconds: float = PATIENCE_SECONDS) -> bool:
    return bool(select.select([baby.pidfd], [], [], seconds)[0])


def status_of(baby: Baby) -> int:
    """Its exit status, minus the signal's number if it was one. We are its parent."""
    assert exited(baby)
    return reap(baby.pid)


def reap(pid: int) -> int:
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            _, status = os.waitpid(pid, 0)
        except ChildProcessError:  # until the process in between ends, it is the parent
            assert time.monotonic() < until, "it never became our child"
            os.sched_yield()
            continue
        return os.waitstatus_to_exitcode(status)


def read_line(fd: int) -> str:
    """The next line of a worker's stderr; empty at its end."""
    line = b""
    while not line.endswith(b"\n"):
        assert select.select([fd], [], [], PATIENCE_SECONDS)[0], f"nothing after {line!r}"
        byte = os.read(fd, 1)
        if not byte:
            break
        line += byte
    return line.decode().rstrip("\n")


def read_all(fd: int) -> str:
    """What is left, to its end."""
    data = b""
    while select.select([fd], [], [], PATIENCE_SECONDS)[0]:
        piece = os.read(fd, 65536)
        if not piece:
            return data.decode()
        data += piece
    raise AssertionError(f"no end after {data!r}")
