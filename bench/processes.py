"""What the kernel tells about processes: their tree, time, memory and descriptors. Reads /proc.

A process may end while it is being read; what is gone counts as nothing.
"""

import ctypes
import os
import re
import select
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

_GONE = (FileNotFoundError, ProcessLookupError)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Whatever we start stays below us in the tree, so that nothing of it is ever left."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


def children(pid: int) -> list[int]:
    """Direct children, zombies included (proc_pid_task_tid_children(5))."""
    found: list[int] = []
    with suppress(*_GONE):
        for task in os.listdir(f"/proc/{pid}/task"):
            with suppress(*_GONE):
                found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def tree(pid: int) -> list[int]:
    """The process and everything below it."""
    found = [pid]
    for member in found:  # grows while being walked
        found += children(member)
    return found


def managing(pid: int, worker: str) -> list[int]:
    """The processes of a tree that manage, that is: do not execute the file `worker`."""
    return [member for member in tree(pid) if _executable(member) not in {"", worker}]


def cpu_seconds(pid: int) -> float:
    """User and system time of the whole tree, of all that ended in it as well."""
    total = 0
    for member in tree(pid):
        with suppress(*_GONE):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15]))  # utime, stime, cutime, cstime
    return total / _TICKS_PER_SECOND


def on_cpu_seconds(pids: Iterable[int]) -> float:
    """Time on a processor, in nanoseconds' resolution, of these processes and not their dead."""
    total = 0
    for pid in pids:
        for schedstat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with suppress(*_GONE):
                total += int(schedstat.read_text().split()[0])
    return total / 1e9


def unique_bytes(pids: Iterable[int]) -> int:
    """Memory that would be free if these processes were not there (USS)."""
    total = 0
    for pid in pids:
        with suppress(*_GONE):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:")):
                    total += int(line.split()[1]) * 1024
    return total


def reset_peak(pid: int) -> None:
    """Let the peak of a process begin at what it has now (proc_pid_clear_refs(5))."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process has had since `reset_peak`."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def descriptors(pids: Iterable[int]) -> int:
    total = 0
    for pid in pids:
        with suppress(*_GONE):
            total += len(os.listdir(f"/proc/{pid}/fd"))
    return total


def wait_gone(pids: Iterable[int], timeout_seconds: float) -> set[int]:
    """Those of the processes that still live after the timeout."""
    living = {}
    for pid in pids:
        with suppress(ProcessLookupError):
            living[os.pidfd_open(pid)] = pid
    deadline = time.monotonic() + timeout_seconds
    try:
        while living:
            ended = select.select(list(living), [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ended:
                break
            for pidfd in ended:
                del living[pidfd]
                os.close(pidfd)
        return set(living.values())
    finally:
        for pidfd in living:
            os.close(pidfd)


def reap(pids: Iterable[int]) -> None:
    """Those that have ended, and whose parent has as well, so that they were left to us."""
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def end_descendants(timeout_seconds: float) -> list[str]:
    """Kill what is still below this process; returns their command lines."""
    killed = []
    while left := wait_gone(tree(os.getpid())[1:], timeout_seconds):
        for pid in left:
            with suppress(*_GONE):
                killed.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip())
                os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    return killed


def _executable(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except _GONE:  # also a zombie's
        return ""
