"""A dead message as people read it, and as JSON. Imported by `cli.dead`."""

import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
import msgspec

from sengu.cli.text import plural, printable, table
from sengu.consumers.model import judge
from sengu.consumers.queues.dead import DeadMessage

_SHOWN_CHARACTERS = 40
_HEADINGS = ("N", "DIED", "REASON", "FAILURES", "ID", "ERROR", "BODY")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A dead message as JSON. `died` and `published` are in seconds since 1970; None is what nobody
    has noted.

    `text` is the body if it is UTF-8, else None, and `size` how many bytes it has.
    """

    number: int
    id: str | None
    died: int | None
    published: int | None
    reason: str
    error: str
    failures: int
    exchange: str
    routing_key: str
    content_type: str | None
    size: int
    text: str | None


def row(message: DeadMessage, queue: str) -> Row:
    exchange, routing_key = message.original(queue)
    return Row(
        number=message.number,
        id=message.id,
        died=message.died_at,
        published=message.properties.timestamp,
        reason=message.reason,
        error=message.error,
        failures=message.failures,
        exchange=exchange,
        routing_key=routing_key,
        content_type=message.properties.content_type,
        size=len(message.body),
        text=_text(message.body),
    )


def messages_table(messages: Sequence[DeadMessage]) -> str:
    return table(_HEADINGS, [_cells(one) for one in messages])


def _cells(message: DeadMessage) -> tuple[str, ...]:
    return (
        str(message.number),
        _when(message.died_at),
        printable(message.reason) or "-",
        str(message.failures),
        printable(message.id or "-"),
        _start(message.error),
        _start(_text(message.body) or f"{len(message.body)} bytes"),
    )


def whole_as_json(message: DeadMessage, queue: str) -> dict[str, Any]:
    """A row with what a list has no room for."""
    more = {"stack": message.stack, "headers": _plain(message.headers)}
    whole: dict[str, Any] = msgspec.to_builtins(row(message, queue))
    return whole | more


def whole(message: DeadMessage, queue: str) -> str:
    exchange, routing_key = message.original(queue)
    facts = {
        "number": str(message.number),
        "id": message.id or "-",
        "died": _when(message.died_at),
        "published": _when(message.properties.timestamp),
        "reason": message.reason or "-",
        "failures": str(message.failures),
        "error": message.error or "-",
        "exchange": exchange or "-",
        "routing key": routing_key,
        "content type": message.properties.content_type or "-",
    }
    width = max(map(len, facts))
    text = _text(message.body)
    parts = [
        "\n".join(f"{name:{width}}  {printable(value)}" for name, value in facts.items()),
        _section("stack", message.stack),
        _section(
            "headers",
            "\n".join(
                f"{name}: {value}"
                for name, value in _plain(message.headers).items()
                if name not in (judge.STACK, judge.ERROR)  # they are above
            ),
        ),
        _section(
            f"body, {plural(len(message.body), 'byte')}",
            text if text is not None else message.body.hex(" ", -4),
        ),
    ]
    return "\n\n".join(filter(None, parts))


def _section(title: str, text: str) -> str:
    lines = "".join(f"\n  {printable(line)}" for line in text.splitlines())
    return f"{title}:{lines}" if lines else ""


def _plain(value: Any) -> Any:
    """A value of AMQP's tables, as JSON has it."""
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, bool | float | None):
        return value
    return int(value) if isinstance(value, int) else str(value)  # pika has a class of its own


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _when(timestamp: int | None) -> str:
    if timestamp is None:
        return "-"
    try:
        return f"{datetime.fromtimestamp(timestamp):%Y-%m-%d %H:%M:%S}"
    except (OverflowError, ValueError, OSError):  # milliseconds, or whatever a publisher has put
        return str(timestamp)


def _start(text: str) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[: _SHOWN_CHARACTERS - 1]}…"


def print_messages(messages: Sequence[DeadMessage]) -> None:
    """In a table, folded to fit a terminal."""
    if sys.stdout.isatty():
        from sengu.cli.wide import print_table  # slow to import

        print_table(_HEADINGS, [_cells(one) for one in messages])
    else:
        click.echo(messages_table(messages))
