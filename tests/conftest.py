"""Fixtures of all tiers. None knows the insides of sengu."""

import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import broker_keeper, broker_nodes, support
from tests.broker import Broker
from tests.broker_nodes import Node
from tests.ports import free_port


def pytest_configure() -> None:
    """What is ignored is inherited, and a script ignores INT in what it runs in the background."""
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def sengu() -> Iterator[support.Sengu]:
    """Starts the program; ends what it started; fails the test when something is left of it."""
    runner = support.Sengu()
    yield runner
    runner.close()


@pytest.fixture
def free_path() -> Iterator[Path]:
    """An empty directory under /tmp, short enough for the names of UNIX sockets."""
    path = support.short_directory()
    yield path
    shutil.rmtree(path, onerror=_unless_it_is_gone)


def _unless_it_is_gone(_function: object, _path: str, problem: Any) -> None:
    """Whoever ends just now removes his own."""
    if not isinstance(problem[1], FileNotFoundError):
        raise problem[1]


@pytest.fixture
def port() -> int:
    """A TCP port on 127.0.0.1 that nobody uses."""
    return free_port()


@pytest.fixture(scope="session")
def shared_broker() -> Iterator[Broker]:
    with broker_keeper.shared() as broker:
        yield broker


@pytest.fixture
def broker(shared_broker: Broker) -> Iterator[Broker]:
    """RabbitMQ with a virtual host of the test's own. Others use the same node."""
    with shared_broker.own_vhost():
        yield shared_broker


@pytest.fixture(scope="module")
def node_of_module() -> Iterator[Node]:
    with broker_nodes.node() as node:
        yield node


@pytest.fixture
def own_broker(node_of_module: Node) -> Iterator[Node]:
    """RabbitMQ that a test may kill, restart and block, with a virtual host of its own."""
    with node_of_module.start().own_vhost():
        yield node_of_module
        node_of_module.start()


@pytest.fixture(scope="module")
def nodes_of_module() -> Iterator[tuple[Node, ...]]:
    with broker_nodes.cluster() as nodes:
        yield nodes


@pytest.fixture
def cluster(nodes_of_module: tuple[Node, ...]) -> Iterator[tuple[Node, ...]]:
    """RabbitMQ of three nodes that a test may kill, with a virtual host of its own."""
    for node in nodes_of_module:
        node.start()
    first, *others = nodes_of_module
    with first.own_vhost():
        for node in others:
            node.vhost = first.vhost
        yield nodes_of_module
        for node in nodes_of_module:
            node.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows what the instances wrote when their test fails."""
    report = yield
    runner = getattr(item, "funcargs", {}).get("sengu")
    if report.failed and isinstance(runner, support.Sengu):
        for instance in runner.instances:
            report.sections.append((f"output of {instance.name}", str(instance.output)))
    return report
