"""Reads the configuration, at the beginning and whenever the server asks. Imported by
`forkserver.main`.
"""

import os
import socket
import traceback

from sengu.posix import packets
from sengu.wire import forkserver as wire
from sengu.worker.engine import Configuration, LoadError, Prepared

# With all that JSON may make of them, both stay below a packet's size.
MAX_PROBLEM_BYTES = 1_000
MAX_DETAILS_BYTES = 8_000


class Inquiries:
    """Answers each once: numbers grow, so one that was seen already was sent twice."""

    def __init__(self, prepared: Prepared, sock: socket.socket) -> None:
        self._prepared = prepared
        self._socket = sock
        self._last = 0

    def answer(self, inquiry: int) -> None:
        if inquiry <= self._last:
            return
        self._last = inquiry
        try:
            found = read(self._prepared)
        except LoadError as error:
            problem, details = shortened(error)
            self._say(wire.ConfigureFailed(inquiry, problem, details))
            return
        if found is None:
            self._say(wire.ConfigureFailed(inquiry, "there is no configuration"))
            return
        report_with(self._socket, wire.Configured(inquiry, found.settings), found)

    def _say(self, report: wire.FromForkServer) -> None:
        packets.send(self._socket, wire.encode(report))


def read(prepared: Prepared) -> Configuration | None:
    """Raises LoadError, whatever it is that the user's code raises."""
    try:
        found = prepared.configure()
    except LoadError:
        raise
    except BaseException as error:  # SystemExit too: whatever it is, people have to be told
        raise LoadError(f"{type(error).__name__}: {error}", traceback.format_exc()) from error
    if found is not None:
        _check_size("the configuration", len(found.data), wire.MAX_CONFIGURATION_BYTES)
        settings = len(wire.encode(found.settings))
        _check_size("what is a setting by its name", settings, wire.MAX_SETTINGS_BYTES)
    return found


def _check_size(what: str, size: int, most: int) -> None:
    """Raises LoadError."""
    if size > most:
        raise LoadError(
            f"{what} is {size} bytes of JSON, and {most} is the most there can be; "
            "let workers read by themselves what is large"
        )


def report_with(
    sock: socket.socket, report: wire.FromForkServer, found: Configuration | None
) -> None:
    """Say it, with a memory file that has what was found beside it."""
    if found is None:
        packets.send(sock, wire.encode(report))
        return
    fd = os.memfd_create("sengu-config", os.MFD_CLOEXEC)
    try:
        with open(fd, "wb", closefd=False) as stream:
            stream.write(found.data)
        packets.send(sock, wire.encode(report), (fd,))
    finally:
        os.close(fd)


def shortened(error: LoadError) -> tuple[str, str]:
    """Its problem and details, so much of them as there is room for in a packet."""
    return (
        str(error).encode()[:MAX_PROBLEM_BYTES].decode(errors="ignore"),
        error.details.encode()[-MAX_DETAILS_BYTES:].decode(errors="ignore"),
    )
