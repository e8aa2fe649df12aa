"""Deploys of applications: new code, broken code, and clients that must not notice."""

import functools
import signal

import pytest

from tests.support import Sengu
from tests.system.peers import deploy
from tests.system.puppets import pids, wait_until
from tests.system.web import (
    ENVIRONMENT,
    Client,
    Site,
    ask,
    fetch,
    load,
    reload,
    serve,
)

TARGETS = ("plain:app", "plain:asgi")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("preload", [(), ("--no-preload",)], ids=["preload", "no-preload"])
def test_a_deploy_serves_new_code(
    sengu: Sengu, site: Site, port: int, target: str, preload: tuple[str, ...]
) -> None:
    instance = serve(sengu, site, port, "--workers", "2", *preload, target=target)
    assert ask(port)[:2] == ("one", 1)
    site.release("two")
    reload(instance, "--drained")
    assert ask(port)[:2] == ("two", 2)
    site.release("three")
    deploy(instance)  # by HUP
    instance.wait_event(lambda event: event["type"] == "generation_retired", since=0)
    with Client(port) as client:
        wait_until(lambda: client.ask()[:2] == ("three", 3))


def test_code_is_deployed_by_a_reload_only_though_workers_are_replaced_meanwhile(
    sengu: Sengu, site: Site, port: int
) -> None:
    """The fork server has imported the application; who is forked later runs the same code."""
    instance = serve(sengu, site, port, "--workers", "1")
    first = ask(port)
    site.release("two")
    last = instance.status()["last_event"]
    with pytest.raises(ConnectionError):
        fetch(port, "/leave?3")
    instance.wait_event(lambda event: event["type"] == "worker_ready", since=last)
    second = ask(port)
    assert second.version == "one"
    assert second.pid != first.pid


@pytest.mark.parametrize(
    ("options", "source", "words"),
    [
        ((), "import no_such_module", ("No module named 'no_such_module'", "version.py")),
        ((), "def broken(:", ("SyntaxError: ", "version.py")),
        ((), "TEXT = 1 / 0", ("ZeroDivisionError: division by zero", "version.py")),
        ((), "raise SystemExit(7)", ("SystemExit: 7", "version.py")),
        ((), "import os; os.abort()", ("signal ABRT",)),
        (("--no-preload",), "TEXT = 1 / 0", ("ZeroDivisionError: division by zero", "version.py")),
        (("--no-preload",), "raise SystemExit(7)", ("SystemExit: 7", "version.py")),
    ],
)
def test_broken_code_aborts_the_deploy_and_who_asked_for_it_gets_the_traceback(
    sengu: Sengu,
    site: Site,
    port: int,
    options: tuple[str, ...],
    source: str,
    words: tuple[str, ...],
) -> None:
    instance = serve(sengu, site, port, "--workers", "2", "--attempts", "1", *options)
    before = pids(instance)
    site.write("version.py", source)
    done = instance.cli("reload")
    assert done.returncode == 1
    assert "the deploy of generation 2 was aborted" in done.stderr
    assert "generation 1 keeps serving" in done.stderr
    for word in words:
        assert word in done.stderr
    assert ask(port)[:2] == ("one", 1)
    assert pids(instance) == before
    site.release("three")
    reload(instance)
    assert ask(port).version == "three"


def test_a_factory_makes_the_application(sengu: Sengu, site: Site, port: int) -> None:
    serve(sengu, site, port, "--workers", "1", target="plain:create_app()")
    assert ask(port).version == "one"


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("plain:ap", "did you mean app?"),
        ("plain:create_ap()", "did you mean create_app?"),
        ("plian:app", "plian"),
        ("plain:not_an_application", "not_an_application"),
        ("plain:create_nothing()", "no application today"),
        ("plain:create_app", "create_app()"),
    ],
)
def test_what_cannot_be_served_ends_the_start_with_one_clear_line(
    sengu: Sengu, site: Site, port: int, target: str, problem: str
) -> None:
    listen = ("--listen", f"127.0.0.1:{port}")
    instance = sengu.serve(target, *listen, cwd=site.directory, env=ENVIRONMENT)
    assert instance.wait() == 1
    instance.output.join(20)
    lines = [line for line in instance.lines if line.startswith("sengu: error: ")]
    assert len(lines) == 1, instance.lines
    assert problem in lines[0]


@pytest.mark.parametrize("target", TARGETS)
def test_an_idle_connection_survives_a_deploy(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    instance = serve(sengu, site, port, "--workers", "1", target=target)
    with Client(port) as client:
        before = client.ask()
        assert not before.closes
        site.release("two")
        reload(instance)
        kept = client.ask()
        assert kept == before._replace(closes=True)
        assert client.ask().version == "two"
    instance.wait_event(lambda event: event["type"] == "generation_retired")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_request_in_hand_is_answered(
    sengu: Sengu, site: Site, port: int, target: str, number: signal.Signals
) -> None:
    instance = serve(sengu, site, port, "--workers", "1", target=target)
    gate = site.gate()
    with Client(port) as client:
        client.send(f"/wait?{gate.path}")
        gate.wait_for_somebody()
        instance.signal(number)
        instance.wait_event(lambda event: event["type"] == "worker_stopping")
        gate.open()
        assert client.receive()[:2] == ("one", 1)
    if number is signal.SIGTERM:
        assert instance.wait() == 0
    assert not [line for line in instance.lines if "killed" in line]


def test_a_connection_whose_client_says_nothing_is_answered_by_who_is_there_when_it_does(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = serve(sengu, site, port, "--workers", "1")
    with Client(port) as client:
        client.connect()
        reload(instance)
        # The new worker, or the old one if the kernel had not the patience to wait for a word.
        assert client.ask().generation in (1, 2)


def _is_served_by(port: int, generation: int) -> bool:
    return ask(port).generation == generation


def test_several_generations_drain_at_the_same_time(sengu: Sengu, site: Site, port: int) -> None:
    instance = serve(sengu, site, port, "--workers", "1")
    gates = [site.gate(f"gate-{number}") for number in range(3)]
    clients = [Client(port) for _ in gates]
    for number, (client, gate) in enumerate(zip(clients, gates, strict=True), 1):
        wait_until(functools.partial(_is_served_by, port, number))
        client.send(f"/wait?{gate.path}")
        gate.wait_for_somebody()
        assert instance.cli("reload").returncode == 0
    assert len(pids(instance)) == 4
    for number, (client, gate) in enumerate(zip(clients, gates, strict=True), 1):
        gate.open()
        assert client.receive().generation == number
        client.close()
    wait_until(lambda: len(pids(instance)) == 1)


def test_the_lifespan_of_an_asgi_application_is_that_of_its_worker(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = serve(sengu, site, port, "--workers", "1", target="plain:asgi")
    instance.wait_for_line("lifespan lifespan.startup of one 1 0 ")
    gate = site.gate()
    with Client(port) as client:
        client.send(f"/wait?{gate.path}")
        gate.wait_for_somebody()
        assert instance.cli("reload").returncode == 0
        assert "lifespan lifespan.shutdown" not in str(instance.output)
        gate.open()
        client.receive()
    instance.wait_for_line("lifespan lifespan.shutdown of one 1 0 ")
    instance.wait_event(lambda event: event["type"] == "generation_retired")


def test_a_slow_start_of_new_code_keeps_the_old_code_serving(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = serve(sengu, site, port, "--workers", "2")
    gate = site.gate()
    with load(port) as clients:
        site.write("version.py", f"open({str(gate.path)!r}).read(); TEXT = 'two'")
        instance.signal(signal.SIGHUP)
        gate.wait_for_somebody()
        clients.wait_for("one", times=50)
        assert "two" not in clients.answers
        gate.open()
        clients.wait_for("two", times=50)


def test_a_deploy_that_is_overtaken_by_another_is_superseded(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = serve(sengu, site, port, "--workers", "1")
    gate = site.gate()
    site.write("version.py", f"open({str(gate.path)!r}).read(); TEXT = 'two'")
    instance.signal(signal.SIGHUP)
    gate.wait_for_somebody()
    site.release("three")
    reload(instance)
    assert ask(port)[:2] == ("three", 3)
    gate.open()
    wait_until(lambda: len(pids(instance)) == 1)
