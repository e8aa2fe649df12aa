"""What the consumers of all libraries have in common: one queue, one job, and a count of jobs."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar, NamedTuple

from bench import processes
from bench.program import Program, distribution_version, last_line
from bench.session import BenchError

_ROOT = Path(__file__).parents[2]
_PUBLISH_SECONDS = 120.0
_POLL_SECONDS = 0.005
_PATIENCE_SECONDS = 60.0
# Of each process, before anything is measured.
_WARM_JOBS = 100


class Setting(NamedTuple):
    """`threads` and `prefetch` are those of a process."""

    job: str
    processes: int
    threads: int
    prefetch: int


class Found(NamedTuple):
    """Of the jobs between two looks at their count."""

    rate: float
    microseconds: float


class Consuming(Program):
    """Consumers that run. The queue is full before they start: see `publish`."""

    module: ClassVar[str]
    distribution: ClassVar[str]

    def __init__(self, directory: Path, setting: Setting, broker: str) -> None:
        self.setting = setting
        self.broker = broker
        super().__init__(directory)

    @classmethod
    def version(cls) -> str | None:
        return distribution_version(cls.distribution)

    @classmethod
    def publish(cls, directory: Path, setting: Setting, broker: str, count: int) -> None:
        """With the publisher of the library, so that messages are its own. Raises BenchError."""
        done = subprocess.run(
            (sys.executable, "-m", cls.module, str(count)),
            env=_environment(directory, setting, broker),
            capture_output=True,
            text=True,
            check=False,
            timeout=_PUBLISH_SECONDS,
        )
        if done.returncode:
            raise BenchError(f"{cls.label} could not publish: {last_line(done.stderr)}")

    def environment(self) -> dict[str, str]:
        return super().environment() | _environment(self.directory, self.setting, self.broker)

    def measure(self, count: int, seconds: float) -> Found:
        """Once all processes are at work: so many seconds, or until most messages are done."""
        self._wait(count // 10, every=_WARM_JOBS)
        members = processes.tree(self.pid)
        begin, done, used = time.monotonic(), self._done(), processes.on_cpu_seconds(members)
        self._wait(count * 9 // 10, until=begin + seconds)
        used = processes.on_cpu_seconds(members) - used
        done, elapsed = self._done() - done, time.monotonic() - begin
        if processes.tree(self.pid) != members:
            raise BenchError(f"{self.label} has replaced a process meanwhile")
        return Found(done / elapsed, used / done * 1e6)

    def _wait(self, total: int, *, every: int = 0, until: float = 0.0) -> None:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            counts = [count for count in self._counts() if count >= every]
            if sum(counts) >= total and len(counts) >= self.setting.processes:
                return
            now = time.monotonic()
            if until and now >= until:
                return
            if now > deadline:
                raise BenchError(f"{self.label} did {sum(self._counts())} of {total} jobs")
            self.check_alive()
            time.sleep(_POLL_SECONDS)

    def _done(self) -> int:
        return sum(self._counts())

    def _counts(self) -> list[int]:
        """Of each process that has ever run a job."""
        found = (path.read_bytes() for path in self.directory.glob("count-*"))
        counts = (int.from_bytes(count, sys.byteorder) for count in found)
        return [count for count in counts if count]


def _environment(directory: Path, setting: Setting, broker: str) -> dict[str, str]:
    return {
        "PYTHONPATH": str(_ROOT),
        "PYTHONDONTWRITEBYTECODE": os.environ.get("PYTHONDONTWRITEBYTECODE", ""),
        "BENCH_BROKER": broker,
        "BENCH_COUNTS": str(directory),
        "BENCH_JOB": setting.job,
        "BENCH_PREFETCH": str(setting.prefetch),
        "BENCH_THREADS": str(setting.threads),
    }
