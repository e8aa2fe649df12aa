"""What `--self-bound` becomes, and what does not go with it."""

import pytest

from sengu.config.assemble import assemble
from sengu.config.setting import parse_values
from sengu.config.settings import start
from sengu.errors import UsageError
from sengu.model.address import InetAddress, SelfBound
from sengu.model.passage import Technique

ENVIRON = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": "/run/user/1"}


def bound(*addresses: str, **options: str) -> SelfBound:
    texts = {name.replace("_", "-"): [text] for name, text in options.items()}
    given = {"self-bound": list(addresses), **texts} if addresses else texts
    boot = assemble(parse_values(start.SETTINGS, given), ["true"], ENVIRON).boot
    assert boot.sockets.self_bound is not None
    return boot.sockets.self_bound


def test_a_port_is_that_of_all_ipv4_addresses() -> None:
    assert bound("8080").addresses == (InetAddress("0.0.0.0", 8080),)


def test_several_addresses_can_be_given() -> None:
    found = bound("127.0.0.1:8080", "[::1]:8080").addresses
    assert found == (InetAddress("127.0.0.1", 8080), InetAddress("::1", 8080, ipv6=True))


def test_what_is_ready_and_how_connections_are_led_is_as_told() -> None:
    assert bound("80", interval="3").settle_seconds == 3
    assert not bound("80").says_ready
    assert bound("80", ready="delay:7").settle_seconds == 7
    notified = bound("80", ready="notify", interval="3")
    assert (notified.says_ready, notified.settle_seconds) == (True, 0)
    assert bound("80").technique is Technique.AUTO
    assert bound("80", technique="dup").technique is Technique.DUP
    assert not bound("80").sets_sysctl
    assert bound("80", set_sysctl="1").sets_sysctl


def test_old_workers_are_drained() -> None:
    texts = {"self-bound": ["80"], "drain": ["3"]}
    boot = assemble(parse_values(start.SETTINGS, texts), ["true"], ENVIRON).boot
    assert boot.service.drain_seconds == 3


@pytest.mark.parametrize("path", ["/run/x.sock", "./x.sock", "@name", "unix:/run/x.sock"])
def test_a_unix_socket_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match=r"is a UNIX socket, .*; use --path"):
        bound(path)


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("web", "is no address; write one of: 8080"),
        ("99999", "is no address; write one of: 8080"),
        ("u8080", "only TCP can be steered"),
        ("8080=4", "only TCP can be steered"),
        ("0", "the port must be the one that the program binds"),
        ("127.0.0.1:0", "the port must be the one that the program binds"),
    ],
)
def test_what_is_no_address_to_be_steered_is_refused(address: str, problem: str) -> None:
    with pytest.raises(UsageError, match=f"--self-bound '{address}'.*{problem}"):
        bound(address)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"reuseport": "1", "port": "9090"}, "--reuseport has sengu bind the sockets"),
        ({"strategy": "rolling"}, "from all old ones to all new ones at once"),
        ({"port": "8080"}, "--port 8080 would have sengu bind what --self-bound says"),
        ({"ready": "tcp"}, "use --ready notify or delay:SECONDS, or leave it out"),
        ({"ready": "http:/"}, "use --ready notify or delay:SECONDS, or leave it out"),
    ],
)
def test_what_does_not_go_with_it_is_refused(options: dict[str, str], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        bound("8080", **options)


def test_an_address_is_given_once() -> None:
    with pytest.raises(UsageError, match="names an address twice; drop one of them"):
        bound("8080", "0.0.0.0:8080")


@pytest.mark.parametrize("option", [{"technique": "dup"}, {"set_sysctl": "1"}])
def test_how_to_lead_connections_is_of_no_use_without_it(option: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="is for --self-bound; add that or leave it out"):
        bound(**option)


def test_another_port_may_be_ours() -> None:
    assert bound("8080", port="9090").addresses == (InetAddress("0.0.0.0", 8080),)
