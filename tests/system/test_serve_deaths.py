"""Who is killed, gets stuck or wears out, and what becomes of the service meanwhile."""

import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import Instance, Sengu
from tests.system.peers import kept_events
from tests.system.puppets import kill, last_event, of_type, pids, wait_until, workers
from tests.system.web import (
    Client,
    Site,
    ask,
    connect,
    fetch,
    fork_server,
    fork_servers,
    get_request,
    load,
    reload,
    serve,
)


def wait_all_ready(instance: Instance, count: int) -> list[dict[str, Any]]:
    """The workers, when there are so many and all are ready."""
    wait_until(lambda: [w["state"] for w in workers(instance)] == ["ready"] * count)
    return workers(instance)


def test_a_killed_worker_is_replaced_by_one_of_the_same_fork_server(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = serve(sengu, site, port, "--workers", "2")
    forker, before = fork_server(instance), workers(instance)
    site.write("version.py", "raise RuntimeError('imported again')")
    for victim in before:
        since = last_event(instance)
        kill(victim["pid"])
        instance.wait_event(of_type("worker_ready"), since=since)
    assert fork_server(instance) == forker
    assert not pids(instance) & {victim["pid"] for victim in before}
    assert ask(port).version == "one"


def test_a_worker_that_exits_by_itself_is_replaced_and_told_of(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = serve(sengu, site, port, "--workers", "1")
    since = last_event(instance)
    with pytest.raises(ConnectionError):
        fetch(port, "/leave?3")
    exited = instance.wait_event(of_type("worker_exited"), since=since)
    assert "exit status 3" in exited["text"]
    instance.wait_event(of_type("worker_ready"), since=since)
    assert ask(port).version == "one"


def test_a_killed_fork_server_is_noticed_by_nobody_and_replaced_when_needed(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = serve(sengu, site, port, "--workers", "2")
    before = pids(instance)
    with load(port) as clients:
        kill(fork_server(instance))
        instance.wait_event(of_type("generation_lost"))
        clients.wait_for("one", times=20)
        assert pids(instance) == before
        assert not fork_servers(instance)
    since = last_event(instance)
    kill(min(before))
    instance.wait_event(of_type("worker_ready"), since=since)
    assert len(fork_servers(instance)) == 1
    assert ask(port).generation == 1


def test_all_are_killed_at_once_and_all_come_back(sengu: Sengu, site: Site, port: int) -> None:
    instance = serve(sengu, site, port, "--workers", "2", "--interval", "0.1")
    before = pids(instance)
    for pid in (fork_server(instance), *before):
        kill(pid)
    wait_until(lambda: not pids(instance) & before)
    wait_all_ready(instance, 2)
    assert ask(port).generation == 1
    assert instance.cli("reload").returncode == 0


def test_a_killed_server_is_noticed_by_nobody_and_replaced_at_once(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = serve(sengu, site, port, "--workers", "2")
    before, forker = pids(instance), fork_server(instance)
    gate = site.gate()
    with load(port) as clients, Client(port) as client:
        client.send(f"/wait?{gate.path}")
        gate.wait_for_somebody()
        for _ in range(3):
            since = last_event(instance)
            kill(instance.server_pid)
            instance.wait_event(of_type("server_adopted"), since=since)
        gate.open()
        assert client.receive().version == "one"
        clients.wait_for("one", times=20)
        assert (pids(instance), fork_server(instance)) == (before, forker)
    since = last_event(instance)
    kill(min(before))
    instance.wait_event(of_type("worker_ready"), since=since)
    assert fork_server(instance) == forker
    assert instance.cli("reload", "--drained").returncode == 0


def test_a_killed_supervisor_leaves_nobody_behind_and_the_request_in_hand_is_answered(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = serve(sengu, site, port, "--workers", "2")
    gate = site.gate()
    with Client(port) as client:
        client.send(f"/wait?{gate.path}")
        gate.wait_for_somebody()
        instance.signal(signal.SIGKILL)
        instance.wait()
        gate.open()
        assert client.receive().version == "one"
    # The fixture sees that nothing is left.


@pytest.mark.parametrize("target", ["plain:app", "plain:asgi"])
def test_a_request_over_its_time_is_told_with_all_stacks_and_its_worker_replaced(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    options = ("--workers", "2", "--timeout", "3", "--hooks", "hooked")
    instance = serve(sengu, site, port, *options, target=target)
    gate = site.gate()
    with Client(port) as client:
        client.send(f"/wait?{gate.path}")
        gate.wait_for_somebody()
        (stuck,) = [w for w in workers(instance) if w["busy"]]
        told = instance.wait_event(of_type("worker_stopping"))
        with pytest.raises(ConnectionError):
            client.receive()
    instance.wait_event(of_type("worker_ready"), since=told["id"])
    assert ask(port).version == "one"
    assert told["reason"].startswith("GET /wait was in hand for ")
    assert "without progress for more than 3 s" in told["reason"]
    wait_until(lambda: stuck["pid"] not in pids(instance))  # it ends beside the other's start
    assert stuck["doing"].startswith("GET /wait for ")
    instance.wait_for_line(rf'File "{site.directory}/plain.py", line \d+ in wait')
    instance.wait_for_line(
        rf"hook request_timeout of .* pid {stuck['pid']} in {stuck['pid']} on GET /wait$"
    )


def test_a_stuck_worker_keeps_nobody_from_the_others(sengu: Sengu, site: Site, port: int) -> None:
    instance = serve(sengu, site, port, "--workers", "2", "--timeout", "3")
    gate = site.gate()
    with Client(port) as client:
        client.send(f"/wait?{gate.path}")
        gate.wait_for_somebody()
        while "is asked to stop by ABRT: GET /wait was in hand" not in str(instance.output):
            assert ask(port).version == "one"


@pytest.mark.parametrize(
    ("target", "timeout", "seconds"),
    # The scoreboard of an event loop is a second behind, and looked at when it could be time.
    [("plain:app", "3", 3.7), ("plain:asgi", "3", 6.7)],
    ids=["plain:app", "plain:asgi"],
)
def test_slow_clients_are_no_stuck_application(
    sengu: Sengu, site: Site, port: int, target: str, timeout: str, seconds: float
) -> None:
    """Neither one that sends nor one that receives, though they take longer than `--timeout`."""
    threads = ("--threads", "4") if target == "plain:app" else ()
    options = ("--workers", "1", "--timeout", timeout, *threads)
    instance = serve(sengu, site, port, *options, target=target)
    before = pids(instance)
    size = 10_000_000
    head = f"POST /upload HTTP/1.1\nHost: localhost\nContent-Length: {size}\n\n"
    with connect(port, head) as sender, connect(port, get_request(f"/download?{size}")) as reader:
        sent, received, end = 0, 0, time.monotonic() + seconds
        while time.monotonic() < end:
            sent += sender.send(b"x" * 100)
            received += len(reader.recv(100))
            ask(port)
        sender.sendall(b"x" * (size - sent))
        assert sender.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        while received < size:
            piece = reader.recv(1 << 20)
            assert piece, f"the response ended after {received} bytes"
            received += len(piece)
    assert pids(instance) == before


def test_threads_serve_at_the_same_time(sengu: Sengu, site: Site, port: int) -> None:
    serve(sengu, site, port, "--workers", "1", "--threads", "4")
    clients = [Client(port) for _ in range(4)]
    for client in clients:
        client.send("/meet")
    assert len({client.receive().pid for client in clients}) == 1
    for client in clients:
        client.close()


def test_one_stuck_thread_of_many_is_seen(sengu: Sengu, site: Site, port: int) -> None:
    options = ("--workers", "1", "--threads", "3", "--timeout", "3")
    instance = serve(sengu, site, port, *options)
    gate = site.gate()
    before = ask(port)
    with Client(port) as client:
        client.send(f"/wait?{gate.path}")
        gate.wait_for_somebody()
        assert ask(port).pid == before.pid  # the others serve
        told = instance.wait_event(of_type("worker_stopping"))
        assert told["reason"].startswith("GET /wait was in hand for ")
        with pytest.raises(ConnectionError):
            client.receive()
    instance.wait_for_line(rf'File "{site.directory}/plain.py", line \d+ in wait')
    instance.wait_event(of_type("worker_ready"), since=told["id"])
    assert ask(port).pid != before.pid


@pytest.mark.parametrize("target", ["plain:app", "plain:asgi"])
def test_a_worker_is_replaced_after_so_many_requests_and_nobody_notices(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    options = ("--workers", "2", "--max-requests", "50")
    instance = serve(sengu, site, port, *options, target=target)
    before = pids(instance)
    with load(port, clients=3) as clients:
        wait_until(lambda: not pids(instance) & before)
        clients.wait_for("one", times=20)
    worn = [event["reason"] for event in kept_events(instance) if event["type"] == "worker_worn"]
    assert worn
    assert all("max-requests" in reason for reason in worn)


def test_workers_that_grow_are_replaced(sengu: Sengu, site: Site, port: int) -> None:
    instance = serve(sengu, site, port, "--workers", "1", "--max-rss", "100m")
    first = ask(port, "/grow?120")
    told = instance.wait_event(of_type("worker_stopping"))
    assert re.search(r"\d+ MiB resident, more than 100", told["reason"]), told
    wait_until(lambda: ask(port).pid != first.pid)


def test_old_workers_are_replaced_one_after_the_other(sengu: Sengu, site: Site, port: int) -> None:
    instance = serve(sengu, site, port, "--workers", "2", "--max-age", "1")
    before = pids(instance)
    with load(port) as clients:
        wait_until(lambda: not pids(instance) & before)
        clients.wait_for("one", times=20)


@pytest.mark.parametrize("target", ["plain:app", "plain:asgi"])
def test_a_stop_does_not_wait_for_connections_that_are_idle(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    """Neither in the generation that serves, nor in one that drains."""
    options = ("--workers", "1", "--grace", "3600")
    instance = serve(sengu, site, port, *options, target=target)
    with Client(port) as old, Client(port) as new:
        old.ask()
        reload(instance)
        assert new.ask().generation == 2
        assert len(pids(instance)) == 2
        assert instance.stop() == 0


def test_workers_are_added_and_taken_away_by_signals(sengu: Sengu, site: Site, port: int) -> None:
    instance = serve(sengu, site, port, "--workers", "1")
    instance.signal(signal.SIGTTIN)
    wait_all_ready(instance, 2)
    instance.signal(signal.SIGTTOU)
    wait_all_ready(instance, 1)
    instance.signal(signal.SIGWINCH)
    wait_until(lambda: not workers(instance))
    with Client(port) as client:
        client.send("/")  # it waits in the listener's queue
        instance.signal(signal.SIGHUP)
        assert client.receive().generation == 2


@pytest.mark.parametrize(
    ("profile", "number", "is_graceful"),
    [
        ("default", signal.SIGTERM, True),
        ("default", signal.SIGINT, True),
        ("default", signal.SIGQUIT, False),
        ("unicorn", signal.SIGQUIT, True),
        ("unicorn", signal.SIGTERM, False),
        ("unicorn", signal.SIGINT, False),
    ],
)
def test_a_stop_is_graceful_or_quick_as_the_profile_says(
    sengu: Sengu,
    site: Site,
    port: int,
    profile: str,
    number: signal.Signals,
    is_graceful: bool,
) -> None:
    instance = serve(sengu, site, port, "--workers", "1", "--signals", profile)
    gate = site.gate()
    with Client(port) as client:
        client.send(f"/wait?{gate.path}")
        gate.wait_for_somebody()
        instance.signal(number)
        if is_graceful:
            instance.wait_notified("STOPPING=1")
            gate.open()
            assert client.receive().version == "one"
        else:
            with pytest.raises(ConnectionError):
                client.receive()
    assert instance.wait() == 0
    assert not Path(instance.control_path).exists()
