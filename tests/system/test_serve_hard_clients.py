"""Clients that vanish, dawdle, are many or have much to say: the others do not notice."""

import resource
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support import Instance, Sengu, give_up, requires
from tests.system.puppets import memory_kib, pids, wait_until, workers
from tests.system.web import Site, ask, connect, get_request, load, read_all, reload, serve

TARGETS = ("plain:app", "plain:asgi")
LONG = f"/download?{1 << 30}"
UPLOAD = "POST /upload HTTP/1.1\nHost: localhost\nContent-Length: 1000000\n\n"
LARGE_BYTES = 256 << 20
# An application that has served small requests has about half as much.
MOST_KIB = 64 << 10


def reset(client: socket.socket) -> None:
    """Close with a reset, as one whose machine was switched off seems to do in the end."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def wait_idle(instance: Instance) -> None:
    """Until no request is in hand, and nobody is connected."""

    def looks_idle() -> bool:
        return all((w["busy"], w["connections"]) == (0, 0) for w in workers(instance))

    wait_until(looks_idle)


def only_worker(instance: Instance) -> int:
    (worker,) = pids(instance)
    return worker


@pytest.mark.parametrize("target", TARGETS)
def test_clients_that_vanish_in_their_body_leave_nothing_behind(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    instance = serve(sengu, site, port, "--workers", "1", target=target)
    worker = only_worker(instance)
    for leave in (socket.socket.close, reset) * 5:
        leave(connect(port, UPLOAD + "x" * 300_000))
    assert ask(port).pid == worker
    wait_idle(instance)
    assert only_worker(instance) == worker


@pytest.mark.parametrize("target", TARGETS)
def test_clients_that_vanish_in_a_response_end_it(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    instance = serve(sengu, site, port, "--workers", "1", target=target)
    worker = only_worker(instance)
    for leave in (socket.socket.close, reset) * 5:
        client = connect(port, get_request(LONG))
        assert client.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        leave(client)
    assert ask(port).pid == worker
    wait_idle(instance)
    wait_until(lambda: sum("no more blocks" in line for line in instance.lines) == 10)


@pytest.mark.parametrize("target", TARGETS)
def test_a_client_that_has_only_finished_its_sending_is_answered(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    serve(sengu, site, port, "--workers", "1", target=target)
    with connect(port, get_request("/steady", "Connection: close")) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client).endswith(b"\r\n\r\nsteady")


@pytest.mark.parametrize("target", TARGETS)
def test_slow_senders_are_given_up_and_keep_nobody_waiting_for_longer(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    # Long enough for the one who is not slow, on a machine that is.
    timeouts = ("--header-timeout", "3", "--body-timeout", "3")
    instance = serve(sengu, site, port, "--workers", "1", *timeouts, target=target)
    begun = ("", "GET / HTTP/1.1\nHost: loc", f"{UPLOAD}xxx")
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(port, request)) for request in begun]
        assert ask(port).version == "one"
        silent, *others = map(read_all, clients)
    assert silent == b""
    for said in others:
        assert said.startswith(b"HTTP/1.1 408 ")
    wait_idle(instance)


@pytest.mark.parametrize("target", TARGETS)
def test_a_silent_client_is_closed_and_not_counted_any_more(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    options = ("--workers", "1", "--header-timeout", "0.5")
    instance = serve(sengu, site, port, *options, target=target)
    with connect(port) as client:
        assert read_all(client) == b""
        wait_idle(instance)


@pytest.mark.parametrize("target", TARGETS)
def test_a_reader_that_does_not_read_is_given_up_and_keeps_nobody_waiting_for_longer(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    instance = serve(sengu, site, port, "--workers", "1", "--body-timeout", "0.5", target=target)
    with connect(port, get_request(LONG)) as client:
        assert ask(port).version == "one"
        wait_idle(instance)
        with suppress(ConnectionResetError):
            while client.recv(1 << 20):
                pass


def test_with_threads_slow_clients_keep_nobody_waiting(sengu: Sengu, site: Site, port: int) -> None:
    """As many as there are threads less one, for as long as they like."""
    serve(sengu, site, port, "--workers", "1", "--threads", "4")
    with ExitStack() as stack:
        for request in (f"{UPLOAD}xxx", get_request(LONG), f"{UPLOAD}xxx"):
            stack.enter_context(connect(port, request))
        with load(port) as clients:
            clients.wait_for("one", times=20)


@pytest.fixture
def descriptors() -> Iterator[int]:
    """How many descriptors we and what we start may have: as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("target", TARGETS)
def test_ten_thousand_idle_connections_are_kept_through_a_deploy(
    sengu: Sengu, site: Site, port: int, target: str, descriptors: int
) -> None:
    count = 10_000
    if descriptors < count + 500:
        give_up(f"needs {count + 500} descriptors, `ulimit -Hn` is {descriptors}")
    # The first ones say nothing until the last is there.
    options = ("--workers", "2", "--header-timeout", "60", "--grace", "60")
    instance = serve(sengu, site, port, *options, target=target)
    old = pids(instance)
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = connect(port)
            stack.callback(reset, client)
            clients.append(client)
        for client in clients:
            client.sendall(get_request("/steady").replace("\n", "\r\n").encode())
        for client in clients:
            said = b""
            while not said.endswith(b"\r\n\r\nsteady"):
                piece = client.recv(4096)
                assert piece, said
                said += piece
        # Told with the next request, or within a second.
        wait_until(lambda: sum(w["connections"] for w in workers(instance)) == count)
        assert all(memory_kib(pid, "VmHWM") < 2 * MOST_KIB for pid in old)
        site.release("two")
        reload(instance)
        assert ask(port).version == "two"
        for client in clients[:: count // 100]:
            client.sendall(get_request("/").replace("\n", "\r\n").encode())
            last = read_all(client).decode()
            assert "\r\nconnection: close\r\n" in last.lower()
            assert last.split("\r\n\r\n")[1].startswith("one 1 ")
    wait_until(lambda: not pids(instance) & old)


def curl(*args: str) -> str:
    done = subprocess.run(
        [requires("curl"), "--silent", "--show-error", "--fail", *args],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("coding", ["identity", "chunked"])
def test_a_large_body_passes_through_little_memory(
    sengu: Sengu, site: Site, port: int, free_path: Path, target: str, coding: str
) -> None:
    instance = serve(sengu, site, port, "--workers", "1", target=target)
    body = free_path / "body"
    with body.open("wb") as stream:
        stream.truncate(LARGE_BYTES)
    upload = ("--upload-file", str(body), "--header", f"Transfer-Encoding: {coding}")
    header = upload if coding == "chunked" else upload[:2]
    assert curl(*header, f"http://127.0.0.1:{port}/upload") == str(LARGE_BYTES)
    assert memory_kib(only_worker(instance), "VmHWM") < MOST_KIB


@pytest.mark.parametrize("target", TARGETS)
def test_a_large_response_passes_through_little_memory(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    instance = serve(sengu, site, port, "--workers", "1", target=target)
    what = ("--output", "/dev/null", "--write-out", "%{size_download}")
    assert curl(*what, f"http://127.0.0.1:{port}/download?{LARGE_BYTES}") == str(LARGE_BYTES)
    assert memory_kib(only_worker(instance), "VmHWM") < MOST_KIB
    assert ask(port).version == "one"
