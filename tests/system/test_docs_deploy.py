"""The files of examples/deploy, used as they are: systemd, a container. nginx: test_nginx.py."""

import json
import os
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from tests.processes import wait_gone
from tests.support import PROGRAM, WAIT_SECONDS, Sengu, environment, needs_root, requires
from tests.system.container import SITE, Podman, make_root
from tests.system.puppets import children, in_namespace, kill, wait_until, workers
from tests.system.web import CHECKOUT, ENVIRONMENT, connect, fetch, get_request, read_all

DEPLOY = CHECKOUT / "examples" / "deploy"
WEB = CHECKOUT / "examples" / "web"

# As systemd before exec: `-c PASS PORT COMMAND...`.
PASS = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(listener.detach(), 3)
os.set_inheritable(3, True)  # it may have been there already
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def setting(unit: str, name: str) -> str:
    """The value of a line `NAME=VALUE` of a unit."""
    (value,) = re.findall(rf"^{name}=(.*)$", (DEPLOY / unit).read_text(), re.M)
    return str(value)


def exec_line(name: str) -> list[str]:
    """The words of a command of the service after `sengu`, without the control socket, which is
    the test's own."""
    program, *words = shlex.split(setting("web.service", name))
    assert program == "/opt/web/bin/sengu"
    at = words.index("--control")
    assert words[at + 1] == f"/run/{setting('web.service', 'RuntimeDirectory')}/sengu.sock"
    return words[:at] + words[at + 2 :]


NOT_INSTALLED = (
    "web.service: Command /opt/web/bin/sengu is not executable: No such file or directory"
)


def complaints(directory: Path) -> set[str]:
    """What systemd says of the units in `directory`."""
    units = [str(directory / name) for name in ("web.service", "web.socket")]
    done = subprocess.run(
        [requires("systemd-analyze"), "verify", *units], capture_output=True, text=True, check=False
    )
    # It looks at the machine's other units, too.
    return {line for line in done.stderr.splitlines() if re.search(r"\bweb\.(serv|sock)", line)}


def systemd_version() -> int:
    command = [requires("systemd-analyze"), "--version"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(said.split()[1])


def test_systemd_understands_the_units() -> None:
    assert complaints(DEPLOY) == {NOT_INSTALLED}


def test_systemd_understands_the_units_with_reload_by_a_signal(tmp_path: Path) -> None:
    """A systemd before 253 does not know that type: all it says is that it ignores it."""
    for name in ("web.service", "web.socket"):
        shutil.copy(DEPLOY / name, tmp_path)
    drop_in = tmp_path / "web.service.d" / "notify-reload.conf"
    drop_in.parent.mkdir()
    shutil.copy(DEPLOY / drop_in.name, drop_in)
    expected = {NOT_INSTALLED}
    if systemd_version() < 253:
        expected.add(f"{drop_in}:3: Failed to parse service type, ignoring: notify-reload")
    assert complaints(tmp_path) == expected


def test_a_manager_runs_the_units_commands(sengu: Sengu, port: int) -> None:
    verb, target, *options = exec_line("ExecStart")
    assert verb == "serve"
    assert re.fullmatch(r"127\.0\.0\.1:\d+", setting("web.socket", "ListenStream"))
    passing = (sys.executable, "-c", PASS, str(port))
    instance = sengu.serve(target, *options, cwd=WEB, env=ENVIRONMENT, prefix=passing)
    instance.wait_ready()
    (listener,) = instance.status()["listeners"]
    name = setting("web.socket", "FileDescriptorName")
    assert (listener["name"], listener["address"]) == (name, f"127.0.0.1:{port}")
    fields = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https"}
    assert fetch(port, headers=fields).text.endswith(" to 203.0.113.7 by https\n")
    assert instance.cli(*exec_line("ExecReload")).returncode == 0
    assert fetch(port).status == 200
    assert instance.stop() == 0
    instance.wait_notified("STOPPING=1")


# As PASS, with a socket that the manager keeps: `-c HAND_OVER FD COMMAND...`.
HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="http")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def test_connections_wait_at_the_manager_when_all_is_killed(sengu: Sengu, free_path: Path) -> None:
    """As with Restart= and KillMode=mixed: after the main process the rest is killed."""
    control = ("--control", f"{free_path}/control")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        manager = (sys.executable, "-c", HAND_OVER, str(fd))
        command = [*manager, *PROGRAM, *exec_line("ExecStart"), *control]

        def launch() -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                command,
                pass_fds=[fd],
                cwd=WEB,
                env=environment(ENVIRONMENT),
                stderr=subprocess.DEVNULL,
            )

        first = launch()
        assert fetch(port).status == 200
        status = json.loads(sengu.run("status", "--json", *control).stdout)
        kill(status["server_pid"])
        status = json.loads(sengu.run("status", "--json", *control).stdout)
        assert (status["pid"], status["servers"]) == (first.pid, 2)
        rest = children(first.pid)
        for pid in (first.pid, *rest):
            kill(pid)
        first.wait()
        assert not wait_gone(rest, WAIT_SECONDS)  # until then they hold the control socket
        with connect(port, get_request("/", "Connection: close")) as waiting:
            second = launch()
            assert b" 200 OK\r\n" in read_all(waiting)
        second.terminate()
        assert second.wait(WAIT_SECONDS) == 0


def is_readable(client: socket.socket) -> bool:
    return bool(select.select([client], [], [], 0)[0])


def answers(port: int) -> bool:
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def instructions(*names: str) -> list[str]:
    """Instructions of the Containerfile, each on one line."""
    text = re.sub(r"\\\n\s*", "", (DEPLOY / "Containerfile").read_text())
    lines = text.splitlines()
    return [line for line in lines if line.split(" ")[0] in names]


def command_of_the_container(port: int) -> list[str]:
    """Its CMD, on a port of 127.0.0.1."""
    (line,) = instructions("CMD")
    words = json.loads(line.partition(" ")[2])
    words[words.index("0.0.0.0:8000")] = f"127.0.0.1:{port}"
    return list(words)


def test_the_containers_command_as_pid_1(sengu: Sengu, port: int) -> None:
    program, verb, target, *options = command_of_the_container(port)
    assert (program, verb) == ("sengu", "serve")
    prefix = in_namespace("--pid", "--fork", "--mount-proc")
    options += ["--workers", "2"]
    instance = sengu.serve(target, *options, cwd=WEB, env=ENVIRONMENT, prefix=prefix)
    instance.wait_ready()
    assert instance.status()["pid"] == 1
    (main,) = children(instance.pid)
    # A shell of a namespace's member, whose own child outlives it.
    enter = (requires("nsenter"), "--target", str(main), "--pid", "--mount")
    subprocess.run([*enter, "sh", "-c", "(read _ </dev/null; exit 0) & exit 0"], check=True)
    wait_until(lambda: len(children(main)) == 4)  # server, fork server, two workers, no zombie
    server = instance.status()["server_pid"]
    subprocess.run([*enter, "kill", "-KILL", str(server)], check=True)
    instance.wait_for_line("has taken over: 2 workers live on")
    assert instance.cli("upgrade").returncode == 0
    assert instance.status()["pid"] == 1
    with connect(port, get_request("/slow", "Connection: close")) as client:
        # It may be over before we come to look.
        wait_until(lambda: is_readable(client) or any(one["busy"] for one in workers(instance)))
        os.kill(main, signal.SIGTERM)
        assert b" 200 OK\r\n" in read_all(client)
    assert instance.wait() == 0


def test_the_containers_instructions_in_a_container(free_path: Path, port: int) -> None:
    needs_root()
    podman = Podman(free_path)
    root = free_path / "root"
    make_root(root)
    (copy,) = [line.split() for line in instructions("COPY") if "examples" in line]
    target = root / copy[2].lstrip("/")
    target.mkdir(parents=True)
    for file in (CHECKOUT / copy[1]).glob("*.py"):
        (target / file.name).write_bytes(file.read_bytes())
    podman.make_image(
        root,
        [*instructions("WORKDIR", "USER", "EXPOSE", "STOPSIGNAL", "CMD"), f"ENV PYTHONPATH={SITE}"],
    )
    with podman.running(*command_of_the_container(port)) as name:
        wait_until(lambda: answers(port), "the container")
        first = fetch(port).text
        assert first.startswith("hello from process ")
        assert "generation 2 serves" in podman("exec", name, "sengu", "reload")
        (check,) = instructions("HEALTHCHECK")
        said = podman("exec", name, *json.loads(check.partition(" CMD ")[2]))
        assert said.startswith("web: ready, generation 2 ")
        stopping = threading.Thread(target=podman, args=("stop", name))
        stopping.start()
        wait_until(lambda: fetch(port, "/healthz").status == 503, "health to fail")
        for _ in range(20):
            assert fetch(port).status == 200
        with connect(port, get_request("/slow", "Connection: close")) as client:
            assert b" 200 OK\r\n" in read_all(client)
        stopping.join()
        assert podman.exit_code(name) == 0
        assert "sengu[web] all workers are gone" in podman("logs", name)
    podman("rmi", "--all", "--force")
