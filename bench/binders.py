"""Servers that bind their port by themselves, with SO_REUSEPORT, and what keeps each running."""

import os
import shlex
import sys
from collections.abc import Callable
from typing import NamedTuple

from bench import nobody
from bench.containers import Podman
from bench.managers.base import Order
from bench.managers.sengu import Sengu
from bench.managers.start_server import StartServer
from bench.program import distribution_version
from bench.session import Session
from bench.webservers.base import APPLICATIONS, Site
from bench.webservers.sengu import Sengu as Serve

WORKERS = 3
_PYTHON = ("/usr/bin/env", f"PYTHONPATH={APPLICATIONS}", sys.executable, "-m")
_WORKERS = ("--workers", str(WORKERS))
_GUNICORN = (*_PYTHON, "gunicorn", "--no-control-socket", "--reuse-port", *_WORKERS)
_GRANIAN = (*_PYTHON, "granian", "--no-log", "--interface", "wsgi", *_WORKERS)


class User(NamedTuple):
    """As whom sengu runs: what is written before its command line, and the uid if it changes."""

    label: str
    prefix: tuple[str, ...] = ()
    uid: int | None = None


class Binder(NamedTuple):
    """A program: what runs it on a port; or what is run in a container of Podman's image."""

    label: str
    command: Callable[[int], tuple[str, ...]]
    podman: Podman | None = None

    @property
    def program(self) -> str:
        return self.label.split()[0]

    @property
    def is_here(self) -> bool:
        return self.podman is not None or distribution_version(self.program) is not None

    def under_start_server(self, session: Session, port: int) -> StartServer:
        """As the experiment had it, with the default interval."""
        command = (*(self.podman.run_words() if self.podman else ()), *self.command(port))
        options = ("--interval", "1", "--kill-old-delay", "1")
        return StartServer(session.fresh_directory(), Order(command, options=options))

    def under_sengu(self, session: Session, port: int, user: User) -> Sengu:
        """With all as it is by default."""
        options: tuple[str, ...] = ("--self-bound", f"127.0.0.1:{port}")
        if self.podman:
            options += ("--container", self.podman.image)
            options += ("--engine", shlex.join(self.podman.engine))
            options += ("--engine-option", shlex.join(self.podman.limits))
        order = Order(self.command(port), options=options, prefix=user.prefix)
        return Sengu(session.fresh_directory(user.uid), order)


GUNICORN = Binder(
    "gunicorn sync",
    lambda port: (*_GUNICORN, "--bind", f"127.0.0.1:{port}", "hello:wsgi"),
)
GUNICORN_THREADS = Binder(
    "gunicorn gthread",
    lambda port: (*GUNICORN.command(port), "--worker-class", "gthread", "--threads", "4"),
)
GRANIAN = Binder(
    "granian",
    lambda port: (*_GRANIAN, "--host", "127.0.0.1", "--port", str(port), "hello:wsgi"),
)


def in_container(podman: Podman) -> Binder:
    """One worker in C, which accepts, answers and closes."""
    return Binder("container", lambda port: ("/worker", str(port)), podman)


def serve(session: Session, user: User) -> Serve:
    """Ours binds nothing itself: the server holds a socket for each worker."""
    site = Site(workers=WORKERS, options=("--reuseport",), prefix=user.prefix)
    return Serve(session.fresh_directory(user.uid), site)


def users() -> tuple[list[User], list[str]]:
    """Those that sengu can run as, and a note for the page about who is missing."""
    myself = User("root" if os.getuid() == 0 else f"uid {os.getuid()}")
    try:
        other = User(f"uid {nobody.UID}", nobody.command_prefix(), nobody.UID)
    except OSError as problem:
        return [myself], [f"sengu runs as {myself.label} only: {problem}."]
    return [myself, other], []
