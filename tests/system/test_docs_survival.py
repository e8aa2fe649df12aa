"""docs/survival.md, as it is pasted: what is killed, what watches the lifeline."""

import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import wait_gone
from tests.support import WAIT_SECONDS, Instance, Sengu
from tests.system.peers import kill
from tests.system.puppets import of_type
from tests.system.web import CHECKOUT, ENVIRONMENT, fetch

PAGE = (CHECKOUT / "docs" / "survival.md").read_text()
WEB = CHECKOUT / "examples" / "web"
STUCK_SECONDS = 30.0


def block(kind: str, beginning: str) -> str:
    """The page's block of code that begins like that."""
    (text,) = re.findall(rf"^```{kind}\n({re.escape(beginning)}.*?)^```$", PAGE, re.M | re.S)
    return str(text)


def paste(command: str, instance: Instance) -> None:
    """Type a command of the page that kills something, for this instance."""
    done = subprocess.run(shlex.split(command.replace("try", instance.name)), check=False)
    assert done.returncode == 0, command  # else there was nobody of that name


def test_what_the_page_kills_is_replaced_until_all_is_over(sengu: Sengu, port: int) -> None:
    worker, fork_server, server, hang, supervisor = block("", "pkill").splitlines()
    options = ("--listen", f"127.0.0.1:{port}", "--workers", "1")
    instance = sengu.serve("hello:app", *options, cwd=WEB, env=ENVIRONMENT).wait_ready()
    first = instance.status()
    paste(worker, instance)
    instance.wait_event(of_type("worker_ready"), since=first["last_event"])
    paste(fork_server, instance)
    instance.wait_event(of_type("generation_lost"), since=first["last_event"])
    paste(server, instance)
    instance.wait_for_line("has taken over: 1 worker lives on")
    assert instance.status()["servers"] == 2  # so it has its title
    assert fetch(port).status == 200
    paste(hang, instance)
    assert fetch(port).status == 200
    instance.wait_for_line("is stuck; its stacks follow", STUCK_SECONDS)
    last = instance.status()
    assert (last["pid"], last["servers"]) == (first["pid"], 3)
    assert fetch(port).status == 200
    paste(supervisor, instance)
    assert instance.wait() == -signal.SIGKILL
    left = wait_gone([last["workers"][0]["pid"], last["server_pid"]], WAIT_SECONDS)
    assert not left


@pytest.fixture
def watcher(free_path: Path, request: pytest.FixtureRequest) -> list[str]:
    """A program that watches the lifeline in the language that is asked for."""
    if request.param == "python":
        script = free_path / "watcher.py"
        code = block("python", "import os, signal, threading")
        script.write_text(f"{code}\nwhile True:\n    signal.pause()\n")
        return [sys.executable, str(script)]
    script = free_path / "watcher.sh"
    script.write_text(block("sh", "#!/bin/sh"))
    return ["sh", str(script), "sleep", "600"]


@pytest.mark.parametrize("watcher", ["python", "sh"], indirect=True)
def test_who_watches_the_lifeline_ends_with_supervisor_and_server_only(
    sengu: Sengu, watcher: list[str]
) -> None:
    """`keep`, as the parent-death signal would end it otherwise."""
    options = ("--interval", "0.3", "--on-server-loss", "keep")
    instance = sengu.start(*options, "--", *watcher).wait_ready()
    before = instance.status()
    (worker,) = before["workers"]
    kill(before["server_pid"])
    instance.wait_for_line("has taken over: 1 worker lives on")
    server = instance.status()["server_pid"]
    instance.signal(signal.SIGSTOP)  # so that it starts no other
    kill(server)
    instance.signal(signal.SIGKILL)
    assert not wait_gone([worker["pid"]], WAIT_SECONDS)
