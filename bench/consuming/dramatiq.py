"""dramatiq, with its middleware as it is by default."""

import sys

from bench.consuming.base import Consuming


class Dramatiq(Consuming):
    """A master and its workers, each of them with threads."""

    label = "dramatiq"
    module = "bench.programs.consuming.jobs_dramatiq"
    distribution = "dramatiq"

    def prepare(self) -> list[str]:
        return [
            *(sys.executable, "-m", "dramatiq", self.module),
            *("--processes", str(self.setting.processes)),
            *("--threads", str(self.setting.threads)),
        ]

    def environment(self) -> dict[str, str]:
        return super().environment() | {"dramatiq_queue_prefetch": str(self.setting.prefetch)}
