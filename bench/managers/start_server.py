"""start_server of Server::Starter, in Perl: a deploy is a HUP. It runs one worker."""

import os
import signal

from bench.managers.deploying import Deploying
from bench.program import command_version


class StartServer(Deploying):
    """One instance."""

    label = "start_server"
    max_workers = 1

    @classmethod
    def version(cls) -> str | None:
        return command_version("start_server", "--version")

    def prepare(self) -> list[str]:
        order = self.order
        port = () if order.port is None else ("--port", f"127.0.0.1:{order.port}")
        return [
            *("start_server", "--status-file", str(self.status_path)),
            *port,
            *(order.options or ("--interval", "0")),
            *("--", *order.command),
        ]

    def request_deploy(self) -> None:
        os.kill(self.pid, signal.SIGHUP)

    def nudge(self) -> None:
        """A HUP between its look at the list of signals and its wait is seen with the next event:
        ALRM wakes it and means nothing more."""
        os.kill(self.pid, signal.SIGALRM)
