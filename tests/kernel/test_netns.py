"""The namespaces that tests run in: nobody else's, and what happens in them is heard of."""

import os
import signal
import socket

import pytest

from tests import netns
from tests.processes import become_subreaper

pytestmark = pytest.mark.usefixtures("nothing_left")


@netns.isolated
def test_namespace_is_empty_but_for_a_loopback_that_works() -> None:
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    for address in (("127.0.0.1", 80), ("::1", 80)):
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        with socket.create_server(address, family=family) as server:
            socket.create_connection(address, timeout=5).close()
            server.accept()[0].close()


def test_namespace_ends_with_its_test() -> None:
    own = os.readlink("/proc/self/ns/net")
    netns.run(lambda: None)
    assert os.readlink("/proc/self/ns/net") == own


def test_failure_inside_is_one_outside() -> None:
    def fail() -> None:
        raise ValueError("inside")

    with pytest.raises(pytest.fail.Exception, match="ValueError: inside"):
        netns.run(fail)


def test_skip_inside_is_one_outside() -> None:
    netns.run(lambda: None)  # where that is impossible, it is a skip of another kind
    with pytest.raises(pytest.skip.Exception, match="why"):
        netns.run(lambda: pytest.skip("why"))


def test_death_inside_is_a_failure() -> None:
    with pytest.raises(pytest.fail.Exception, match="was killed"):
        netns.run(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_one_that_hangs_is_killed_with_whom_it_has_forked() -> None:
    become_subreaper()

    def hang() -> None:
        os.fork()
        signal.pause()

    with pytest.raises(pytest.fail.Exception, match="hung"):
        netns.run(hang, patience_seconds=2.0)
