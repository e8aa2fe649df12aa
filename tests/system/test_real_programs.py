"""Unmodified programs as workers: four languages on one socket, nginx, gunicorn, uvicorn.

And each way of being ready.
"""

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import Instance, Sengu, requires
from tests.system.load import Address, Load, ask_http, ask_pid
from tests.system.peers import Witnesses, kept_events
from tests.system.puppets import wait_until, workers

EXAMPLES = Path(__file__).parents[2] / "examples"
MULTI_ACCEPT = EXAMPLES / "multi_accept"

NOTIFY = ("--ready", "notify")

# Answers each request with the status and the text in the file of argv[1], read at its start.
ANSWER = """
import os, signal, socket, sys
status, text = open(sys.argv[1]).read().split()
if status == "deaf":
    signal.pause()
listener = socket.socket(fileno=3)
if text == "notifies":
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.sendto(b"READY=1", "\\0" + os.environ["NOTIFY_SOCKET"][1:])
while True:
    client, _ = listener.accept()
    with client:
        client.recv(65536)
        head = f"HTTP/1.1 {status} x\\r\\nContent-Length: {len(text)}\\r\\n\\r\\n"
        client.sendall((head + text).encode())
"""


def reload(instance: Instance) -> None:
    done = instance.cli("reload", "--drained", "--timeout", "20")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def c_worker(tmp_path_factory: pytest.TempPathFactory) -> str:
    program = str(tmp_path_factory.mktemp("worker") / "worker")
    source = str(MULTI_ACCEPT / "worker.c")
    subprocess.run([requires("gcc"), "-O2", "-o", program, source], check=True)
    return program


@pytest.fixture(params=["c", "perl", "python", "shell"])
def worker(request: pytest.FixtureRequest) -> list[str]:
    match request.param:
        case "c":
            return [request.getfixturevalue("c_worker")]
        case "perl":
            requires("start_server")  # its package has the module that the worker uses
            return [str(MULTI_ACCEPT / "worker.pl")]
        case "python":
            return [str(MULTI_ACCEPT / "worker.py")]
        case _:
            return [str(MULTI_ACCEPT / "worker.sh"), "worker.pl"]


def test_ten_clients_are_answered_by_three_workers(
    sengu: Sengu, worker: list[str], port: int
) -> None:
    address = ("127.0.0.1", port)
    args = (*NOTIFY, "--port", f"127.0.0.1:{port}", "--workers", "3", "--", *worker)
    instance = sengu.start(*args).wait_ready()
    pids = {str(one["pid"]) for one in instance.status()["workers"]}
    with Load(address, ask_pid, clients=10) as load:
        for pid in pids:
            load.wait_for(pid)
    assert load.failures == []
    assert set(load.answers) == pids
    assert len(pids) == 3


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_no_client_notices_a_deploy(
    sengu: Sengu, worker: list[str], port: int, free_path: Path, kind: str
) -> None:
    path = str(free_path / "app.sock")
    listeners = ("--port", f"127.0.0.1:{port}", "--path", path)
    args = (*NOTIFY, *listeners, "--workers", "2", "--", *worker)
    instance = sengu.start(*args).wait_ready()
    with Load(("127.0.0.1", port) if kind == "tcp" else path, ask_pid, clients=3) as load:
        for generation in (1, 2, 3):
            for worker_of_it in instance.status()["workers"]:
                load.wait_for(str(worker_of_it["pid"]))
            if generation < 3:
                reload(instance)
    assert load.failures == []
    assert len(load.answers) == 6


NGINX_WRAPPER = """#!/bin/sh
# nginx takes over listeners by a variable of its own: their numbers, each with a semicolon.
NGINX= fd=3
while [ $fd -lt $((3 + LISTEN_FDS)) ]; do
    NGINX="$NGINX$fd;" fd=$((fd + 1))
done
export NGINX
exec {nginx} -p {prefix} -c {prefix}/nginx.conf -e stderr \\
    -g "daemon off; master_process on; pid {prefix}/$$.pid;"
"""

NGINX_CONFIGURATION = """
worker_processes 2;
worker_shutdown_timeout 5s;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{version}"; }} }}
}}
"""


def test_nginx_is_deployed_without_a_lost_request(sengu: Sengu, free_path: Path, port: int) -> None:
    configuration, wrapper = free_path / "nginx.conf", free_path / "wrapper"
    nginx = requires("nginx")
    wrapper.write_text(NGINX_WRAPPER.format(nginx=nginx, prefix=free_path))
    wrapper.chmod(0o755)
    configuration.write_text(NGINX_CONFIGURATION.format(port=port, version="one"))
    args = (
        *("--ready", "http:/", "--attempts", "1", "--port", f"127.0.0.1:{port}"),
        *("--signal-on-hup", "QUIT", "--signal-on-term", "QUIT"),
        # nginx may miss a signal that comes just before it waits; then it is killed.
        *("--grace", "5", "--", str(wrapper)),
    )
    instance = sengu.start(*args).wait_ready()
    with Load(("127.0.0.1", port)) as load:
        load.wait_for("one")
        configuration.write_text(NGINX_CONFIGURATION.format(port=port, version="two"))
        reload(instance)
        load.wait_for("two")
        configuration.write_text("this is no configuration;")
        broken = instance.cli("reload")
        load.wait_for("two", times=10)
    was_killed = any("is killed: still there" in line for line in instance.lines)
    assert load.failures == [] or was_killed, "nobody lost what he had in hand"
    assert broken.returncode == 1
    assert 'unknown directive "this"' in broken.stderr
    assert instance.stop() == 0


WSGI = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", str(len("{version}")))])
    return [b"{version}"]
"""


def test_gunicorn_is_deployed_without_a_lost_request(
    sengu: Sengu, free_path: Path, port: int
) -> None:
    application = free_path / "shop.py"
    application.write_text(WSGI.format(version="one"))
    gunicorn = (sys.executable, "-B", "-m", "gunicorn", "--workers", "2", "shop:app")
    args = ("--ready", "http:/", "--attempts", "1", "--port", f"127.0.0.1:{port}")
    home = {"HOME": str(free_path)}  # it keeps a control socket there
    instance = sengu.start(*args, "--", *gunicorn, env=home, cwd=free_path).wait_ready()
    with Load(("127.0.0.1", port)) as load:
        load.wait_for("one")
        application.write_text(WSGI.format(version="two"))
        reload(instance)
        load.wait_for("two")
        application.write_text("import no_such_module")
        attempt = instance.cli("reload")
        load.wait_for("two", times=10)
    assert load.failures == []
    assert attempt.returncode == 1
    assert "Worker failed to boot" in attempt.stderr


ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        headers = [(b"content-length", b"%d" % len("{version}"))]
        await send({{"type": "http.response.start", "status": 200, "headers": headers}})
        await send({{"type": "http.response.body", "body": b"{version}"}})
"""


def ask_as_a_proxy(address: Address) -> str:
    """Asks again when the connection ends before the answer begins (RFC 9110 §9.2.2).

    uvicorn closes what it has accepted and not yet read when it is asked to stop.
    """
    try:
        return ask_http(address)
    except ConnectionError:
        return ask_http(address)


def test_uvicorn_is_deployed_without_a_lost_request(
    sengu: Sengu, free_path: Path, port: int
) -> None:
    application = free_path / "shop.py"
    application.write_text(ASGI.format(version="one"))
    uvicorn = (
        sys.executable,
        "-B",
        "-m",
        "uvicorn",
        "--fd",
        "3",
        "--lifespan",
        "off",
        "--no-access-log",
        "shop:app",
    )
    args = ("--ready", "http:/", "--attempts", "1", "--port", f"127.0.0.1:{port}")
    instance = sengu.start(*args, "--", *uvicorn, cwd=free_path).wait_ready()
    with Load(("127.0.0.1", port), ask_as_a_proxy) as load:
        load.wait_for("one")
        application.write_text(ASGI.format(version="two"))
        reload(instance)
        load.wait_for("two")
    assert load.failures == []


def test_our_own_example_is_deployed_without_a_lost_request(
    sengu: Sengu, free_path: Path, port: int
) -> None:
    shutil.copytree(EXAMPLES / "hello", free_path / "hello")
    (free_path / "hello" / "VERSION").write_text("one")
    program = str(free_path / "hello" / "server.py")
    args = (*NOTIFY, "--port", f"127.0.0.1:{port}", "--workers", "2", "--", program)
    instance = sengu.start(*args).wait_ready()
    with Load(("127.0.0.1", port)) as load:
        load.wait_for(next_answer(port))
        (free_path / "hello" / "VERSION").write_text("two")
        reload(instance)
        load.wait_for(next_answer(port))
    assert load.failures == []
    assert {answer.split(",")[0] for answer in load.answers} == {
        "hello from version one",
        "hello from version two",
    }


def next_answer(port: int) -> str:
    return ask_http(("127.0.0.1", port))


@pytest.fixture
def answer(free_path: Path) -> Path:
    """What a worker that runs ANSWER says from its start on: a status and a text."""
    path = free_path / "answer"
    path.write_text("200 notifies")
    return path


def start_answering(sengu: Sengu, answer: Path, port: int, ready: str, *options: str) -> Instance:
    args = ("--ready", ready, "--port", f"127.0.0.1:{port}", *options)
    return sengu.start(*args, "--", sys.executable, "-S", "-c", ANSWER, str(answer)).wait_ready()


@pytest.mark.parametrize(
    ("ready", "reason"),
    [
        ("notify", "said READY=1"),
        ("tcp", "connection accepted by pid"),
        ("http:/", "HTTP 200"),
        ("delay:0.2", "alive after 0.2 s"),
    ],
)
def test_a_worker_is_ready_by(
    sengu: Sengu, answer: Path, port: int, ready: str, reason: str
) -> None:
    instance = start_answering(sengu, answer, port, ready, "--workers", "2")
    reload(instance)
    told = [event["reason"] for event in kept_events(instance) if event["type"] == "worker_ready"]
    assert len(told) == 4
    assert all(reason in one for one in told), told


@pytest.mark.parametrize(
    ("ready", "broken", "problem"),
    [
        ("notify", "200 says-nothing", "not ready within 5 s"),
        ("tcp", "deaf and-mute", "not ready within 5 s"),
        ("http:/", "503 not-well", "503"),
        ("http:/", "deaf and-mute", "not ready within 5 s"),
    ],
)
def test_an_old_workers_answers_do_not_make_a_new_one_ready(
    sengu: Sengu, answer: Path, port: int, ready: str, broken: str, problem: str
) -> None:
    options = ("--ready-timeout", "5", "--attempts", "1")
    instance = start_answering(sengu, answer, port, ready, *options)
    answer.write_text(broken)
    outcome = instance.control("POST", "/v1/reload", {"wait": True})
    assert (outcome.status, outcome.body["outcome"]) == (409, "aborted")
    assert problem in outcome.body["reason"]
    # The refused one shares the listener until it is gone, and drops what it has accepted.
    instance.wait_event(lambda event: event["type"] == "generation_retired")
    assert next_answer(port) == "notifies"
    answer.write_text("204 notifies" if ready == "notify" else "302 well-again")
    reload(instance)


def test_a_probe_finds_a_listener_on_a_unix_socket_too(
    sengu: Sengu, answer: Path, free_path: Path
) -> None:
    path = str(free_path / "app.sock")
    command = (sys.executable, "-S", "-c", ANSWER, str(answer))
    instance = sengu.start("--ready", "http:/", "--path", path, "--", *command).wait_ready()
    reload(instance)
    assert ask_http(path) == "notifies"


def test_a_worker_is_heard_and_one_that_falls_silent_is_replaced(
    sengu: Sengu, witnesses: Witnesses
) -> None:
    instance = sengu.start(*NOTIFY, "--watchdog", "5", "--", *witnesses.command()).wait_ready()
    report = witnesses.wait()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.connect("\0" + report["env"]["NOTIFY_SOCKET"][1:])
        manager.send(b"STATUS=warming up\nWATCHDOG=1")
    wait_until(lambda: [one["status"] for one in workers(instance)] == ["warming up"])
    stopping = instance.wait_event(lambda event: event["type"] == "worker_stopping")
    assert "no WATCHDOG=1 for 5 s" in stopping["reason"]
    assert witnesses.wait()["pid"] != report["pid"]
