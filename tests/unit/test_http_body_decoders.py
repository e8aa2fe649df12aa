"""The framing of bodies: the same payload, however the bytes come; and nothing of the next."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sengu.http.body import ChunkedDecoder, Decoder, LengthDecoder
from sengu.http.head import Refusal

NEXT = b"GET /next HTTP/1.1\r\n"
chunks = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
splits = st.lists(st.integers(min_value=1, max_value=30), max_size=60)


def encode(pieces: list[bytes], extension: bytes = b"", trailers: bytes = b"") -> bytes:
    lines = [b"%X%b\r\n%b\r\n" % (len(one), extension, one) for one in pieces]
    return b"".join(lines) + b"0\r\n" + trailers + b"\r\n"


def feed(decoder: Decoder, data: bytes, sizes: list[int]) -> tuple[bytes, bytes]:
    """What comes of `data` in pieces of `sizes`: the payload, and what follows the body."""
    payload = b""
    for size in [*sizes, len(data) or 1]:
        if decoder.done or not data:
            break
        payload += decoder.feed(data[:size])
        data = data[size:]
    return payload, decoder.rest + data


@given(chunks, splits, st.sampled_from([b"", b";a=b", b' ; a="b"', b";\xe4"]))
def test_chunks_are_the_same_however_they_come(
    pieces: list[bytes], sizes: list[int], extension: bytes
) -> None:
    decoder = ChunkedDecoder(None)
    data = encode(pieces, extension, b"A: b\r\nC: \r\n")
    assert feed(decoder, data + NEXT, sizes) == (b"".join(pieces), NEXT)
    assert decoder.done


@given(st.binary(max_size=100), splits)
def test_a_length_is_the_same_however_it_comes(body: bytes, sizes: list[int]) -> None:
    decoder = LengthDecoder(len(body))
    assert feed(decoder, body + NEXT, sizes) == (body, NEXT)
    assert decoder.done


@given(st.binary(max_size=60), splits)
def test_any_bytes_are_chunks_or_refused(data: bytes, sizes: list[int]) -> None:
    whole, pieces = ChunkedDecoder(1000), ChunkedDecoder(1000)
    outcomes: list[object] = []
    for decoder, cuts in ((whole, []), (pieces, sizes)):
        try:
            outcomes.append((feed(decoder, data, cuts), decoder.done))
        except Refusal:
            outcomes.append("refused")
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("digits", [b"0" * 15 + b"5", b"5" * 16])
def test_a_size_has_a_bounded_number_of_digits(digits: bytes) -> None:
    with pytest.raises(Refusal, match="malformed chunk size"):
        ChunkedDecoder(None).feed(digits + b"\r\n")


def test_many_tiny_chunks_are_decoded_in_no_time() -> None:
    pieces = [b"x"] * 100_000
    decoder = ChunkedDecoder(None)
    assert decoder.feed(encode(pieces)) == b"x" * 100_000


def test_a_limit_holds_before_the_chunk_has_come() -> None:
    decoder = ChunkedDecoder(10)
    assert decoder.feed(b"8\r\n12345678\r\n") == b"12345678"
    with pytest.raises(Refusal) as caught:
        decoder.feed(b"3\r\n")
    assert caught.value.status == 413
