"""What this machine is and does besides, in one line, for whoever compares figures."""

import os
import platform
import time
from pathlib import Path


def describe() -> str:
    """Processor, cores, memory, kernel, Python."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (
        f"{len(os.sched_getaffinity(0))} × {_processor()}, {pages / 1e9:.0f} GB, "
        f"Linux {platform.release()}, {platform.python_implementation()} "
        f"{platform.python_version()}"
    )


class Bystanders:
    """How much of the processors others use, from now on."""

    def __init__(self) -> None:
        self._begin = self._read()

    def part(self) -> float:
        """Between 0 and 1; what was started by us, and is still running, counts as others."""
        elapsed, busy, ours = (
            now - then for now, then in zip(self._read(), self._begin, strict=True)
        )
        return min(1.0, max(0.0, busy - ours) / (elapsed * (os.cpu_count() or 1)))

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """The clock, seconds of all processors, and of us and our children that have ended."""
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        user, nice, system, _idle, _iowait, *interrupts = map(int, fields[:7])
        busy = user + nice + system + sum(interrupts)
        ours = sum(os.times()[:4])
        return time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), ours


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()
