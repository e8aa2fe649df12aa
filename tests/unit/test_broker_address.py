"""URLs of brokers: what they mean, what is refused, and that passwords are never shown."""

import pytest

from sengu.errors import UsageError
from sengu.model.broker import Address, Tls, hidden, parse_broker, parse_brokers


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("amqp://", Address()),
        ("amqp://localhost", Address()),
        ("amqp://guest:guest@localhost//", Address()),
        ("amqp://guest:guest@localhost/%2F", Address()),
        ("amqp://me:pw@mq/", Address("mq", 5672, "me", "pw")),
        ("amqp://me:pw@mq:7000/shop", Address("mq", 7000, "me", "pw", "shop")),
        ("amqp://a%40b:p%2Fw%3A@mq/a%2Fb", Address("mq", 5672, "a@b", "p/w:", "a/b")),
        ("amqp://me:p,w@mq", Address("mq", 5672, "me", "p,w")),
        ("amqp://me:@mq", Address("mq", 5672, "me", "")),
        ("amqp://[::1]:5673/x", Address("::1", 5673, vhost="x")),
        ("AMQPS://mq", Address("mq", 5671, tls=Tls())),
        ("amqp://mq?heartbeat=0", Address("mq", heartbeat_seconds=0)),
        (
            "amqps://mq/x?cacertfile=/ca.pem&server_name_indication=rabbit&heartbeat=20",
            Address(
                "mq",
                5671,
                vhost="x",
                tls=Tls("/ca.pem", None, None, "rabbit"),
                heartbeat_seconds=20,
            ),
        ),
    ],
)
def test_a_url_is_an_address(url: str, address: Address) -> None:
    assert parse_broker("--broker", url) == (address,)


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("", "amqp://USER:PASSWORD@HOST:PORT/VHOST"),
        ("rabbit", "amqp://USER"),
        ("http://me:hunter2@mq", "is no address of a broker"),
        ("amqp://me:hunter2/x@mq/", "/ as %2F"),
        ("amqp://me:hunter2#x@mq/", "# as %23"),
        ("amqp://me:hunter2?x@mq/", "? as %3F"),
        ("amqp://me:hunter2@@mq:port", "@ as %40"),
        ("amqp://me:hunter2%@mq", "a % in its password is written as %25"),
        ("amqp://me:hunter2%ff@mq", "its password is not UTF-8"),
        ("amqp://hunter2@mq", "has a user and no password"),
        ("amqp://mq:99999", "a port up to 65535"),
        ("amqp://mq:0", "no host and port"),
        ("amqp://a,b:5672", "no host and port"),
        ("amqp://me:hunter2@mq/a/b", "/a%2Fb"),
        ("amqp://me:hunter2@mq//b", "/%2Fb"),
        ("amqp://me:hunter2@mq?retries=3", "?retries=, which is none of heartbeat"),
        ("amqp://me:hunter2@mq?heartbeat=soon", "not a number of seconds"),
        ("amqp://me:hunter2@mq?cacertfile=x", "write amqps://"),
        ("amqp://mq,amqp://me:hunter2@other:x", "cannot be read"),
    ],
)
def test_a_mistake_is_refused_without_showing_the_password(url: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_broker("--broker", url)
    line = str(raised.value)
    assert hint in line
    assert line.startswith("--broker ")
    assert "hunter2" not in line


def test_several_have_commas_between_them_or_are_given_several_times() -> None:
    texts = ("amqp://a, amqp://me:p,w@b", "amqps://c")
    assert [one.host for one in parse_brokers(texts, {})] == ["a", "b", "c"]


def test_what_is_given_beats_the_variable_which_beats_the_default() -> None:
    environ = {"SENGU_BROKER": "amqp://b,amqp://c"}
    assert [one.host for one in parse_brokers(("amqp://a",), environ)] == ["a"]
    assert [one.host for one in parse_brokers((), environ)] == ["b", "c"]
    assert parse_brokers((), {}) == parse_brokers((), {"SENGU_BROKER": ""}) == (Address(),)


def test_a_mistake_in_the_variable_is_said_to_be_there() -> None:
    with pytest.raises(UsageError, match=r"^SENGU_BROKER 'foo' is no address"):
        parse_brokers((), {"SENGU_BROKER": "foo"})


@pytest.mark.parametrize("show", [str, repr])
def test_an_address_shows_no_password(show: type[str]) -> None:
    (address,) = parse_broker("--broker", "amqps://m%40e:hunter2@[::1]/a%2Fb")
    assert "amqps://m%40e@[::1]:5671/a%2Fb" in show(address)
    assert "hunter2" not in show(address)


def test_what_is_shown_can_be_read_again() -> None:
    shown = str(Address("::1", 7, "a@b", "pw", "/x"))
    (again,) = parse_broker("--broker", shown.replace("@[", ":pw@["))
    assert again == Address("::1", 7, "a@b", "pw", "/x")


def test_all_before_the_last_at_sign_may_be_the_password() -> None:
    assert hidden("amqp://u:p@w/or\nd@h/x") == "amqp://…@h/x"
    assert hidden("u:p@h") == "…@h"
