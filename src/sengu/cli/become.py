"""The last step of starting: this very process turns into the server.

So the server has the pid that was started, and nothing of the command line's libraries stays in
memory. Imported by `cli.start`, `cli.serve` and `cli.daemonize`.
"""

import os
import sys
from typing import NoReturn

from sengu.config.boot import seal
from sengu.config.inherit import named_descriptors
from sengu.config.launch import Launch
from sengu.errors import SenguError
from sengu.posix.title import ROOM


def launch_server(launch: Launch, *, in_background: bool) -> int:
    """Become the server, or start it as a daemon and return its exit code. Raises SenguError."""
    if in_background:
        from sengu.cli.daemonize import run_in_background  # needs the control API's client

        return run_in_background(launch)
    become_server(launch)


def become_server(launch: Launch) -> NoReturn:
    """Execute the server with its document. Raises SenguError when that is impossible."""
    kept = {inherited.fd for inherited in launch.boot.sockets.inherited}
    # What names the same socket once more would stay open in the server for nothing.
    for inherited in named_descriptors(os.environ, os.getpid()):
        os.set_inheritable(inherited.fd, inherited.fd in kept)
    sys.stdout.flush()
    sys.stderr.flush()
    document = str(seal(launch.boot))
    arguments = [sys.executable, "-P", "-m", "sengu.server", document, ROOM]
    try:
        os.execve(sys.executable, arguments, launch.environment)
    except OSError as problem:
        raise SenguError(
            f"cannot execute {sys.executable}: {problem.strerror}; "
            "install sengu into a Python that can be executed"
        ) from problem
