"""One request and its answer: calls the application, and decides what becomes of the connection.

Runs in the worker's main thread, or in one of a pool's: one `Exchange` for each.
"""

import enum
import html
import sys
from collections.abc import Iterable

from sengu.http.access_log import Record, user_of
from sengu.http.body import BodyError, Input
from sengu.http.connection import ClientGone, Connection
from sengu.http.environ import Environ
from sengu.http.head import REASONS, Refusal
from sengu.http.health import Health
from sengu.http.rendering import prefixes
from sengu.http.response import Response
from sengu.http.site import Site
from sengu.http.target import own_traceback
from sengu.posix import clock
from sengu.worker.board import Lane


class Next(enum.Enum):
    """What becomes of a connection after an answer."""

    STAY = enum.auto()  # it waits for the next request
    CLOSE = enum.auto()  # nothing more is on its way
    LINGER = enum.auto()  # more may be: a close would be a reset, and cost the client the answer
    RESET = enum.auto()  # the answer is not whole, and shall not look as if it were


_monotonic = clock.monotonic
_STAY, _CLOSE = Next.STAY, Next.CLOSE


class Exchange:
    """Answers one request after the other. `lane` shows what is in hand."""

    def __init__(self, site: Site, lane: Lane) -> None:
        self._site = site
        self._runtime = site.runtime
        self._application = site.application
        self._lane = lane
        self._log = site.log
        self._health = site.health
        self._health_path = None if site.health is None else site.health.path

    def answer(self, connection: Connection, environ: Environ) -> Next:
        now = _monotonic()
        if now >= prefixes.until:
            prefixes.refresh(now, clock.wall())
        lane = connection.lane = self._lane
        if self._health is not None and environ["PATH_INFO"] == self._health_path:
            return _answer_for(self._health, connection, environ)
        lane.begin(now, connection.head)
        if self._runtime.dozing:
            self._runtime.rouse()
        response = Response(connection)
        environ["wsgi.early_hints"] = response.early_hints
        try:
            chunks = self._application(environ, response.start_response)
            if not (type(chunks) is list and len(chunks) == 1 and response.send_only(chunks[0])):
                _send_all(connection, response, chunks)
        except ClientGone:
            response.stays = False
        except BaseException as error:  # whatever an application raises, the worker goes on
            self._fail(connection, environ, response, error)
        lane.end()
        if self._log is not None:
            self._log.add(_record(environ, response, now))
        if response.is_whole and connection.decoder is None:
            if response.stays:
                return _STAY
            if not connection.manner.stays and not connection.buffer:
                return _CLOSE
        return _conclude(connection, response)

    def _fail(
        self, connection: Connection, environ: Environ, response: Response, error: BaseException
    ) -> None:
        """Answer for an application that did not."""
        body = environ.get("wsgi.input")
        failure = body.failure if isinstance(body, Input) else None
        if isinstance(error, BodyError) and failure is not None:
            refusal, kind = failure, "text/plain"
        else:
            trace = own_traceback(error)
            _complain(connection, f"exception in the application\n{trace}")
            refusal, kind = Refusal(500, REASONS[500]), "text/plain"
            if self._site.options.debug:
                refusal, kind = (
                    Refusal(500, traceback_page("Exception in the application", trace)),
                    "text/html",
                )
        if response.is_started:
            return
        try:
            response.replace(refusal, kind)
        except ClientGone:  # it does not hear it
            return


def _answer_for(health: Health, connection: Connection, environ: Environ) -> Next:
    response = Response(connection)
    try:
        response.send_all(health.wsgi(environ, response.start_response))
    except ClientGone:
        response.stays = False
    return _conclude(connection, response)


def _send_all(connection: Connection, response: Response, chunks: Iterable[bytes]) -> None:
    try:
        response.send_all(chunks)
        if response.left or response.is_too_long:
            _complain(connection, "the body is not as long as its Content-Length says")
    finally:
        close = getattr(chunks, "close", None)
        if close is not None:
            close()


def _conclude(connection: Connection, response: Response) -> Next:
    """What `answer` has no time for: the unusual, and requests with a body."""
    if not response.is_whole:
        return Next.RESET
    decoder = connection.decoder
    is_read = decoder is None or decoder.done
    if decoder is not None and is_read:
        connection.buffer = decoder.rest
    connection.decoder = None
    if is_read and response.stays:
        return Next.STAY
    # Unless the client has said that this was its last, the end is a surprise to it.
    is_expected = is_read and not connection.manner.stays and not connection.buffer
    return Next.CLOSE if is_expected else Next.LINGER


def _complain(connection: Connection, problem: str) -> None:
    # Not of the environ: the application may have made something else of that, or nothing.
    line = connection.head.removeprefix(b"\r\n").partition(b"\r\n")[0].decode("latin-1")
    request = line.rpartition(" ")[0] or line
    print(f"sengu: {request}: {problem.rstrip()}", file=sys.stderr, flush=True)


def traceback_page(title: str, trace: str) -> str:
    """For development: where it went wrong, to be read in the browser."""
    title = html.escape(title)
    return f"<!doctype html><title>{title}</title><h1>{title}</h1><pre>{html.escape(trace)}</pre>"


def _record(environ: Environ, response: Response, begun_at: float) -> Record:
    seconds = clock.monotonic() - begun_at
    parts = ("REQUEST_METHOD", "REQUEST_URI", "SERVER_PROTOCOL")
    line = " ".join(environ.get(name, "") for name in parts)
    return Record(
        client=environ.get("REMOTE_ADDR", ""),
        at=clock.wall() - seconds,
        request_line=line,
        status=int(response.status[:3] or 0),
        body_bytes=response.sent,
        seconds=seconds,
        user=user_of(environ.get("HTTP_AUTHORIZATION", "")),
        referer=environ.get("HTTP_REFERER", ""),
        agent=environ.get("HTTP_USER_AGENT", ""),
    )
