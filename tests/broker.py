"""A real RabbitMQ as tests see it: a node that runs, and a virtual host of it.

Whoever started it is another's business: `broker_nodes`, `broker_keeper`. Nothing of sengu is
imported.
"""

import base64
import http.client
import json
import subprocess
import time
import urllib.parse
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import pika
import pika.adapters.blocking_connection
import pika.exceptions
import pytest

# Not that of /usr/sbin, which becomes another user.
CTL = "/usr/lib/rabbitmq/bin/rabbitmqctl"
_USER = _PASSWORD = "guest"
_CTL_SECONDS = 60.0
_PATIENCE_SECONDS = 20.0

Channel = pika.adapters.blocking_connection.BlockingChannel


class Broker:
    """A node that runs, and one of its virtual hosts."""

    def __init__(
        self, name: str, env: Mapping[str, str], port: int, management_port: int, vhost: str = "/"
    ) -> None:
        self.name = name
        self.env = dict(env)
        self.port = port
        self.management_port = management_port
        self.vhost = vhost

    @property
    def url(self) -> str:
        return self.url_at("127.0.0.1")

    def url_at(self, host: str, port: int = 0) -> str:
        """The URL for who reaches it at another address."""
        return (
            f"amqp://{_USER}:{_PASSWORD}@{host}:{port or self.port}/"
            f"{urllib.parse.quote(self.vhost, safe='')}"
        )

    @property
    def management_url(self) -> str:
        return f"http://{_USER}:{_PASSWORD}@127.0.0.1:{self.management_port}/"

    @contextmanager
    def own_vhost(self) -> Iterator[None]:
        """A virtual host that is there as long as the context, with all that is made in it."""
        before = self.vhost
        self.vhost = f"test-{uuid.uuid4().hex[:8]}"
        path = f"vhosts/{self.vhost}"
        self.manage("PUT", path)
        try:
            yield
        finally:
            self.manage("DELETE", path)
            self.vhost = before

    def manage(self, method: str, path: str, body: object = None) -> Any:
        """Asks the management plugin; what it answers."""
        key = f"{_USER}:{_PASSWORD}".encode()
        headers = {
            "Content-Type": "application/json",
            "Authorization": f"Basic {base64.b64encode(key).decode()}",
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.management_port, timeout=30)
        with closing(connection):
            text = None if body is None else json.dumps(body)
            connection.request(method, f"/api/{path}", text, headers)
            response = connection.getresponse()
            answer = response.read()
        assert response.status < 300, (method, path, response.status, answer)
        return json.loads(answer) if answer else None

    def ctl(self, *args: str) -> str:
        """Runs rabbitmqctl, which takes a second; what it printed."""
        done = subprocess.run(
            [CTL, "--quiet", "--node", self.name, *args],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CTL_SECONDS,
            check=False,
        )
        assert done.returncode == 0, (args, done.stdout, done.stderr)
        return done.stdout

    def close_connections(self, reason: str = "closed by a test") -> None:
        """Closes those of the virtual host; has ended when the broker has closed them."""
        self.ctl("close_all_connections", "--vhost", self.vhost, reason)

    @contextmanager
    def channel(self) -> Iterator[Channel]:
        """A channel with publisher confirms, on a connection of its own."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            channel = connection.channel()
            channel.confirm_delivery()
            yield channel
        finally:
            if connection.is_open:
                connection.close()

    def declare(self, queue: str, **arguments: object) -> None:
        """A durable one; `arguments` are RabbitMQ's, such as x-queue-type."""
        with self.channel() as channel:
            channel.queue_declare(queue, durable=True, arguments=arguments)

    def publish(
        self,
        queue: str,
        bodies: Sequence[bytes],
        properties: pika.BasicProperties | None = None,
        exchange: str = "",
    ) -> None:
        """Persistent messages, unless `properties` say otherwise; they are there when it ends.

        One that a cluster refuses, as when it just elects another leader of the queue, is
        published again.
        """
        properties = properties or pika.BasicProperties(delivery_mode=2)
        left = list(bodies)
        end = time.monotonic() + _PATIENCE_SECONDS
        while left:
            with self.channel() as channel:
                try:
                    while left:
                        channel.basic_publish(exchange, queue, left[0], properties, mandatory=True)
                        del left[0]
                except pika.exceptions.NackError:
                    # A channel may know the former leader for ever: another one finds the new.
                    if time.monotonic() > end:
                        raise

    def publish_numbers(self, queue: str, count: int) -> None:
        """The bodies are the numbers from 0 on, in decimal digits."""
        self.publish(queue, [str(number).encode() for number in range(count)])

    def depth(self, queue: str) -> int | None:
        """How many messages are ready in it; None if there is no such queue."""
        with self.channel() as channel:
            try:
                while True:
                    asked_at = time.monotonic()
                    count = int(channel.queue_declare(queue, passive=True).method.message_count)
                    # A quorum queue whose leader is busy for 250 ms is said to be empty.
                    if count or time.monotonic() - asked_at < 0.2:
                        return count
            except pika.exceptions.ChannelClosedByBroker as error:
                if error.reply_code != 404:
                    raise
                return None

    def purge(self, queue: str) -> None:
        with self.channel() as channel:
            channel.queue_purge(queue)

    def delete(self, queue: str) -> None:
        with self.channel() as channel:
            channel.queue_delete(queue)

    def take(self, queue: str, count: int = 1, timeout: float = 20.0) -> list["Taken"]:
        """So many messages of a queue, as they come, which are acknowledged.

        Fails when none comes for so many seconds.
        """
        taken: list[Taken] = []
        with self.channel() as channel:
            for deliver, properties, body in channel.consume(queue, inactivity_timeout=timeout):
                if deliver is None:
                    pytest.fail(f"{len(taken)} of {count} came from {queue} in {timeout} s")
                assert properties is not None
                assert body is not None
                assert deliver.delivery_tag is not None
                channel.basic_ack(deliver.delivery_tag)
                taken.append(Taken(body, properties.headers or {}, properties, deliver))
                if len(taken) == count:
                    break
            channel.cancel()
        return taken


class Taken(NamedTuple):
    """A message."""

    body: bytes
    headers: Mapping[str, Any]
    properties: pika.BasicProperties
    deliver: pika.spec.Basic.Deliver
