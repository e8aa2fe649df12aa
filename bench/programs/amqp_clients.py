"""A consumer of the queue `jobs` with one of the client libraries that there are for RabbitMQ.

`python -m bench.programs.amqp_clients LIBRARY URL PREFETCH COUNT`: five threads run empty jobs, and
hand the delivery tag of each back to the connection, which acknowledges it. It says `ready`, and
after so many messages the messages a second and CPU time of each. It ends when its connection does.
"""

import asyncio
import os
import queue
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

_THREADS = 5
_QUEUE = "jobs"

Back = Callable[[Any], None]


class Task:
    """What is to be done, whoever brings it."""

    def __init__(self, url: str, prefetch: int, count: int) -> None:
        self.url = url
        self.prefetch = prefetch
        self._count = count
        self._done = 0
        self._begin = (0.0, 0.0)
        self._waiting: queue.SimpleQueue[tuple[Back, Any]] = queue.SimpleQueue()
        for _ in range(_THREADS):
            threading.Thread(target=self._work, daemon=True).start()

    def start(self, back: Back, tag: Any) -> None:
        """A message is there. `back` is called with its tag, in the thread that ran the job."""
        if not self._begin[0]:
            self._begin = time.monotonic(), time.process_time()
        self._waiting.put((back, tag))

    def acknowledged(self) -> None:
        """In one thread, or with a lock."""
        self._done += 1
        if self._done == self._count:
            seconds, used = time.monotonic() - self._begin[0], time.process_time() - self._begin[1]
            print(self._count / seconds, used / self._count * 1e6, flush=True)
            os._exit(0)

    def _work(self) -> None:
        while True:
            back, tag = self._waiting.get()
            back(tag)


class Tags:
    """Carried to the connection's thread: it is woken once for all that have come meanwhile."""

    def __init__(self, task: Task, wake: Callable[[], None], acknowledge: Back) -> None:
        self._task = task
        self._wake = wake
        self._acknowledge = acknowledge
        self._box: deque[Any] = deque()
        self._is_woken = False

    def put(self, tag: Any) -> None:
        self._box.append(tag)
        if not self._is_woken:
            self._is_woken = True
            self._wake()

    def take(self) -> None:
        self._is_woken = False
        while self._box:
            self._acknowledge(self._box.popleft())
            self._task.acknowledged()


class Bell:
    """A descriptor that is readable once it was rung."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        os.eventfd_write(self.fd, 1)

    def calm(self) -> None:
        os.eventfd_read(self.fd)


def ready(*_: object) -> None:
    print("ready", flush=True)


def pika_own_loop(task: Task) -> None:
    """As `sengu consume` has it."""
    from sengu.consumers.broker.address import open_socket, parameters, parse_brokers
    from sengu.consumers.broker.connection import LoopConnection
    from sengu.posix.loop import Loop

    loop, bell = Loop(), Bell()
    (address,) = parse_brokers((task.url,), {})
    settings = parameters(address, heartbeat_seconds=60)

    def end(_connection: object, error: BaseException) -> None:
        raise error

    def consume(connection: Any) -> None:
        connection.channel(on_open_callback=lambda channel: _consume(channel, task, bell.ring))

    def settle() -> None:
        bell.calm()
        _tags[0].take()

    connection = LoopConnection(settings, loop, open_socket(address, 5), consume, end)
    loop.watch(bell.fd, select.EPOLLIN, settle)
    while True:
        loop.run_once(None)
        connection.flush()


_tags: list[Tags] = []


def _consume(channel: Any, task: Task, wake: Callable[[], None]) -> None:
    """On a channel of pika that calls back."""
    tags = Tags(task, wake, channel.basic_ack)
    _tags.append(tags)

    def take(_channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        task.start(tags.put, method.delivery_tag)

    channel.basic_qos(
        prefetch_count=task.prefetch,
        callback=lambda _frame: channel.basic_consume(_QUEUE, take, callback=ready),
    )


def pika_select(task: Task) -> None:
    import pika

    def end(_connection: object, error: BaseException) -> None:
        raise error

    def consume(connection: Any) -> None:
        def wake() -> None:
            connection.ioloop.add_callback_threadsafe(_tags[0].take)

        connection.channel(on_open_callback=lambda channel: _consume(channel, task, wake))

    parameters = pika.URLParameters(task.url)
    pika.SelectConnection(
        parameters, on_open_callback=consume, on_close_callback=end
    ).ioloop.start()


def pika_blocking(task: Task) -> None:
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(task.url))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=task.prefetch)

    def wake() -> None:
        connection.add_callback_threadsafe(tags.take)

    def take(_channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        task.start(tags.put, method.delivery_tag)

    tags = Tags(task, wake, channel.basic_ack)
    channel.basic_consume(_QUEUE, take)
    ready()
    channel.start_consuming()


def amqpstorm(task: Task) -> None:
    """Its channels may be used by several threads at the same time."""
    import amqpstorm

    connection = amqpstorm.UriConnection(task.url + "?heartbeat=60")
    channel = connection.channel()
    channel.basic.qos(task.prefetch)
    lock = threading.Lock()

    def acknowledge(message: Any) -> None:
        message.ack()
        with lock:
            task.acknowledged()

    channel.basic.consume(lambda message: task.start(acknowledge, message), _QUEUE)
    ready()
    channel.start_consuming()


def aio_pika(task: Task) -> None:
    import aio_pika

    async def main() -> None:
        connection = await aio_pika.connect(task.url)
        channel = await connection.channel()
        await channel.set_qos(task.prefetch)
        loop = asyncio.get_running_loop()
        closed = loop.create_future()

        def back(future: "asyncio.Future[None]") -> None:
            loop.call_soon_threadsafe(future.set_result, None)

        async def take(message: Any) -> None:
            done = loop.create_future()
            task.start(back, done)
            await done
            await message.ack()
            task.acknowledged()

        connection.close_callbacks.add(lambda *_: closed.cancel())
        await (await channel.get_queue(_QUEUE, ensure=False)).consume(take)
        ready()
        await closed

    asyncio.run(main())


def kombu(task: Task) -> None:
    """Its loop waits for the socket alone; so another one waits, for the threads as well."""
    import kombu

    connection = kombu.Connection(task.url, heartbeat=60)
    connection.connect()
    channel, bell = connection.channel(), Bell()
    tags = Tags(task, bell.ring, channel.basic_ack)
    consumer = kombu.Consumer(
        channel,
        [kombu.Queue(_QUEUE, no_declare=True)],
        on_message=lambda message: task.start(tags.put, message.delivery_tag),
        prefetch_count=task.prefetch,
        auto_declare=False,
    )
    consumer.consume()
    ready()
    socket = connection.connection.sock
    poll = select.poll()
    for fd in (socket.fileno(), bell.fd):
        poll.register(fd, select.POLLIN)
    transport = connection.connection.transport
    while True:
        for fd, _ in poll.poll():
            if fd == bell.fd:
                bell.calm()
                tags.take()
                continue
            with transport.having_timeout(0), suppress(TimeoutError, BlockingIOError):
                while True:
                    connection.connection.blocking_read()


LIBRARIES: dict[str, Callable[[Task], None]] = {
    "pika, our loop": pika_own_loop,
    "pika, SelectConnection": pika_select,
    "pika, BlockingConnection": pika_blocking,
    "amqpstorm": amqpstorm,
    "aio-pika": aio_pika,
    "kombu": kombu,
}


if __name__ == "__main__":
    _, library, url, prefetch, count = sys.argv
    LIBRARIES[library](Task(url, int(prefetch), int(count)))
