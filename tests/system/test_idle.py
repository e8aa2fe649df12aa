"""What sengu itself costs: nothing while nothing happens, and no more after many deploys."""

import re
import subprocess
import time
from pathlib import Path

from tests.support import Sengu, requires
from tests.system.puppets import Script, descriptors, household, pids, start, wait_until

STRACE_SECONDS = 6
BEAT_SECONDS = 2.5
WARM_UP_DEPLOYS = 150  # then the history that status and events show is full
DEPLOYS = 300
SUPERVISOR_KIB = 8 * 1024
SERVER_KIB = 16 * 1024


def unique_kib(pid: int) -> int:
    """Memory that would be free if only that process ended."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE))


def test_no_system_call_is_made_while_nothing_happens_but_for_the_beat_of_the_server(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    instance = start(
        sengu, port, script, "--workers", "2", "--status-file", str(free_path / "status")
    )
    assert instance.cli("reload", "--drained").returncode == 0
    server = instance.server_pid
    trace = free_path / "trace"
    processes = [word for pid in (instance.pid, server) for word in ("-p", str(pid))]
    strace = [requires("strace"), "-ff", "-o", str(trace), *processes]
    began = time.monotonic()
    subprocess.run(["timeout", "-s", "INT", str(STRACE_SECONDS), *strace], check=False)
    max_beats = (time.monotonic() - began) / BEAT_SECONDS + 1
    (call,) = Path(f"{trace}.{instance.pid}").read_text().splitlines()
    assert re.match(r"epoll_wait\(.*<detached \.\.\.>$", call)
    calls = Path(f"{trace}.{server}").read_text().splitlines()
    beats = [call for call in calls if not call.startswith("epoll_wait(")]
    assert 1 <= len(beats) <= max_beats, calls
    assert all(re.match(r"timerfd_settime\(.* = 0$", call) for call in beats), calls
    assert len(calls) == 2 * len(beats) + 1, calls


def test_many_deploys_leave_descriptors_children_and_memory_as_they_were(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--workers", "1")

    def deploy(count: int) -> None:
        for _ in range(count):
            reply = instance.control("POST", "/v1/reload", {"wait": True})
            assert reply.body["outcome"] == "succeeded"

    supervisor, server = instance.pid, instance.server_pid

    def settle() -> None:
        """Only the one worker is left of all."""
        wait_until(lambda: len(pids(instance)) == 1)
        wait_until(lambda: household(instance) == pids(instance))

    def count(pid: int) -> int:
        return len(descriptors(pid))

    deploy(WARM_UP_DEPLOYS)
    settle()
    before = {pid: count(pid) for pid in (supervisor, server)}
    supervisor_kib, server_kib = unique_kib(supervisor), unique_kib(server)
    deploy(DEPLOYS)
    settle()
    wait_until(lambda: all(count(pid) <= before[pid] for pid in before))
    assert unique_kib(supervisor) < min(supervisor_kib + 256, SUPERVISOR_KIB)
    assert unique_kib(server) < min(server_kib + 256, SERVER_KIB)
