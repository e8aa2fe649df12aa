"""A RabbitMQ of our own, as tests have it: other ports, and its data in a temporary directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.session import BenchError, find_program
from tests import broker_nodes
from tests.broker import CTL
from tests.broker_nodes import Node

__all__ = ["Node", "node", "version"]


@contextmanager
def node() -> Iterator[Node]:
    """One that runs. Raises BenchError."""
    if not Path(CTL).exists():
        raise BenchError("RabbitMQ is not installed: apt-get install rabbitmq-server")
    find_program("setpriv")
    with broker_nodes.node() as started:
        yield started


def version(node: Node) -> str:
    return f"RabbitMQ {node.manage('GET', 'overview')['rabbitmq_version']}"
