"""What pika and the system raise, in one line with what to do. The texts are RabbitMQ's own."""

import errno
import socket
import ssl

import pytest
from pika import exceptions as ex
from pika.adapters.utils import connection_workflow as workflow

from sengu.consumers.broker.explain import BrokerError, explain
from sengu.model.broker import Address, Tls

HERE = Address("127.0.0.1", 5672, "me", "hunter2", "shop")
CHANNEL = ex.ChannelClosedByBroker
CONNECTION = ex.ConnectionClosedByBroker


def at_login(code: int, text: str) -> Exception:
    return ex.ProbableAuthenticationError(repr(CONNECTION(code, text)))


def at_opening(code: int, text: str) -> Exception:
    return ex.ProbableAccessDeniedError(repr(CONNECTION(code, text)))


LOGIN = (
    "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see "
    "the broker logfile."
)
WRITE = "ACCESS_REFUSED - write access to exchange 'x' in vhost 'shop' refused for user 'me'"


def differs(argument: str, ours: str, theirs: str, kind: str = "queue") -> Exception:
    return CHANNEL(
        406,
        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for {kind} 'dl' in vhost 'shop': "
        f"received {ours} but current is {theirs}",
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (at_login(403, LOGIN), ["the password of 'me', or the user, is wrong", "correct the URL"]),
        (CONNECTION(403, LOGIN), ["the password of 'me'"]),
        (
            at_opening(530, "NOT_ALLOWED - vhost shop not found"),
            ["there is no virtual host 'shop'", "rabbitmqctl add_vhost shop"],
        ),
        (
            at_opening(530, "NOT_ALLOWED - access to vhost 'shop' refused for user 'me'"),
            ["no right to the virtual host", "set_permissions -p shop me"],
        ),
        (
            CHANNEL(403, WRITE),
            ["no right to write access to exchange 'x'", "set_permissions -p shop me"],
        ),
        (
            differs("x-queue-type", "'quorum'", "'classic'"),
            [
                "queue 'dl' is there already, with x-queue-type 'classic' and not 'quorum'",
                "set type='classic' in the consumer",
                "rabbitmqctl delete_queue -p shop dl",
                "--no-declare",
            ],
        ),
        (differs("durable", "'true'", "'false'"), ["set durable=False in the consumer"]),
        (
            differs("x-message-ttl", "the value '5' of type 'signedint'", "none"),
            ["with x-message-ttl none and not 5", "leave x-message-ttl out"],
        ),
        (
            differs("x-max-length", "none", "the value '7' of type 'signedint'"),
            ["set arguments={'x-max-length': 7} in the consumer"],
        ),
        (
            differs("type", "'topic'", "'direct'", "exchange"),
            ["exchange 'dl'", "set exchange_type='direct'", "or delete the exchange,"],
        ),
        (
            CHANNEL(406, "PRECONDITION_FAILED - invalid arg 'x-max-length' for queue 'dl'"),
            ["refuses: invalid arg 'x-max-length'"],
        ),
        (CONNECTION(503, "COMMAND_INVALID - unknown exchange type 'x'"), ["unknown exchange type"]),
    ],
)
def test_what_somebody_has_to_change_is_final(error: Exception, words: list[str]) -> None:
    explained = explain(error, HERE)
    assert explained.is_final
    for word in words:
        assert word in str(explained)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
            "nothing listens at 127.0.0.1:5672",
        ),
        (socket.gaierror(-2, "Name or service not known"), "the name '127.0.0.1' is not known"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (TimeoutError(), "does not answer"),
        (workflow.AMQPConnectorStackTimeout("Timeout"), "does not answer"),
        (CHANNEL(404, "NOT_FOUND - no queue 'dl' in vhost 'shop'"), "there is no queue 'dl'"),
        (
            CHANNEL(404, "NOT_FOUND - queue 'dl' in vhost 'shop' process is stopped by supervisor"),
            "process is stopped",
        ),
        (CONNECTION(320, "CONNECTION_FORCED - broker forced"), "has closed the connection: broker"),
        (at_opening(530, "NOT_ALLOWED - connection limit (1) is reached"), "connection limit"),
        (CHANNEL(405, "RESOURCE_LOCKED - cannot obtain access"), "cannot obtain access"),
        (ex.StreamLostError("it was lost"), "has ended: it was lost"),
        # The broker went while it was asked: that says nothing of the password.
        (ex.ProbableAuthenticationError("StreamLostError: gone"), "has ended"),
        (ex.ConnectionBlockedTimeout("30 s"), "short of memory or disk"),
    ],
)
def test_what_passes_is_not_final(error: Exception, words: str) -> None:
    explained = explain(error, HERE)
    assert words in str(explained)
    assert not explained.is_final


@pytest.mark.parametrize("error", [at_login(403, LOGIN), ConnectionResetError(104, "reset")])
def test_a_line_shows_the_url_and_not_the_password(error: Exception) -> None:
    line = str(explain(error, HERE))
    assert "amqp://me@127.0.0.1:5672/shop" in line
    assert "hunter2" not in line
    assert "\n" not in line


def test_the_cause_is_found_in_what_pika_wraps_it_into() -> None:
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    inner = workflow.AMQPConnectorSocketConnectError(refused)
    outer = ex.AMQPConnectionError(workflow.AMQPConnectionWorkflowFailed((TimeoutError(), inner)))
    assert "nothing listens" in str(explain(outer, HERE))


def test_guest_from_elsewhere_is_told_that_it_may_not() -> None:
    line = str(explain(at_login(403, LOGIN), Address("mq.example")))
    assert "guest may only connect from the broker's own machine" in line


def test_errors_of_tls_say_what_to_write() -> None:
    address = Address("mq", 5672, tls=Tls())
    wrong = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    wrong.reason = "WRONG_VERSION_NUMBER"
    assert "write amqp://" in str(explain(wrong, address))
    unknown = ssl.SSLCertVerificationError(1, "failed")
    unknown.verify_message = "self-signed certificate"
    line = str(explain(unknown, address))
    assert "not accepted: self-signed certificate" in line
    assert "?cacertfile=FILE" in line


def test_what_is_explained_stays_as_it_is() -> None:
    error = BrokerError("so it is", is_final=True)
    assert explain(error, HERE) is error
