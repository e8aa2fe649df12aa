"""circusd with its default settings, but for its endpoints: UNIX sockets in our directory."""

import importlib.util
import shlex
import sys

from bench.managers.base import Manager

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
        if importlib.util.find_spec("circus") is None:
            return None
        from importlib.metadata import version

        return version("circus")

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
