"""Kind `embedded`: a worker without a server, in the foreground process, for debuggers.

Imported by `cli.embedded`.
"""

import os
import signal

import msgspec

from sengu.dump.ear import Ear
from sengu.model.application import Application
from sengu.model.work import WorkOptions
from sengu.wire import scoreboard
from sengu.work.engine import prepare
from sengu.worker.board import Board
from sengu.worker.identity import Identity
from sengu.worker.runtime import Runtime, Stopping


def run(options: WorkOptions, name: str) -> None:
    """Until the worker has ended. INT and TERM ask it to; a second INT is an interrupt as usual.

    Raises LoadError, and whatever the worker does.
    """
    application = Application(
        engine="sengu.work.engine",
        target=options.target,
        options=msgspec.Raw(msgspec.json.encode(options)),
    )
    loaded = prepare(application).load()
    identity = Identity(name, 1, 0, os.getpid())
    memory = memoryview(bytearray(2 * scoreboard.LINE_BYTES))  # a lane, and what a server says
    runtime = Runtime(identity, application, (), Board(memory, 0, 1))
    loaded.begin(identity)
    Ear(f"{name} worker 0", None, runtime.on_dump).listen()
    runtime.handle_signals()
    signal.signal(signal.SIGINT, lambda *_: _interrupt(runtime))
    loaded.forked()
    try:
        loaded.run(runtime)
    finally:
        loaded.end()


def _interrupt(runtime: Runtime) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runtime.stop(Stopping.STOP)
