"""From bytes to a request that can be answered: its environ, with a body that is here or begun.

The loop feeds it; it never waits. A body is taken in up to 64 KiB before the application sees the
request, so that a slow client has a connection in its hands and not a worker. Raises Refusal.
"""

from typing import NamedTuple

from sengu.http.body import PIECE_BYTES, ChunkedDecoder, Input, LengthDecoder
from sengu.http.connection import Connection, State
from sengu.http.environ import Environ, Manner, build, cut_root
from sengu.http.head import (
    MALFORMED,
    HttpRequest,
    IncompleteError,
    Refusal,
    check_partial,
    parse_request,
    refusal_of,
)
from sengu.http.proxy import forwarded
from sengu.http.site import Site

_HEAD, _IDLE, _BODY = State.HEAD, State.IDLE, State.BODY
_NO_BYTES = b""
_MAX_KNOWN = 64
_MAX_SEEN = 256
_MAX_KNOWN_BYTES = 2048
_KEPT_BYTES = 256  # for the scoreboard


class _Known(NamedTuple):
    """What was made of a head, with `base`."""

    base: Environ
    environ: Environ
    manner: Manner


class Intake:
    """One for all connections: what is known of each is kept with it."""

    def __init__(self, site: Site) -> None:
        self._site = site
        limits = self._limits = site.head_limits
        self._parser_limits = (limits.line_bytes, limits.fields, limits.field_bytes)
        self._root_path = site.root_path
        self._trust = site.trust
        self._known: dict[bytes, _Known] = {}
        self._seen: set[bytes] = set()

    def admit(self, connection: Connection, data: bytes) -> Environ | None:
        """The request that `data` begins with; None when more of it has to come."""
        before = connection.head
        known = self._known.get(data) if data == before or not before else None
        if known is not None and known.base is connection.base:
            environ = known.environ.copy()
            connection.manner = known.manner
            connection.buffer = _NO_BYTES
        else:
            try:
                request = parse_request(data, 0, *self._parser_limits)
            except IncompleteError:
                self._wait_for_head(connection, data)
                return None
            except MALFORMED as error:
                raise refusal_of(data, error, self._limits) from None
            environ, connection.manner = build(request, data, connection.base)
            connection.buffer = data[request.consumed :]
            if self._root_path:
                cut_root(environ, self._root_path)
            if connection.manner.has_more:
                connection.head = data[:_KEPT_BYTES]
                self._set_client(connection, environ)
                return self._begin_body(connection, environ, request)
            if not connection.buffer and (data == before or not before):
                self._remember(connection, environ, data)
        # An idle connection holds no more of what it has sent than that.
        connection.head = data if len(data) <= _MAX_KNOWN_BYTES else data[:_KEPT_BYTES]
        self._set_client(connection, environ)
        return environ

    def _wait_for_head(self, connection: Connection, data: bytes) -> None:
        check_partial(data, self._limits)
        connection.buffer = data
        if connection.state is _IDLE:
            connection.state = _HEAD
            connection.deadline = None

    def _remember(self, connection: Connection, environ: Environ, data: bytes) -> None:
        """Who repeats a request byte by byte (health checks, polling, balancers), over one
        connection or with one each, is understood once. Kept is what has come twice of late, and
        nothing of the client or of a body."""
        if data == connection.head or data in self._seen:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[data] = _Known(connection.base, environ.copy(), connection.manner)
        elif len(data) <= _MAX_KNOWN_BYTES:
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen.add(data)

    def _set_client(self, connection: Connection, environ: Environ) -> None:
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = connection.peer
        if self._trust is not None:
            self._believe(environ, connection)

    def _begin_body(
        self, connection: Connection, environ: Environ, request: HttpRequest
    ) -> Environ | None:
        limit = self._site.max_body_bytes
        if limit is not None and request.content_length > limit:
            raise Refusal(413, f"the body is longer than {limit} bytes")
        expectation = environ.get("HTTP_EXPECT")
        is_new = not connection.manner.is_old  # RFC 9110 §10.1.1: older ones know none
        if is_new and expectation is not None and expectation.lower() != "100-continue":
            raise Refusal(417, "the only expectation known here is 100-continue")
        if request.has_chunked:
            connection.decoder = ChunkedDecoder(limit)
        elif request.content_length > 0:
            connection.decoder = LengthDecoder(request.content_length)
        else:
            return environ
        data, connection.buffer = connection.buffer, b""
        connection.environ = environ
        connection.taken = b""
        connection.expects = is_new and expectation is not None and not data
        return self.take_body(connection, data)

    def take_body(self, connection: Connection, data: bytes) -> Environ | None:
        """Go on with a body; as `admit`."""
        decoder = connection.decoder
        assert decoder is not None
        if data:
            connection.taken += decoder.feed(data)
        is_here = decoder.done or len(connection.taken) >= PIECE_BYTES
        if not is_here and not connection.expects:
            connection.state = _BODY
            connection.deadline = None
            return None
        environ = connection.environ
        environ["wsgi.input"] = Input(decoder, connection.taken, connection.receive)
        # An idle connection holds neither its last body nor what the application made of it.
        del connection.environ, connection.taken
        connection.buffer = decoder.rest
        return environ

    def _believe(self, environ: Environ, connection: Connection) -> None:
        """Take over what a trusted proxy says of the client."""
        assert self._trust is not None
        said = forwarded(self._trust, connection.peer[0], environ)
        if said.client is not None:
            environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = said.client
        if said.scheme is not None:
            environ["wsgi.url_scheme"] = said.scheme
            if said.scheme == "https":
                environ["HTTPS"] = "on"
            else:
                environ.pop("HTTPS", None)
        if said.host is not None:
            environ["HTTP_HOST"] = said.host
