"""What proxies say: believed from those that are trusted, of the client next to them."""

import socket
import struct
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sengu.http.proxy import (
    V2_SIGNATURE,
    Forwarded,
    Peer,
    ProxyHeader,
    Trust,
    forwarded,
    parse_header,
)

TRUST = Trust(["10.0.0.0/8", "fd00::/8", "unix"])
XFF = "HTTP_X_FORWARDED_FOR"


@pytest.mark.parametrize(
    ("address", "is_trusted"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("::ffff:10.1.2.3", True),
        ("fd00::1", True),
        ("fe80::1%eth0", False),
        ("", True),
        ("unknown", False),
    ],
)
def test_trust_is_in_networks(address: str, is_trusted: bool) -> None:
    assert TRUST.trusts(address) is is_trusted


def test_a_unix_peer_is_trusted_only_if_it_is_said() -> None:
    assert not Trust(["0.0.0.0/0"]).trusts("")


def test_what_is_no_network_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not appear to be an IPv4 or IPv6 network"):
        Trust(["example.com"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, Forwarded()),
        ({XFF: "1.1.1.1"}, Forwarded(Peer("1.1.1.1"))),
        ({XFF: "6.6.6.6, 1.1.1.1"}, Forwarded(Peer("1.1.1.1"))),
        ({XFF: "6.6.6.6, 1.1.1.1, 10.0.0.2"}, Forwarded(Peer("1.1.1.1"))),
        ({XFF: "10.0.0.3, 10.0.0.2"}, Forwarded(Peer("10.0.0.3"))),
        ({XFF: "1.1.1.1:4711"}, Forwarded(Peer("1.1.1.1", "4711"))),
        ({XFF: "2001:db8::1"}, Forwarded(Peer("2001:db8::1"))),
        ({XFF: "6.6.6.6, nonsense"}, Forwarded()),
        ({XFF: "6.6.6.6, nonsense, 10.0.0.2"}, Forwarded(Peer("10.0.0.2"))),
        ({XFF: ""}, Forwarded()),
        ({"HTTP_X_FORWARDED_PROTO": "https"}, Forwarded(scheme="https")),
        ({"HTTP_X_FORWARDED_PROTO": "http, HTTPS"}, Forwarded(scheme="https")),
        ({"HTTP_X_FORWARDED_PROTO": "gopher"}, Forwarded()),
        ({"HTTP_X_FORWARDED_HOST": "a.example"}, Forwarded(host="a.example")),
        (
            {"HTTP_X_FORWARDED_HOST": "a.example", "HTTP_X_FORWARDED_PORT": "8443"},
            Forwarded(host="a.example:8443"),
        ),
        (
            {
                "HTTP_X_FORWARDED_HOST": "a.example",
                "HTTP_X_FORWARDED_PORT": "443",
                "HTTP_X_FORWARDED_PROTO": "https",
            },
            Forwarded(scheme="https", host="a.example"),
        ),
        (
            {"HTTP_FORWARDED": "for=6.6.6.6, for=1.1.1.1;proto=https;host=a.example"},
            Forwarded(Peer("1.1.1.1"), "https", "a.example"),
        ),
        (
            {"HTTP_FORWARDED": 'For="[2001:db8::1]:4711";Proto=http, for=10.0.0.2'},
            Forwarded(Peer("2001:db8::1", "4711"), "http"),
        ),
        ({"HTTP_FORWARDED": "for=unknown"}, Forwarded()),
        ({"HTTP_FORWARDED": 'for="a,b;c";proto=https'}, Forwarded(None, "https")),
        ({"HTTP_FORWARDED": "for=1.1.1.1", XFF: "6.6.6.6"}, Forwarded(Peer("1.1.1.1"))),
        ({"HTTP_FORWARDED": 'for="6.6.6.6, for=1.1.1.1'}, Forwarded(Peer("1.1.1.1"))),
        ({"HTTP_FORWARDED": 'for="\\", for="1.1.1.1"'}, Forwarded()),
        ({"HTTP_FORWARDED": 'host="a b", for=1.1.1.1'}, Forwarded(Peer("1.1.1.1"))),
        ({"HTTP_FORWARDED": 'for=1.1.1.1;host="a b"'}, Forwarded(Peer("1.1.1.1"))),
        ({"HTTP_X_FORWARDED_HOST": "user@a.example"}, Forwarded()),
        ({XFF: '::1%" 200 "'}, Forwarded()),
    ],
)
def test_a_trusted_peer_is_believed_about_the_client_next_to_it(
    fields: dict[str, str], said: Forwarded
) -> None:
    assert forwarded(TRUST, "10.0.0.1", fields) == said
    assert forwarded(TRUST, "9.9.9.9", fields) == Forwarded()


@pytest.mark.parametrize("piece", ['\\"', "a", " ", '"a', ";", ',"', 'a="'])
def test_a_client_can_not_make_it_a_long_read(piece: str) -> None:
    chain = '"' + piece * (60_000 // len(piece))
    begun_at = time.process_time()
    forwarded(TRUST, "10.0.0.1", {"HTTP_FORWARDED": f"{chain}, for=1.1.1.1"})
    assert time.process_time() - begun_at < 1.0  # it was minutes


@given(st.text(), st.text())
def test_whatever_is_said_it_raises_nothing(chain: str, standard: str) -> None:
    forwarded(TRUST, "10.0.0.1", {XFF: chain})
    forwarded(TRUST, "10.0.0.1", {"HTTP_FORWARDED": standard})


def v2(command: int, family: int, payload: bytes) -> bytes:
    return V2_SIGNATURE + struct.pack("!BBH", command, family, len(payload)) + payload


IPV4 = socket.inet_aton("1.1.1.1") + socket.inet_aton("2.2.2.2") + struct.pack("!HH", 4711, 80)
IPV6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack("!HH", 4711, 443)
)
V1 = b"PROXY TCP4 1.1.1.1 2.2.2.2 4711 80\r\n"
HEADERS: list[tuple[bytes, Peer | None, Peer | None]] = [
    (V1, Peer("1.1.1.1", "4711"), Peer("2.2.2.2", "80")),
    (
        b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n",
        Peer("2001:db8::1", "4711"),
        Peer("2001:db8::2", "443"),
    ),
    (b"PROXY UNKNOWN\r\n", None, None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None, None),
    (v2(0x21, 0x11, IPV4), Peer("1.1.1.1", "4711"), Peer("2.2.2.2", "80")),
    (v2(0x21, 0x11, IPV4 + b"tlv" * 9), Peer("1.1.1.1", "4711"), Peer("2.2.2.2", "80")),
    (v2(0x21, 0x21, IPV6), Peer("2001:db8::1", "4711"), Peer("2001:db8::2", "443")),
    (v2(0x20, 0x00, b""), None, None),
    (v2(0x21, 0x31, b"\0" * 216), None, None),
]


@pytest.mark.parametrize(("data", "client", "server"), HEADERS)
def test_a_proxy_header_is_understood_when_it_is_whole(
    data: bytes, client: Peer | None, server: Peer | None
) -> None:
    assert parse_header(data) == ProxyHeader(len(data), client, server)
    assert parse_header(data + b"GET / HTTP/1.1\r\n") == ProxyHeader(len(data), client, server)
    for end in range(len(data)):
        assert parse_header(data[:end]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.1.1.1\r\n",
        b"PROXY TCP4 nonsense 2.2.2.2 4711 80\r\n",
        b"PROXY TCP4 1.1.1.1 2.2.2.2 x 80\r\n",
        b"PROXY UDP4 1.1.1.1 2.2.2.2 4711 80\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4 " + b"1" * 200,
        b"PROXYTCP4",
        b"\r\n\r\n\0\r\nQUIX",
        v2(0x22, 0x11, IPV4),
        v2(0x11, 0x11, IPV4),
        v2(0x21, 0x11, IPV4[:5]),
        v2(0x21, 0x21, IPV4),
        v2(0x21, 0x11, IPV4 + b"x" * 5000),
    ],
)
def test_what_is_no_proxy_header_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="PROXY header"):
        parse_header(data)


@given(st.binary(), st.sampled_from([b"", b"PROXY ", V1[:20], V2_SIGNATURE, v2(0x21, 0x11, b"")]))
def test_any_bytes_are_a_header_or_an_error(data: bytes, start: bytes) -> None:
    try:
        header = parse_header(start + data)
    except ValueError:
        return
    assert header is None or header.consumed <= len(start + data)
