"""The parts of a probe that are pure: its request, how it reads the answer, its bursts."""

import pytest

from sengu.server.probe import Burst, burst_of
from sengu.server.probe_http import final_status, http_request


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 200 OK\r\n", 200),
        (b"HTTP/1.0 404 Not Found\r\n", 404),
        (b"HTTP/1.1 204 \r\n", 204),
        (b"HTTP/1.1 503\r\n", 503),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\nHTTP/1.1 500 in the body", 302),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", 200),
        (
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 103 A\r\n\r\nHTTP/1.1 500 B\r\n",
            500,
        ),
    ],
)
def test_final_status_is_read_however_the_answer_is_cut(head: bytes, status: int) -> None:
    assert final_status(head) == status
    for length in range(len(head)):
        assert final_status(head[:length]) in {None, status}


@pytest.mark.parametrize(
    "head", [b"", b"H", b"HTTP/1.", b"HTTP/1.1 20", b"HTTP/1.1 100 Continue\r\n"]
)
def test_unfinished_answer_has_no_status(head: bytes) -> None:
    assert final_status(head) is None


@pytest.mark.parametrize(
    "head", [b"220 mail ESMTP\r\n", b"\x15\x03\x01", b"HTTP/2 200\r\n", b"HTTP/1.1 2000\r\n", b"h"]
)
def test_answer_in_another_protocol_is_not_waited_for(head: bytes) -> None:
    with pytest.raises(ValueError, match="not HTTP"):
        final_status(head)


def test_request_asks_the_server_to_close() -> None:
    request = http_request("/health?deep=1")
    assert request.startswith(b"GET /health?deep=1 HTTP/1.1\r\nHost: localhost\r\n")
    assert b"\r\nConnection: close\r\n" in request
    assert request.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("path", ["", "health", "/a b", "/a\r\nX: y", "/ä", "/\0"])
def test_path_that_would_break_the_request_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="is not a path"):
        http_request(path)


def test_bursts_begin_with_one_and_large_ones_are_rare_and_held() -> None:
    bursts = [burst_of(number) for number in range(400)]
    assert bursts[:6] == [Burst(1), Burst(2), Burst(4), Burst(8), Burst(8), Burst(8)]
    assert {burst.size for burst in bursts} == {1, 2, 4, 8, 16, 32, 64}
    large = [burst for burst in bursts if burst.size > 8]
    assert all(burst.held for burst in large)
    assert 3 * len(large) <= len(bursts)
