"""How bodies are read and written, by content type.

`register` adds a type, or replaces one. Imported by `message` and `publisher`, and by users' code.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from sengu.errors import SenguError

JSON, TEXT, BYTES = "application/json", "text/plain", "application/octet-stream"


class UndecodableError(SenguError):
    """A body is not what its content type says. It ends in the dead-letter queue, untried."""


class _Codec(NamedTuple):
    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]


def _encode_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


_codecs = {
    JSON: _Codec(json.loads, _encode_json),
    TEXT: _Codec(bytes.decode, str.encode),
    BYTES: _Codec(bytes, bytes),
}


def register(
    content_type: str, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]
) -> None:
    """Let messages of that type be decoded and encoded so. In each process: at import time."""
    _codecs[_bare(content_type)] = _Codec(decode, encode)


def decode(body: bytes, content_type: str | None) -> Any:
    """`body` itself if the type is none that is known. Raises UndecodableError."""
    codec = _codecs.get(_bare(content_type))
    if codec is None:
        return body
    try:
        return codec.decode(body)
    except Exception as error:  # whatever the codec raises, which may be the user's
        raise UndecodableError(
            f"the body is not {content_type}: {type(error).__name__}: {error}"
        ) from error


def encode(value: Any, content_type: str | None = None) -> tuple[bytes, str]:
    """A body and its content type: as asked for, or what fits the value.

    bytes are a body already, of whatever type. Raises TypeError, and what a codec raises.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), content_type or BYTES
    if content_type is None:
        content_type = TEXT if isinstance(value, str) else JSON
    codec = _codecs.get(_bare(content_type))
    if codec is None:
        raise TypeError(
            f"content type {content_type!r} is not known; give bytes, or register it with "
            "sengu.consumers.content.register"
        )
    return codec.encode(value), content_type


def _bare(content_type: str | None) -> str:
    """Without parameters, such as a charset."""
    return (content_type or "").partition(";")[0].strip().lower()
