"""Three consumers of one module: a function, a class and a coroutine function, within middleware.

Messages are JSON: `sengu publish mails '{"to": "ann@example.org"}'`. README.md has one for each.
"""

import asyncio
import logging
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sengu.consumers import Consumer, Message, Reject, consumer

logging.basicConfig(level=logging.INFO, format="%(threadName)s: %(message)s")
log = logging.getLogger("shop")


def timed(message: Message, following: Callable[[Message], Any]) -> Any:
    """Middleware: around all that is done with a message, on the same thread."""
    begun_at = time.monotonic()
    try:
        return following(message)
    finally:
        log.info("%s took %.3f s", message.queue, time.monotonic() - begun_at)


async def counted(message: Message, following: Callable[[Message], Awaitable[Any]]) -> Any:
    """The same for coroutine functions."""
    result = await following(message)
    log.info("%s: attempt %d was the last", message.queue, message.attempt)
    return result


@consumer("mails", prefetch=10, threads=5, timeout=30, retries=3, retry_delay=1, middleware=[timed])
def send(message: Message) -> Reject | None:
    """A function: returning is done, raising is tried again, Reject is not."""
    address = message.json().get("to", "")
    if "@" not in address:
        return Reject(f"{address!r} is no address")
    if message.json().get("fails", 0) >= message.attempt:
        raise ConnectionError("the mail server is busy")
    log.info("mail to %s", address)
    return None


class Thumbnails(Consumer):
    """A class: what is needed for all messages is made once, in each process."""

    queue = "thumbnails"
    exchange = "pictures"
    exchange_type = "topic"
    routing_keys = ("picture.new", "picture.changed.*")
    middleware = (timed,)

    def setup(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="thumbnails-"))

    def handle(self, message: Message) -> None:
        name = message.json()["name"]
        (self.folder / name).write_bytes(message.body[:100])
        self.log.info("%s is in %s", name, self.folder)

    def teardown(self) -> None:
        shutil.rmtree(self.folder)


@consumer("prices", prefetch=50, timeout=10, middleware=[counted])
async def ask(message: Message) -> None:
    """A coroutine function: 50 of them at a time, on one thread."""
    await asyncio.sleep(message.json().get("seconds", 0.1))
    log.info("the price of %s is known", message.json()["product"])
