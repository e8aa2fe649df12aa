"""A message as handlers see it. Made by `properties`, and by users in their own tests."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from sengu.consumers.content import UndecodableError, decode


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """`body` are the bytes as they were published; `data` is what they mean by the content type.

    `attempt` is 1 for the first try. `exchange` and `routing_key` are those that it was published
    with, also after a retry; `properties` what else AMQP has, by its names: message_id,
    correlation_id, reply_to, type, app_id, timestamp, priority, expiration.
    """

    body: bytes
    queue: str = ""
    headers: Mapping[str, Any] = {}
    content_type: str | None = None
    exchange: str = ""
    routing_key: str = ""
    redelivered: bool = False
    attempt: int = 1
    properties: Mapping[str, Any] = {}

    @property
    def id(self) -> str | None:
        """The property message_id, if the publisher has set it."""
        found = self.properties.get("message_id")
        return None if found is None else str(found)

    @property
    def data(self) -> Any:
        """The body, decoded; bytes if its type is not known. Raises UndecodableError."""
        return decode(self.body, self.content_type)

    def json(self) -> Any:
        """The body as JSON, whatever the content type says. Raises UndecodableError."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise UndecodableError(f"the body is not JSON: {error}") from error

    def text(self) -> str:
        """The body as UTF-8. Raises UndecodableError."""
        try:
            return self.body.decode()
        except UnicodeDecodeError as error:
            raise UndecodableError(f"the body is not UTF-8: {error}") from error
