"""What verbs that ask the broker have in common: their options, and names of queues.

Imported by `cli.queues` and `cli.dead`. What speaks AMQP is imported when it is needed: shells ask
for words, and help is read, also where pika is not installed.
"""

import difflib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from sengu.cli.options import duration_option
from sengu.consumers.library import check_library
from sengu.errors import SenguError
from sengu.model.broker import DEFAULT, VARIABLE, Address, parse_brokers

if TYPE_CHECKING:
    from sengu.consumers.queues.management import Place
    from sengu.consumers.queues.report import Session

_TIMEOUT_SECONDS = 10.0


def broker_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--broker, --management and --connect-timeout."""
    for option in (
        duration_option(
            "--connect-timeout",
            f"How long to try to reach the broker.  [default: {_TIMEOUT_SECONDS:g}]",
        ),
        click.option(
            "--management",
            metavar="URL",
            help="RabbitMQ's management API, with USER:PASSWORD@ if another than the broker's.  "
            "[default: port 15672 of the broker, or 15671 with amqps, if it answers]",
        ),
        click.option(
            "--broker",
            "brokers",
            metavar="URL",
            multiple=True,
            help="Where it runs; the environment cannot be read by other users of this machine.  "
            f"[default: {DEFAULT}; environment: {VARIABLE}]",
        ),
    ):
        command = option(command)
    return command


class Asking:
    """Where to ask, as the options say. Raises UsageError."""

    def __init__(
        self, brokers: Sequence[str], management: str | None, connect_timeout: float | None
    ) -> None:
        self.addresses = parse_brokers(brokers, os.environ)
        check_library()
        from sengu.consumers.queues.management import parse_place

        self._management = management
        self._timeout_seconds = connect_timeout or _TIMEOUT_SECONDS
        if management is not None:
            parse_place(management, self.addresses[0])

    @property
    def insists(self) -> bool:
        """Whether the management API is to answer."""
        return self._management is not None

    def session(self) -> "Session":
        """Raises BrokerError."""
        from sengu.consumers.queues.report import Session

        return Session(self.addresses, self._timeout_seconds)

    def place(self, address: Address) -> "Place":
        from sengu.consumers.queues.management import parse_place, place_of

        if self._management is None:
            return place_of(address)
        return parse_place(self._management, address)

    def no_such_queue(self, name: str, address: Address) -> SenguError:
        """With what could have been meant, if the management API tells."""
        from sengu.consumers.queues.management import ask_names
        from sengu.consumers.queues.report import consumed

        try:
            names = ask_names(self.place(address), address.vhost)
        except SenguError:  # the error to be told is the other one
            names = ()
        return SenguError(
            f"broker {address}: there is no queue {name!r}; {guess(name, consumed(names) or names)}"
        )


def guess(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(names), n=1)
    if close:
        return f"did you mean {close[0]}?"
    return "its consumer makes it, or correct the name, or --broker"


def complete_queue(ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """For shells: names of consumers' queues, if the management API tells at once."""
    from sengu.consumers.queues.management import ask_names
    from sengu.consumers.queues.report import consumed

    try:
        asking = Asking(ctx.params.get("brokers") or (), ctx.params.get("management"), None)
        address = asking.addresses[0]
        names = ask_names(asking.place(address), address.vhost)
    except SenguError:  # a shell has no place for it
        return []
    return [name for name in consumed(names) if name.startswith(incomplete)]
