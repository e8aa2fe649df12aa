"""What several files share: nothing is left behind; a supervisor that runs, and its server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.children import nothing_left_open
from tests.kernel.supervised import Server, Supervised


@pytest.fixture
def nothing_left() -> Iterator[None]:
    with nothing_left_open():
        yield


@pytest.fixture
def supervisor(free_path: Path) -> Iterator[Supervised]:
    with Supervised(free_path) as supervisor:
        yield supervisor


@pytest.fixture
def server(supervisor: Supervised) -> Server:
    return supervisor.begun()
