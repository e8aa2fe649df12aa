"""Deploys under the load of real programs, straight and through nginx: nobody notices one."""

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ports import free_port
from tests.support import WAIT_SECONDS, Instance, Output, Sengu, requires
from tests.system.peers import deploy
from tests.system.puppets import wait_until
from tests.system.web import Site, ask, fetch, load, serve

TARGETS = ("plain:app", "plain:asgi")
LEAST_DEPLOYS = 3


def deploy_during(instance: Instance, *command: str) -> str:
    """Deploys one after the other while the command runs; what it says in the end.

    It runs again when it was over before it could have seen enough.
    """
    program = [requires(command[0]), *command[1:]]
    said, deploys = "", 0
    while deploys < LEAST_DEPLOYS:
        with subprocess.Popen(
            program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as running:
            while running.poll() is None:
                deploy(instance)
                deploys += 1
            assert running.stdout is not None
            said += running.stdout.read()
        assert running.returncode == 0, said
    return said


def assert_none_failed(said: str) -> None:
    """By what `ab` says, perhaps of several runs."""
    assert set(re.findall(r"^Failed requests: +(\d+)$", said, re.M)) == {"0"}, said
    assert "Non-2xx" not in said, said


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "options",
    [("-n", "8000", "-c", "20"), ("-n", "15000", "-k", "-c", "200")],
    ids=["a connection each", "kept connections"],
)
def test_ab_sees_no_deploy(
    sengu: Sengu, site: Site, port: int, target: str, options: tuple[str, ...]
) -> None:
    instance = serve(sengu, site, port, "--workers", "2", target=target)
    said = deploy_during(instance, "ab", "-q", *options, f"http://127.0.0.1:{port}/steady")
    assert_none_failed(said)


@pytest.mark.parametrize("target", TARGETS)
def test_wrk_whose_connections_are_kept_sees_no_deploy(
    sengu: Sengu, site: Site, port: int, target: str
) -> None:
    """It counts a connection that ends without an answer, also one that was idle."""
    instance = serve(sengu, site, port, "--workers", "2", target=target)
    wrk = ("wrk", "-t1", "-c50", "-d3s", "--timeout", "20s", f"http://127.0.0.1:{port}/steady")
    said = deploy_during(instance, *wrk)
    assert "errors" not in said, said
    assert "Non-2xx" not in said, said


CONFIGURATION = """
worker_processes 1;
daemon off;
pid {prefix}/nginx.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    upstream application {{ server 127.0.0.1:{behind}; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port};
        proxy_request_buffering off;  # its user may not write here
        location / {{
            proxy_pass http://application;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            # What goes wrong behind shall be seen in front.
            proxy_next_upstream off;
        }}
    }}
}}
"""


class Front(NamedTuple):
    """nginx on `port`, with kept connections to the application on `behind`."""

    port: int
    behind: int
    output: Output


@pytest.fixture
def front(sengu: Sengu, free_path: Path, port: int) -> Iterator[Front]:
    behind = free_port()
    configuration = free_path / "nginx.conf"
    text = CONFIGURATION.format(prefix=free_path, port=port, behind=behind)
    configuration.write_text(text)
    nginx = subprocess.Popen(
        [requires("nginx"), "-p", str(free_path), "-c", str(configuration), "-e", "stderr"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert nginx.stdout is not None
    output = Output(nginx.stdout)
    wait_until(lambda: _is_open(port), "nginx listens")
    yield Front(port, behind, output)
    nginx.terminate()
    nginx.wait(WAIT_SECONDS)
    output.join(WAIT_SECONDS)


def _is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("target", TARGETS)
def test_nginx_in_front_with_kept_connections_sees_no_deploy(
    sengu: Sengu, site: Site, front: Front, target: str
) -> None:
    options = ("--workers", "2", "--trusted-proxy", "127.0.0.1")
    instance = serve(sengu, site, front.behind, *options, target=target)
    with load(front.port, clients=4) as clients:
        for number in range(3):
            clients.wait_for("one" if number == 0 else f"release-{number}", times=20)
            site.release(f"release-{number + 1}")
            deploy(instance)
        clients.wait_for("release-3", times=20)
    assert fetch(front.port, "/upload", bytes(1_000_000)).text == "1000000"
    # A connection that is kept idle may still be answered once by the worker that has it.
    wait_until(lambda: ask(front.port).version == "release-3")
    assert front.output.lines == []


def test_ab_through_nginx_sees_no_deploy(sengu: Sengu, site: Site, front: Front) -> None:
    instance = serve(sengu, site, front.behind, "--workers", "2")
    ab = ("ab", "-q", "-k", "-n", "10000", "-c", "50", f"http://127.0.0.1:{front.port}/steady")
    said = deploy_during(instance, *ab)
    assert_none_failed(said)
    assert front.output.lines == []
