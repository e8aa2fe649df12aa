"""What RabbitMQ's management API tells beyond AMQP: which queues there are, rates, who consumes.

Its figures are up to five seconds old (collect_statistics_interval). Imported by the verbs that ask
the broker; nothing is changed through it.
"""

import base64
import http.client
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import msgspec

from sengu.consumers.broker.address import BrokerError, tls_context
from sengu.errors import UsageError, describe_error
from sengu.model.broker import Address, Tls, hidden

_PORTS = {"http": 15672, "https": 15671}
_FORM = "write http://USER:PASSWORD@HOST:PORT"
_ANSWER_SECONDS = 5.0
_RATES_OUT = ("ack_details", "deliver_no_ack_details", "get_no_ack_details")
_RATES = ("publish_details", *_RATES_OUT)
_TOTALS = ("messages", "messages_ready", "messages_unacknowledged")
_COLUMNS = ",".join(("name", *_TOTALS, *(f"message_stats.{name}.rate" for name in _RATES)))


class Place(msgspec.Struct, frozen=True):
    """Where the API is, and as whom it is asked. `prefix` is management.path_prefix."""

    host: str
    port: int
    user: str
    password: str
    prefix: str = ""
    tls: Tls | None = None

    def __str__(self) -> str:
        """The URL, without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.tls is None else 'https'}://{host}:{self.port}{self.prefix}"

    def __repr__(self) -> str:
        return f"Place({self})"


class Figures(msgspec.Struct, frozen=True):
    """Of a queue; rates are messages per second. None is what the API does not tell.

    `moving` are neither ready nor in somebody's hands: the broker moves them to another queue, and
    the other has not confirmed them.
    """

    unacked: int | None = None
    rate_in: float | None = None
    rate_out: float | None = None
    moving: int | None = None


class Told(msgspec.Struct, frozen=True):
    """What the API says of a virtual host: its queues, and for each the connections of its
    consumers, by the names that they have given themselves (or "")."""

    figures: Mapping[str, Figures]
    connections: Mapping[str, tuple[str, ...]]


def place_of(address: Address) -> Place:
    """Where it usually is: on the broker's host. Encrypted if AMQP is."""
    port = _PORTS["http" if address.tls is None else "https"]
    return Place(address.host, port, address.user, address.password, tls=address.tls)


def parse_place(text: str, address: Address) -> Place:
    """From a URL; a user that it does not name is the broker's. Raises UsageError."""
    said = f"--management {hidden(text)!r}"
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError:  # which has a part of the URL in it
        raise UsageError(f"{said} cannot be read; {_FORM}") from None
    if parts.scheme not in _PORTS or not host or "@" in parts.path + parts.query + parts.fragment:
        raise UsageError(f"{said} is no URL of RabbitMQ's management API; {_FORM}")
    user, password = address.user, address.password
    if parts.username is not None:
        if parts.password is None:
            raise UsageError(f"{said} has a user and no password; {_FORM}")
        user, password = unquote(parts.username), unquote(parts.password)
    return Place(
        host,
        port or _PORTS[parts.scheme],
        user,
        password,
        parts.path.rstrip("/").removesuffix("/api"),
        (address.tls or Tls()) if parts.scheme == "https" else None,
    )


def ask(place: Place, vhost: str) -> Told:
    """Raises BrokerError."""
    name = quote(vhost, safe="")
    queues = _get(place, f"/queues/{name}?columns={_COLUMNS}")
    consumers = _get(place, f"/consumers/{name}")
    connections = _get(place, f"/vhosts/{name}/connections?columns=name,user_provided_name")
    try:
        return read(queues, consumers, connections)
    except (AttributeError, KeyError, TypeError) as error:
        raise _not_the_api(place) from error


def ask_names(place: Place, vhost: str) -> tuple[str, ...]:
    """The names of all queues. Raises BrokerError."""
    try:
        found = _get(place, f"/queues/{quote(vhost, safe='')}?columns=name")
        return tuple(str(one["name"]) for one in found)
    except (KeyError, TypeError) as error:
        raise _not_the_api(place) from error


def read(queues: Any, consumers: Any, connections: Any) -> Told:
    """From the API's answers, as objects. Raises AttributeError, KeyError, TypeError for others."""
    given = {one["name"]: one.get("user_provided_name") or "" for one in connections}
    by_queue: dict[str, list[str]] = {}
    for one in consumers:
        details = one.get("channel_details") or {}  # an empty list, once the channel is gone
        name = given.get(details.get("connection_name"), "")
        by_queue.setdefault(one["queue"]["name"], []).append(name)
    return Told(
        {one["name"]: _figures(one) for one in queues},
        {queue: tuple(names) for queue, names in by_queue.items()},
    )


def _figures(queue: Mapping[str, Any]) -> Figures:
    rates = queue.get("message_stats") or {}
    known = {name: float(one["rate"]) for name, one in rates.items() if "rate" in one}
    out = [known[name] for name in _RATES_OUT if name in known]
    return Figures(
        queue.get("messages_unacknowledged"),
        known.get("publish_details"),
        sum(out) if out else None,
        _moving(*(queue.get(name) for name in _TOTALS)),
    )


def _moving(messages: int | None, ready: int | None, unacked: int | None) -> int | None:
    if messages is None or ready is None or unacked is None:
        return None
    return messages - ready - unacked


def _get(place: Place, path: str) -> Any:
    """Raises BrokerError."""
    try:
        status, body = _request(place, path)
    except (OSError, http.client.HTTPException) as error:
        raise BrokerError(
            f"cannot reach the management API at {place}: {describe_error(error)}; "
            "rabbitmq-plugins enable rabbitmq_management, or give --management URL"
        ) from error
    match status:
        case 200:
            pass
        case 401 | 403:
            raise BrokerError(
                f"the management API at {place} refuses user {place.user!r}; rabbitmqctl "
                f"set_user_tags {place.user} monitoring, or give --management URL with another",
                is_final=True,
            )
        case 404:
            raise _not_the_api(place)
        case _:
            raise BrokerError(
                f"the management API at {place} answers {status}; see the broker's log"
            )
    try:
        return json.loads(body)
    except ValueError as error:
        raise _not_the_api(place) from error


def _request(place: Place, path: str) -> tuple[int, bytes]:
    """Status and body. Raises OSError, http.client.HTTPException, BrokerError."""
    connection: http.client.HTTPConnection
    if place.tls is None:
        connection = http.client.HTTPConnection(place.host, place.port, timeout=_ANSWER_SECONDS)
    else:
        context = tls_context(place.tls)
        connection = http.client.HTTPSConnection(
            place.host, place.port, timeout=_ANSWER_SECONDS, context=context
        )
    key = base64.b64encode(f"{place.user}:{place.password}".encode()).decode()
    try:
        connection.request(
            "GET", f"{place.prefix}/api{path}", headers={"Authorization": f"Basic {key}"}
        )
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _not_the_api(place: Place) -> BrokerError:
    return BrokerError(
        f"what answers at {place} is not RabbitMQ's management API for this virtual host; give "
        "--management URL",
        is_final=True,
    )
