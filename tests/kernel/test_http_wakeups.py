"""Of a new client the kernel tells one worker only: that one has to take it."""

import select
from collections.abc import Callable
from typing import Any

import pytest

from sengu.worker.runtime import Stopping
from tests.kernel.http_worker import Environ, serving

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
_real_epoll = select.epoll


class Epoll:
    """One that has `interrupt` called when its wait has come to an end."""

    interrupt: Callable[[], None] | None = None

    def __init__(self) -> None:
        self._epoll = _real_epoll()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        found = self._epoll.poll(timeout, most)
        interrupt, Epoll.interrupt = Epoll.interrupt, None
        if interrupt is not None:
            interrupt()
        return found


def hello(_environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def test_who_has_woken_a_worker_that_is_told_to_go_just_then_is_answered_by_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sengu.http.loop.select.epoll", Epoll)
    with serving(hello) as worker:
        assert worker.connect().get().status == 200
        monkeypatch.setattr(Epoll, "interrupt", lambda: worker.runtime.stop(Stopping.RETIRE))
        client = worker.connect()
        client.send(GET)
        answer = client.answer()
        assert (answer.status, answer.fields["connection"]) == (200, "close")
