"""What this machine is, in one line, for whoever compares figures."""

import os
import platform
from pathlib import Path


def describe() -> str:
    """Processor, cores, memory, kernel, Python."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return (
        f"{len(os.sched_getaffinity(0))} × {_processor()}, {pages / 1e9:.0f} GB, "
        f"Linux {platform.release()}, {platform.python_implementation()} "
        f"{platform.python_version()}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()
