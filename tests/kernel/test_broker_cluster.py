"""Three nodes of RabbitMQ on this machine, as tests use them."""

from tests.broker_nodes import Node


def test_a_cluster_keeps_all_while_a_node_of_it_is_dead(cluster: tuple[Node, ...]) -> None:
    first, second, third = cluster
    first.declare("numbers", **{"x-queue-type": "quorum"})
    first.publish_numbers("numbers", 100)
    first.kill()
    second.publish("numbers", [b"100"])
    first.start()
    third.kill()
    taken = [message.body for message in first.take("numbers", 101)]
    assert sorted(taken, key=int) == [str(number).encode() for number in range(101)]
