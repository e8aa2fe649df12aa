"""The real start_server and `sengu start` with the same arguments, one after the other.

What children see must be the same, but for the differences that docs/server-starter.md lists.
"""

import os
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port
from tests.support import Instance, Sengu
from tests.system.conftest import StartPeer
from tests.system.peers import Peer, Witnesses, kill, wait_gone

OURS_ON_TOP = re.compile(r"LISTEN_(FDS|PID|FDNAMES)$|NOTIFY_SOCKET$|SENGU_")

Scenario = Callable[[Peer | Instance, Witnesses], Any]
OnBoth = Callable[..., tuple[Any, Any]]


@pytest.fixture
def on_both(sengu: Sengu, start_server: StartPeer, free_path: Path) -> OnBoth:
    """Runs a scenario with start_server, then with us; returns what it returned: (peer, ours)."""

    def run(scenario: Scenario, *args: str, options: tuple[str, ...] = (), **where: Any) -> Any:
        found = []
        for start in (start_server, sengu.start):
            place = free_path / start.__qualname__.replace("<", "").replace(">", "")
            place.mkdir()
            witnesses = Witnesses(place)
            manager = start(*args, "--interval", "0", "--", *witnesses.command(*options), **where)
            found.append(scenario(manager, witnesses))
            assert manager.stop() == 0
            witnesses.close()
        return tuple(found)

    return run


@contextmanager
def umask(mask: int) -> Iterator[None]:
    previous = os.umask(mask)
    try:
        yield
    finally:
        os.umask(previous)


def first_start(_manager: Peer | Instance, witnesses: Witnesses) -> Any:
    return witnesses.wait()


def without_numbers(ports: str) -> str:
    return re.sub(r"=\d+(;|$)", r"=FD\1", ports)


def named_sockets(report: dict[str, Any]) -> list[Any]:
    """What is at each descriptor that SERVER_STARTER_PORT names, in its order."""
    pairs = report["env"]["SERVER_STARTER_PORT"].split(";")
    return [report["sockets"][pair.rpartition("=")[2]] for pair in pairs]


def test_children_are_told_of_the_same_sockets(on_both: OnBoth, free_path: Path) -> None:
    ports = [free_port() for _ in range(7)]
    forms = (
        f"{ports[0]}",
        f"127.0.0.1:{ports[1]}",
        f"localhost:{ports[2]}",
        f"[::1]:{ports[3]}",
        f"u{ports[4]}",
        f"127.0.0.1:u{ports[5]}",
        f"[::1]:u{ports[6]}",
    )
    paths = [str(free_path / name) for name in ("one.sock", "two.sock")]
    options = [f"--port={form}" for form in forms] + [f"--path={path}" for path in paths]
    peer, ours = on_both(first_start, *reversed(options))
    told = [report["env"]["SERVER_STARTER_PORT"] for report in (peer, ours)]
    assert without_numbers(told[0]) == without_numbers(told[1])
    peers_sockets, our_sockets = named_sockets(peer), named_sockets(ours)
    # A documented difference: with it a second program could take a UDP port away unnoticed.
    for one, other in zip(peers_sockets, our_sockets, strict=True):
        if one["type"] == "SOCK_DGRAM":
            assert (one.pop("SO_REUSEADDR"), other.pop("SO_REUSEADDR")) == (1, 0)
    assert peers_sockets == our_sockets
    assert [one["V6ONLY"] for one in named_sockets(ours) if "V6ONLY" in one] == [1, 1]
    # Another: ours are numbered from 3 on, and nothing else is open.
    assert re.findall(r"=(\d+)", told[1]) == [str(fd) for fd in range(3, 12)]
    assert ours["env"]["LISTEN_FDS"] == "9"
    assert not [name for name in peer["env"] if OURS_ON_TOP.match(name)]


@pytest.mark.parametrize("fd", [0, 9])
def test_a_socket_is_at_the_descriptor_asked_for(on_both: OnBoth, port: int, fd: int) -> None:
    peer, ours = on_both(first_start, "--port", f"{port}={fd}")
    for report in (peer, ours):
        assert report["env"]["SERVER_STARTER_PORT"] == f"{port}={fd}"
        assert report["sockets"][str(fd)]["address"] == ["0.0.0.0", port]
    assert peer["sockets"][str(fd)] == ours["sockets"][str(fd)]


def test_socket_files_have_the_same_mode_whatever_the_umask(
    on_both: OnBoth, free_path: Path
) -> None:
    path = free_path / "app.sock"

    def mode(_manager: Peer | Instance, witnesses: Witnesses) -> Any:
        return witnesses.wait()["umask"], oct(path.stat().st_mode)

    with umask(0o027):
        peer, ours = on_both(mode, "--path", str(path))
    assert peer == ours == ("0027", "0o140777")
    assert not path.exists()


def test_children_have_the_same_environment(on_both: OnBoth, free_path: Path, port: int) -> None:
    envdir = free_path / "env"
    envdir.mkdir()
    for name, text in {
        "ONE_LINE": "a",
        "TWO_LINES": "b\nc\n",
        "SPACES": "  d  \n",
        "DOS": "e\r\n",
        "EMPTY_FILE": "",
        "EMPTY_LINE": "\n",
        ".hidden": "f",
        "BOTH": "from the envdir",
        "KILL_OLD_DELAY": "1",
    }.items():
        (envdir / name).write_text(text)
    (envdir / "directory").mkdir()
    env = {"BOTH": "ours", "EMPTY_FILE": "kept", "AUTO_RESTART_INTERVAL": "7", "PS1": "é\n $"}
    args = (
        *("--port", str(port), "--envdir", str(envdir), "--kill-old-delay", "2"),
        *("--auto-restart-interval", "600", "--enable-auto-restart"),
    )
    peer, ours = (report["env"] for report in on_both(first_start, *args, env=env))
    added = {name for name in ours if OURS_ON_TOP.match(name)}
    assert {name.split("_")[0] for name in added} == {"LISTEN", "NOTIFY", "SENGU"}
    # This one is for the manager: the harness gives it to us alone.
    ours = {name: text for name, text in ours.items() if name not in added}
    for env in (peer, ours):
        env["SERVER_STARTER_PORT"] = without_numbers(env["SERVER_STARTER_PORT"])
    assert ours == peer
    assert ours["KILL_OLD_DELAY"] == "1"
    assert ours["AUTO_RESTART_INTERVAL"] == "600"


def test_generations_count_up_with_every_hup(on_both: OnBoth) -> None:
    def generations(manager: Peer | Instance, witnesses: Witnesses) -> Any:
        seen = [witnesses.wait()]
        for _ in range(3):
            manager.signal(signal.SIGHUP)
            seen.append(witnesses.wait())
            witnesses.wait("TERM", pid=seen[-2]["pid"])
        return [report["env"]["SERVER_STARTER_GENERATION"] for report in seen]

    peer, ours = on_both(generations)
    assert peer == ours == ["1", "2", "3", "4"]


def test_a_replacement_after_a_crash_keeps_its_generation_unlike_the_peers(
    on_both: OnBoth,
) -> None:
    def generations(_manager: Peer | Instance, witnesses: Witnesses) -> Any:
        first = witnesses.wait()
        kill(first["pid"])
        return [report["env"]["SERVER_STARTER_GENERATION"] for report in (first, witnesses.wait())]

    peer, ours = on_both(generations)
    assert peer == ["1", "2"]
    assert ours == ["1", "1"]


@pytest.mark.parametrize("option", [(), ("--dir", "inner")])
def test_children_run_in_the_same_directory(
    on_both: OnBoth, tmp_path: Path, option: tuple[str, ...]
) -> None:
    (tmp_path / "inner").mkdir()
    peer, ours = on_both(first_start, *option, cwd=tmp_path)
    assert peer["cwd"] == ours["cwd"] == str(tmp_path / "inner" if option else tmp_path)


@pytest.mark.parametrize("hup", ["QUIT", "sigusr1"])
def test_children_get_the_same_signals(on_both: OnBoth, hup: str) -> None:
    def signals(manager: Peer | Instance, witnesses: Witnesses) -> Any:
        first = witnesses.wait()["pid"]
        manager.signal(signal.SIGHUP)
        second = witnesses.wait()["pid"]
        witnesses.wait(hup.upper().removeprefix("SIG"), pid=first)
        kill(first)  # if it was USR1, a witness lives on
        assert manager.stop() == 0
        witnesses.wait("USR2", pid=second)
        return [report["event"] for report in witnesses.unread()]

    peer, ours = on_both(signals, "--signal-on-hup", hup, "--signal-on-term", "USR2")
    assert peer == ours == []


def test_int_stops_us_as_term_does_and_the_peer_with_term_to_the_children(
    on_both: OnBoth,
) -> None:
    def told(manager: Peer | Instance, witnesses: Witnesses) -> Any:
        witnesses.wait()
        manager.signal(signal.SIGINT)
        assert manager.wait() == 0
        return [report["event"] for report in witnesses.unread()]

    peer, ours = on_both(told, "--signal-on-term", "QUIT")
    assert peer == ["TERM"]
    assert ours == ["QUIT"]


def test_pid_and_status_file_have_the_same_content(on_both: OnBoth, free_path: Path) -> None:
    pid_file, status_file = free_path / "pid", free_path / "status"

    def contents(manager: Peer | Instance, witnesses: Witnesses) -> Any:
        names = {str(manager.pid): "MANAGER"}
        seen = []

        def note(lines: int) -> None:
            while len(text := read(status_file).splitlines()) != lines:
                os.sched_yield()
            pids = re.sub(r"\d+$", lambda match: names[match[0]], "\n".join(text), flags=re.M)
            seen.append((pids, re.sub(r"\d+", lambda match: names[match[0]], read(pid_file))))

        first = witnesses.wait()["pid"]
        names[str(first)] = "FIRST"
        note(lines=1)
        manager.signal(signal.SIGHUP)
        second = witnesses.wait()["pid"]
        names[str(second)] = "SECOND"
        witnesses.wait("TERM", pid=first)
        note(lines=2)
        kill(first)
        note(lines=1)
        manager.signal(signal.SIGTERM)
        witnesses.wait("TERM", pid=second)
        kill(second)
        assert manager.wait() == 0
        return [*seen, pid_file.exists(), status_file.exists()]

    where = ("--pid-file", str(pid_file), "--status-file", str(status_file))
    peer, ours = on_both(contents, *where, options=("hold",))
    assert peer == ours
    assert ours == [
        ("1:FIRST", "MANAGER\n"),
        ("1:FIRST\n2:SECOND", "MANAGER\n"),
        ("2:SECOND", "MANAGER\n"),
        False,
        False,
    ]


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def test_the_output_of_children_goes_where_ours_goes(on_both: OnBoth) -> None:
    def output(manager: Peer | Instance, witnesses: Witnesses) -> Any:
        pid = witnesses.wait()["pid"]
        manager.signal(signal.SIGTERM)
        assert manager.wait() == 0
        wait_gone(pid)
        manager.output.join(5.0)
        return sorted(re.findall(rf"(\w+ on \w+) of {pid}", str(manager.output)))

    peer, ours = on_both(output, options=("talk",))
    assert peer == ours
    assert ours == ["TERM on stderr", "TERM on stdout", "started on stderr", "started on stdout"]


def test_a_worker_of_ours_has_a_session_and_null_on_stdin_the_peers_has_what_it_has(
    on_both: OnBoth,
) -> None:
    def found(manager: Peer | Instance, witnesses: Witnesses) -> Any:
        report = witnesses.wait()
        sessions = {report["pid"]: "worker", os.getsid(manager.pid): "manager"}
        return sessions[report["session"]], sorted(report["fds"])

    peer, ours = on_both(found)
    assert peer[0] == "manager"
    assert ours == ("worker", ["0", "1", "2", "3"])
