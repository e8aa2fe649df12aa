"""A client that sends what it likes, for the request path of a worker.

What must hold whatever is sent: the worker answers with valid HTTP or closes, in bounded time;
it goes on serving others; and no request comes out of a body. Each input is sent to a real worker
over a real socket, in pieces. `python -m tests.fuzz.request --seconds 600` goes on for longer.
"""

import argparse
import contextlib
import re
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sengu.model.web import Limits, Timeouts, WebOptions
from tests.kernel.http_worker import Environ, serving

CORPUS = Path(__file__).parent / "corpus"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
REFUSALS = {400, 408, 413, 414, 417, 431, 501, 505}
_PATIENCE_SECONDS = 20.0
OPTIONS = WebOptions(
    "tests:app",
    limits=Limits(
        request_line_bytes=300, header_fields=20, header_field_bytes=300, body_bytes=5000
    ),
    timeouts=Timeouts(header_seconds=5.0, body_seconds=5.0),
)

_methods = st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT", b"OPTIONS", b"get", b"G T", b""])
_targets = st.sampled_from(
    [b"/", b"/read", b"/a?b=%20", b"*", b"http://x/", b"x:1", b"/%", b"", b"/ "]
)
_versions = st.sampled_from(
    [b"HTTP/1.1"] * 8 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 ", b"http/1.1"]
)
_ends = st.sampled_from([b"\r\n"] * 20 + [b"\n", b"\r", b"\r\r\n", b"\0\r\n", b""])
_sizes = st.sampled_from(
    [b"0", b"1", b"5", b"%d" % len(SMUGGLED), b"99", b"-1", b"+5", b"5,5", b"5 "]
)
_names = st.sampled_from(
    [b"Host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"Connection", b"Expect",
     b"X-A", b"Content-Length ", b" Host", b"Transfer_Encoding", b"Cookie", b""]
)  # fmt: skip
_values = (
    st.sampled_from(
        [b"x", b"chunked", b"Chunked", b"identity", b"chunked, chunked", b"\x0bchunked", b"close",
         b"keep-alive", b"100-continue", b"x, y", b"\xe4", b"a\0b"]
    )
    | _sizes
    | st.binary(max_size=10)
)  # fmt: skip
_chunk = st.tuples(
    st.sampled_from([b"0", b"1", b"5", b"%x" % len(SMUGGLED), b"0x5", b"-1", b"5;a", b"5;\n", b""]),
    _ends,
    st.sampled_from([b"", b"a", b"hello", SMUGGLED]),
    _ends,
)


@st.composite
def _heads(draw: st.DrawFn) -> bytes:
    line = b" ".join((draw(_methods), draw(_targets), draw(_versions))) + draw(_ends)
    fields = draw(st.lists(st.tuples(_names, _values), max_size=5))
    if draw(st.booleans()):
        fields.insert(0, (b"Host", b"x"))
    lines = [name + b": " + value + draw(_ends) for name, value in fields]
    return line + b"".join(lines) + draw(_ends)


_chunked = st.lists(_chunk, max_size=4).map(
    lambda chunks: b"".join(b"".join(one) for one in chunks)
)
_bodies = st.one_of(st.just(b""), st.just(SMUGGLED), st.binary(max_size=60), _chunked)
streams = st.lists(st.tuples(_heads(), _bodies).map(b"".join), min_size=1, max_size=3).map(b"".join)
cuts = st.lists(st.integers(min_value=1, max_value=80), max_size=4)


# Each says how long SMUGGLED is, or tries to: what follows the head is a body or nothing at all.
_framings = st.lists(
    st.tuples(
        st.sampled_from([b"Content-Length", b"content-length", b"CONTENT-LENGTH"]),
        st.sampled_from([b":", b": ", b":\t ", b" : "]),
        st.sampled_from([b"%d", b"+%d", b"0%d", b"%d, %d", b"0x%x", b"%d ", b"\x0b%d", b"%d\0"]),
    ).map(lambda one: one[0] + one[1] + _with_length(one[2]))
    | st.tuples(
        st.sampled_from([b"Transfer-Encoding", b"transfer-encoding"]),
        st.sampled_from([b":", b": ", b" : "]),
        st.sampled_from([b"chunked", b"CHUNKED", b"chunked ", b"x, chunked", b"\x0bchunked"]),
    ).map(b"".join),
    min_size=1,
    max_size=3,
)


def _with_length(form: bytes) -> bytes:
    return form % ((len(SMUGGLED),) * form.count(b"%"))


class Answer(NamedTuple):
    status: int
    fields: dict[bytes, bytes]
    body: bytes


class Target:
    """A worker, and what its application has been asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.statuses: Counter[int] = Counter()

    def app(self, environ: Environ, start_response: Callable[..., Any]) -> list[bytes]:
        """Reads the body, or does not."""
        self.asked.append(environ["REQUEST_URI"])
        body = environ["wsgi.input"].read() if environ["PATH_INFO"] == "/read" else b""
        start_response("200 OK", [("X-Method", environ["REQUEST_METHOD"])])
        return [b"%d" % len(body)]

    @contextlib.contextmanager
    def served(self) -> Iterator["Target"]:
        with serving(self.app, OPTIONS) as worker:
            self.address = worker.listener.getsockname()
            yield self

    def answers(self, stream: bytes, sizes: list[int]) -> list[Answer]:
        """What comes back when the client sends `stream` in pieces, and says that it was all."""
        received = b""
        with socket.create_connection(self.address, timeout=_PATIENCE_SECONDS) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for size in [*sizes, len(stream)]:
                sock.sendall(stream[:size])
                stream = stream[size:]
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                received += data
        answers = list(parse_answers(received))
        self.statuses.update(answer.status for answer in answers)
        return answers


def parse_answers(data: bytes) -> Iterator[Answer]:
    """Valid answers, one after the other, and nothing else; an error is the last."""
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        assert end
        assert re.fullmatch(rb"HTTP/1\.1 [1-5][0-9]{2} [ -~]+", line)
        fields = {}
        for one in lines:
            match = re.fullmatch(rb"([A-Za-z-]+): ([ -~]*)", one)
            assert match, one
            fields[match[1].lower()] = match[2]
        fields.pop(b"date", None)
        status = int(line[9:12])
        length = int(fields.get(b"content-length", 0))
        has_body = fields.get(b"x-method") != b"HEAD" and (status < 400 or data)
        body, data = (data[:length], data[length:]) if has_body else (b"", data)
        assert not has_body or len(body) == length
        yield Answer(status, fields, body)
        if status >= 400:
            assert status in REFUSALS
            assert fields[b"connection"] == b"close"
            assert data == b""


def check_stream(target: Target, stream: bytes, sizes: list[int]) -> None:
    """It is answered by valid HTTP, the same however it is cut, and others are served after it.

    Of two mistakes either may be told: which one is met first depends on the cut.
    """
    whole = target.answers(stream, [])
    cut = target.answers(stream, sizes)
    if b"100-continue" not in stream:  # sent or not, as the body has come or not
        assert [one.status < 400 and one for one in whole] == [
            one.status < 400 and one for one in cut
        ]
    (after,) = target.answers(b"GET /read HTTP/1.1\r\nHost: x\r\n\r\n", [])
    assert (after.status, after.body) == (200, b"0")


def check_framing(target: Target, path: bytes, fields: list[bytes], sizes: list[int]) -> None:
    """No request comes out of a body, however the body is framed."""
    target.asked.clear()
    head = b"POST " + path + b" HTTP/1.1\r\nHost: x\r\n" + b"\r\n".join(fields) + b"\r\n\r\n"
    names = b"".join(fields).lower()
    body = SMUGGLED
    if b"transfer-encoding" in names:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
    target.answers(head + body, sizes)
    assert "/smuggled" not in target.asked


def run(target: Target, seconds: float) -> None:
    """Make up inputs until the time is over. Raises what hypothesis has found."""
    end = time.monotonic() + seconds
    kept = sorted(CORPUS.glob("*.http"))
    for path in kept:
        check_stream(target, path.read_bytes(), [1, 2, 3, 20])
    rules = settings(
        deadline=None,
        database=None,
        max_examples=200,
        suppress_health_check=list(HealthCheck),
    )

    @rules
    @given(streams, cuts)
    def streams_hold(stream: bytes, sizes: list[int]) -> None:
        check_stream(target, stream, sizes)

    @rules
    @given(st.sampled_from([b"/", b"/read"]), _framings, cuts)
    def framings_hold(path: bytes, fields: list[bytes], sizes: list[int]) -> None:
        check_framing(target, path, fields, sizes)

    while time.monotonic() < end:
        streams_hold()
        framings_hold()


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the request path of a worker.")
    parser.add_argument("--seconds", type=float, default=600.0)
    seconds = parser.parse_args().seconds
    with Target().served() as target:
        run(target, seconds)
        print("answers:", *(f"{count} × {status}" for status, count in target.statuses.items()))


if __name__ == "__main__":
    main()
