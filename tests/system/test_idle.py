"""What sengu itself costs: nothing while nothing happens, and no more after many deploys."""

import re
import subprocess
from pathlib import Path

from tests.support import Sengu, requires
from tests.system.puppets import Script, children, descriptors, pids, start, wait_until

STRACE_SECONDS = 3
WARM_UP_DEPLOYS = 150  # then the history that status and events show is full
DEPLOYS = 300
UNIQUE_KIB = 16 * 1024


def unique_kib(pid: int) -> int:
    """Memory that would be free if only that process ended."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE))


def test_no_system_call_is_made_while_nothing_happens(
    sengu: Sengu, port: int, script: Script, free_path: Path
) -> None:
    instance = start(
        sengu, port, script, "--workers", "2", "--status-file", str(free_path / "status")
    )
    assert instance.cli("reload", "--drained").returncode == 0
    trace = free_path / "trace"
    strace = [requires("strace"), "-f", "-o", str(trace), "-p", str(instance.pid)]
    subprocess.run(["timeout", "-s", "INT", str(STRACE_SECONDS), *strace], check=False)
    lines = trace.read_text().splitlines()
    assert len(lines) == 1, lines
    assert re.search(r"epoll_wait\(.*<detached \.\.\.>$", lines[0])


def test_many_deploys_leave_descriptors_children_and_memory_as_they_were(
    sengu: Sengu, port: int, script: Script
) -> None:
    instance = start(sengu, port, script, "--workers", "1")

    def deploy(count: int) -> None:
        for _ in range(count):
            reply = instance.control("POST", "/v1/reload", {"wait": True})
            assert reply.body["outcome"] == "succeeded"

    def settled() -> tuple[int, int, int]:
        wait_until(lambda: children(instance.pid) == pids(instance))
        generations = len(instance.status()["workers"])
        return generations, len(children(instance.pid)), len(descriptors(instance.pid))

    deploy(WARM_UP_DEPLOYS)
    before, before_kib = settled(), unique_kib(instance.pid)
    deploy(DEPLOYS)
    wait_until(lambda: settled() == before)
    assert unique_kib(instance.pid) < before_kib + 256
    assert unique_kib(instance.pid) < UNIQUE_KIB
