"""What the broker's errors, and pika's, mean to a user: one line, with what to do.

Imported by `address`, and by what connects.
"""

import re
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

from pika import exceptions as ex
from pika.adapters.utils import connection_workflow as workflow

from sengu.errors import SenguError, describe_error
from sengu.model.broker import Address

_DIFFERS = re.compile(
    r"inequivalent arg '(?P<argument>[^']*)' for (?P<kind>queue|exchange) '(?P<name>.*)' in vhost "
    r"'(?P<vhost>.*)': received (?P<ours>.*) but current is (?P<theirs>.*)",
    re.DOTALL,
)
_TYPED_VALUE = re.compile(r"the value '(?P<value>.*)' of type '(?P<type>\w+)'", re.DOTALL)
_QUEUE_OPTIONS = {"durable": "durable", "x-queue-type": "type"}
_EXCHANGE_OPTIONS = {"durable": "exchange_durable", "type": "exchange_type"}
_NOT_FOUND = re.compile(r"no (?P<kind>queue|exchange) '(?P<name>.*)' in vhost", re.DOTALL)
_REFUSED = re.compile(r"(?P<right>\w+) access to (?P<what>.*) refused for user", re.DOTALL)
_CODE = re.compile(r"\((?P<code>\d{3})\) ['\"](?P<text>.*)['\"]", re.DOTALL)


class BrokerError(SenguError):
    """`is_final`: trying again does not help, somebody has to change something."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


def explain(error: BaseException, address: Address) -> BrokerError:
    """What has happened, in one line, and what to do."""
    if isinstance(error, BrokerError):
        return error
    causes = list(_causes(error))
    for cause in causes:
        closing = _closing(cause)
        if closing is not None:
            return _explain_closing(closing, address)
    for cause in causes:
        if isinstance(cause, OSError):
            return _explain_system(cause, address)
    return _explain_silence(causes[-1], address)


class _Closing(NamedTuple):
    """The broker's words when it closes a connection or a channel (AMQP 0-9-1, reply codes)."""

    code: int
    text: str


def _causes(error: BaseException) -> Iterator[BaseException]:
    """It, and those that pika has put into it."""
    yield error
    inner: list[object] = []
    if isinstance(error, workflow.AMQPConnectionWorkflowFailed):
        inner = [error.exceptions[-1]]
    elif isinstance(error, workflow.AMQPConnectorPhaseErrorBase):
        inner = [error.exception]
    elif isinstance(error, ex.AMQPError):
        inner = list(error.args)
    for one in inner:
        if isinstance(one, BaseException):
            yield from _causes(one)


def _closing(error: BaseException) -> _Closing | None:
    if isinstance(error, ex.ConnectionClosed | ex.ChannelClosed):
        return _Closing(error.reply_code, error.reply_text)
    if isinstance(error, ex.AMQPError):  # those of the beginning have it as a text
        match = _CODE.search(str(error.args))
        if match is not None:
            return _Closing(int(match["code"]), match["text"].replace("\\'", "'"))
    return None


def _explain_closing(closing: _Closing, address: Address) -> BrokerError:
    text = " ".join(closing.text.partition(" - ")[2].split()) or closing.text
    match closing.code:
        case 403:
            return BrokerError(_explain_refusal(text, address), is_final=True)
        case 530 if "not found" in text:
            return BrokerError(
                f"broker {address}: there is no virtual host {address.vhost!r}; correct the URL, "
                f"or make it: rabbitmqctl add_vhost {address.vhost}",
                is_final=True,
            )
        case 530 if "refused" in text:
            return BrokerError(_forbidden("the virtual host", address), is_final=True)
        case 404:
            return BrokerError(_explain_missing(text, address))
        case 406:
            return _explain_precondition(text, address)
        case 503 | 540:
            return BrokerError(f"broker {address} refuses: {text}; correct that", is_final=True)
        case _:
            return BrokerError(
                f"broker {address} has closed the connection: {text} ({closing.code}); its log "
                "says more"
            )


def _explain_refusal(text: str, address: Address) -> str:
    match = _REFUSED.search(text)
    if match is not None:
        return _forbidden(f"{match['right']} access to {match['what']}", address)
    if address.user == "guest" and not _is_here(address.host):
        return (
            f"broker {address}: the user guest, or its password, is refused; guest may only "
            "connect from the broker's own machine: make another one, rabbitmqctl add_user"
        )
    if "Login" in text or "login" in text:
        return (
            f"broker {address}: the password of {address.user!r}, or the user, is wrong; correct "
            "the URL"
        )
    return f"broker {address} refuses: {text}; correct the user's rights: rabbitmqctl"


def _forbidden(what: str, address: Address) -> str:
    return (
        f"broker {address}: user {address.user!r} has no right to {what}; give it: rabbitmqctl "
        f"set_permissions -p {address.vhost} {address.user} '.*' '.*' '.*'"
    )


def _is_here(host: str) -> bool:
    return host in {"localhost", "::1"} or host.startswith("127.")


def _explain_missing(text: str, address: Address) -> str:
    match = _NOT_FOUND.search(text)
    if match is None:  # it is there, and down
        return f"broker {address}: {text}; it is to come back, see rabbitmq-diagnostics status"
    return (
        f"broker {address}: there is no {match['kind']} {match['name']!r}; its consumer makes it "
        "(without --no-declare), or correct the name"
    )


def _explain_precondition(text: str, address: Address) -> BrokerError:
    match = _DIFFERS.search(text)
    if match is None:
        is_final = text.startswith("invalid arg")
        return BrokerError(f"broker {address} refuses: {text}; correct that", is_final=is_final)
    ours, theirs = (_TYPED_VALUE.sub(_plain, match[side]) for side in ("ours", "theirs"))
    kind, name, argument = match["kind"], match["name"], match["argument"]
    delete = f"delete the {kind}"
    if kind == "queue":
        delete += f" (rabbitmqctl delete_queue -p {address.vhost} {name})"
    return BrokerError(
        f"{kind} {name!r} is there already, with {argument} {theirs} and not {ours}; "
        f"{_as_it_is(kind, argument, theirs)}, or {delete}, or take it as it is: --no-declare",
        is_final=True,
    )


def _plain(match: re.Match[str]) -> str:
    return repr(match["value"]) if match["type"] == "longstr" else match["value"]


def _as_it_is(kind: str, argument: str, value: str) -> str:
    """What a consumer says that is to have a queue or an exchange so."""
    names = _QUEUE_OPTIONS if kind == "queue" else _EXCHANGE_OPTIONS
    if argument in names:
        shown = value.strip("'").title() if argument == "durable" else value
        return f"set {names[argument]}={shown} in the consumer"
    arguments = "arguments" if kind == "queue" else "exchange_arguments"
    if value == "none":
        return f"leave {argument} out of the consumer's {arguments}"
    return f"set {arguments}={{'{argument}': {value}}} in the consumer"


def _explain_system(error: OSError, address: Address) -> BrokerError:
    place = f"{address.host}:{address.port}"
    match error:
        case socket.gaierror():
            next_step = f"the name {address.host!r} is not known; correct it, or wait for DNS"
            return BrokerError(f"cannot reach broker {address}: {next_step}")
        case ConnectionRefusedError():
            next_step = "start the broker, or correct its URL (--broker, SENGU_BROKER)"
            return BrokerError(
                f"cannot reach broker {address}: nothing listens at {place}; {next_step}"
            )
        case ssl.SSLCertVerificationError():
            return BrokerError(
                f"broker {address}: its certificate is not accepted: {error.verify_message}; name "
                "who has signed it, ?cacertfile=FILE, or whose it is, ?server_name_indication=NAME",
                is_final=True,
            )
        case ssl.SSLError() if error.reason in {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"}:
            return BrokerError(
                f"broker {address} does not speak TLS at port {address.port}; write amqp://, or "
                "its other port",
                is_final=True,
            )
        case ssl.SSLError():
            return BrokerError(
                f"broker {address}: TLS fails: {error.reason or error}; see the broker's log"
            )
        case TimeoutError():
            return _explain_silence(error, address)
        case _:
            return BrokerError(
                f"cannot reach broker {address}: {describe_error(error)}; see that it runs"
            )


def _explain_silence(error: BaseException, address: Address) -> BrokerError:
    """It has said nothing, or nothing that we understand."""
    if isinstance(error, TimeoutError | workflow.AMQPConnectorException):
        tls = "" if address.tls is not None else ", or write amqps:// if it expects TLS"
        return BrokerError(f"broker {address} does not answer; see that it is a broker{tls}")
    if isinstance(error, ex.ConnectionBlockedTimeout):
        return BrokerError(
            f"broker {address} takes no messages: it is short of memory or disk; give it more, "
            "see rabbitmq-diagnostics alarms"
        )
    words = " ".join(str(error).split()) or type(error).__name__
    return BrokerError(f"the connection to broker {address} has ended: {words}; see its log")
