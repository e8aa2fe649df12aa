"""Programs that bind a port by themselves, in a network namespace that is the test's own."""

import functools
import signal
import subprocess
from collections.abc import Callable
from contextlib import closing
from typing import Any, ParamSpec

from tests import netns
from tests.processes import become_subreaper
from tests.support import WAIT_SECONDS, Instance, Sengu, requires
from tests.system.load import Load, ask_http
from tests.system.puppets import Script, build, wait_until
from tests.system.test_serve_under_load import assert_none_failed
from tests.system.web import status_of

PORT = 8080
ADDRESS = f"127.0.0.1:{PORT}"
TECHNIQUES = ("bpf", "sysctl", "dup", "member")

_Arguments = ParamSpec("_Arguments")


def isolated(test: Callable[_Arguments, object]) -> Callable[_Arguments, None]:
    """Let a test with the fixture `sengu` run in a namespace of its own, with all that it starts.

    No sysctl of the machine changes, and nobody else has the port.
    """

    @netns.isolated
    @functools.wraps(test)
    def run_isolated(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> None:
        sengu = kwargs["sengu"]
        assert isinstance(sengu, Sengu)
        become_subreaper()  # it is forked: that does not come with it
        try:
            with closing(sengu):
                test(*args, **kwargs)
        except BaseException:
            for instance in sengu.instances:  # pytest, which would tell, does not know of them
                print(f"{instance.name}:\n{instance.output}", flush=True)
            raise

    return run_isolated


class Prefork(Script):
    """What programs/prefork.c does when it starts. Change it, and deploy."""

    def write(self, *lines: str) -> None:
        """The last line of a kind counts."""
        super().write(f"bind 127.0.0.1 {PORT}", *lines)

    @property
    def command(self) -> tuple[str, ...]:
        return "--", build("prefork"), str(self.path)


def launch(
    sengu: Sengu, program: Prefork, technique: str, *options: str, prefix: tuple[str, ...] = ()
) -> Instance:
    """An instance that may not be ready yet."""
    steering = ("--technique", technique, *(["--set-sysctl"] if technique == "sysctl" else []))
    args = ("--self-bound", ADDRESS, *steering, "--interval", "0.1", *options, *program.command)
    return sengu.start(*args, prefix=prefix)


def start(
    sengu: Sengu, program: Prefork, technique: str, *options: str, prefix: tuple[str, ...] = ()
) -> Instance:
    return launch(sengu, program, technique, *options, prefix=prefix).wait_ready()


def visitors(count: int = 8) -> Load:
    """They ask without pause, on a connection each time; answers are generations."""
    return Load(("127.0.0.1", PORT), _ask_generation, clients=count)


def _ask_generation(address: tuple[str, int]) -> str:
    return ask_http(address).split(" ")[0]


class Ab:
    """`ab` asks while the block lasts, and nobody fails it."""

    def __init__(self, clients: int = 50, path: str = "/") -> None:
        command = [requires("ab"), "-q", "-c", str(clients), "-n", "1000000", "-t", "60"]
        self._process = subprocess.Popen(
            [*command, f"http://{ADDRESS}{path}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def __enter__(self) -> None:
        wait_until(self._hears, "ab hears INT")  # else that would end it without a word

    def _hears(self) -> bool:
        return bool(int(status_of(self._process.pid)["SigCgt"], 16) >> (signal.SIGINT - 1) & 1)

    def __exit__(self, kind: object, _error: object, _traceback: object) -> None:
        with self._process:
            self._process.send_signal(signal.SIGINT)  # it says what it has seen
            said = self._process.communicate(timeout=WAIT_SECONDS)[0]
        if kind is None:
            assert_none_failed(said)


def sockets() -> int:
    """How many listen on the port, whoever they are."""
    command = [requires("ss"), "-Htln", f"sport = :{PORT}"]
    return len(subprocess.run(command, capture_output=True, check=True).stdout.splitlines())


def passage(instance: Instance) -> dict[str, Any]:
    (found,) = instance.status()["passages"]
    return dict(found)


def wait_for_rest(instance: Instance, count: int) -> None:
    """Until so many sockets listen, none of them sengu's, nobody is about to go, and each socket
    gets clients again."""

    def is_at_rest() -> bool:
        states = {worker["state"] for worker in instance.status()["workers"]}
        return states == {"ready"} and sockets() == count

    wait_until(is_at_rest, f"{count} sockets")
    wait_until(lambda: len({_ask() for _ in range(10 * count)}) == count, f"{count} who answer")


def _ask() -> str:
    return ask_http(("127.0.0.1", PORT))
