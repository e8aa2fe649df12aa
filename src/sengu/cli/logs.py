"""`sengu logs`: what an instance and its workers have written, and what they write."""

import re
import signal
import sys
import threading
import time
from contextlib import closing, suppress
from types import FrameType

import click

from sengu.cli.exits import Exit
from sengu.cli.log_reader import LogReader
from sengu.cli.options import Verb
from sengu.cli.text import printable, say
from sengu.cli.which import looks_at_instance
from sengu.control.client import ControlClient
from sengu.errors import SenguError, describe_error

_POLL_SECONDS = 0.2
_HEAD_LENGTH = 200  # a level stands at the beginning of a line
_LEVEL = re.compile(
    r"\b(TRACE|DEBUG|INFO|WARN|WARNING|ERROR|CRITICAL|FATAL)\b"
    r'|(?<="level":")(\w+)(?=")|(?<="level": ")(\w+)(?=")'
    r"|(?<=\] )(warning)(?=: )"
)
_COLOURS = {
    "trace": "bright_black",
    "debug": "bright_black",
    "info": "green",
    "warn": "yellow",
    "warning": "yellow",
    "error": "red",
    "critical": "red",
    "fatal": "red",
}


@click.command(
    "logs",
    cls=Verb,
    examples=(
        ("sengu logs", "The last ten lines."),
        ("sengu logs web -n 1000 | grep ERROR", "Rotated files are read too."),
        ("sengu logs -f -n 0", "Only what is written from now on, until interrupted."),
    ),
)
@click.option("--follow", "-f", is_flag=True, help="Go on with new lines until interrupted.")
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    metavar="N",
    help="How many of the last lines are shown first.",
)
@looks_at_instance
def command(client: ControlClient, follow: bool, lines: int) -> int:
    """Show the end of the log file of an instance, across rotations.

    NAME is the name of the current directory if left out. The instance must have been started with
    --log-file; it is followed also when the instance has ended.
    """
    path = _log_file(client)
    interrupted = _note_interrupts()
    try:
        with suppress(KeyboardInterrupt), closing(LogReader(path, _tell_loss)) as reader:
            for line in reader.last(lines):
                _show(line)
            if not follow:
                _show(reader.rest())
            sys.stdout.flush()
            while follow and not interrupted.is_set():
                for piece in reader.news():
                    _show(piece)
                sys.stdout.flush()
                time.sleep(_POLL_SECONDS)
    except BrokenPipeError:
        raise
    except OSError as problem:
        raise SenguError(
            f"cannot read {path}: {describe_error(problem)}; the user who started it can"
        ) from problem
    return Exit.OK


def _note_interrupts() -> threading.Event:
    """Set by SIGINT, which also raises KeyboardInterrupt as ever: the finalizer of a file that is
    left open drops that without a word (CPython's iobase_finalize).
    """
    noted = threading.Event()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        noted.set()
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, interrupt)
    return noted


def _log_file(client: ControlClient) -> str:
    status = client.status()
    if not status.log:
        raise SenguError(
            f"{status.name} writes to its standard error, which sengu does not keep; "
            "look where that goes (journalctl, docker logs), or start it with --log-file FILE"
        )
    if status.log.startswith("|"):
        raise SenguError(f"{status.name} writes to a command, {status.log}; look where that writes")
    return status.log


def _tell_loss() -> None:
    say("files were removed before they could be read; keep more of them: --log-keep")


def _show(data: bytes) -> None:
    """Bytes as they are; for a terminal without what could command it, and with colours."""
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(data)
        return
    for line in data.decode(errors="replace").removesuffix("\n").split("\n"):
        click.echo(_paint(printable(line)))


def _paint(line: str) -> str:
    found = _LEVEL.search(line[:_HEAD_LENGTH])
    if found is None or found[0].lower() not in _COLOURS:
        return line
    start, end = found.span()
    return line[:start] + click.style(found[0], fg=_COLOURS[found[0].lower()]) + line[end:]
