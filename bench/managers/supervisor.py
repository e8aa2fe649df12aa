"""supervisord, with its control socket as any installation has it."""

import shlex
import sys

from bench.managers.base import Manager
from bench.program import distribution_version

_CONFIGURATION = """\
[unix_http_server]
file={directory}/control.sock
[supervisord]
nodaemon=true
logfile={directory}/log
pidfile={directory}/pid
childlogdir={directory}
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[program:worker]
command={command}
process_name=%(process_num)d
numprocs={workers}
autorestart=true
startsecs=0
"""


class Supervisor(Manager):
    """One instance."""

    label = "supervisor"

    @classmethod
    def version(cls) -> str | None:
        return distribution_version("supervisor")

    def prepare(self) -> list[str]:
        path = self.directory / "supervisord.conf"
        path.write_text(
            _CONFIGURATION.format(
                directory=self.directory,
                command=shlex.join(self.order.command),
                workers=self.order.workers,
            )
        )
        return [sys.executable, "-m", "supervisor.supervisord", "-c", str(path)]
