"""`--kind embedded`: the worker runs in this very process. Imported by `cli.work` and `cli.run`."""

import os
import sys
from collections.abc import Mapping

from sengu.config.launch import look_around
from sengu.config.setting import Values
from sengu.config.settings import common
from sengu.config.settings import work as known
from sengu.config.work import Script, work_options
from sengu.errors import UsageError
from sengu.work.embedded import run


def run_embedded(
    values: Values, target: str | None, environ: Mapping[str, str], script: Script
) -> int:
    """Run it to its end, without any other process. Settings of a server have no effect.

    Raises SenguError; what the worker raises goes on as it is, so that a debugger sees it.
    """
    if not target:
        raise UsageError("no worker class was given; add it: sengu work MODULE:CLASS")
    if values[common.DAEMONIZE]:
        raise UsageError("kind embedded runs in the foreground process; leave out daemonize")
    if values[known.WORKERS] > 1:
        print("sengu: kind embedded runs one worker, whatever workers says", file=sys.stderr)
    options = work_options(values, target, script)
    around = look_around(values, environ)
    os.environ.update(around.workers_environment)
    os.chdir(around.workers_directory)
    if around.workers_directory not in sys.path:
        sys.path.insert(0, around.workers_directory)
    run(options, around.name)
    return 0
