"""A deploy every second under load: not one request fails."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import Instance, Sengu, requires
from tests.system.puppets import Script, build

REQUESTS = 100_000
REQUESTS_OF_PYTHON = 20_000
CONCURRENCY = 20
HELLO = Path(__file__).parents[2] / "examples" / "hello"


def deploy_until_it_ends(instance: Instance, client: "subprocess.Popen[str]") -> str:
    """A deploy at once and every second while `client` runs; what it printed in the end."""
    while True:
        reply = instance.control("POST", "/v1/reload", {"wait": True})
        assert reply.body["outcome"] == "succeeded", reply
        output = output_within_a_second(client)
        if output is not None:
            assert client.returncode == 0, output
            return output


def output_within_a_second(client: "subprocess.Popen[str]") -> str | None:
    try:
        return client.communicate(timeout=1.0)[0]
    except subprocess.TimeoutExpired:
        return None


def run(*command: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def hammer(instance: Instance, address: str, count: int) -> None:
    client = run(build("hammer"), address, str(count), str(CONCURRENCY))
    output = deploy_until_it_ends(instance, client)
    assert re.fullmatch(rf"{count} 0 \d+\.\d\n", output), output


@pytest.mark.parametrize("workers", ["1", "4"])
def test_100_000_requests_over_tcp_and_a_deploy_every_second_lose_none(
    sengu: Sengu, port: int, script: Script, workers: str
) -> None:
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--workers", workers, "--ready", "notify"),
        *script.command,
    ).wait_ready()
    load = ["-q", "-r", "-l", "-c", str(CONCURRENCY), "-n", str(REQUESTS)]
    client = run(requires("ab"), *load, f"http://127.0.0.1:{port}/")
    output = deploy_until_it_ends(instance, client)
    assert re.search(rf"^Complete requests: +{REQUESTS}$", output, re.MULTILINE), output
    assert re.search(r"^Failed requests: +0$", output, re.MULTILINE), output
    assert "Non-2xx" not in output
    assert "errors" not in output


@pytest.mark.parametrize("workers", ["1", "4"])
def test_100_000_requests_over_a_unix_socket_and_a_deploy_every_second_lose_none(
    sengu: Sengu, script: Script, free_path: Path, workers: str
) -> None:
    """By a client of our own that counts as ab does: ab knows no UNIX sockets."""
    path = str(free_path / "socket")
    instance = sengu.start(
        *("--path", path, "--workers", workers, "--ready", "notify"), *script.command
    ).wait_ready()
    hammer(instance, path, REQUESTS)


@pytest.mark.parametrize("strategy", ["surge", "rolling"])
def test_no_request_is_lost_by_deploys_of_a_python_server(
    sengu: Sengu, port: int, free_path: Path, strategy: str
) -> None:
    shutil.copytree(HELLO, free_path / "hello")
    program = str(free_path / "hello" / "server.py")
    instance = sengu.start(
        *("--port", f"127.0.0.1:{port}", "--workers", "2", "--ready", "notify"),
        *("--strategy", strategy, "--", sys.executable, program),
    ).wait_ready()
    hammer(instance, str(port), REQUESTS_OF_PYTHON)
