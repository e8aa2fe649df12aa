"""What a worker has started ends with it, also a daemon: by cgroups, where they can be made."""

import os
import re
import signal
from pathlib import Path

import pytest

from sengu.posix.cgroups import Cgroups
from tests.processes import wait_gone
from tests.support import WAIT_SECONDS, Instance, Sengu, lacks_cgroups
from tests.system.puppets import (
    is_alive,
    kill,
    last_event,
    of_type,
    pids,
    wait_until,
    workers,
)
from tests.system.web import Site, fetch, serve

# In a session of its own, and deaf: neither the end of the group nor TERM reaches it.
_DAEMON = "setsid sh -c 'trap \"\" TERM HUP INT; echo daemon $$; exec sleep 1000' & "
_PROGRAM = ("--interval", "0.1", "--", "sh", "-c", _DAEMON + "exec sleep 1000")
_OTHERS = re.compile(r"daemon (\d+)$")

_APPLICATION = f"""
import os

def spawn():
    os.system({_DAEMON!r})

if not os.environ.get("IS_CALM"):
    spawn()

def app(environ, start_response):
    if environ["PATH_INFO"] == "/spawn":
        spawn()
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""


@pytest.fixture(autouse=True)
def _can_be_made() -> None:
    """Else that it is said why is all there is to be tested."""
    found = Cgroups.find("test", os.getpid())
    if isinstance(found, str):
        lacks_cgroups(found)


def _directory(instance: Instance) -> Path:
    """Where its cgroups are, if it has any."""
    found = Cgroups.find(instance.name, instance.pid)
    assert isinstance(found, Cgroups)
    return Path(found.directory)


def _daemon(instance: Instance, after: int = 0) -> int:
    """The pid of the first that has told it, after so many lines."""
    return int(instance.wait_for_line(_OTHERS.pattern, after=after)[1])


def _start(sengu: Sengu, *options: str) -> tuple[Instance, int]:
    """An instance of one program, and the pid of its daemon."""
    instance = sengu.start(*options, *_PROGRAM).wait_ready()
    return instance, _daemon(instance)


def _names(instance: Instance) -> list[str]:
    return sorted(path.name for path in _directory(instance).iterdir() if path.is_dir())


def _is_gone(pid: int) -> bool:
    return not wait_gone([pid], WAIT_SECONDS)


def _stop(instance: Instance) -> None:
    directory = _directory(instance)
    assert instance.stop() == 0
    assert not directory.exists()


def _kill_server(instance: Instance) -> None:
    since = last_event(instance)
    kill(instance.status()["server_pid"])
    instance.wait_event(of_type("server_adopted"), since=since)


def test_daemon_of_a_killed_program_ends_with_it(sengu: Sengu) -> None:
    instance, daemon = _start(sengu)
    lines = len(instance.lines)
    (worker,) = pids(instance)
    kill(worker)
    assert _is_gone(daemon)
    assert is_alive(_daemon(instance, after=lines))
    wait_until(lambda: _names(instance) == ["worker_2"])
    _stop(instance)


def test_daemon_of_an_old_generation_ends_with_it(sengu: Sengu) -> None:
    instance, daemon = _start(sengu)
    lines = len(instance.lines)
    assert instance.cli("reload").returncode == 0
    assert _is_gone(daemon)
    assert is_alive(_daemon(instance, after=lines))
    wait_until(lambda: _names(instance) == ["worker_2"])
    _stop(instance)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_daemon_ends_with_the_service(sengu: Sengu, number: signal.Signals) -> None:
    instance, daemon = _start(sengu)
    directory = _directory(instance)
    assert directory.exists()
    instance.signal(number)
    assert instance.wait() == 0
    assert not is_alive(daemon)
    assert not directory.exists()


def test_daemon_of_a_program_that_has_to_be_killed_ends_with_it(sengu: Sengu) -> None:
    program = f"trap '' TERM; {_DAEMON} while :; do sleep 1000; done"
    options = ("--interval", "0.1", "--grace", "0.2")
    instance = sengu.start(*options, "--", "sh", "-c", program).wait_ready()
    daemon = _daemon(instance)
    _stop(instance)
    assert not is_alive(daemon)


def test_new_server_finds_the_cgroups_again(sengu: Sengu) -> None:
    instance, daemon = _start(sengu)
    (worker,) = pids(instance)
    _kill_server(instance)
    assert is_alive(daemon)
    assert pids(instance) == {worker}
    assert _names(instance) == ["worker_1"]
    kill(worker)
    assert _is_gone(daemon)
    _kill_server(instance)
    _stop(instance)


def test_daemon_of_a_worker_that_dies_with_the_server_ends_with_them(sengu: Sengu) -> None:
    instance, daemon = _start(sengu)
    (worker,) = pids(instance)
    server = instance.status()["server_pid"]
    os.kill(server, signal.SIGSTOP)  # it takes no notice
    kill(worker)
    kill(server)
    assert _is_gone(daemon)
    wait_until(lambda: _names(instance) == ["worker_2"])
    _stop(instance)


def test_what_no_worker_known_to_a_new_server_has_left_is_ended(sengu: Sengu) -> None:
    instance, _ = _start(sengu)
    other = _directory(instance) / "worker_77"
    other.mkdir()
    stray = sengu.start("--interval", "0", "--cgroups", "off", "--", "sleep", "1000").wait_ready()
    (pid,) = pids(stray)
    (other / "cgroup.procs").write_text(str(pid))
    _kill_server(instance)
    assert _is_gone(pid)
    wait_until(lambda: not other.exists())
    _stop(instance)


def test_workers_end_when_the_main_process_is_killed_and_nothing_of_them_stays(
    sengu: Sengu,
) -> None:
    instance, daemon = _start(sengu)
    directory, (worker,) = _directory(instance), pids(instance)
    instance.signal(signal.SIGKILL)
    instance.wait()
    os.waitpid(worker, 0)  # it is ours now; without the supervisor its reaping ends the group
    assert _is_gone(daemon)
    wait_until(lambda: not directory.exists())


def test_programs_that_go_on_without_the_main_process_keep_their_daemons(sengu: Sengu) -> None:
    instance, daemon = _start(sengu, "--on-server-loss", "keep")
    directory, server, (worker,) = _directory(instance), instance.server_pid, pids(instance)
    instance.signal(signal.SIGKILL)
    instance.wait()
    assert _is_gone(server)
    assert is_alive(worker)
    assert is_alive(daemon)
    Cgroups(str(directory)).kill_all(WAIT_SECONDS)
    # What is left is removed by the next instance that finds nobody there.
    other, _ = _start(sengu)
    assert not directory.exists()
    _stop(other)


def test_without_cgroups_a_daemon_goes_on(sengu: Sengu) -> None:
    instance, daemon = _start(sengu, "--cgroups", "off")
    assert not _directory(instance).exists()
    assert instance.stop() == 0
    assert is_alive(daemon)
    kill(daemon)


# Of an application


def _serve(sengu: Sengu, site: Site, port: int, *options: str) -> Instance:
    site.write("spawning.py", _APPLICATION)
    return serve(sengu, site, port, "--workers", "1", *options, target="spawning:app")


def _spawn(instance: Instance, port: int) -> int:
    """Have a worker, when it is in its cgroup, start a daemon in a request; the daemon's pid."""
    (worker,) = workers(instance)
    wait_until(lambda: "/worker_" in Path(f"/proc/{worker['pid']}/cgroup").read_text())
    lines = len(instance.lines)
    assert fetch(port, "/spawn").status == 200
    return _daemon(instance, after=lines)


def test_daemon_that_a_request_has_started_ends_with_the_worker(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = _serve(sengu, site, port)
    imported, daemon = _daemon(instance), _spawn(instance, port)
    since = last_event(instance)
    kill(workers(instance)[0]["pid"])
    assert _is_gone(daemon)
    instance.wait_event(of_type("worker_ready"), since=since)
    another = _spawn(instance, port)
    _kill_server(instance)
    assert is_alive(imported)
    assert is_alive(another)
    _stop(instance)
    assert not is_alive(imported)
    assert not is_alive(another)


def test_daemon_that_an_import_has_started_ends_with_the_generation(
    sengu: Sengu, site: Site, port: int
) -> None:
    instance = _serve(sengu, site, port)
    imported, daemon = _daemon(instance), _spawn(instance, port)
    assert instance.cli("reload").returncode == 0
    assert _is_gone(daemon)
    assert _is_gone(imported)
    wait_until(lambda: _names(instance) == ["generation_2", "worker_2"])
    _stop(instance)


def test_worker_of_another_user_is_in_its_cgroup(sengu: Sengu, site: Site, port: int) -> None:
    if os.geteuid() != 0:
        pytest.skip("who is not root stays who it is")
    os.chmod(site.directory, 0o755)
    instance = _serve(sengu, site, port, "--user", "nobody")
    _daemon(instance)  # that of the import
    daemon = _spawn(instance, port)
    kill(workers(instance)[0]["pid"])
    assert _is_gone(daemon)
    _stop(instance)
