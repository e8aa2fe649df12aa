"""Consumers for the tests of `sengu consume`: a script that each test writes, and what it tells."""

import os
import textwrap
from collections.abc import Mapping
from pathlib import Path

from tests.broker import Broker
from tests.support import Instance, Sengu
from tests.system.jobs import ENVIRONMENT, QUICK

# `tell` writes a whole line, whichever thread calls it; `pass_gate` waits until a gate is open. To
# make quorum queues takes RabbitMQ long, so that most tests have `quick` ones, and few.
_PRELUDE = """\
import asyncio, ctypes, os, signal, sys, threading, time
from sengu.consumers import (
    Ack, Binding, Consumer, Message, Reject, Requeue, UndecodableError, consumer
)

def tell(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def pass_gate(name):
    with open(name):
        pass

def quick(queue, **options):
    return consumer(queue, **{"type": "classic", "retries": 0, **options})

"""


class Consuming:
    """A directory with the script `jobs.py`, and the broker that its consumers are to use."""

    def __init__(self, sengu: Sengu, broker: Broker, directory: Path) -> None:
        self._sengu = sengu
        self.broker = broker
        self.directory = directory
        self.environment: Mapping[str, str] = ENVIRONMENT

    def write(self, source: str) -> None:
        # By rename: who imports it just now gets the old one or the new one.
        new = self.directory / "jobs.py.new"
        new.write_text(_PRELUDE + textwrap.dedent(source))
        new.rename(self.directory / "jobs.py")

    def start(self, *options: str, url: str = "", prefix: tuple[str, ...] = ()) -> Instance:
        """`sengu consume jobs.py`; does not wait for anything."""
        env = {**self.environment, "SENGU_BROKER": url or self.broker.url}
        return self._sengu.consume(
            "jobs.py", *QUICK, *options, cwd=self.directory, env=env, prefix=prefix
        )

    def run(self, source: str, *options: str) -> Instance:
        """Write the script and start it; its consumers are subscribed."""
        self.write(source)
        return self.start(*options).wait_ready()

    def make_gate(self, name: str) -> "Gate":
        return Gate(self.directory / name)


class Gate:
    """A named pipe that jobs open to read, which takes until somebody has opened it to write."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path)

    def open(self) -> None:
        """For good."""
        # Whoever has opened the pipe waits for a writer; who comes later finds a plain file.
        plain = self._path.with_suffix(".plain")
        plain.touch()
        fd = os.open(self._path, os.O_RDWR)
        plain.rename(self._path)
        os.close(fd)


def told(instance: Instance, word: str) -> list[str]:
    """What follows `word` in the lines so far that begin with it."""
    return [line.removeprefix(f"{word} ") for line in instance.lines if line.startswith(f"{word} ")]


def pids(instance: Instance) -> set[int]:
    """Those of the workers."""
    return {worker["pid"] for worker in instance.status()["workers"]}
