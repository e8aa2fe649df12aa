"""`sengu publish`: one message, or a message for each line, each confirmed by the broker."""

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from sengu.cli.exits import Exit
from sengu.cli.options import Verb, duration_option
from sengu.cli.progress import open_progress
from sengu.cli.text import plural
from sengu.consumers.content import BYTES, JSON, TEXT
from sengu.consumers.library import check_library
from sengu.errors import SenguError, UsageError
from sengu.model.broker import DEFAULT, VARIABLE, parse_broker

if TYPE_CHECKING:
    from sengu.consumers import Publisher

_TIMEOUT_SECONDS = 30.0
_STDIN = "-"
_STDIN_FD = 0
# What is read at a time, and so how many lines may be published at once.
_READ_BYTES = 1 << 16


@click.command(
    "publish",
    cls=Verb,
    exits=(Exit.OK, Exit.FAILED, Exit.USAGE, Exit.INTERRUPTED),
    examples=(
        ("""sengu publish downloads '{"url": "https://example.org"}'""", "JSON, as it is such."),
        ("sengu publish pictures --content-type image/png < cat.png", "What stdin has."),
        ("sengu publish downloads --lines < urls.txt", "A message for each line."),
        ("sengu publish eu.fr 'hello' --exchange news", "To an exchange, with that routing key."),
    ),
)
@click.argument("queue")
@click.argument("body", required=False)
@click.option("--lines", is_flag=True, help="A message for each line, without the line's end.")
@click.option("--exchange", metavar="NAME", default="", help="To this exchange, not to the queue.")
@click.option("--routing-key", metavar="KEY", help="With --exchange; QUEUE if left out.")
@click.option(
    "--content-type",
    metavar="TYPE",
    help=f"If left out: {JSON} if BODY can be read as such, else {TEXT} if it is UTF-8, else "
    f"{BYTES}.",
)
@click.option(
    "--header",
    "headers",
    metavar="NAME=VALUE",
    multiple=True,
    help="A header, as text. May be given several times.",
)
@click.option("--message-id", metavar="ID", help="A random one if left out.")
@click.option(
    "--broker",
    "brokers",
    metavar="URL",
    multiple=True,
    help=f"{DEFAULT} if left out. May be given several times.  [environment: {VARIABLE}, which "
    "others on this machine cannot read, as they can a command line]",
)
@duration_option(
    "--connect-timeout",
    f"How long to try to reach the broker; {_TIMEOUT_SECONDS:g} if left out.",
)
def command(queue: str, body: str | None, lines: bool, **given: Any) -> int:
    """Publish BODY, or what stdin has, to QUEUE, and return when the broker has it.

    BODY is published as it is; - is stdin. When no queue gets a message, or the broker refuses it,
    that is said, and the exit code is 1.
    """
    options = {
        "exchange": given["exchange"],
        "routing_key": given["routing_key"],
        "headers": _headers(given["headers"]),
    }
    if given["routing_key"] is not None and not given["exchange"]:
        raise UsageError("--routing-key is for --exchange; add that, or name the queue only")
    if lines and given["message_id"] is not None:
        raise UsageError("--message-id is for one message; leave it or --lines out")
    for url in given["brokers"]:
        parse_broker("--broker", url)
    check_library()
    from sengu.consumers import Publisher

    timeout = given["connect_timeout"] or _TIMEOUT_SECONDS
    with Publisher(given["brokers"] or None, timeout=timeout) as publisher:
        if lines:
            chunks = _chunks(_pieces(body))
            count = _publish_lines(publisher, queue, chunks, given["content_type"], options)
        else:
            data = b"".join(_pieces(body))
            found = given["content_type"] or _content_type(data)
            identity = given["message_id"]
            publisher.publish(queue, data, content_type=found, message_id=identity, **options)
            count = 1
    where = f"exchange {given['exchange']}" if given["exchange"] else queue
    click.echo(f"{plural(count, 'message')} published to {where}")
    return Exit.OK


def _publish_lines(
    publisher: "Publisher",
    queue: str,
    chunks: Iterator[list[bytes]],
    content_type: str | None,
    options: dict[str, Any],
) -> int:
    """How many. Raises SenguError, which says how many before."""
    count = 0
    with open_progress() as progress:
        try:
            for chunk in chunks:
                for found, same in itertools.groupby(chunk, _content_type):
                    wanted = content_type or found
                    count += publisher.publish_all(queue, same, content_type=wanted, **options)
                progress.show(f"{plural(count, 'message')} published")
        except SenguError as problem:
            if not count:
                raise
            before = f"{plural(count, 'message')} before were published, line {count + 1} may not"
            raise SenguError(f"{problem} ({before})") from problem
    return count


def _chunks(pieces: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Lines, as many as there are at a time: who writes them may take a rest."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if lines:
            yield [line.removesuffix(b"\r") for line in lines]
    if rest:
        yield [rest]


def _pieces(body: str | None) -> Iterator[bytes]:
    """Raises SenguError."""
    if body is not None and body != _STDIN:
        yield os.fsencode(body)
        return
    try:
        while piece := os.read(_STDIN_FD, _READ_BYTES):
            yield piece
    except OSError as error:
        raise SenguError(f"cannot read stdin: {error.strerror}; give BODY") from error


def _headers(texts: Sequence[str]) -> dict[str, str]:
    """Raises UsageError."""
    headers = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UsageError(
                f"--header {text!r} is not NAME=VALUE; write it as in --header from=me"
            )
        headers[name] = value
    return headers


def _content_type(body: bytes) -> str:
    """What it can be read as."""
    try:
        json.loads(body)
    except (ValueError, RecursionError):  # RecursionError: of brackets, it is hardly meant
        pass
    else:
        return JSON
    try:
        body.decode()
    except UnicodeDecodeError:
        return BYTES
    return TEXT
