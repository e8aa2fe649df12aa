"""`serve_in_c.py bjoern|fastwsgi MODULE PORT WORKERS`: serve the application `wsgi` of MODULE.

With several workers this process only waits, and ends them when it gets TERM.
"""

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any


def main() -> None:
    server, module, port, workers = sys.argv[1:]
    application = importlib.import_module(module).wsgi
    serve = {"bjoern": _bjoern, "fastwsgi": _fastwsgi}[server](application, int(port))
    if int(workers) > 1:
        _fork(int(workers))
    serve()


def _bjoern(application: Any, port: int) -> Callable[[], object]:
    import bjoern

    bjoern.listen(application, "127.0.0.1", port)
    return bjoern.run  # type: ignore[no-any-return]


def _fastwsgi(application: Any, port: int) -> Callable[[], object]:
    import fastwsgi

    # It listens when it is run, with SO_REUSEPORT.
    return lambda: fastwsgi.run(application, "127.0.0.1", port)


def _fork(workers: int) -> None:
    """Returns in the children."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pids = []
    for _ in range(workers):
        pid = os.fork()
        if not pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            return
        pids.append(pid)
    signal.sigwait({signal.SIGTERM})
    for pid in pids:
        os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    sys.exit()


if __name__ == "__main__":
    main()
