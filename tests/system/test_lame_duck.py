"""A service that was told to stop: readiness fails first, all is served on, then it ends."""

import signal
from pathlib import Path

import pytest

from tests.support import Instance, Sengu
from tests.system.load import Address, Load
from tests.system.puppets import Script, ask, kill, start, wait_until, workers
from tests.system.web import Client, Site, fetch, load, serve

LONG = ("--lame-duck", "600")
HEALTH = ("--health-path", "/healthz", "--workers", "2")


@pytest.fixture(params=["plain:app", "plain:asgi"])
def web(request: pytest.FixtureRequest, sengu: Sengu, site: Site, port: int) -> Instance:
    """With a lame-duck phase that ends only by a second stop."""
    return serve(sengu, site, port, *HEALTH, *LONG, target=request.param)


def readiness(instance: Instance) -> tuple[int, str]:
    done = instance.cli("status", "--ready")
    return done.returncode, done.stdout


def test_health_says_no_at_once_while_all_requests_are_answered(web: Instance, port: int) -> None:
    with Client(port) as prober, load(port) as visitors:
        visitors.wait_for("one")
        assert prober.fetch("/healthz").status == 200
        assert readiness(web)[0] == 0
        web.signal(signal.SIGTERM)
        wait_until(lambda: prober.fetch("/healthz").status == 503, "health to fail")
        assert fetch(port, "/healthz").status == 503
        web.wait_notified("STOPPING=1")
        assert readiness(web) == (1, f"{web.name}: not ready, it is stopping\n")
        visitors.wait_for("one", 50)
        assert {worker["state"] for worker in workers(web)} == {"ready"}
        for _ in range(20):
            assert fetch(port).status == 200  # on connections of their own
    assert web.stop() == 0


def test_a_new_server_keeps_saying_no(web: Instance, port: int) -> None:
    web.signal(signal.SIGTERM)
    wait_until(lambda: fetch(port, "/healthz").status == 503, "health to fail")
    kill(web.status()["server_pid"])
    web.wait_for_line("has taken over: 2 workers live on")
    assert fetch(port, "/healthz").status == 503
    assert fetch(port).status == 200
    assert readiness(web)[0] == 1
    assert web.cli("stop").returncode == 0
    assert web.wait() == 0


def test_a_deploy_does_not_make_health_say_no(web: Instance, port: int) -> None:
    with Client(port) as prober:
        assert prober.fetch("/healthz").status == 200
        assert web.cli("reload").returncode == 0
        assert prober.fetch("/healthz").status == 200  # of the old worker, if that is still there
        assert fetch(port, "/healthz").status == 200
    assert web.cli("stop", "--now").returncode == 0


def test_the_phase_ends_by_itself_and_then_requests_in_hand_are_answered(
    sengu: Sengu, site: Site, port: int
) -> None:
    gate = site.gate()
    instance = serve(sengu, site, port, *HEALTH, "--lame-duck", "500ms")
    with Client(port) as client:
        client.send(f"/wait?{gate.path}")
        gate.wait_for_somebody()
        instance.signal(signal.SIGTERM)
        instance.wait_for_line("is asked to stop by QUIT")
        gate.open()
        assert client.receive().version == "one"
    assert instance.wait() == 0
    instance.wait_for_line(r"until others have learnt of it \(--lame-duck\)")


def ask_puppet(address: Address) -> str:
    return str(ask(int(address[1])).generation)


def test_programs_serve_on_too(sengu: Sengu, port: int, tmp_path: Path) -> None:
    instance = start(sengu, port, Script(tmp_path), *LONG)
    with Load(("127.0.0.1", port), ask_puppet) as visitors:
        visitors.wait_for("1")
        instance.signal(signal.SIGTERM)
        wait_until(lambda: readiness(instance)[0] == 1, "readiness to fail")
        visitors.wait_for("1", 20)
        assert "it serves on for" in instance.cli("status").stdout
    assert visitors.failures == []
    assert instance.stop() == 0


def test_nobody_is_ready_where_nothing_runs(sengu: Sengu) -> None:
    assert sengu.run("status", "--ready", "nothing-of-that-name").returncode == 3
