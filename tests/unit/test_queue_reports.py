"""What is told of queues and dead messages, from what AMQP and the management API say."""

from contextlib import nullcontext
from typing import Any

import pika
import pytest

from sengu.cli.main import run
from sengu.consumers.broker.address import BrokerError
from sengu.consumers.queues import management
from sengu.consumers.queues.counting import Count
from sengu.consumers.queues.dead import DeadMessage, Refs, parse_refs, revived
from sengu.consumers.queues.management import Figures, Told, parse_place, place_of
from sengu.consumers.queues.report import (
    Generation,
    consumed,
    generations,
    report,
    retry_queues,
)
from sengu.errors import UsageError
from sengu.model.broker import Address, Tls

BROKER = Address("rabbit.example", user="me", password="secret")
NAMES = ("a", "a.dead", "a.retry.10s", "a.retry.1500ms", "a.suspects", "b", "c.retry.10s", "c")


class Counts:
    """Takes the broker's place."""

    def __init__(self, **counts: Count) -> None:
        self.counts = {name.replace("_", "."): count for name, count in counts.items()}

    def __call__(self, queue: str) -> Count | None:
        return self.counts.get(queue)


def dead(headers: dict[str, Any]) -> DeadMessage:
    return DeadMessage(1, 1, "", "q.dead", pika.BasicProperties(headers=headers), b"")


# Queues


def test_a_queue_with_siblings_is_a_consumers() -> None:
    assert consumed(NAMES) == ("a", "c")


def test_retry_queues_are_told_by_their_delay() -> None:
    names = (*NAMES, "a.retry.soon", "a.b.retry.10s")
    assert retry_queues("a", names) == ("a.retry.10s", "a.retry.1500ms")


def test_consumers_are_told_by_service_and_generation() -> None:
    names = ["jobs 3/0 (pid 7)", "jobs 3/1 (pid 8)", "jobs 2/0 (pid 5)", "my own", "", "a 1/0"]
    assert generations(names) == (Generation("jobs", 3, 2), Generation("jobs", 2, 1))


def test_a_report_has_what_amqp_and_the_management_api_tell() -> None:
    counts = Counts(
        q=Count(5, 2), q_dead=Count(1, 0), q_suspects=Count(1, 1), q_retry_10s=Count(7, 0)
    )
    told = Told(
        {
            "q": Figures(3, 1.5, 2.0, moving=4),
            "q.suspects": Figures(2),
            "q.retry.10s": Figures(0, moving=9),
        },
        {"q": ("jobs 1/0 (pid 1)", "x")},
    )
    found = report("q", counts, told, ["q.retry.10s", "q.retry.20s"])
    assert (found.ready, found.unacked, found.rate_in, found.rate_out) == (5, 3, 1.5, 2.0)
    assert (found.retries, found.suspects, found.dead, found.consumers) == (16, 3, 1, 2)
    assert found.generations == (Generation("jobs", 1, 1),)


def test_what_is_not_told_is_not_known() -> None:
    found = report("q", Counts(q=Count(5, 2)), None, None)
    assert (found.ready, found.consumers) == (5, 2)
    unknown = (found.unacked, found.rate_in, found.retries, found.dead, found.generations)
    assert unknown == (None,) * 5


def test_a_queue_that_is_down_is_in_its_report() -> None:
    def count(queue: str) -> Count | None:
        raise BrokerError(f"{queue} is down")

    assert report("q", count, None, None).problem == "q is down"


# The management API


def test_what_the_broker_moves_is_neither_ready_nor_in_hand() -> None:
    queues = [
        {"name": "q", "messages": 9, "messages_ready": 2, "messages_unacknowledged": 3},
        {"name": "new", "messages_unacknowledged": 3},
    ]
    figures = management.read(queues, [], []).figures
    assert (figures["q"].moving, figures["new"].moving) == (4, None)


def test_rates_are_of_what_is_published_and_of_what_is_done_with() -> None:
    rates = {
        "publish_details": {"rate": 2.0},
        "ack_details": {"rate": 1.0},
        "deliver_no_ack_details": {"rate": 0.5},
    }
    queues = [{"name": "q", "messages_unacknowledged": 4, "message_stats": rates}, {"name": "new"}]
    told = management.read(queues, [], [])
    assert told.figures == {"q": Figures(4, 2.0, 1.5), "new": Figures()}


def test_a_consumer_is_told_by_the_name_its_connection_has_given_itself() -> None:
    consumers = [
        {"queue": {"name": "q"}, "channel_details": {"connection_name": "1 -> 2"}},
        {"queue": {"name": "q"}, "channel_details": []},
    ]
    connections = [{"name": "1 -> 2", "user_provided_name": "jobs 1/0 (pid 1)"}, {"name": "other"}]
    assert management.read([], consumers, connections).connections == {
        "q": ("jobs 1/0 (pid 1)", "")
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://host", "http://host:15672"),
        ("https://u:p@host/", "https://host:15671"),
        ("http://u:p%40@[::1]:80/rabbit/api/", "http://[::1]:80/rabbit"),
    ],
)
def test_the_api_has_a_url_which_is_shown_without_the_password(text: str, expected: str) -> None:
    place = parse_place(text, BROKER)
    assert str(place) == expected
    assert repr(place) == f"Place({expected})"


def test_the_api_is_asked_as_the_brokers_user_unless_it_names_another() -> None:
    own, other = parse_place("http://host", BROKER), parse_place("http://u:p%40@host", BROKER)
    assert (own.user, own.password) == ("me", "secret")
    assert (other.user, other.password) == ("u", "p@")


def test_without_its_url_the_api_is_on_the_brokers_host_and_encrypted_if_amqp_is() -> None:
    assert str(place_of(BROKER)) == "http://rabbit.example:15672"
    assert str(place_of(Address("h", tls=Tls()))) == "https://h:15671"


@pytest.mark.parametrize(
    "text",
    ["host:15672", "ftp://u:secret@host", "http://u:secret@", "http://secret@host", "http:/"],
)
def test_a_wrong_url_of_the_api_is_refused_without_its_password(text: str) -> None:
    with pytest.raises(UsageError) as problem:
        parse_place(text, BROKER)
    assert "secret" not in str(problem.value)


# Dead messages


def test_why_a_message_is_dead_is_told_by_us_or_by_the_broker() -> None:
    deaths = [{"reason": "expired"}, {"reason": "delivery_limit"}]
    assert dead({"sengu-reason": "failed", "x-death": deaths}).reason == "failed"
    assert dead({"x-death": deaths}).reason == "delivery limit"
    assert dead({}).reason == ""


def test_where_a_message_came_from_is_told_by_us_or_by_the_broker() -> None:
    ours = {"sengu-exchange": "news", "sengu-routing-key": "eu.fr"}
    deaths = [{"exchange": "late", "routing-keys": ["x"]}, {"exchange": "e", "routing-keys": ["k"]}]
    assert dead({**ours, "x-death": deaths}).original("q") == ("news", "eu.fr")
    assert dead({"x-death": deaths}).original("q") == ("e", "k")
    assert dead({"x-death": "nonsense"}).original("q") == ("", "q")


def test_a_message_that_is_sent_back_is_charged_with_nothing() -> None:
    charges = ("failures", "suspected", "reason", "error", "stack")
    headers: dict[str, Any] = {f"sengu-{name}": 1 for name in charges}
    headers |= {"x-death": [], "x-first-death-queue": "q", "x-delivery-count": 2}
    kept = {"mine": 1, "x-own": 2, "sengu-user-id": "me"}
    assert revived({**headers, **kept}, "e", "k") == {
        **kept,
        "sengu-exchange": "e",
        "sengu-routing-key": "k",
    }


def test_messages_are_meant_by_number_or_id() -> None:
    assert parse_refs(["1", "ab", "id:12", "0123456789"]) == Refs(
        frozenset({1}), frozenset({"ab", "12", "0123456789"})
    )


# What is refused before anybody is asked


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dead drop q 1", "add --yes"),
        ("dead drop q", "sengu dead drop q --all"),
        ("dead retry q", "sengu dead retry q --all"),
        ("dead retry q 1 --all", "not both"),
        ("dead list q --limit 0", "--limit '0'"),
        ("dead list q --broker amqp://u:secret@h:x", "cannot be read"),
        ("queues --watch downloads", "sengu queues downloads --watch"),
        ("queues --watch 0", "no time at all"),
        ("queues --management amqp://u:secret@h", "write http://"),
        ("queues --module no_such_module_here", "no_such_module_here"),
    ],
)
def test_bad_input_is_refused(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = run(line.split())
    printed = capsys.readouterr()
    assert code in (1, 2)
    assert said in printed.err
    assert "secret" not in printed.err
    assert not printed.out


class Elsewhere:
    """A `Look` at 3 dead messages, one of which never comes."""

    count = 3

    def messages(self, _most: int | None = None) -> list[DeadMessage]:
        return [dead({}), dead({})._replace(number=2)]

    def publish(self, *_: object) -> None:
        """It is safe."""

    def remove(self, _message: DeadMessage) -> None:
        """It is gone."""


@pytest.mark.parametrize(
    ("line", "how"),
    [
        ("retry q --all", "sent back"),
        ("drop q --all --yes", "dropped"),
        ("list q", "listed"),
        ("show q 3", "looked at"),
        ("retry q id:unknown", "looked at"),
    ],
)
def test_that_some_did_not_come_is_a_failure(
    line: str, how: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sengu.cli.dead._looking", lambda *_: nullcontext(("q", Elsewhere())))
    assert run(f"dead {line}".split()) == 1
    assert f"2 of 3 messages {how}: the others did not come" in capsys.readouterr().err
