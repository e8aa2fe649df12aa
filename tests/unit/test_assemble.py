"""What a command line becomes, and every mistake that is found before anything is started."""

import os
import resource
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sengu.config.assemble import assemble
from sengu.config.boot import seal, unseal
from sengu.config.envdir import read_envdir
from sengu.config.launch import Launch
from sengu.config.pacing import pacing_from
from sengu.config.setting import parse_values
from sengu.config.settings.start import SETTINGS
from sengu.errors import UsageError
from sengu.model.address import Inherited
from sengu.model.service import (
    BootPolicy,
    OnServerLoss,
    Pacing,
    ReadyAfterDelay,
    ReadyByNotify,
    Rolling,
    StartPolicy,
    StopPolicy,
    Surge,
    Urge,
)

PATH = "/usr/bin:/bin"


def build(
    options: Mapping[str, str | Sequence[str]],
    command: Sequence[str] = ("true",),
    environ: Mapping[str, str] | None = None,
) -> Launch:
    """Assemble, with options as in {"port": ["80"], "workers": "4"}."""
    texts = {name: [given] if isinstance(given, str) else given for name, given in options.items()}
    found = {"PATH": PATH, "XDG_RUNTIME_DIR": "/run/user/1"} | dict(environ or {})
    return assemble(parse_values(SETTINGS, texts), command, found)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with programs, files and directories to be named."""
    place = tmp_path / "web"
    place.mkdir()
    for name, head in {
        "server": "#!/bin/sh\n",
        "orphan": "#!/no/such/interpreter\n",
        "text": "echo hello\n",
        "plain": "#!/bin/sh\n",
    }.items():
        (place / name).write_text(head)
        (place / name).chmod(0o644 if name == "plain" else 0o755)
    (place / "folder").mkdir()
    (place / "envdir").mkdir()
    (place / "bin").mkdir()
    monkeypatch.chdir(place)
    return place


def test_without_options_there_is_one_worker_ready_when_it_lives_for_a_second() -> None:
    boot = build({}).boot
    assert boot.service.command == ("true",)
    assert boot.service.workers == 1
    assert boot.service.boot == BootPolicy(ReadyAfterDelay(1), 61, 3)
    assert boot.service.stop == boot.service.retire == StopPolicy(15, 30)
    assert boot.service.strategy == Surge()
    assert (boot.sockets.listeners, boot.sockets.inherited) == ((), ())
    assert boot.sockets.path_mode == 0o777


def test_the_backlog_is_the_kernels_unless_given() -> None:
    kernels = int(Path("/proc/sys/net/core/somaxconn").read_text())
    assert build({}).boot.sockets.backlog == kernels
    assert build({"backlog": "7"}).boot.sockets.backlog == 7


def test_the_document_survives_its_memory_file() -> None:
    boot = build({"port": ["8080", "[::1]:u53=9"], "path": ["@x"], "ready": "notify"}).boot
    assert unseal(seal(boot)) == boot


def test_ports_come_before_paths_as_the_peer_has_it() -> None:
    listeners = build({"path": ["a.sock"], "port": ["8080", "u53"]}).boot.sockets.listeners
    assert [spec.key for spec in listeners] == ["8080", "53", "a.sock"]


def test_the_signals_are_told_apart() -> None:
    service = build({"signal-on-hup": "QUIT", "signal-on-term": "INT", "grace": "2m"}).boot.service
    assert service.retire == StopPolicy(3, 120)
    assert service.stop == StopPolicy(2, 120)


def test_workers_are_not_left_alone_unless_that_is_wanted() -> None:
    assert build({}).boot.service.on_server_loss is OnServerLoss.STOP
    assert build({"on-server-loss": "keep"}).boot.service.on_server_loss is OnServerLoss.KEEP


def test_interval_is_delay_and_back_off_with_a_floor() -> None:
    service = build({"interval": "0"}).boot.service
    assert service.boot.readiness == ReadyAfterDelay(0)
    assert service.restart.backoff_seconds == pytest.approx(0.1)
    assert build({"interval": "2m"}).boot.service.restart.backoff_max_seconds == 120


def test_the_ready_timeout_grows_with_a_delay() -> None:
    assert build({"ready": "delay:2m"}).boot.service.boot.timeout_seconds == 180
    assert build({"ready": "notify"}).boot.service.boot == BootPolicy(ReadyByNotify(), 60, 3)


def test_who_does_not_go_is_asked_further_times() -> None:
    steps = (Urge(15, 10), Urge(3, 20))
    service = build({"signal-on-hup": "USR1", "stop-escalation": "TERM:10,QUIT:20"}).boot.service
    assert service.retire == StopPolicy(10, 30, steps)
    assert service.stop == StopPolicy(15, 30, steps)


def test_workers_start_together_unless_they_are_to_start_apart() -> None:
    assert build({}).boot.service.start == StartPolicy()
    assert build({"start-delay": "2"}).boot.service.start == StartPolicy(2, 0.2)
    options = {"start-delay": "500ms", "start-jitter": "0"}
    assert build(options).boot.service.start == StartPolicy(0.5, 0)


def test_which_exits_are_final() -> None:
    assert build({}).boot.service.restart.final_codes == ()
    options = {"unrecoverable-exit-codes": "3,4"}
    restart = build(options).boot.service.restart
    assert (restart.final_codes, restart.ends_at_once) == ((3, 4), False)
    restart = build({**options, "stop-immediately-at-unrecoverable-exit": "1"}).boot.service.restart
    assert restart.ends_at_once


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        ({"start-jitter": "10"}, "varies --start-delay; add that"),
        ({"stop-immediately-at-unrecoverable-exit": "1"}, "add --unrecoverable-exit-codes CODE"),
        ({"stop-escalation": "QUIT:30"}, "workers are killed after 30 s; give a longer --grace"),
    ],
)
def test_what_would_have_no_effect_is_refused(options: dict[str, str], way_out: str) -> None:
    with pytest.raises(UsageError, match=way_out):
        build(options)


def test_rolling_has_its_bounds() -> None:
    options = {"strategy": "rolling", "max-surge": "0", "max-unavailable": "2"}
    assert build(options).boot.service.strategy == Rolling(0, 2)


def test_paths_become_absolute(place: Path) -> None:
    boot = build(
        {
            "dir": "folder",
            "pid-file": "pid",
            "status-file": "status",
            "log-file": "log",
            "envdir": "envdir",
            "control": "control.sock",
        }
    ).boot
    assert boot.directory == f"{place}/folder"
    assert boot.env_dir == f"{place}/envdir"
    assert boot.control == f"{place}/control.sock"
    files = boot.files
    assert (files.pid, files.status, files.log) == tuple(
        f"{place}/{name}" for name in ("pid", "status", "log")
    )


def test_the_name_is_the_directorys_and_names_the_control_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1)
    boot = build({}).boot
    assert (boot.service.name, boot.control) == ("web", "/run/user/1/sengu/web.sock")
    boot = build({"name": "other"}, environ={"XDG_RUNTIME_DIR": ""}).boot
    assert (boot.service.name, boot.control) == ("other", "/tmp/sengu-1/other.sock")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert build({}).boot.control == "/run/sengu/web.sock"
    monkeypatch.chdir("/")
    assert build({}).boot.service.name == "root"


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (["./server"], {}),
        (["../server"], {"dir": "folder"}),
        (["sh", "-c", "exit"], {}),
        (["tool"], {"envdir": "envdir"}),
    ],
)
def test_a_program_is_looked_up_where_the_worker_will(
    place: Path, command: list[str], options: dict[str, str]
) -> None:
    (place / "server").rename(place / "bin" / "tool")
    (place / "server").symlink_to("bin/tool")
    (place / "envdir" / "PATH").write_text(f"{place}/bin\n")
    assert build(options, command).boot.service.command == tuple(command)


def test_options_that_are_variables_too_reach_the_servers_environment() -> None:
    options = {
        "enable-auto-restart": "1",
        "auto-restart-interval": "2m",
        "kill-old-delay": "500ms",
        "envdir": "envdir",
    }
    launch = build(options, environ={"KILL_OLD_DELAY": "9", "ENABLE_AUTO_RESTART": "0"})
    assert pacing_from(launch.environment) == Pacing(0.5, 120)
    expected = {
        "ENABLE_AUTO_RESTART": "1",
        "AUTO_RESTART_INTERVAL": "120",
        "KILL_OLD_DELAY": "0.5",
        "ENVDIR": "envdir",
    }
    assert {key: launch.environment[key] for key in expected} == expected


def test_variables_hold_when_no_option_is_given(place: Path) -> None:
    launch = build({}, environ={"ENABLE_AUTO_RESTART": "1", "ENVDIR": "envdir"})
    assert pacing_from(launch.environment) == Pacing(5, 360)
    assert launch.boot.env_dir == f"{place}/envdir"


def test_the_envdir_beats_options(place: Path) -> None:
    (place / "envdir" / "KILL_OLD_DELAY").write_text("7\n")
    launch = build({"kill-old-delay": "1", "envdir": "envdir"})
    assert launch.boot.env_dir is not None
    of_generation = {**launch.environment, **read_envdir(launch.boot.env_dir)}
    assert pacing_from(of_generation) == Pacing(7)
    assert launch.environment["KILL_OLD_DELAY"] == "1"


def test_a_log_command_stays_one() -> None:
    assert build({"log-file": " | cat -n 'a|b' "}).boot.files.log == "| cat -n 'a|b'"


def test_commands_before_a_deploy_are_words_in_their_order() -> None:
    given = {"pre-deploy": ["true", "env 'a b' c"], "pre-deploy-timeout": "2m"}
    service = build(given).boot.service
    assert service.pre_deploy == (("true",), ("env", "a b", "c"))
    assert service.pre_deploy_seconds == 120.0
    assert build({}).boot.service.pre_deploy == ()


BAD: list[tuple[str, Mapping[str, str | Sequence[str]], Sequence[str], str]] = [
    ("no command", {}, [], "add it: sengu start"),
    ("empty command", {}, [""], "name the program"),
    ("program not in PATH", {}, ["no-such-program"], "not found in PATH; check its name"),
    ("program in the directory only", {}, ["server"], "write ./server"),
    ("program not there", {}, ["./nothing"], "does not exist"),
    ("program relative to dir", {"dir": "folder"}, ["./server"], "folder/server"),
    ("program a directory", {}, ["./folder"], "is a directory"),
    ("program not executable", {}, ["./plain"], "chmod +x"),
    ("interpreter missing", {}, ["./orphan"], "/no/such/interpreter"),
    ("script without its first line", {}, ["./text"], "#!/bin/sh"),
    ("argument not UTF-8", {}, ["true", "\udcff"], "not UTF-8"),
    ("dir missing", {"dir": "nowhere"}, ["true"], "mkdir -p"),
    ("dir a file", {"dir": "plain"}, ["true"], "not a directory"),
    ("envdir missing", {"envdir": "nowhere"}, ["true"], "--envdir"),
    ("envdir a file", {"envdir": "plain"}, ["true"], "not a directory"),
    ("port twice", {"port": ["8080", "0.0.0.0:8080"]}, ["true"], "given twice"),
    ("path twice", {"path": ["a.sock", "./a.sock"]}, ["true"], "given twice"),
    ("descriptor twice", {"port": ["1=9", "2=9"]}, ["true"], "descriptor 9 too"),
    ("descriptor is stderr", {"port": ["1=2"]}, ["true"], "use 0, or 3 and up"),
    ("descriptor too high", {"port": ["1=99999999"]}, ["true"], "ulimit -n"),
    ("no such answer", {"on-server-loss": "kill"}, ["true"], "write stop or keep"),
    ("daemon without log", {"daemonize": "1"}, ["true"], "add --log-file"),
    ("probe without listener", {"ready": "tcp"}, ["true"], "add --port"),
    ("probe of UDP", {"ready": "http:/", "port": ["u53"]}, ["true"], "add --port"),
    ("pid file's directory missing", {"pid-file": "no/pid"}, ["true"], "mkdir -p"),
    ("pid file a directory", {"pid-file": "folder"}, ["true"], "is a directory"),
    ("status file's directory missing", {"status-file": "no/s"}, ["true"], "mkdir -p"),
    ("status file a directory", {"status-file": "folder"}, ["true"], "is a directory"),
    ("pid and status one file", {"pid-file": "f", "status-file": "./f"}, ["true"], "its own"),
    ("log's directory missing", {"log-file": "no/log"}, ["true"], "mkdir -p"),
    ("control's directory missing", {"control": "no/c"}, ["true"], "--control"),
    ("control too long", {"control": "c" * 108}, ["true"], "shorter --control"),
    ("name too long", {"name": "n" * 108}, ["true"], "shorter --control or --name"),
    ("name a path", {"name": "a/b"}, ["true"], "plain file name"),
    ("name dots", {"name": ".."}, ["true"], "plain file name"),
    ("name with a bell", {"name": "a\a"}, ["true"], "plain file name"),
    ("timeout within delay", {"ready-timeout": "1"}, ["true"], "longer timeout"),
    ("timeout within ready", {"ready": "delay:9", "ready-timeout": "9"}, ["true"], "longer"),
    ("surge bound alone", {"max-surge": "2"}, ["true"], "--strategy rolling"),
    (
        "no room to roll",
        {"strategy": "rolling", "max-surge": "0", "max-unavailable": "0"},
        ["true"],
        "allow one of them",
    ),
    ("log command missing", {"log-file": "|"}, ["true"], "name one"),
    ("log command unknown", {"log-file": "| no-such-program x"}, ["true"], "| sh -c"),
    ("log command a builtin", {"log-file": "| exec cat"}, ["true"], "| sh -c 'exec cat'"),
    ("log command piped", {"log-file": "| cat | cat"}, ["true"], "| sh -c 'cat | cat'"),
    ("log command redirected", {"log-file": "| cat >x"}, ["true"], "'>'"),
    ("log command with a variable", {"log-file": '| cat "$X"'}, ["true"], "'$'"),
    ("log command with a home", {"log-file": "| cat ~/x"}, ["true"], "'~'"),
    ("command before a deploy empty", {"pre-deploy": [" "]}, ["true"], "has no command; name one"),
    ("command unknown", {"pre-deploy": ["true", "no-such x"]}, ["true"], "'no-such' was not found"),
    ("command a builtin", {"pre-deploy": ["exec ./m"]}, ["true"], "write: sh -c 'exec ./m'"),
    ("command piped", {"pre-deploy": ["./m | ./n"]}, ["true"], "write: sh -c './m | ./n'"),
    (
        "command of another directory",
        {"pre-deploy": ["./server"], "dir": "folder"},
        ["true"],
        "r/s",
    ),
    ("no time for a command", {"pre-deploy-timeout": "0"}, ["true"], "more than 0"),
    ("log command with an open quote", {"log-file": "| cat 'x"}, ["true"], "close the quotes"),
]


@pytest.mark.parametrize(
    ("options", "command", "hint"), [row[1:] for row in BAD], ids=[row[0] for row in BAD]
)
def test_refused(
    options: Mapping[str, str | Sequence[str]], command: Sequence[str], hint: str, place: Path
) -> None:
    before = sorted(place.iterdir())
    with pytest.raises(UsageError) as raised:
        build(options, command)
    assert hint in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize("log", ["| cat a~b c#d '$x;y' \"a>b\"", r"| cat a\>b \$c"])
def test_what_a_shell_would_not_touch_needs_no_shell(log: str) -> None:
    assert build({"log-file": log}).boot.files.log == log


def test_a_bad_number_in_the_envdir_is_refused_by_its_name(place: Path) -> None:
    (place / "envdir" / "KILL_OLD_DELAY").write_text("soon\n")
    with pytest.raises(UsageError, match="KILL_OLD_DELAY 'soon'"):
        build({"envdir": "envdir"})


def test_a_directory_that_is_gone_is_told(place: Path) -> None:
    (place / "gone").mkdir()
    os.chdir(place / "gone")
    (place / "gone").rmdir()
    with pytest.raises(UsageError, match="cd to another"):
        build({})


def test_files_where_this_user_may_not_write_are_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def access(path: Any, mode: int, **_: Any) -> bool:
        return not (mode & os.W_OK) and os.path.exists(path)

    monkeypatch.setattr(os, "access", access)
    for name in ("pid-file", "status-file", "log-file", "control"):
        with pytest.raises(UsageError, match=f"--{name} .* may not create files in"):
            build({name: "file"})
    with pytest.raises(UsageError, match="may not be written"):
        build({"log-file": "plain"})


PassSocket = Callable[[int, int], None]


@pytest.fixture
def pass_socket() -> Iterator[PassSocket]:
    """Puts a listening socket at the descriptor, as a starter would; type by the second."""
    placed = []

    def put(fd: int, kind: int = socket.SOCK_STREAM) -> None:
        with socket.socket(socket.AF_INET, kind) as made:
            os.dup2(made.fileno(), fd)
        placed.append(fd)

    yield put
    for fd in placed:
        os.close(fd)


# Descriptors 3 and 4 are pytest's own, so the tests speak of higher ones where they can.
def starter(*names: str, first: int = 50) -> dict[str, str]:
    return {
        "SERVER_STARTER_PORT": ";".join(f"{name}={first + i}" for i, name in enumerate(names)),
        "SERVER_STARTER_GENERATION": "3",
    }


def test_listeners_of_another_server_starter_are_taken_over(pass_socket: PassSocket) -> None:
    pass_socket(50, socket.SOCK_STREAM)
    pass_socket(51, socket.SOCK_STREAM)
    launch = build({"ready": "tcp"}, environ=starter("127.0.0.1:8080", "/run/a:b.sock"))
    assert launch.boot.sockets.inherited == (
        Inherited(50, "tcp-8080"),
        Inherited(51, "unix-a-b.sock"),
    )


def test_what_a_starter_has_said_is_not_passed_on(pass_socket: PassSocket) -> None:
    pass_socket(50, socket.SOCK_STREAM)
    ours = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "NOTIFY_SOCKET": "@n"}
    environment = build({}, environ={**starter("8080"), **ours}).environment
    assert not [name for name in environment if name.startswith(("LISTEN_", "SERVER_STARTER"))]
    assert environment["NOTIFY_SOCKET"] == "@n"


def test_a_socket_named_twice_is_taken_once(pass_socket: PassSocket) -> None:
    pass_socket(50, socket.SOCK_STREAM)
    os.dup2(50, 51)
    try:
        inherited = build({}, environ=starter("8080", "0.0.0.0:8080")).boot.sockets.inherited
    finally:
        os.close(51)
    assert inherited == (Inherited(50, "tcp-8080"),)


def test_a_datagram_socket_cannot_be_probed(pass_socket: PassSocket) -> None:
    pass_socket(50, socket.SOCK_DGRAM)
    with pytest.raises(UsageError, match="add --port"):
        build({"ready": "tcp"}, environ=starter("8080"))


def test_systemds_listeners_for_another_process_are_not_ours() -> None:
    environ = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "9"}
    assert build({}, environ=environ).boot.sockets.inherited == ()


@pytest.mark.parametrize(
    ("environ", "hint"),
    [
        ({"LISTEN_FDS": "x"}, "LISTEN_FDS holds 'x'"),
        ({"LISTEN_FDS": "9999"}, "LISTEN_FDS names descriptor"),
        ({"SERVER_STARTER_PORT": "8080=900"}, "descriptor 900, which is no socket"),
        ({"SERVER_STARTER_PORT": "8080=x"}, "holds 'x' where a number is due"),
        ({"SERVER_STARTER_PORT": "8080"}, "'8080' where ADDRESS=FD is due"),
        ({"SERVER_STARTER_PORT": "what=50"}, "'what=50' where ADDRESS=FD is due"),
    ],
)
def test_listeners_that_are_not_there_are_refused(environ: dict[str, str], hint: str) -> None:
    with pytest.raises(UsageError, match="unset") as raised:
        build({}, environ={"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0", **environ})
    assert hint in str(raised.value)


def test_the_descriptor_limit_is_this_process_own() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.raises(UsageError, match=f"descriptors end at {limit - 1} here"):
        build({"port": [f"1={limit}"]})
