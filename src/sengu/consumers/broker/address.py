"""The broker: how it is reached.

Imported by `publisher`, by what connects in a worker, and by the verbs that ask the broker.
"""

import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import pika

from sengu.consumers.broker.explain import BrokerError, explain
from sengu.errors import describe_error
from sengu.model.broker import Address, Tls, parse_brokers
from sengu.posix import clock

__all__ = ["Address", "BrokerError", "connect", "explain", "open_socket", "parse_brokers"]

_T = TypeVar("_T")

_PAUSE_SECONDS = 0.5
_ATTEMPT_SECONDS = 10.0
# A peer that is gone without a word is found out by the kernel, also when nobody looks at the
# socket, as AMQP's heartbeats would require: after a minute (tcp(7)).
_KEEPALIVE = {
    "TCP_KEEPIDLE": 30,
    "TCP_KEEPINTVL": 10,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 60_000,
}


def parameters(
    address: Address, *, heartbeat_seconds: float, name: str = ""
) -> pika.ConnectionParameters:
    """`name` is what the broker shows this connection as."""
    return pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=address.vhost,
        credentials=pika.PlainCredentials(address.user, address.password),
        heartbeat=round(heartbeat_seconds),
        client_properties={"connection_name": name} if name else None,
        ssl_options=None if address.tls is None else _ssl_options(address, address.tls),
        tcp_options=_KEEPALIVE,
        connection_attempts=1,
        socket_timeout=_ATTEMPT_SECONDS,
        stack_timeout=_ATTEMPT_SECONDS,
    )


def open_socket(address: Address, timeout_seconds: float) -> socket.socket:
    """A connected socket, encrypted if the address says so. Raises BrokerError."""
    try:
        found = socket.create_connection((address.host, address.port), timeout_seconds)
        try:
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE.items():
                found.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
            if address.tls is None:
                return found
            name = address.tls.server_name or address.host
            return tls_context(address.tls).wrap_socket(found, server_hostname=name)
        except BaseException:  # whatever it is, the socket is nobody's
            found.close()
            raise
    except OSError as error:
        raise explain(error, address) from error


def tls_context(tls: Tls) -> ssl.SSLContext:
    """Raises BrokerError, for files that cannot be read."""
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:
        files = ", ".join(filter(None, (tls.ca_file, tls.certificate, tls.key)))
        raise BrokerError(
            f"cannot load {files}, which the broker's URL names: {describe_error(error)}",
            is_final=True,
        ) from error
    return context


def connect(
    addresses: Sequence[Address], timeout_seconds: float, name: str = "sengu"
) -> pika.BlockingConnection:
    """To whichever answers first; tried again and again until the time is up.

    Raises BrokerError: at once if trying again does not help.
    """

    def attempt(address: Address, _seconds: float) -> pika.BlockingConnection:
        try:
            return pika.BlockingConnection(parameters(address, heartbeat_seconds=0, name=name))
        except Exception as error:  # pika's, its workflow's and the system's have no common base
            raise explain(error, address) from error

    return persist(addresses, clock.monotonic() + timeout_seconds, attempt)


def persist(
    addresses: Sequence[Address], until: float, attempt: Callable[[Address, float], _T]
) -> _T:
    """What `attempt` returns for one of these. Raises BrokerError."""
    while True:
        failed: list[BrokerError] = []
        for address in addresses:
            left = max(until - clock.monotonic(), _PAUSE_SECONDS)
            try:
                return attempt(address, min(left, _ATTEMPT_SECONDS))
            except BrokerError as error:
                failed.append(error)
        final = [error for error in failed if error.is_final]
        if final or clock.monotonic() + _PAUSE_SECONDS >= until:
            raise (final or failed)[0]
        time.sleep(_PAUSE_SECONDS)


def _ssl_options(address: Address, tls: Tls) -> pika.SSLOptions:
    return pika.SSLOptions(tls_context(tls), tls.server_name or address.host)
