"""How addresses are spelled, as Server::Starter spells them."""

import pytest

from sengu.errors import UsageError
from sengu.model.address import InetAddress, parse_port


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
