"""`--reuseport`: a socket for each slot. Nothing is lost by deploys, scaling or deaths, of programs
that leave their queue behind when they go, and clients are spread evenly."""

import re
import signal
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support import WAIT_SECONDS, Instance, Sengu, requires
from tests.system.load import Load
from tests.system.load import ask as ask_bytes
from tests.system.peers import deploy
from tests.system.puppets import (
    Answer,
    Clients,
    Script,
    build,
    connect,
    descriptors,
    kill,
    of_type,
    pids,
    read_answer,
    start,
    wait_until,
    workers,
)
from tests.system.test_serve_under_load import assert_none_failed, deploy_during
from tests.system.web import Site, load, serve

REUSEPORT = "--reuseport"


def scale(instance: Instance, count: int) -> None:
    """Until all are as wanted, and whoever was to go is gone."""
    done = instance.cli("scale", str(count))
    assert done.returncode == 0, done.stderr
    wait_settled(instance, count)


def wait_settled(instance: Instance, count: int) -> None:
    def is_settled() -> bool:
        return [w["state"] for w in workers(instance)] == ["ready"] * count

    wait_until(is_settled, f"{count} workers")


def sockets_on(port: int) -> int:
    """How many sockets are bound to that port, be it of TCP or UDP."""
    command = [requires("ss"), "-Htuln", f"sport = :{port}"]
    return len(subprocess.run(command, capture_output=True, check=True).stdout.splitlines())


def wait_for_sockets(port: int, count: int) -> None:
    wait_until(lambda: sockets_on(port) == count, f"{count} sockets")


def per_slot(instance: Instance) -> dict[int, int]:
    """Requests of the workers that live."""
    return {worker["slot"]: worker["requests"] for worker in workers(instance)}


# --- sengu serve ---


@pytest.mark.parametrize("target", ["plain:app", "plain:asgi"])
@pytest.mark.parametrize(
    "options",
    [("-n", "8000", "-c", "20"), ("-n", "15000", "-k", "-c", "200")],
    ids=["a connection each", "kept connections"],
)
def test_ab_sees_no_deploy_of_a_web_application(
    sengu: Sengu, site: Site, port: int, target: str, options: tuple[str, ...]
) -> None:
    instance = serve(sengu, site, port, REUSEPORT, "--workers", "4", target=target)
    said = deploy_during(instance, "ab", "-q", *options, f"http://127.0.0.1:{port}/steady")
    assert_none_failed(said)
    assert sockets_on(port) == 4


def test_ab_is_spread_evenly_over_the_workers(sengu: Sengu, site: Site, port: int) -> None:
    instance = serve(sengu, site, port, REUSEPORT, "--workers", "4")
    ab = [requires("ab"), "-q", "-n", "4000", "-c", "20", f"http://127.0.0.1:{port}/steady"]
    said = subprocess.run(ab, capture_output=True, text=True, check=True).stdout
    assert_none_failed(said)
    requests = per_slot(instance)
    assert set(requests) == {0, 1, 2, 3}
    assert all(500 < count < 2000 for count in requests.values()), requests


def test_no_request_is_lost_by_scaling_a_web_application(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = serve(sengu, site, port, REUSEPORT, "--workers", "4")
    with load(port, clients=3) as kept, Load(("127.0.0.1", port), _steadily, clients=3) as fresh:
        for count in (2, 4, 1, 3):
            scale(instance, count)
            wait_for_sockets(port, count)
            kept.wait_for("one", times=10)
            fresh.wait_for("steady", times=30)
    assert fresh.failures == []


def _steadily(address: tuple[str, int]) -> str:
    request = b"GET /steady HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
    return ask_bytes(address, request).rpartition(b"\r\n\r\n")[2].decode()


def test_fork_server_has_no_socket_and_each_worker_its_own(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = serve(sengu, site, port, REUSEPORT, "--workers", "2")
    first, second = (_socket_at_3(pid) for pid in sorted(pids(instance)))
    assert first != second
    assert {first, second} < set(descriptors(instance.server_pid))
    deploy(instance)
    assert {_socket_at_3(pid) for pid in pids(instance, 2)} == {first, second}


def _socket_at_3(pid: int) -> str:
    return str(Path(f"/proc/{pid}/fd/3").readlink())


# --- sengu start, with programs that leave their queue when they are asked to stop ---


@pytest.mark.parametrize("ready", ["notify", "http:/", "tcp"])
def test_no_request_is_lost_by_deploys_and_scaling_of_a_program(
    sengu: Sengu, port: int, script: Script, ready: str
) -> None:
    """Whatever way it is found to be ready: a probe has to come to a slot that gets nobody else."""
    options = (REUSEPORT, "--workers", "4", "--ready", ready)
    instance = start(sengu, port, script, *options)
    with Clients(port) as clients:
        for count in (4, 2, 4):
            scale(instance, count)
            deploy(instance)
            answers = clients.wait_for_answers(40 * count)
            assert {answer.slot for answer in answers} == set(range(count))
            wait_for_sockets(port, count)


def test_rolling_deploy_loses_no_request_of_a_slot_that_is_empty_meanwhile(
    sengu: Sengu, port: int, script: Script
) -> None:
    rolling = ("--strategy", "rolling", "--max-surge", "0", "--max-unavailable", "1")
    instance = start(sengu, port, script, REUSEPORT, "--workers", "3", *rolling)
    with Clients(port) as clients:
        for _ in range(3):
            deploy(instance)
            clients.wait_for_answers(30)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    """As a worker that has much to do: it takes nobody."""
    kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        kill(pid, signal.SIGCONT)


def clients_who_wait(port: int, stack: ExitStack, count: int = 30) -> list[socket.socket]:
    """So many clients; of two workers one is frozen, and about half of them have no answer."""
    clients = [stack.enter_context(connect(port, "/")) for _ in range(count)]
    for client in clients:
        client.shutdown(socket.SHUT_WR)  # the worker does not wait until we have read its answer
    return clients


def pid_in(instance: Instance, slot: int) -> int:
    return int(next(w["pid"] for w in workers(instance) if w["slot"] == slot))


def test_successor_of_a_killed_worker_serves_those_who_waited_for_it(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, REUSEPORT, "--workers", "2")
    victim = pid_in(instance, 1)
    with ExitStack() as stack:
        with frozen(victim):
            clients = clients_who_wait(port, stack)
            kill(victim)
        answers = list(map(read_answer, clients))
    assert {answer.slot for answer in answers} == {0, 1}
    assert victim not in {answer.pid for answer in answers}


def test_workers_killed_under_load_take_only_what_they_have_in_hand(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, REUSEPORT, "--workers", "3")
    kills = 6
    with Load(("127.0.0.1", port), clients=4) as clients:
        for number in range(kills):
            clients.wait_for_any(30)
            kill(pid_in(instance, number % 3))
            wait_until(lambda: [w["state"] for w in workers(instance)] == ["ready"] * 3)
    assert len(clients.failures) <= kills, clients.failures


def test_worker_that_goes_serves_those_who_wait_for_it_first(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, REUSEPORT, "--workers", "2", "--drain", "60")
    with ExitStack() as stack:
        with frozen(pid_in(instance, 1)):
            clients = clients_who_wait(port, stack)
            assert instance.cli("scale", "1").returncode == 0
            instance.wait_event(of_type("worker_draining"))
            fresh = clients_who_wait(port, stack)
            assert {read_answer(client).slot for client in fresh} == {0}, "led past the other"
            assert {w["state"] for w in workers(instance)} == {"ready", "draining"}
        assert {read_answer(client).slot for client in clients} == {0, 1}
    drained = instance.wait_event(of_type("worker_drained"))
    assert drained["how"] == "nobody waits for it any more"
    wait_for_sockets(port, 1)


def test_worker_that_does_not_empty_its_queue_is_not_waited_for_longer_than_told(
    sengu: Sengu, port: int, script: Script
) -> None:
    """It is stopped all the same; then those who still wait are passed on to others."""
    options = (REUSEPORT, "--workers", "2", "--drain", "0.2", "--grace", "0.2")
    instance = start(sengu, port, script, *options)
    with ExitStack() as stack, frozen(pid_in(instance, 1)):
        clients = clients_who_wait(port, stack)
        assert instance.cli("scale", "1").returncode == 0
        stopped = instance.wait_event(of_type("worker_stopping"))
        assert "queues were not empty after 0.2 s" in stopped["reason"]
        assert {read_answer(client).slot for client in clients} == {0}
    wait_for_sockets(port, 1)


def test_server_killed_while_a_worker_drains_goes_on_with_it(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, REUSEPORT, "--workers", "3", "--drain", "60")
    with ExitStack() as stack:
        with frozen(pid_in(instance, 2)):
            clients = clients_who_wait(port, stack)
            assert instance.cli("scale", "2").returncode == 0
            instance.wait_event(of_type("worker_draining"))
            kill(instance.server_pid)
            instance.wait_event(of_type("server_adopted"))
            assert sockets_on(port) == 3
            assert [w["state"] for w in workers(instance)] == ["ready", "ready", "draining"]
            fresh = clients_who_wait(port, stack)
            assert {read_answer(client).slot for client in fresh} <= {0, 1}
        answers = list(map(read_answer, clients))
    assert {answer.slot for answer in answers} == {0, 1, 2}
    wait_for_sockets(port, 2)
    wait_settled(instance, 2)
    scale(instance, 3)
    with Clients(port) as load_after:
        assert {answer.slot for answer in load_after.wait_for_answers(60)} == {0, 1, 2}


def test_servers_killed_during_deploys_and_scaling_lose_no_request(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, REUSEPORT, "--workers", "3")
    with Clients(port) as clients:
        for count in (3, 2, 3):
            scale(instance, count)
            instance.control("POST", "/v1/reload", {"wait": False})
            kill(instance.server_pid)
            clients.wait_for_answers(60)
            wait_until(lambda: instance.status()["state"] == "serving")
            wait_for_sockets(port, count)


def test_resting_service_keeps_its_sockets_and_those_who_wait(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, REUSEPORT, "--workers", "2")
    instance.signal(signal.SIGWINCH)
    wait_until(lambda: not workers(instance), "nobody works")
    assert sockets_on(port) == 2
    with ExitStack() as stack:
        clients = clients_who_wait(port, stack)
        deploy(instance)
        assert {read_answer(client).slot for client in clients} == {0, 1}


def test_port_0_is_one_port_for_all_and_a_descriptor_that_is_asked_for_is_had(
    sengu: Sengu, script: Script
) -> None:
    instance = sengu.start(
        *("--port", "127.0.0.1:0=9", REUSEPORT, "--workers", "3", "--ready", "notify"),
        *script.command,
    ).wait_ready()
    (listener,) = instance.status()["listeners"]
    port = int(listener["address"].rpartition(":")[2])
    assert sockets_on(port) == 3
    for pid in pids(instance):
        assert Path(f"/proc/{pid}/fd/9").readlink() == Path(f"/proc/{pid}/fd/3").readlink()
    with Clients(port) as clients:
        assert {answer.slot for answer in clients.wait_for_answers(60)} == {0, 1, 2}


def test_port_of_another_instance_is_refused_also_to_the_same_user(
    sengu: Sengu, port: int, script: Script
) -> None:
    start(sengu, port, script, REUSEPORT)
    second = sengu.start("--port", f"127.0.0.1:{port}", REUSEPORT, *script.command)
    second.wait_for_line(f"cannot bind 127.0.0.1:{port}: address already in use")
    assert second.wait() != 0


# --- programs of other kinds ---


class Echoes:
    """Clients of the UDP echo, each with one datagram at a time. A lost one ends its client."""

    def __init__(self, port: int, count: int = 4) -> None:
        self._address = ("127.0.0.1", port)
        self._is_over = threading.Event()
        self.answers = Counter[int]()
        self.sources: list[list[Answer]] = [[] for _ in range(count)]
        self.failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._run, args=(source,)) for source in self.sources
        ]

    def _run(self, source: list[Answer]) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(WAIT_SECONDS / 2)
            number = 0
            while not self._is_over.is_set():
                number += 1
                client.sendto(b"%d" % number, self._address)
                try:
                    *who, echoed = map(int, client.recv(1024).split())
                except TimeoutError:
                    self.failures.append(f"datagram {number} after {source[-1:]}")
                    return
                assert echoed == number
                source.append(Answer(*who))

    def wait_for_more(self, count: int = 50) -> list[set[Answer]]:
        """Who has answered each of them so many times, but for what is on its way just now."""
        before = [len(source) + 1 for source in self.sources]

        def have_come() -> bool:
            pairs = zip(self.sources, before, strict=True)
            return bool(self.failures) or all(len(now) >= then + count for now, then in pairs)

        wait_until(have_come, "echoes")
        return [set(now[then:]) for now, then in zip(self.sources, before, strict=True)]

    def __enter__(self) -> "Echoes":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def test_no_datagram_is_lost_by_deploys_and_scaling(sengu: Sengu, port: int) -> None:
    instance = sengu.start(
        *("--port", f"127.0.0.1:u{port}", REUSEPORT, "--workers", "4", "--ready", "notify"),
        *("--", build("udp_echo")),
    ).wait_ready()
    with Echoes(port) as echoes:
        for count in (4, 2, 4):
            scale(instance, count)
            deploy(instance)
            wait_settled(instance, count)  # the old ones have the same sockets
            wait_for_sockets(port, count)
            for who in echoes.wait_for_more():
                assert len(who) == 1, "a client stays with its worker while nothing changes"
    assert echoes.failures == []


def test_memcached_is_scaled_and_no_client_is_turned_away(sengu: Sengu, port: int) -> None:
    """It can only bind by itself, and knows no SO_REUSEPORT: a shim has it take what it was passed.

    When it is asked to stop it drops whoever it has accepted. Of slots that are scaled away nobody
    is left by then, as clients were led past them before.
    """
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", REUSEPORT, "--workers", "4", "--ready", "tcp", "--"),
        *(requires("memcached"), "-u", "root", "-l", "127.0.0.1", "-p", str(port), "-t", "1"),
        env={"LD_PRELOAD": build("inherit", "-shared", "-fPIC")},
    ).wait_ready()
    with Load(("127.0.0.1", port), _version, clients=3) as clients:
        for count in (2, 4, 1, 4):
            scale(instance, count)
            clients.wait_for("VERSION", times=50)
    assert clients.failures == []
    deploy(instance)
    wait_until(lambda: pids(instance, 2) == pids(instance), "the old ones are gone")
    assert {_pid_of_memcached(port) for _ in range(60)} == pids(instance, 2)


def _version(address: tuple[str, int]) -> str:
    found = ask_bytes(address, b"version\r\nquit\r\n").decode()
    if re.fullmatch(r"VERSION [\d.]+\r\n", found) is None:
        raise ConnectionError(f"an answer that is none: {found!r}")
    return "VERSION"


def _pid_of_memcached(port: int) -> int:
    found = ask_bytes(("127.0.0.1", port), b"stats\r\nquit\r\n").decode()
    match = re.search(r"STAT pid (\d+)", found)
    assert match is not None, found
    return int(match[1])
