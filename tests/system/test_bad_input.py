"""What is wrong is told in one line, with exit code 2, before anything is bound or started."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import PROGRAM, WAIT_SECONDS, Instance, Sengu, environment, needs_root, requires
from tests.system.peers import Witnesses


class Place:
    """A directory with what a mistaken command line names, and a look at what it has changed."""

    def __init__(self, directory: Path, port: int) -> None:
        self.directory = directory
        self.port = port
        self.log = str(directory / "log")
        self._program("server", "#!/bin/sh\ntouch started\n", 0o755)
        self._program("plain", "#!/bin/sh\ntouch started\n", 0o644)
        self._program("orphan", "#!/no/such/interpreter\n", 0o755)
        self._program("text", "touch started\n", 0o755)
        (directory / "folder").mkdir()
        (directory / "locked").mkdir(mode=0o500)
        (directory / "a file").touch()
        (directory / "env").mkdir()
        (directory / "env" / "KILL_OLD_DELAY").write_text("soon")

    def _program(self, name: str, text: str, mode: int) -> None:
        path = self.directory / name
        path.write_text(text)
        path.chmod(mode)

    def listing(self) -> list[str]:
        return sorted(str(path) for path in self.directory.rglob("*"))

    def run(
        self, *args: str, env: dict[str, str] | None = None, under: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*under, *PROGRAM, "start", *args],
            cwd=self.directory,
            env=environment({"XDG_RUNTIME_DIR": str(self.directory), **(env or {})}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_SECONDS,
            check=False,
        )


@pytest.fixture
def place(free_path: Path, port: int) -> Iterator[Place]:
    directory = free_path / "web"
    directory.mkdir()
    yield Place(directory, port)
    (directory / "locked").chmod(0o700)


def in_words(value: object) -> str:
    """The name of a case is its command line."""
    return " ".join(value) if isinstance(value, tuple) else ""


def refuse(
    place: Place, *args: str, env: dict[str, str] | None = None, under: tuple[str, ...] = ()
) -> str:
    """Runs it, sees that it is refused in one line, and that nothing has changed. The line."""
    before = place.listing()
    told = place.run("--control", "control.sock", *args, env=env, under=under)
    assert told.returncode == 2, told
    assert told.stdout == ""
    assert told.stderr.startswith("sengu: error: "), told.stderr
    assert told.stderr.count("\n") == 1, told.stderr
    assert told.stderr.endswith("\n")
    assert place.listing() == before
    with socket.socket() as probe, suppress(PermissionError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", place.port))  # nobody is left on it
    return told.stderr.removeprefix("sengu: error: ")


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("--port", "http", "./server"), "write one of: 8080, host:8080"),
        (("--port", "65536", "./server"), "65535, the highest port"),
        (("--port", "[::g]:8080", "./server"), "address"),
        (("--port", "no.such.host.invalid:8080", "./server"), "does not resolve"),
        (("--port", "192.0.2.1:{port}", "./server"), "no interface of this machine"),
        (("--port", "{port}=1", "./server"), "use 0, or 3 and up"),
        (("--port", "{port}=3", "--port", "0=3", "./server"), "use another"),
        (("--port", "{port}", "--port", "0.0.0.0:{port}", "./server"), "is given twice"),
        (("--path", "x" * 120, "./server"), "use a shorter one"),
        (("--path", "nowhere/app.sock", "./server"), "create it first"),
        (("--path", "a file", "./server"), "is not a socket"),
        (("--path-mode", "rwx", "./server"), "write it in octal"),
        (("--workers", "0", "./server"), "from 1 to 10000"),
        (("--interval", "soon", "./server"), "write 5, 0.5, 500ms"),
        (("--signal-on-hup", "TREM", "./server"), "did you mean TERM?"),
        (("--ready", "soon", "./server"), "write notify, tcp, http:/PATH or delay:SECONDS"),
        (("--ready", "tcp", "./server"), "add --port or --path"),
        (("--strategy", "blue-green", "./server"), "write surge or rolling"),
        (("--dir", "nowhere", "./server"), "mkdir -p"),
        (("--envdir", "nowhere", "./server"), "mkdir -p"),
        (("--envdir", "env", "./server"), "KILL_OLD_DELAY 'soon' is not a duration"),
        (("--pid-file", "nowhere/pid", "./server"), "mkdir -p"),
        (("--pid-file", "folder", "./server"), "name a file in it"),
        (("--pid-file", "x", "--status-file", "x", "./server"), "give each its own file"),
        (("--log-file", "| no-such-logger", "./server"), "was not found in PATH"),
        (("--log-file", "| cat > x", "./server"), "| sh -c"),
        (("--daemonize", "./server"), "add --log-file"),
        (("--name", "a/b", "./server"), "use one that can be a plain file name"),
        (("--restart", "--stop"), "give one of them"),
        (("--no-such-option", "./server"), "there is no option --no-such-option"),
        (("--workers",), "requires an argument"),
        ((), "add it: sengu start [OPTIONS] -- COMMAND"),
        (("",), "name the program to run"),
        (("server",), "write ./server"),
        (("no-such-program",), "was not found in PATH"),
        (("./nowhere",), "does not exist"),
        (("./folder",), "is a directory"),
        (("./plain",), "chmod +x"),
        (("./orphan",), "correct its first line"),
        (("./text",), "#!/bin/sh"),
    ],
    ids=in_words,
)
def test_a_mistake_is_told_in_one_line_and_nothing_is_changed(
    place: Place, args: tuple[str, ...], hint: str
) -> None:
    # Everything else is right: so what is refused is refused before it was bound or written.
    args = tuple(arg.replace("{port}", str(place.port)) for arg in args)
    files = () if any(arg.endswith("-file") for arg in args) else ("--pid-file", "pid")
    assert hint in refuse(place, *files, *args)


@pytest.mark.parametrize(
    ("env", "hint"),
    [
        ({"KILL_OLD_DELAY": "soon"}, "KILL_OLD_DELAY 'soon'"),
        ({"ENABLE_AUTO_RESTART": "1", "AUTO_RESTART_INTERVAL": "x"}, "AUTO_RESTART_INTERVAL 'x'"),
        ({"ENVDIR": "nowhere"}, "ENVDIR"),
        ({"SERVER_STARTER_PORT": "8080=99"}, "which is no socket"),
        ({"SERVER_STARTER_PORT": "8080"}, "ADDRESS=FD"),
    ],
    ids=str,
)
def test_a_mistake_in_the_environment_is_told_by_its_variable(
    place: Place, env: dict[str, str], hint: str
) -> None:
    assert hint in refuse(place, "--port", str(place.port), "./server", env=env)


def test_a_port_that_is_taken_is_told_and_the_others_are_given_back(
    place: Place, sengu: Sengu, witnesses: Witnesses
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        ports = ("--port", f"127.0.0.1:{place.port}", "--port", f"127.0.0.1:{taken}")
        files = ("--pid-file", "pid", "--status-file", "status", "--path", "app.sock")
        line = refuse(place, *ports, *files, "./server")
    assert line.startswith(f"cannot bind 127.0.0.1:{taken}: address already in use; ")


def test_a_low_port_without_permission_is_told_with_the_way_out(place: Place) -> None:
    needs_root()
    lowest = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if lowest == 0:
        pytest.fail("every port is free to every user here; set ip_unprivileged_port_start")
    under = (requires("setpriv"), "--bounding-set", "-net_bind_service")
    line = refuse(place, "--port", f"127.0.0.1:{lowest - 1}", "./server", under=under)
    assert line == (
        f"cannot bind 127.0.0.1:{lowest - 1}: permission denied; "
        "grant CAP_NET_BIND_SERVICE or use a port above 1023\n"
    )


UNPRIVILEGED = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("--pid-file", "locked/pid"), "may not create files in"),
        (("--status-file", "locked/status"), "may not create files in"),
        (("--log-file", "locked/log"), "may not create files in"),
        (("--path", "locked/app.sock"), "use a directory that this user may write to"),
        (("--control", "locked/control.sock"), "may not create files in"),
    ],
    ids=in_words,
)
def test_what_may_not_be_written_is_told(place: Place, args: tuple[str, ...], hint: str) -> None:
    under = UNPRIVILEGED if os.geteuid() == 0 else ()
    assert hint in refuse(place, *args, "./server", under=under)


@pytest.fixture
def running(sengu: Sengu, witnesses: Witnesses, place: Place) -> Instance:
    files = ("--pid-file", str(place.directory / "pid"), "--path", str(place.directory / "s"))
    args = ("--ready", "notify", *files, "--", *witnesses.command())
    return sengu.start(*args).wait_ready()


def test_a_second_instance_with_the_same_pid_file_is_refused(
    place: Place, running: Instance
) -> None:
    line = refuse(place, "--pid-file", "pid", "./server")
    assert f"is held by a running instance, pid {running.pid}; stop that first" in line
    assert (place.directory / "pid").read_text() == f"{running.pid}\n"
    assert running.status()["state"] == "serving"


def test_a_second_instance_with_the_same_socket_file_is_refused(
    place: Place, running: Instance
) -> None:
    line = refuse(place, "--path", "s", "./server")
    assert "somebody is listening on s already" in line
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place.directory / "s"))


def test_a_second_instance_with_the_same_control_socket_is_refused(
    place: Place, running: Instance
) -> None:
    line = refuse(place, "--control", str(running.control_path), "./server")
    assert "is running already" in line
    assert running.status()["state"] == "serving"


def test_a_directory_that_is_gone_is_told(place: Place, free_path: Path) -> None:
    script = f'cd {free_path}; mkdir gone; cd gone; rmdir ../gone; exec "$@"'
    told = subprocess.run(
        ["sh", "-c", script, "sh", *PROGRAM, "start", "true"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert told.returncode == 2
    assert told.stderr.splitlines()[-1] == (
        "sengu: error: the current directory does not exist any more; cd to another"
    )


def test_an_unknown_verb_is_told_with_a_guess(sengu: Sengu) -> None:
    for word, hint in (("relaod", "did you mean reload"), ("./app", "sengu start -- ./app")):
        told = sengu.run(word)
        assert (told.returncode, told.stdout) == (2, "")
        assert hint in told.stderr
        assert told.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("scale", "many"), "write 4, +1 or -1"),
        (("scale",), "missing argument"),
        (("reload", "--timeout", "soon"), "write 5, 0.5, 500ms"),
        (("reload", "--no-wait", "--drained", "--control", "x"), "leave out --drained"),
        (("events", "--since", "x"), "sengu events shows them"),
        (("status", "--name", "../x"), "plain file name"),
        (("status", "a", "--name", "b"), "give one of them"),
        (("completion", "tcsh"), "'bash', 'zsh', 'fish'"),
    ],
    ids=in_words,
)
def test_mistakes_with_other_verbs_are_told_in_one_line_too(
    sengu: Sengu, args: tuple[str, ...], hint: str
) -> None:
    told = sengu.run(*args)
    assert (told.returncode, told.stdout) == (2, "")
    assert hint in told.stderr
    assert told.stderr.startswith("sengu: error: ")
    assert told.stderr.count("\n") == 1


def test_options_that_no_text_can_hold_are_told(place: Place) -> None:
    program = os.fsencode(sys.executable)
    told = subprocess.run(
        [program, "-m", "sengu", "start", "--pid-file", b"\xff\xfe", "./server"],
        cwd=place.directory,
        env=environment(),
        capture_output=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert told.returncode == 2
    assert b"is not UTF-8" in told.stderr
    assert told.stderr.count(b"\n") == 1
