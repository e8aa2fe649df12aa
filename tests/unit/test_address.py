"""How addresses are spelled: as Server::Starter spells them, and those of web applications."""

import pytest

from sengu.errors import UsageError
from sengu.model.address import (
    Address,
    InetAddress,
    UnixAddress,
    parse_allowed,
    parse_listen,
    parse_port,
)


@pytest.mark.parametrize("text", ["::1:8080", "[::1]:8080", "[ ::1 ]:8080"])
def test_an_ipv6_address_is_one_with_and_without_brackets(text: str) -> None:
    spec = parse_port(text)
    assert spec.address == InetAddress("::1", 8080, ipv6=True)
    assert spec.key == "[::1]:8080"


@pytest.mark.parametrize("text", ["127.0.0.1:80:90", "host:name:80", ":::1:80", "[a:b]:80"])
def test_what_has_colons_and_is_no_ipv6_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no IPv6 address; write one of"):
        parse_port(text)


@pytest.mark.parametrize("text", ["", "80 80", "8080=", "u", "[::1]", "host:", "9" * 5000])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write one of"):
        parse_port(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8000", InetAddress("0.0.0.0", 8000)),
        (":8000", InetAddress("0.0.0.0", 8000)),
        ("localhost:8000", InetAddress("localhost", 8000)),
        ("[::]:80", InetAddress("::", 80, ipv6=True)),
        ("unix:/run/app.sock", UnixAddress("/run/app.sock")),
        ("unix:app.sock", UnixAddress("app.sock")),
        ("unix:@name", UnixAddress("@name")),
    ],
)
def test_an_address_to_listen_on_is_tcp_or_a_unix_socket(text: str, address: Address) -> None:
    assert parse_listen(text).address == address


@pytest.mark.parametrize(
    "text", ["", ":", "::8000", "unix", "unix:@", "/run/x", "@x", "a/b:80", "*:80"]
)
def test_what_cannot_be_listened_on_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"write|name the socket file"):
        parse_listen(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("80", InetAddress("0.0.0.0", 80)),
        ("127.0.0.1:80", InetAddress("127.0.0.1", 80)),
        ("u53", InetAddress("0.0.0.0", 53, udp=True)),
        ("127.0.0.1:u53", InetAddress("127.0.0.1", 53, udp=True)),
        ("[::0]:443", InetAddress("::", 443, ipv6=True)),
        ("/run/app.sock", UnixAddress("/run/app.sock")),
        ("unix:/run/app.sock", UnixAddress("/run/app.sock")),
        ("@name", UnixAddress("@name")),
    ],
)
def test_what_is_allowed_is_spelt_as_workers_ask_for_it(text: str, address: Address) -> None:
    assert parse_allowed(text) == address


@pytest.mark.parametrize("text", ["", "80=4", "unix:app.sock", "app.sock", "localhost:80", "70000"])
def test_what_no_worker_could_ask_for_cannot_be_allowed(text: str) -> None:
    with pytest.raises(UsageError, match="--allow-listen"):
        parse_allowed(text)
