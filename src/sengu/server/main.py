"""The server's life: what it is told first, the instance that it runs, its last word.

Imported by `sengu.server.__main__` only.
"""

import contextlib
import faulthandler
import signal
import socket
import sys

from sengu.config.boot import Report, unseal
from sengu.errors import SenguError
from sengu.posix import descriptors
from sengu.posix.loop import Loop
from sengu.server.instance import Instance
from sengu.server.link import Link, inherit
from sengu.server.outside import tell_starter
from sengu.wire.supervisor import End

_FAILED = 1

# They are for the main process, which tells us; a `kill` of its whole group is to mean the same.
_NOT_OURS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
    signal.SIGCONT,
)


def run(fd: int) -> int:
    """Serve the supervisor at the other end of the socket `fd`; returns the exit code."""
    for number in _NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()  # when we are stuck, the supervisor asks for our stacks by ABRT
    sock = socket.socket(fileno=fd)
    descriptors.seal()
    found = inherit(sock)
    is_first = "journal" not in found.held
    boot = unseal(found.held.pop("boot").fd)
    loop = Loop()
    link = Link(loop, sock, found.held)
    # What outlives a server is let go only when the service is over, not when a server fails: its
    # workers live, and another server may have more luck.
    let_go = contextlib.ExitStack()
    try:
        instance = Instance(boot, found, loop, link, let_go)
    except (SenguError, OSError) as error:
        if not is_first:
            raise
        code = _tell(link, error)
    else:
        code = instance.run()
    let_go.close()
    link.send(End(code))
    link.flush_all()
    return code


def _tell(link: Link, error: SenguError | OSError) -> int:
    """Say why nothing was started, to whoever waits for it or on stderr; returns the exit code."""
    code = error.exit_code if isinstance(error, SenguError) else _FAILED
    if not tell_starter(link, Report(code, str(error))):
        print(f"sengu: error: {error}", file=sys.stderr)
    return code
