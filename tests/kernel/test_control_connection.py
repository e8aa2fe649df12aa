"""A control connection over a socket pair: whatever a client sends, the loop goes on.

An exception here would be the end of the server, and so of every worker.
"""

import json
import select
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing

import pytest

from sengu.control import api
from sengu.control.connection import Connection
from sengu.model.observed import Outcome
from sengu.posix.loop import Loop
from tests.kernel.children import nothing_left_open

WAIT = b'POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{"wait": true}'
STATUS = b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
RECORD = api.Record(1, 0.0, "worker_exited", "a worker is gone", {"last_words": "x" * 100_000})


class FakeService:
    """Answers at once; keeps whom to tell of an outcome, and who reads events."""

    def __init__(self) -> None:
        self.told: list[Callable[[api.ReloadOutcome], None]] = []
        self.readers: list[Callable[[api.Record], None]] = []
        self.tokens: list[str] = []
        self.inquirers: list[Callable[[api.ConfigureOutcome], None]] = []
        self.dumped: list[Callable[[api.Dump], None]] = []

    def status(self) -> api.Status:
        return api.Status(
            "web", 1, "0", api.ServiceState.SERVING, 1.0, ("true",), 1, 1, last_event=40
        )

    def reload(self, immediate: bool, by: str, token: str) -> api.ReloadAccepted:
        self.tokens.append(token)
        return api.ReloadAccepted(2, 0)

    def upgrade(self, by: str, token: str) -> api.UpgradeAccepted:
        self.tokens.append(token)
        return api.UpgradeAccepted(7)

    def configure(self, by: str, token: str) -> api.ConfigureAccepted:
        self.tokens.append(token)
        return api.ConfigureAccepted(3, 7)

    def await_configured(self, inquiry: int, tell: Callable[[api.ConfigureOutcome], None]) -> None:
        assert inquiry == 3
        self.inquirers.append(tell)

    def dump(self, tell: Callable[[api.Dump], None]) -> None:
        self.dumped.append(tell)

    def await_outcome(self, generation: int, tell: Callable[[api.ReloadOutcome], None]) -> None:
        self.told.append(tell)

    def scale(self, workers: int, by: str) -> None: ...

    def stop(self, immediate: bool, by: str, token: str) -> None: ...

    def events_since(self, number: int) -> Iterable[api.Record]:
        return [RECORD] * 400

    def follow_events(self, reader: Callable[[api.Record], None]) -> Callable[[], None]:
        self.readers.append(reader)
        return lambda: self.readers.remove(reader)


class Client:
    """The other end; `exchange` sends, lets the loop work, and returns what came back."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.service = FakeService()
        self.socket, ours = socket.socketpair()
        ours.setblocking(False)
        self.socket.setblocking(False)
        self._connection = Connection(loop, ours, self.service)

    def exchange(self, data: bytes = b"") -> bytes:
        received = b""
        while True:
            if data:
                try:
                    data = data[self.socket.send(data) :]
                except BrokenPipeError:  # it has had enough
                    data = b""
            self.loop.run_once(self.loop.now())
            if data:
                continue
            if not select.select([self.socket], [], [], 0)[0]:
                return received
            try:
                piece = self.socket.recv(1 << 20)
            except ConnectionResetError:  # it did not read all that we sent
                return received
            if not piece:
                return received
            received += piece

    def conclude(self) -> None:
        self.service.told.pop()(api.ReloadOutcome(2, Outcome.SUCCEEDED, "all workers are ready"))

    @property
    def is_closed(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except BlockingIOError:
            return False

    def close(self) -> None:
        self._connection.close()
        self.socket.close()


@pytest.fixture
def client() -> Iterator[Client]:
    with nothing_left_open(), closing(Loop()) as loop, closing(Client(loop)) as client:
        yield client


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"HEAD /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"HEAD /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET //[ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v1/events?since=" + b"1" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (
            b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 60006\r\n\r\n"
            + b'{"x":'
            + b"[" * 30_000
            + b"]" * 30_000
            + b"}",
            400,
        ),
    ],
    ids=["head", "head of nothing", "bad brackets", "long number", "deep brackets"],
)
def test_an_odd_request_is_refused_and_the_next_one_served(
    client: Client, request_: bytes, status: int
) -> None:
    assert client.exchange(request_).startswith(b"HTTP/1.1 %d " % status)
    assert client.exchange(STATUS).startswith(b"HTTP/1.1 200 ")


def test_a_head_is_answered_without_a_body_and_garbage_after_it_is_refused(client: Client) -> None:
    answer = client.exchange(b"HEAD /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.endswith(b"\r\n\r\n")
    assert client.exchange(b"\1\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert client.is_closed


def test_many_requests_at_once_are_all_answered(client: Client) -> None:
    assert client.exchange(STATUS * 2000).count(b"HTTP/1.1 200 ") == 2000


def test_a_request_after_one_that_waits_is_answered_after_it(client: Client) -> None:
    assert client.exchange(WAIT + STATUS) == b""
    client.conclude()
    first, second = client.exchange().split(b"HTTP/1.1 200 ")[1:]
    assert json.loads(first.partition(b"\r\n\r\n")[2])["outcome"] == "succeeded"
    assert json.loads(second.partition(b"\r\n\r\n")[2])["name"] == "web"


def test_garbage_after_a_request_that_waits_ends_that_connection_only(client: Client) -> None:
    assert client.exchange(WAIT + b"\1 and so on\r\n\r\n") == b""
    client.conclude()
    assert client.exchange().startswith(b"HTTP/1.1 200 ")
    assert client.is_closed


def test_a_client_that_sends_on_and_on_while_it_waits_is_let_go(client: Client) -> None:
    client.exchange(WAIT + b"x" * 1_000_000)
    assert client.is_closed
    client.conclude()


def test_a_reader_of_events_that_does_not_read_is_let_go_and_not_kept(client: Client) -> None:
    client.socket.send(b"GET /v1/events?since=0 HTTP/1.1\r\nHost: x\r\n\r\n")
    client.loop.run_once(client.loop.now())
    assert client.service.readers == []


def test_a_reader_of_new_events_is_told_first_where_it_begins(client: Client) -> None:
    answer = client.exchange(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"id: 40\n\n" in answer
    assert b"data:" not in answer


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("reload", {"generation": 2, "last_event": 0}),
        ("upgrade", {"last_event": 7}),
        ("configure", {"inquiry": 3, "last_event": 7}),
    ],
)
def test_a_request_has_the_name_that_its_client_gave_it(
    client: Client, path: str, answer: dict[str, int]
) -> None:
    request = f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: "
    for body in ('{"token":"a7"}', "{}", ""):
        head, _, told = client.exchange(f"{request}{len(body)}\r\n\r\n{body}".encode()).partition(
            b"\r\n\r\n"
        )
        assert head.startswith(b"HTTP/1.1 202 ")
        assert json.loads(told) == answer
    assert client.service.tokens == ["a7", "", ""]
    body = '{"token":"' + "x" * 65 + '"}'
    assert client.exchange(f"{request}{len(body)}\r\n\r\n{body}".encode()).startswith(
        b"HTTP/1.1 400 "
    )


@pytest.mark.parametrize(("error", "status"), [("", b"200"), ("workers: -3 is wrong", b"409")])
def test_who_waits_for_the_configuration_is_told_what_it_came_to(
    client: Client, error: str, status: bytes
) -> None:
    body = b'{"wait": true}'
    request = b"POST /v1/configure HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    assert client.exchange(request + body) == b""
    (tell,) = client.service.inquirers
    tell(api.ConfigureOutcome(3, 1, error))
    head, _, told = client.exchange().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %s " % status)
    assert json.loads(told)["error"] == error


def test_a_dump_is_answered_when_all_have_written(client: Client) -> None:
    assert (
        client.exchange(b"POST /v1/dump HTTP/1.1\r\nHost: sengu\r\nContent-Length: 0\r\n\r\n")
        == b""
    )
    (tell,) = client.service.dumped
    tell(api.Dump((api.ProcessDump("main", 1, "waits\n"),)))
    answer = client.exchange()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b'{"processes":[{"name":"main","pid":1,"text":"waits\\n"}]}')
