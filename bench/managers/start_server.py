"""start_server of Server::Starter, in Perl: a deploy is a HUP. It runs one worker."""

import os
import shutil
import signal
import subprocess

from bench.managers.deploying import Deploying


class StartServer(Deploying):
    """One instance."""

    label = "start_server"
    max_workers = 1
    hands_over_listen_fds = False

    @classmethod
    def version(cls) -> str | None:
        path = shutil.which("start_server")
        if path is None:
            return None
        command = (path, "--version")
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

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
