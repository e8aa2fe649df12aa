"""The last step of starting: this very process turns into the supervisor.

So the main process has the pid that was started, and nothing of the command line's libraries stays
in memory. Imported by `cli.start`, `cli.serve` and `cli.daemonize`.
"""

import os
import sys
from typing import NoReturn

import sengu
from sengu.config.boot import seal
from sengu.config.launch import Launch
from sengu.control.bind import open_control
from sengu.errors import SenguError
from sengu.posix import descriptors
from sengu.posix.title import ROOM

# By its path, as it runs without our package, which may be replaced meanwhile.
_SUPERVISOR = os.path.join(
    os.path.dirname(os.path.abspath(sengu.__file__)), "supervisor/__main__.py"
)


def launch_server(launch: Launch, *, in_background: bool) -> int:
    """Become the supervisor, or start it as a daemon and return its exit code. Raises SenguError.

    What runs then starts the server.
    """
    descriptors.fill_standard()  # what we open is not to be anybody's stdin
    if in_background:
        from sengu.cli.daemonize import run_in_background  # needs the control API's client

        return run_in_background(launch)
    become_supervisor(launch)


def become_supervisor(launch: Launch, report_fd: int | None = None) -> NoReturn:
    """Bind the control socket, and execute the supervisor with all that it is to hold.

    On `report_fd` somebody waits for a `Report` of the first deploy. Raises SenguError when it is
    impossible, and UsageError when another instance has the name.
    """
    boot = launch.boot
    with open_control(boot.control, boot.service.name) as control:
        held = {"boot": seal(boot), "control": control.fileno()}
        held |= {} if report_fd is None else {"report": report_fd}
        held |= {f"inherited/{passed.fd}": passed.fd for passed in boot.sockets.inherited}
        try:
            _execute(boot.service.name, held, launch)
        except BaseException:  # whatever it is, nobody will listen there
            os.unlink(boot.control)
            raise


def _execute(name: str, held: dict[str, int], launch: Launch) -> NoReturn:
    descriptors.seal()  # also what names an inherited socket once more
    for fd in held.values():
        os.set_inheritable(fd, True)
    sys.stdout.flush()
    sys.stderr.flush()
    options = [f"name={name}", *(f"{key}={fd}" for key, fd in held.items())]
    arguments = [sys.executable, "-I", "-S", _SUPERVISOR, *options, ROOM]
    try:
        os.execve(sys.executable, arguments, launch.environment)
    except OSError as problem:
        raise SenguError(
            f"cannot execute {sys.executable}: {problem.strerror}; "
            "install sengu into a Python that can be executed"
        ) from problem
