"""The web applications of examples/, served as their page says."""

import re
import shlex
import signal
from pathlib import Path

import pytest
from websockets.sync.client import connect as open_websocket

from tests.support import WAIT_SECONDS, Sengu
from tests.system.web import CHECKOUT, ENVIRONMENT, fetch

WEB = CHECKOUT / "examples" / "web"
COMMANDS = re.findall(
    r"^\| \[`hello.*\| `(sengu serve [^`]+)` \|$", (WEB / "README.md").read_text(), re.M
)


def test_the_page_has_all_examples() -> None:
    assert len(COMMANDS) == len(list(WEB.glob("*.py")))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_is_served_as_its_page_says(sengu: Sengu, port: int, command: str) -> None:
    target, *options = shlex.split(command)[2:]
    listen = ("--listen", f"127.0.0.1:{port}", "--workers", "2")
    instance = sengu.serve(target, *options, *listen, cwd=WEB, env=ENVIRONMENT).wait_ready()
    response = fetch(port)
    assert response.status == 200
    assert response.text.startswith("hello from process ")
    if "fastapi" in target:
        url = f"ws://127.0.0.1:{port}/echo"
        with open_websocket(url, open_timeout=WAIT_SECONDS) as socket:
            socket.send("hello")
            assert socket.recv(WAIT_SECONDS) == "echo hello"
        instance.wait_for_line("opens its connections")
    assert instance.cli("reload", "--drained").returncode == 0
    assert fetch(port).text.startswith("hello from process ")
    assert instance.stop() == 0


def test_the_readme_of_examples_serves_from_its_own_directory(
    sengu: Sengu, port: int, free_path: Path
) -> None:
    page = (WEB.parent / "README.md").read_text()
    (command,) = re.findall(r"`(sengu serve [^`]+)`\s*\|$", page, re.M)
    target, *options = shlex.split(command)[2:]
    listen = ("--listen", f"127.0.0.1:{port}", "--workers", "1")
    instance = sengu.serve(target, *options, *listen, cwd=WEB.parent, env=ENVIRONMENT)
    instance.wait_ready()
    assert fetch(port).status == 200
    instance.signal(signal.SIGTERM)
    assert instance.wait() == 0
