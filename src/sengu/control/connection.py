"""One client of the control socket: HTTP/1.1 by h11, never blocking the server's loop."""

import select
import socket
import traceback
from collections.abc import Callable

import h11

from sengu.control import api
from sengu.control.routes import (
    Answer,
    Later,
    Refused,
    Service,
    Soon,
    Stream,
    handle,
    outcome_answer,
)
from sengu.posix.loop import Loop

_READ_BYTES = 1 << 16
_MAX_BODY_BYTES = 1 << 16
_MAX_WAITING_BYTES = 1 << 18  # requests that a client sends while an answer is under way
_MAX_UNSENT_BYTES = 16 << 20  # above all that is kept of events; who is further behind is let go


class Connection:
    """Reads requests, writes answers, in turn. Closes itself when the client is gone."""

    def __init__(self, loop: Loop, sock: socket.socket, service: Service) -> None:
        self._loop = loop
        self._socket = sock
        self._service = service
        self._http = h11.Connection(h11.SERVER)
        self._request: h11.Request | None = None
        self._body = b""
        self._unsent = bytearray()
        self._unfollow: Callable[[], None] | None = None
        self._is_open = True
        loop.watch(sock.fileno(), select.EPOLLIN, self._on_ready)

    def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        if self._unfollow is not None:
            self._unfollow()
        self._loop.unwatch(self._socket.fileno())
        self._socket.close()

    def _on_ready(self) -> None:
        try:
            self._exchange()
        except Exception:  # a mistake in serving one client must not end all workers
            traceback.print_exc()
            self.close()

    def _exchange(self) -> None:
        self._send_unsent()
        if not self._is_open:
            return
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # reset by the client
            self.close()
            return
        self._http.receive_data(data)
        self._serve()
        if not data:
            self.close()

    def _serve(self) -> None:
        """Answer each request that has arrived whole, until one has to wait for its answer."""
        try:
            while self._is_open and self._take(self._http.next_event()):
                pass
        except h11.RemoteProtocolError as error:
            self._refuse_protocol(error)

    def _take(self, event: h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]) -> bool:
        """Take what h11 has understood; whether there may be more."""
        if isinstance(event, h11.Request):
            self._request, self._body = event, b""
        elif isinstance(event, h11.Data):
            self._body += event.data
            if len(self._body) > _MAX_BODY_BYTES:
                raise h11.RemoteProtocolError("the body is too long", 413)
        elif isinstance(event, h11.EndOfMessage):
            self._respond()
        else:  # NEED_DATA, ConnectionClosed; PAUSED: an answer is under way, the next one waits
            if len(self._http.trailing_data[0]) > _MAX_WAITING_BYTES:
                self.close()
            return False
        return True

    def _respond(self) -> None:
        assert self._request is not None
        method, target = self._request.method.decode(), self._request.target.decode()
        try:
            answer = handle(self._service, method, target, self._body)
        except Refused as refusal:
            answer = refusal.answer
        match answer:
            case Answer():
                self._answer(answer)
            case Later():
                self._service.await_outcome(answer.generation, self._answer_outcome)
            case Soon():
                answer.ask(self._answer_later)
            case Stream():
                self._stream(answer)

    def _answer_outcome(self, outcome: api.ReloadOutcome) -> None:
        self._answer_later(outcome_answer(outcome))

    def _answer_later(self, answer: Answer) -> None:
        if self._is_open:
            self._answer(answer)
            # Not here and now: who tells is in the midst of something, such as taking a fact in.
            self._loop.call_at(self._loop.now(), self._serve)

    def _answer(self, answer: Answer) -> None:
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(answer.body))),
        ]
        if answer.allow:
            headers.append(("Allow", answer.allow))
        self._send(h11.Response(status_code=answer.status, headers=headers))
        if self._request is None or self._request.method != b"HEAD":  # RFC 9110 §9.3.2
            self._send(h11.Data(data=answer.body))
        self._finish()

    def _stream(self, stream: Stream) -> None:
        headers = [("Content-Type", "text/event-stream"), ("Cache-Control", "no-store")]
        self._send(h11.Response(status_code=200, headers=headers))
        if stream.since is None:
            # Cut off before it has heard of any event, the client still knows where to go on.
            position = api.encode_position(self._service.status().last_event)
            self._send(h11.Data(data=position))
        else:
            for record in self._service.events_since(stream.since):
                self._send_record(record)
        if not self._is_open:  # it did not read what it asked for
            return
        if stream.follow:
            self._unfollow = self._service.follow_events(self._send_record)
        else:
            self._finish()

    def _send_record(self, record: api.Record) -> None:
        if self._is_open:
            self._send(h11.Data(data=api.encode_frame(record)))

    def _finish(self) -> None:
        """End the answer, and be ready for the next request if the client may send one."""
        self._send(h11.EndOfMessage())
        if self._http.our_state is h11.MUST_CLOSE:
            if not self._unsent:
                self.close()
        elif self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
            self._request = None

    def _refuse_protocol(self, error: h11.RemoteProtocolError) -> None:
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._answer(Refused(error.error_status_hint, f"not a request: {error}").answer)
        self.close()

    def _send(self, event: h11.Event) -> None:
        if not self._is_open:
            return
        data = self._http.send(event)
        if data:
            self._unsent += data
            self._send_unsent()

    def _send_unsent(self) -> None:
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except BlockingIOError:
                break
            except OSError:  # the client is gone
                self.close()
                return
            del self._unsent[:sent]
        if len(self._unsent) > _MAX_UNSENT_BYTES:
            self.close()
            return
        interest = select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0)
        self._loop.watch(self._socket.fileno(), interest, self._on_ready)
        if not self._unsent and self._http.our_state in (h11.MUST_CLOSE, h11.CLOSED):
            self.close()
