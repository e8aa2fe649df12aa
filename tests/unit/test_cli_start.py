"""`sengu start`: bad input, what is executed, the background, and acting by pid file."""

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sengu.cli import pidfile
from sengu.cli.main import run
from sengu.config.instance import RunPlaces
from sengu.supervisor import __main__ as supervisor
from tests.unit.support_executed import Executed, execute

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def place(free_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, and a run directory in it, so that no real one is looked at."""
    monkeypatch.chdir(free_path)
    places = RunPlaces(os.geteuid() or 1, str(free_path), str(free_path))
    monkeypatch.setattr(pidfile, "run_places", lambda _environ: places)
    return free_path


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Executed]:
    """Runs `sengu start` up to where it would execute the supervisor."""
    return lambda *args: execute(monkeypatch, "start", *args)


def test_start_executes_the_supervisor_in_this_process(start: Callable[..., Executed]) -> None:
    executed = start("--name", "web", "--port", "8080", "--", "true", "--workers", "9")
    assert executed.arguments[:4] == [sys.executable, "-I", "-S", supervisor.__file__]
    assert list(executed.options) == ["name", "boot", "control"]
    assert executed.options["name"] == "web"
    assert executed.arguments[-1].isspace()
    boot = executed.boot
    assert boot.service.command == ("true", "--workers", "9")
    assert boot.service.workers == 1
    assert [spec.key for spec in boot.sockets.listeners] == ["8080"]


def test_the_supervisor_inherits_what_it_is_to_hold_and_nothing_else(
    start: Callable[..., Executed], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed, open(os.devnull) as other:
        os.set_inheritable(passed.fileno(), True)
        os.set_inheritable(other.fileno(), True)
        monkeypatch.setenv("SERVER_STARTER_PORT", f"8080={passed.fileno()}")
        executed = start("--", "true")
        assert executed.options[f"inherited/{passed.fileno()}"] == str(passed.fileno())
    held = {int(value) for name, value in executed.options.items() if name != "name"}
    assert executed.inherits == held


def test_nobody_is_let_into_a_service_that_was_not_executed(
    start: Callable[..., Executed], place: Path
) -> None:
    start("--", "true")
    assert not (place / "control.sock").exists()


def test_a_second_instance_of_the_name_is_refused_before_anything_is_executed(
    place: Path, capfd: Capture
) -> None:
    with socket.socket(socket.AF_UNIX) as first:
        first.bind(str(place / "control.sock"))
        first.listen()
        assert run(["start", "--name", "web", "--control", "control.sock", "true"]) == 2
        assert (place / "control.sock").exists()
    assert "an instance named 'web' is running already" in capfd.readouterr().err


def test_a_supervisor_that_cannot_be_executed_leaves_no_socket(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert run(["start", "--control", "control.sock", "true"]) == 1
    assert "cannot execute /nowhere/python" in capfd.readouterr().err
    assert not (place / "control.sock").exists()


@pytest.mark.parametrize(
    "args",
    [
        ["true", "-x"],
        ["--", "true", "-x"],
        ["--name", "n", "true", "-x"],
        ["--name=n", "true", "-x"],
    ],
)
def test_the_first_word_that_is_no_option_begins_the_command(
    start: Callable[..., Executed], args: list[str]
) -> None:
    assert start(*args).boot.service.command == ("true", "-x")


def test_start_leaves_out_what_our_starter_told_us(
    start: Callable[..., Executed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("NOTIFY_SOCKET", "@n")
    environ = start("--envdir", ".", "true").environ
    assert "LISTEN_PID" not in environ
    assert "LISTEN_FDS" not in environ
    assert environ["NOTIFY_SOCKET"] == "@n"
    assert environ["ENVDIR"] == "."


BAD_INPUT = [
    ([], "no command to run"),
    (["--port", "80000", "true"], "above 65535"),
    (["--port"], "requires an argument"),
    (["--prot", "80", "true"], "did you mean --port"),
    (["--workers", "0", "true"], "--workers '0'"),
    (["--signal-on-hup", "TREM", "true"], "did you mean TERM?"),
    (["./missing"], "does not exist"),
    (["--pid-file", "no/pid", "true"], "mkdir -p"),
    (["--daemonize", "true"], "add --log-file"),
    (["--restart"], "give --pid-file and --status-file"),
    (["--stop"], "give --pid-file"),
    (["--restart", "--stop"], "give one of them"),
    (["--timeout", "5", "true"], "did you mean --ready-timeout?"),
    (["--stop", "--pid-file", "x", "--timeout", "soon"], "not a duration"),
]


@pytest.mark.parametrize(("args", "hint"), BAD_INPUT, ids=[" ".join(row[0]) for row in BAD_INPUT])
def test_bad_input_gets_one_line_and_exit_code_2(
    args: list[str], hint: str, capfd: Capture
) -> None:
    assert run(["start", *args]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("sengu: error: ")
    assert hint in line


def test_help_has_every_option_with_its_group(capfd: Capture) -> None:
    from sengu.config.settings.start import SETTINGS

    assert run(["start", "--help"]) == 0
    out = capfd.readouterr().out
    assert [s.name for s in SETTINGS if f"  {s.flag}" not in out] == []
    assert [s.group for s in SETTINGS if f"\n{s.group.value}:\n" not in out] == []


# Runs --daemonize in a process of its own, with a stand-in for the supervisor that it executes.
BACKGROUND = """
import os, sys, msgspec
from sengu.cli.main import run
from sengu.config.boot import Report
from sengu.errors import UsageError

def execve(_path, arguments, _environ):
    (fd,) = (int(one.removeprefix("report=")) for one in arguments if one.startswith("report="))
    assert os.getsid(0) != os.getpid() and os.get_inheritable(fd)
    assert os.readlink("/proc/self/fd/0") == "/dev/null"
    {body}
    os._exit(0)

os.execve = execve
sys.exit(run(["start", "--daemonize", "--log-file", "log", "--control", "control.sock", "true"]))
"""

BACKGROUND_CASES = [
    ("success", "os.write(fd, msgspec.json.encode(Report(0)))", 0, ""),
    (
        "failure",
        "os.write(fd, msgspec.json.encode(Report(1, 'it died\\nboom')))",
        1,
        "sengu: error: it died\nwhat it wrote last:\n  | boom\n",
    ),
    ("told twice", "os.write(fd, 2 * (msgspec.json.encode(Report(0)) + b'\\n'))", 0, ""),
    ("bad input", "os.write(fd, msgspec.json.encode(Report(2, 'in use')))", 2, "in use"),
    ("in use", "raise UsageError('it runs already')", 2, "sengu: error: it runs already\n"),
    ("silent death", "os._exit(9)", 1, "ended without saying why; look at the end of its log"),
    ("no supervisor", "raise OSError(12, 'no memory')", 1, f"{sys.executable}: no memory; install"),
]


@pytest.mark.parametrize(
    ("body", "code", "error"),
    [row[1:] for row in BACKGROUND_CASES],
    ids=[row[0] for row in BACKGROUND_CASES],
)
def test_a_daemon_reports_how_its_start_went(body: str, code: int, error: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BACKGROUND.format(body=body)],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == code, done.stderr
    assert error in done.stderr
    assert "Traceback" not in done.stderr


# A server starter by hand: holds a lock on its pid file, deploys on HUP as `{on_hup}` says.
STARTER = """
import fcntl, os, signal, sys

def write(*generations):
    with open("status.new", "w") as stream:
        stream.writelines(f"{{generation}}:1\\n" for generation in generations)
    os.rename("status.new", "status")

signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGTERM])
pid_file = open("pid", "w")
fcntl.flock(pid_file, fcntl.LOCK_EX)
print(os.getpid(), file=pid_file, flush=True)
write(3)
print("up", flush=True)
while signal.sigwait([signal.SIGHUP, signal.SIGTERM]) == signal.SIGHUP:
    {on_hup}
"""

StartStarter = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start_starter() -> Iterator[StartStarter]:
    started = []

    def start(on_hup: str = "pass") -> "subprocess.Popen[str]":
        code = textwrap.dedent(STARTER).format(on_hup=on_hup)
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


RESTART = ["start", "--restart", "--pid-file", "pid", "--status-file", "status"]
STOP = ["start", "--stop", "--pid-file", "pid"]


@pytest.mark.parametrize(
    ("on_hup", "generation"), [("write(4)", 4), ("write(3, 4); write(4)", 4), ("write(6)", 6)]
)
def test_restart_waits_until_only_the_new_generation_is_left(
    start_starter: StartStarter, on_hup: str, generation: int, capfd: Capture
) -> None:
    start_starter(on_hup)
    assert run(RESTART) == 0
    assert f"generation {generation} of process" in capfd.readouterr().err


@pytest.mark.parametrize("on_hup", ["pass", "write(3, 4)", "write()"])
def test_restart_that_takes_too_long_says_so(
    start_starter: StartStarter, on_hup: str, capfd: Capture
) -> None:
    start_starter(on_hup)
    assert run([*RESTART, "--timeout", "250ms"]) == 5
    assert "goes on" in capfd.readouterr().err


def test_restart_fails_when_the_process_ends(start_starter: StartStarter, capfd: Capture) -> None:
    start_starter("sys.exit()")
    assert run(RESTART) == 1
    assert "ended before generation 4 was there" in capfd.readouterr().err


@pytest.mark.parametrize("content", [None, ""])
def test_restart_needs_a_status_file_with_a_generation(
    start_starter: StartStarter, content: str | None, capfd: Capture
) -> None:
    process = start_starter("write(4)")
    if content is None:
        os.unlink("status")
    else:
        Path("status").write_text(content)
    assert run(RESTART) == 1
    assert "the status file 'status'" in capfd.readouterr().err
    assert process.poll() is None


def test_stop_waits_until_the_process_is_gone(start_starter: StartStarter) -> None:
    process = start_starter()
    assert run(STOP) == 0
    assert process.poll() == 0


def test_stop_that_takes_too_long_says_so(start_starter: StartStarter, capfd: Capture) -> None:
    process = start_starter()
    process.send_signal(19)  # STOP: it hears nothing
    assert run([*STOP, "--timeout", "1ms"]) == 5
    assert "goes on stopping" in capfd.readouterr().err


PID_FILES = [
    ("missing", None, "there is no pid file"),
    ("garbage", "abc\n", "holds 'abc' and no pid"),
    ("empty", "", "holds '' and no pid"),
    ("negative", "-1\n", "no pid"),
    ("of everybody", "0\n", "no pid"),
    ("of nobody", f"{2**22 + 1}\n", "does not run any more"),
    ("of a stranger", f"{os.getppid()}\n", "does not run any more"),
]


@pytest.mark.parametrize(
    ("content", "hint"), [row[1:] for row in PID_FILES], ids=[row[0] for row in PID_FILES]
)
def test_a_pid_file_that_names_no_starter_is_refused(
    content: str | None, hint: str, capfd: Capture
) -> None:
    if content is not None:
        Path("pid").write_text(content)
    assert run(STOP) == 3
    (line,) = capfd.readouterr().err.splitlines()
    assert hint in line
