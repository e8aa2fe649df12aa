"""Which request the scoreboard shows, and what progress a tick tells."""

import asyncio

import pytest

from sengu.http.asgi.hand import Hand, Request
from sengu.http.asgi.types import Message
from sengu.wire.scoreboard import LINE_BYTES
from sengu.worker.board import Lane


async def _send(_message: Message) -> None:
    """Nobody listens."""


async def _receive() -> Message:
    """A piece of a body, and more to come."""
    return {"type": "http.request", "body": b"x", "more_body": True}


def _request(path: str, started_at: float) -> Request:
    return Request({"method": "GET", "raw_path": path.encode()}, _receive, _send, started_at)


def _answer(request: Request) -> None:
    # What it gives is for the application to await.
    request.send({"type": "http.response.start"}).close()  # type: ignore[attr-defined]


@pytest.fixture
def lane() -> Lane:
    return Lane(memoryview(bytearray(LINE_BYTES)), 0)


def test_the_oldest_request_in_hand_is_shown(lane: Lane) -> None:
    hand = Hand(lane, None)
    first, second, third = (_request(f"/{number}", float(number)) for number in (1, 2, 3))
    for request in (first, second, third):
        hand.begin(request)
    assert (lane.read().request, lane.read().started_at) == ("GET /1", 1.0)
    hand.end(second)
    assert lane.read().request == "GET /1"
    hand.end(first)
    assert (lane.read().request, lane.read().started_at) == ("GET /3", 3.0)
    hand.end(third)
    assert not lane.read().is_busy


def test_requests_are_counted_when_they_begin_and_told_by_the_next_tick(lane: Lane) -> None:
    hand = Hand(lane, None)
    hand.begin(_request("/1", 1.0))
    hand.begin(_request("/2", 2.0))
    hand.tick(3.0)
    assert lane.read().requests == 2


def test_a_tick_is_progress_as_long_as_no_request_is_overdue(lane: Lane) -> None:
    hand = Hand(lane, 10.0)
    hand.begin(_request("/", 1.0))
    hand.tick(5.0)
    assert lane.read().progress_at == 5.0


def test_a_request_without_an_answer_in_time_holds_progress_back(lane: Lane) -> None:
    hand = Hand(lane, 10.0)
    stream = _request("/stream", 1.0)
    hand.begin(stream)
    hand.begin(_request("/late", 2.0))
    _answer(stream)
    hand.tick(11.5)
    assert lane.read().progress_at == 11.5
    hand.tick(12.5)
    assert lane.read().progress_at == 2.0


def test_a_response_that_has_begun_may_last_for_ever(lane: Lane) -> None:
    hand = Hand(lane, 10.0)
    stream = _request("/stream", 1.0)
    hand.begin(stream)
    _answer(stream)
    hand.tick(1000.0)
    assert lane.read().progress_at == 1000.0


def test_a_body_that_comes_slowly_is_progress(lane: Lane) -> None:
    hand = Hand(lane, 10.0)
    upload = _request("/upload", 1.0)
    hand.begin(upload)
    for now in (9.0, 18.0, 27.0):
        asyncio.run(upload.receive())
        hand.tick(now)
        assert lane.read().progress_at == now
    hand.tick(37.5)
    assert lane.read().progress_at == 27.0


def test_without_a_timeout_nothing_is_overdue(lane: Lane) -> None:
    hand = Hand(lane, None)
    hand.begin(_request("/", 1.0))
    hand.tick(1000.0)
    assert lane.read().progress_at == 1000.0


def test_the_next_to_be_shown_has_progressed_when_the_loop_last_ticked(lane: Lane) -> None:
    hand = Hand(lane, 10.0)
    first, second = _request("/1", 1.0), _request("/2", 2.0)
    hand.begin(first)
    hand.begin(second)
    hand.tick(5.0)
    hand.end(first)
    assert lane.read().progress_at == 5.0


def test_a_websocket_is_shown_as_the_request_it_began_with(lane: Lane) -> None:
    Hand(lane, None).begin(Request({"raw_path": b"/room"}, _receive, _send, 1.0))
    assert lane.read().request == "GET /room"
