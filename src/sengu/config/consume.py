"""From values to the boot document of `sengu consume`, with every check that needs more than one.

What it has of `sengu work` is in `config.work`. The module is not imported: that is the fork
server's part. Imported by `cli.consume`.
"""

from collections.abc import Mapping

import msgspec

from sengu.config.launch import Launch, look_around
from sengu.config.setting import Values
from sengu.config.settings import common, work
from sengu.config.settings import consume as known
from sengu.config.tuning import NAMES
from sengu.config.work import Script, assemble_workers, blaming, check_script, common_options
from sengu.errors import UsageError
from sengu.model.broker import parse_brokers
from sengu.model.consume import EX_CONFIG, ConsumeOptions

ENGINE = "sengu.consumers.engine"
_JOB_LANES = 15
# What a configuration may set.
SETTINGS = tuple(name for name in NAMES if name not in (work.KIND.name, work.COMMAND_PIPE.name))


def assemble_consume(
    values: Values, target: str | None, environ: Mapping[str, str], script: Script
) -> Launch:
    """Check everything and put it together. Raises UsageError."""
    with blaming(script):
        if not target:
            raise UsageError(
                "no module was given; add it: sengu consume MODULE, as in myapp.jobs, or SCRIPT.py"
            )
        options = consume_options(values, target, script)
        around = look_around(values, environ)
        # A mistake ends it here; what is in force then is found by each worker.
        parse_brokers(options.brokers, around.workers_environment)
        # What nobody else would mend either ends it: wrong credentials, say.
        ending = values.filled(common.UNRECOVERABLE_EXIT_CODES, str(EX_CONFIG))
        return _with_lanes(assemble_workers(ending, around, environ, options, ENGINE))


def consume_options(values: Values, target: str, script: Script) -> ConsumeOptions:
    """What the engine is told. Raises UsageError."""
    ready, connect = values[common.READY_TIMEOUT], values[known.CONNECT_TIMEOUT]
    if ready is not None and connect is not None and connect >= ready:
        raise UsageError(
            f"--connect-timeout {connect:g} is never over, as --ready-timeout is {ready:g}; make "
            "that longer"
        )
    return ConsumeOptions(
        target=_check_module(target),
        brokers=values[known.BROKER],
        only=values[known.ONLY],
        split=values[known.SPLIT],
        share_threads=values[known.SHARE_THREADS],
        job_timeout_seconds=values[known.JOB_TIMEOUT] or None,
        connect_timeout_seconds=connect,
        unsubscribed_seconds=values[known.SUBSCRIPTION_TIMEOUT],
        declares=not values[known.NO_DECLARE],
        amqp_heartbeat_seconds=values[known.AMQP_HEARTBEAT],
        settings=SETTINGS,
        **common_options(values, script),
    )


def _with_lanes(launch: Launch) -> Launch:
    """One for the heartbeat, and for jobs, so that of one that kills its worker is known how."""
    service = launch.boot.service
    assert service.application is not None
    application = msgspec.structs.replace(
        service.application, lanes=1 + _JOB_LANES, reads_obituaries=True
    )
    service = msgspec.structs.replace(service, application=application)
    boot = msgspec.structs.replace(launch.boot, service=service)
    return Launch(boot, launch.environment)


def _check_module(text: str) -> str:
    """Raises UsageError."""
    if text.endswith(".py"):
        return check_script("the module", text)
    if ":" in text:
        raise UsageError(
            f"the module {text!r} has a name after it, and all its consumers are run; leave that "
            f"out, or write {text.partition(':')[0]} --only {text.partition(':')[2]}"
        )
    if not all(part.isidentifier() for part in text.split(".")):
        raise UsageError(
            f"the module {text!r} is not spelled right; write MODULE, as in myapp.jobs, or "
            "SCRIPT.py"
        )
    return text
