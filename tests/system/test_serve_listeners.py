"""Where an application is served: TCP of both families, UNIX sockets, sockets of systemd."""

import http.client
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.support import PROGRAM, WAIT_SECONDS, Sengu, UnixConnection, give_up
from tests.system.puppets import pids
from tests.system.test_systemd import PASS
from tests.system.web import ENVIRONMENT, Site, ask, connect, get_request, read_all, serve


def ask_unix(path: Path) -> str:
    with closing(UnixConnection(path, WAIT_SECONDS)) as connection:
        connection.request("GET", "/")
        return connection.getresponse().read().decode()


@pytest.mark.parametrize("target", ["plain:app", "plain:asgi"])
def test_a_unix_socket_and_two_ports_are_served_and_survive_a_deploy(
    sengu: Sengu, site: Site, port: int, free_path: Path, target: str
) -> None:
    path, other = free_path / "app.sock", free_port()
    more = ("--listen", f"unix:{path}", "--listen", f"127.0.0.1:{other}", "--workers", "2")
    instance = serve(sengu, site, port, *more, target=target)
    assert ask(port).version == ask(other).version == ask_unix(path).split()[0] == "one"
    site.release("two")
    assert instance.cli("reload", "--drained").returncode == 0
    assert ask(port).version == ask(other).version == ask_unix(path).split()[0] == "two"
    names = [listener["address"] for listener in instance.status()["listeners"]]
    assert names == [f"127.0.0.1:{port}", str(path), f"127.0.0.1:{other}"]
    assert instance.stop() == 0
    assert not path.exists()


def test_a_unix_socket_alone_is_enough(sengu: Sengu, site: Site, free_path: Path) -> None:
    path = free_path / "app.sock"
    args = ("--listen", f"unix:{path}", "--path-mode", "600")
    instance = sengu.serve("plain:app", *args, cwd=site.directory, env=ENVIRONMENT).wait_ready()
    assert ask_unix(path).startswith("one 1 ")
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(instance.status()["listeners"]) == 1


def test_an_abstract_unix_socket_is_served(sengu: Sengu, site: Site) -> None:
    name = f"sengu-test-{free_port()}"
    args = ("--listen", f"unix:@{name}")
    sengu.serve("plain:app", *args, cwd=site.directory, env=ENVIRONMENT).wait_ready()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(f"\0{name}")
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"one 1 " in read_all(client)


def test_ipv6_is_served(sengu: Sengu, site: Site) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
            port = probe.getsockname()[1]
    except OSError as problem:
        give_up(f"no IPv6 here: {problem}")
    args = ("--listen", f"[::1]:{port}")
    sengu.serve("plain:app", *args, cwd=site.directory, env=ENVIRONMENT).wait_ready()
    with closing(http.client.HTTPConnection("::1", port, timeout=WAIT_SECONDS)) as connection:
        connection.request("GET", "/")
        assert connection.getresponse().read().startswith(b"one 1 ")


@pytest.mark.parametrize("count", [1, 2])
def test_sockets_of_systemd_are_served_without_any_option(
    sengu: Sengu, site: Site, monkeypatch: pytest.MonkeyPatch, free_path: Path, count: int
) -> None:
    port, path = free_port(), free_path / "passed.sock"
    addresses = (str(port), str(path))[:count]
    names = ":".join(("http", "admin")[:count])
    words = (sys.executable, "-c", PASS, names, *addresses, "--", *PROGRAM)
    monkeypatch.setattr("tests.support.PROGRAM", words)
    instance = sengu.serve("plain:app", cwd=site.directory, env=ENVIRONMENT).wait_ready()
    assert [one["name"] for one in instance.status()["listeners"]] == names.split(":")
    assert ask(port).version == "one"
    site.release("two")
    monkeypatch.undo()
    assert instance.cli("reload", "--drained").returncode == 0
    assert ask(port).version == "two"
    if count == 2:
        assert ask_unix(path).startswith("two 2 ")


def test_connections_that_come_before_any_worker_wait_for_it(
    sengu: Sengu, site: Site, port: int
) -> None:
    gate = site.gate()
    site.write("version.py", f"open({str(gate.path)!r}).read(); TEXT = 'late'")
    listen = ("--listen", f"127.0.0.1:{port}", "--workers", "1")
    instance = sengu.serve("plain:app", *listen, cwd=site.directory, env=ENVIRONMENT)
    gate.wait_for_somebody()
    with connect(port, get_request("/", "Connection: close")) as client:
        gate.open()
        assert b"late 1 0 " in read_all(client)
    assert len(pids(instance.wait_ready())) == 1
