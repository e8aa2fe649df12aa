"""Kind `embedded`: a worker without a server, in the foreground process, for debuggers.

Imported by `cli.embedded`.
"""

import os
import signal
import sys
import threading

import msgspec

from sengu.dump.ear import Ear
from sengu.model.application import Application
from sengu.model.work import WorkOptions
from sengu.posix.swap_file import SwapFile, make_swap_file
from sengu.wire import scoreboard
from sengu.work.engine import Prepared, prepare
from sengu.worker.board import Board
from sengu.worker.engine import LoadError
from sengu.worker.identity import Identity
from sengu.worker.runtime import Runtime, Stopping


def run(options: WorkOptions, name: str) -> None:
    """Until the worker has ended. INT and TERM ask it to; a second INT is an interrupt as usual.
    HUP and USR2 read its configuration again.

    Raises LoadError, and whatever the worker does.
    """
    application = Application(
        engine="sengu.work.engine",
        target=options.target,
        options=msgspec.Raw(msgspec.json.encode(options)),
    )
    prepared = prepare(application)
    configuration = make_swap_file("config")
    configuration.write(prepared.configure().data)
    loaded = prepared.load()
    identity = Identity(name, 1, 0, os.getpid())
    memory = memoryview(bytearray(2 * scoreboard.LINE_BYTES))  # a lane, and what a server says
    runtime = Runtime(identity, application, (), Board(memory, 0, 1))
    runtime.configuration = configuration
    loaded.begin(identity)
    ear = Ear(f"{name} worker 0", None, runtime.on_dump)
    ear.listen()
    runtime.dump = ear.answer
    runtime.handle_signals()
    signal.signal(signal.SIGINT, lambda *_: _interrupt(runtime))
    for number in (signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, lambda *_: _reread(prepared, runtime, configuration))
    loaded.forked()
    try:
        loaded.run(runtime)
    finally:
        loaded.end()


def _interrupt(runtime: Runtime) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    runtime.stop(Stopping.STOP)


def _reread(prepared: Prepared, runtime: Runtime, configuration: SwapFile) -> None:
    """In a thread: it may take its time, and the worker be anywhere."""

    def read() -> None:
        try:
            content = prepared.configure().data
        except LoadError as error:  # the old one stays
            print(f"{error.details}sengu: error: {error}", file=sys.stderr)
            return
        configuration.write(content)
        runtime.wake()

    threading.Thread(target=read, name="sengu-configuration", daemon=True).start()
