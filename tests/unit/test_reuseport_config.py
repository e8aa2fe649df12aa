"""What `--reuseport` and `--drain` become, and what cannot be had with them."""

import socket
from collections.abc import Mapping

import pytest

from sengu.config.assemble import assemble
from sengu.config.boot import Boot
from sengu.config.setting import parse_values
from sengu.config.settings import serve, start
from sengu.config.web import assemble_web
from sengu.errors import UsageError
from sengu.model.address import InetAddress

ENVIRON = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": "/run/user/1"}


def start_with(environ: Mapping[str, str] = ENVIRON, **options: str) -> Boot:
    texts = {name: [text] for name, text in options.items()}
    return assemble(parse_values(start.SETTINGS, texts), ["true"], {**ENVIRON, **environ}).boot


def serve_with(**options: str) -> Boot:
    texts = {name: [text] for name, text in options.items()}
    return assemble_web(parse_values(serve.SETTINGS, texts), "myapp:app", ENVIRON).boot


def test_each_slot_gets_its_own_sockets_and_time_to_empty_them() -> None:
    boot = start_with(port="127.0.0.1:8080=7", reuseport="1")
    assert boot.sockets.reuseport
    assert boot.sockets.listeners[0].fixed_fd == 7
    assert boot.service.drain_seconds == 10
    assert start_with(port="u53", reuseport="1", drain="3").service.drain_seconds == 3
    assert start_with(port="8080", reuseport="1", drain="0").service.drain_seconds == 0


def test_a_web_application_has_them_at_its_default_address_too() -> None:
    boot = serve_with(reuseport="1", drain="2m")
    assert boot.sockets.reuseport
    assert boot.sockets.listeners[0].address == InetAddress("127.0.0.1", 8000)
    assert boot.service.drain_seconds == 120


def test_workers_that_share_their_sockets_are_not_drained() -> None:
    for boot in (start_with(port="8080"), serve_with()):
        assert not boot.sockets.reuseport
        assert boot.service.drain_seconds is None
    with pytest.raises(UsageError, match="sockets of their own; add --reuseport"):
        start_with(port="8080", drain="3")
    with pytest.raises(UsageError, match="sockets of their own; add --reuseport"):
        serve_with(drain="3")


@pytest.mark.parametrize("path", ["/run/x.sock", "@name"])
def test_a_unix_socket_is_refused(path: str) -> None:
    expected = f"{path} is a UNIX socket, .* leave out --reuseport, or listen on a port instead"
    with pytest.raises(UsageError, match=expected):
        start_with(path=path, reuseport="1")
    with pytest.raises(UsageError, match=expected):
        serve_with(listen=f"unix:{path}", reuseport="1")


def test_without_a_listener_it_is_of_no_use() -> None:
    with pytest.raises(UsageError, match="of no use without a listener; add --port"):
        start_with(reuseport="1")


def test_sockets_that_were_passed_to_us_stay_shared() -> None:
    with socket.socket(socket.AF_UNIX) as passed:
        environ = {"SERVER_STARTER_PORT": f"/run/x.sock={passed.fileno()}"}
        boot = start_with(environ, reuseport="1")
    assert boot.sockets.reuseport
    assert len(boot.sockets.inherited) == 1
