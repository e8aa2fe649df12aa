"""The fork server's life: become who it is to be, load the application, fork until told to end.

Imported by `sengu.forkserver.__main__` only.
"""

import gc
import mmap
import os
import socket
import sys
import traceback
import warnings
from collections.abc import Callable

from sengu.dump.ear import Ear
from sengu.forkserver import privileges
from sengu.forkserver.births import Ward
from sengu.forkserver.configure import Inquiries, read, report_with, shortened
from sengu.forkserver.life import Heritage, flush_output
from sengu.forkserver.load import Everything, load, prepare, thread_warnings
from sengu.forkserver.orders import wait_for_orders
from sengu.posix import descriptors, packets
from sengu.posix.swap_file import SwapFile
from sengu.posix.title import Title
from sengu.wire import forkserver as wire
from sengu.wire import scoreboard
from sengu.worker.engine import LoadError, Prepared
from sengu.worker.identity import Identity

# With all that JSON may make of them, both stay below a packet's size.
_MAX_PROBLEM_BYTES = 1_000
_MAX_DETAILS_BYTES = 8_000


def run(sock: socket.socket, births: socket.socket) -> int:
    """Serve the server at the other end of `sock`; returns the exit code.

    `births` is where the supervisor hears of workers.
    """
    descriptors.seal()  # programs that the application runs get none of ours
    data, passed = packets.receive(sock)
    order = wire.decode_order(data)
    assert isinstance(order, wire.Load), order
    if order.version != wire.VERSION:
        return _fail(sock, LoadError(f"the server speaks version {order.version}; restart it"))
    title = Title()
    name = f"sengu: {order.service} fork server gen {order.generation}"
    title.set(f"{name}: loading {order.application.target}")
    memory = mmap.mmap(passed[0], scoreboard.SIZE_BYTES)
    files = [SwapFile(fd) for fd in passed[1:]]
    obituaries = files.pop() if order.application.reads_obituaries else None
    configuration = files[0] if files else None
    ear = Ear(name.removeprefix("sengu: "), passed[0])
    ear.listen()
    try:
        # Ours first: nothing that lies about in the working directory is taken for a part of it.
        prepared = prepare(order.application)
        privileges.drop(order.application.privileges)
        sys.path.insert(0, os.getcwd())
        found = read(prepared) if configuration is not None else None
        everything = _load(order, prepared)
        if everything is not None:
            _begin(order, everything)
    except LoadError as error:
        return _fail(sock, error)
    title.set(f"{name}: {order.application.target}")
    heritage = Heritage(order, prepared, memoryview(memory), ear, configuration, obituaries)
    ward = Ward(heritage, sock, births)
    warned = thread_warnings(order.application.target)
    settings = {} if found is None else found.settings
    report_with(sock, wire.Loaded(warned, settings, order.inquiry), found)
    _serve(sock, ward, everything, Inquiries(prepared, sock))
    if everything is not None:
        _tell(everything.loaded.end)
    flush_output()
    return 0


def _serve(
    sock: socket.socket, ward: Ward, everything: Everything | None, inquiries: Inquiries
) -> None:
    """Until the server has closed its end."""
    is_first = True
    while any(batch := wait_for_orders(sock)):
        if batch.births:
            ward.deliver(batch.births, everything)
            if everything is not None and is_first:
                is_first = False
                _tell(everything.loaded.forked)
        match batch.other:
            case wire.Configure(inquiry):
                inquiries.answer(inquiry)
            case wire.Amend(application):
                ward.amend(application)
            case None:
                pass


def _begin(order: wire.Load, everything: Everything) -> None:
    """Raises LoadError."""
    try:
        everything.loaded.begin(Identity(order.service, order.generation, 0, os.getpid()))
    except Exception as error:  # the user's
        summary = traceback.format_exception_only(error)[-1].strip()
        raise LoadError(f"before_run() failed: {summary}", traceback.format_exc()) from error


def _tell(method: Callable[[], None]) -> None:
    try:
        method()
    except Exception:  # the user's; workers live on, and it is shown
        traceback.print_exc()


def _load(order: wire.Load, prepared: Prepared) -> Everything | None:
    """The application, or None if each worker is to load it. Raises LoadError."""
    # A fork with threads around is what the warnings of `thread_warnings` are about.
    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    if not order.application.preload:
        return None
    try:
        everything = load(order.application, prepared)
    except LoadError:
        raise
    except BaseException as error:  # SystemExit too: whatever it is, people have to be told
        raise LoadError(f"{type(error).__name__}: {error}", traceback.format_exc()) from error
    # What was imported is there for good: collections in the workers shall not touch, and so copy,
    # its pages.
    gc.collect()
    gc.freeze()
    return everything


def _fail(sock: socket.socket, error: LoadError) -> int:
    details = error.details
    if details:
        # Also where its other output goes, so that the log has it at its place.
        sys.stderr.write(details if details.endswith("\n") else f"{details}\n")
    flush_output()
    packets.send(sock, wire.encode(wire.LoadFailed(*shortened(error))))
    return 1
