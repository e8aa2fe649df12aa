"""Ours: `sengu consume`, with all limits and timeouts as they are by default."""

import sys

from bench.consuming.base import Consuming


class Sengu(Consuming):
    """One instance."""

    label = "sengu"
    module = "bench.programs.consuming.jobs_sengu"
    distribution = "sengu"

    def prepare(self) -> list[str]:
        return [
            *(sys.executable, "-m", "sengu", "consume", self.module, "--name", "bench"),
            *("--control", str(self.directory / "control.sock")),
            *("--workers", str(self.setting.processes), "--broker", self.broker),
        ]
