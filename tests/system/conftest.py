"""Fixtures for tests that run the real program beside real peers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import support
from tests.system.peers import Peer, Witnesses
from tests.system.puppets import Script
from tests.system.web import Site

StartPeer = Callable[..., Peer]


@pytest.fixture
def witnesses(free_path: Path) -> Iterator[Witnesses]:
    """Workers that tell what they see."""
    witnesses = Witnesses(free_path)
    yield witnesses
    witnesses.close()


@pytest.fixture
def script(free_path: Path) -> Script:
    """What the workers of a test shall do."""
    return Script(free_path)


@pytest.fixture
def site(free_path: Path) -> Site:
    """What `sengu serve` serves."""
    return Site(free_path)


@pytest.fixture
def start_server(sengu: support.Sengu) -> Iterator[StartPeer]:
    """Runs the real start_server; whatever it leaves behind, the fixture `sengu` finds."""
    peers = []

    def start(*args: str, **where: Any) -> Peer:
        peer = Peer(args, **where)
        peers.append(peer)
        return peer

    yield start
    for peer in peers:
        peer.close()
