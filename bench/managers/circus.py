"""circusd with its default settings, but for its endpoints: UNIX sockets in our directory."""

import shlex
import sys

from bench.managers.base import Manager
from bench.program import distribution_version

_CONFIGURATION = """\
[circus]
endpoint = ipc://{directory}/control.sock
pubsub_endpoint = ipc://{directory}/events.sock
[watcher:worker]
cmd = {command}
numprocesses = {workers}
"""


class Circus(Manager):
    """One instance."""

    label = "Circus"

    @classmethod
    def version(cls) -> str | None:
        return distribution_version("circus")

    def prepare(self) -> list[str]:
        path = self.directory / "circus.ini"
        path.write_text(
            _CONFIGURATION.format(
                directory=self.directory,
                command=shlex.join(self.order.command),
                workers=self.order.workers,
            )
        )
        return [sys.executable, "-m", "circus.circusd", str(path)]
