"""Bodies, and messages as handlers see them."""

import json
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sengu.consumers import content
from sengu.consumers.content import UndecodableError, decode, encode
from sengu.consumers.message import Message

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)


@pytest.fixture
def reverse() -> Iterator[str]:
    """A content type that somebody has registered, in capitals and with a parameter."""
    content.register("Text/Reversed; v=1", lambda body: body[::-1], lambda value: value[::-1])
    yield "text/reversed"
    del content._codecs["text/reversed"]


@given(VALUES | st.binary())
def test_what_was_published_is_what_is_handled(value: object) -> None:
    body, content_type = encode(value)
    assert decode(body, content_type) == value


@pytest.mark.parametrize(
    ("value", "body", "content_type"),
    [
        ({"a": "é"}, '{"a":"é"}'.encode(), "application/json"),
        ("é", "é".encode(), "text/plain"),
        (b"\xff", b"\xff", "application/octet-stream"),
        (bytearray(b"\xff"), b"\xff", "application/octet-stream"),
        (memoryview(b"\xff"), b"\xff", "application/octet-stream"),
    ],
)
def test_a_value_has_a_content_type_that_fits(
    value: object, body: bytes, content_type: str
) -> None:
    assert encode(value) == (body, content_type)


@pytest.mark.parametrize("body", [b"{}", bytearray(b"{}"), memoryview(b"{}")])
def test_bytes_are_a_body_of_whatever_type(body: object) -> None:
    assert encode(body, "application/json") == (b"{}", "application/json")
    assert encode(body, "image/png") == (b"{}", "image/png")


@pytest.mark.parametrize("content_type", [None, "", "image/png", "application/octet-stream"])
def test_what_is_of_no_known_type_stays_bytes(content_type: str | None) -> None:
    assert decode(b"\x89PNG", content_type) == b"\x89PNG"


def test_a_value_of_no_known_type_cannot_be_published() -> None:
    with pytest.raises(TypeError, match="'image/png' is not known; give bytes, or register it"):
        encode({}, "image/png")


@pytest.mark.parametrize("content_type", ["application/json", "APPLICATION/JSON; charset=utf-8"])
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_what_it_says_is_undecodable(body: bytes, content_type: str) -> None:
    with pytest.raises(UndecodableError, match=f"the body is not {content_type}"):
        decode(body, content_type)


def test_a_type_of_the_users_own_is_found_however_it_is_written(reverse: str) -> None:
    assert decode(b"abc", "text/Reversed") == b"cba"
    assert encode("abc"[::-1].encode(), reverse)[0] == b"cba"
    assert Message(body=b"abc", content_type=f"{reverse};v=2").data == b"cba"


@given(st.binary())
def test_a_message_is_read_or_undecodable(body: bytes) -> None:
    message = Message(body=body, content_type="application/json")
    for read in (message.text, message.json, lambda: message.data):
        with suppress(UndecodableError):
            read()


def test_json_is_read_whatever_the_type_says() -> None:
    message = Message(body=b'{"url": "x"}', content_type="text/plain")
    assert message.json() == {"url": "x"}
    assert json.loads(message.data) == {"url": "x"}
    with pytest.raises(UndecodableError, match="the body is not JSON"):
        Message(body=b"[" * 100_000).json()


def test_a_message_has_an_id_if_its_publisher_gave_one() -> None:
    assert Message(body=b"").id is None
    assert Message(body=b"", properties={"message_id": 7}).id == "7"
