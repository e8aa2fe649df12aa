"""The scoreboard's lines, as a worker writes them and as the server reads them."""

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sengu.model.application import Application
from sengu.server.scoreboard import Scoreboard
from sengu.wire import scoreboard
from sengu.wire.forkserver import (
    Fork,
    ForkFailed,
    Load,
    Loaded,
    LoadFailed,
    decode_order,
    decode_report,
    encode,
)
from sengu.wire.scoreboard import LINE, LINE_BYTES, read_line
from sengu.worker.board import Board, Lane
from tests.kernel.shelf import Shelf


def test_that_the_service_ends_is_seen_by_all_and_is_no_line_of_anybody(memory: memoryview) -> None:
    boards = [Board(memory, 0, 2), Board(memory, 2, 5)]
    memory[scoreboard.ENDING] = 1
    assert [board.is_service_ending for board in boards] == [True, True]
    assert not any(read_line(memory, line).is_busy for line in range(7))
    memory[scoreboard.ENDING] = 0
    assert [board.is_service_ending for board in boards] == [False, False]


@pytest.fixture
def memory() -> memoryview:
    return memoryview(bytearray(8 * LINE_BYTES))


def test_a_line_has_the_size_that_all_have_agreed_on() -> None:
    assert LINE.size == LINE_BYTES == 128


def test_a_request_in_hand_is_told_without_its_query(memory: memoryview) -> None:
    lane = Lane(memory, 3)
    lane.connections = 5
    lane.begin(12.5, b"GET /path?token=secret HTTP/1.1\r\nHost: x\r\n\r\n")
    line = read_line(memory, 3)
    assert line.is_busy
    assert (line.started_at, line.progress_at) == (12.5, 12.5)
    assert (line.requests, line.connections) == (1, 5)
    assert line.request == "GET /path"


def test_progress_moves_one_time_and_not_the_other(memory: memoryview) -> None:
    lane = Lane(memory, 0)
    lane.begin(1.0, b"GET / HTTP/1.1\r\n")
    lane.progress(4.0)
    line = read_line(memory, 0)
    assert (line.started_at, line.progress_at) == (1.0, 4.0)


def test_a_request_that_has_ended_is_counted_and_not_in_hand(memory: memoryview) -> None:
    lane = Lane(memory, 0)
    lane.begin(1.0, b"GET / HTTP/1.1\r\n")
    lane.end()
    line = read_line(memory, 0)
    assert not line.is_busy
    assert line.requests == 1


def test_connections_are_published_between_requests(memory: memoryview) -> None:
    lane = Lane(memory, 0)
    lane.connections = 7
    lane.count()
    assert read_line(memory, 0).connections == 7


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"GET /" + b"x" * 500, "GET /" + "x" * 91),
        (b"", ""),
        (b"GET /\x1b[31m\xe9 HTTP/1.1\r\n", "GET /.[31m\xe9"),
        (b"PUT /a HTTP/1.0\r\nX: y", "PUT /a"),
        (b"nonsense\nmore", "nonsense"),
    ],
)
def test_whatever_a_client_sends_is_short_and_printable(
    memory: memoryview, head: bytes, told: str
) -> None:
    Lane(memory, 0).begin(1.0, head)
    assert read_line(memory, 0).request == told


def test_lanes_do_not_touch_each_other(memory: memoryview) -> None:
    board = Board(memory, 2, 3)
    for number, lane in enumerate(board.lanes):
        lane.begin(float(number + 1), b"GET /%d HTTP/1.1" % number)
    assert [read_line(memory, n).request for n in range(2, 5)] == ["GET /0", "GET /1", "GET /2"]
    assert not read_line(memory, 1).is_busy
    assert not read_line(memory, 5).is_busy
    oldest = board.oldest()
    assert oldest is not None
    assert oldest.request == "GET /0"


def test_an_idle_board_has_no_oldest_request(memory: memoryview) -> None:
    assert Board(memory, 0, 2).oldest() is None


# --- the server's side ---


@pytest.fixture
def shelf() -> Iterator[Shelf]:
    with Shelf() as shelf:
        yield shelf


@contextmanager
def scoreboard_in(shelf: Shelf, lanes: int) -> Iterator[Scoreboard]:
    board = Scoreboard(lanes, shelf)
    yield board
    os.close(board.fd)


def test_no_worker_can_make_it_shorter(shelf: Shelf) -> None:
    with scoreboard_in(shelf, 1) as board:
        theirs = shelf.held["scoreboard"].fd
        with pytest.raises(PermissionError):
            os.ftruncate(theirs, 0)
        assert os.fstat(board.fd).st_size == scoreboard.SIZE_BYTES


def memory_in(shelf: Shelf) -> memoryview:
    """As a worker has it."""
    return memoryview(mmap.mmap(shelf.held["scoreboard"].fd, scoreboard.SIZE_BYTES))


def lane_in(shelf: Shelf, line: int) -> Lane:
    return Lane(memory_in(shelf), line)


def board_in(shelf: Shelf, line: int) -> Board:
    return Board(memory_in(shelf), line, 1)


def test_a_block_that_was_given_back_is_blank_and_used_again(shelf: Shelf) -> None:
    with scoreboard_in(shelf, lanes=2) as board:
        first, second = board.take(), board.take()
        assert (first, second) == (0, 2)
        lane_in(shelf, first + 1).begin(1.0, b"GET / HTTP/1.1\r\n")
        assert [line.is_busy for line in board.read(first)] == [False, True]
        board.give_back(first)
        assert board.take() == first
        assert [line.is_busy for line in board.read(first)] == [False, False]


def test_a_full_scoreboard_refuses_and_says_why(shelf: Shelf) -> None:
    with scoreboard_in(shelf, lanes=scoreboard.LINES) as board:
        board.take()
        with pytest.raises(OSError, match="scoreboard are taken"):
            board.take()


def test_the_next_server_reads_what_workers_write(shelf: Shelf) -> None:
    with scoreboard_in(shelf, lanes=2) as board:
        board.take()
    shelf.pass_on()
    with scoreboard_in(shelf, lanes=2) as board:
        lane_in(shelf, 1).begin(1.0, b"GET / HTTP/1.1\r\n")
        assert [line.is_busy for line in board.read(0)] == [False, True]


def test_that_the_service_ends_stays_shown_to_all_whichever_server_is_there(shelf: Shelf) -> None:
    with scoreboard_in(shelf, lanes=2) as board:
        first = board.take()
        boards = [board_in(shelf, first)]
        assert [one.is_service_ending for one in boards] == [False]
        board.show_ending(True)
    shelf.pass_on()
    with scoreboard_in(shelf, lanes=2) as board:
        boards.append(board_in(shelf, board.take()))
        assert [one.is_service_ending for one in boards] == [True, True]
        board.show_ending(False)
        assert [one.is_service_ending for one in boards] == [False, False]


def test_blocks_of_those_who_live_are_not_given_away_again(shelf: Shelf) -> None:
    with scoreboard_in(shelf, lanes=2) as board:
        board.claim([6, 2])
        assert sorted(board.take() for _ in range(4)) == [0, 4, 8, 10]


def test_a_block_of_who_ended_with_a_server_is_blank(shelf: Shelf) -> None:
    with scoreboard_in(shelf, lanes=1) as board:
        board.take()
    shelf.pass_on()
    lane_in(shelf, 0).begin(1.0, b"GET / HTTP/1.1\r\n")
    with scoreboard_in(shelf, lanes=1) as board:
        board.claim([1])
        assert board.take() == 0
        assert not board.read(0)[0].is_busy


def test_nobody_lives_and_all_blocks_are_free(shelf: Shelf) -> None:
    with scoreboard_in(shelf, lanes=scoreboard.LINES) as board:
        board.claim([])
        assert board.take() == 0


# --- messages: what one version has written, every other must be able to read ---


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (
            Fork(7, "worker/7", 3, "@sengu/1", 12, (1, 2)),
            b'{"type":"fork","worker":7,"key":"worker/7","slot":3,"notify_socket":"@sengu/1",'
            b'"line":12,"targets":[1,2]}',
        ),
        (
            Fork(7, "worker/7", 3, "@sengu/1", 12, (2,), enters_cgroup=True),
            b'{"type":"fork","worker":7,"key":"worker/7","slot":3,"notify_socket":"@sengu/1",'
            b'"line":12,"targets":[2],"enters_cgroup":true}',
        ),
        (Loaded(("careful",)), b'{"type":"loaded","warnings":["careful"]}'),
        (
            LoadFailed("no", "why"),
            b'{"type":"load_failed","problem":"no","details":"why"}',
        ),
        (ForkFailed(7, "no"), b'{"type":"fork_failed","worker":7,"problem":"no"}'),
    ],
)
def test_messages_are_written_as_they_always_were(message: object, data: bytes) -> None:
    assert encode(message) == data
    decode = decode_order if isinstance(message, Fork) else decode_report
    assert decode(data) == message


def test_an_application_survives_its_journey() -> None:
    load = Load(Application(engine="e", target="t"), "web", 3)
    assert encode(decode_order(encode(load))) == encode(load)
