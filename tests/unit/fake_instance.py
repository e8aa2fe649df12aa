"""A hand-written instance for tests of the command line: a control socket that plays a script."""

import io
import socketserver
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from sengu.control import api
from sengu.model.observed import Outcome

Reaction = Callable[[bytes], msgspec.Struct]


def make_status(**changes: Any) -> api.Status:
    """Two workers of generation 4, ready."""
    workers = tuple(worker(slot, generation=4) for slot in range(2))
    plain = api.Status(
        name="web",
        pid=4242,
        version="0.1.0",
        state=api.ServiceState.SERVING,
        uptime_seconds=90.0,
        command=("./server", "--flag x"),
        generation=4,
        workers_wanted=2,
        listeners=(api.ListenerStatus("tcp-8080", "0.0.0.0:8080", 3),),
        workers=workers,
        last_event=40,
    )
    return msgspec.structs.replace(plain, **changes)


def worker(slot: int, generation: int, state: str = "ready", **rest: Any) -> api.WorkerStatus:
    fields = {"pid": 1000 * generation + slot, "uptime_seconds": 7.0, **rest}
    return api.WorkerStatus(slot, generation, api.WorkerState(state), **fields)


def record(number: int, kind: str, **fields: Any) -> api.Record:
    return api.Record(number, 1_700_000_000.0, kind, f"{kind} {fields.get('worker', '')}", fields)


def concluded(number: int, outcome: Outcome, **fields: Any) -> api.Record:
    known = {"generation": 5, "outcome": outcome.value, "reason": "so it went", "last_words": ""}
    return record(number, "deploy_concluded", **{**known, **fields})


NOT_READ = -1  # of `cuts`


class CutOffError(Exception):
    """The server dies here."""


class FakeInstance:
    """`statuses` are answered in turn, the last one for ever. `records` are what the stream tells;
    then the instance is dead for whoever follows, unless it `stays_open`.

    Each of `cuts` is for one connection, in turn: so many bytes of the answer come before the
    server dies, and another takes its place; NOT_READ: it has not even taken the question.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.statuses = [make_status()]
        self.records: list[api.Record] = []
        self.stays_open = False
        self.cuts: list[int] = []
        self.asked: list[str] = []
        self.reactions: dict[str, Reaction] = {
            api.RELOAD_PATH: lambda _body: api.ReloadAccepted(5, 40),
            api.SCALE_PATH: lambda body: api.ScaleAccepted(
                msgspec.json.decode(body, type=api.ScaleRequest).workers
            ),
            api.STOP_PATH: lambda _body: api.StopAccepted(),
            api.UPGRADE_PATH: lambda _body: api.UpgradeAccepted(40),
        }
        self.ended = threading.Event()
        self._server = _Server(str(path), _Handler)
        self._server.instance = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()

    def die(self) -> None:
        """Nobody else will come, and those who listen are cut off."""
        self.path.unlink(missing_ok=True)
        self.ended.set()

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next_status(self) -> api.Status:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def next_cut(self) -> int | None:
        return self.cuts.pop(0) if self.cuts else None


class _Server(socketserver.ThreadingUnixStreamServer):
    instance: FakeInstance
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client may go away. All else is the test's, whose stderr may be closed by now."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):
            raise error


class _Scissors(io.BufferedIOBase):
    """Writes so many bytes, then the server dies."""

    def __init__(self, stream: io.BufferedIOBase, left: int) -> None:
        self._stream = stream
        self._left = left

    def write(self, data: Any) -> int:
        self._stream.write(data[: self._left])
        self._left -= len(data)
        if self._left < 0:
            raise CutOffError
        return len(data)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        cut = self.server.instance.next_cut()
        if cut == NOT_READ:
            return
        if cut is not None:
            self.wfile = _Scissors(self.wfile, cut)
        with suppress(CutOffError):
            self.handle_one_request()

    def do_GET(self) -> None:
        instance = self.server.instance
        instance.asked.append(f"GET {self.path}")
        if self.path == api.STATUS_PATH:
            self._answer(200, instance.next_status())
            return
        query = {key: found[-1] for key, found in parse_qs(urlsplit(self.path).query).items()}
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk(b": a comment\n\n")
        since = int(query.get("since", instance.statuses[0].last_event))
        if "since" not in query:
            self._chunk(api.encode_position(since))
        for one in instance.records:
            if one.id > since:
                self._chunk(api.encode_frame(one))
        if query["follow"] == "false":
            self._chunk(b"")
        elif instance.stays_open:
            instance.ended.wait()
        else:
            instance.die()

    def do_POST(self) -> None:
        instance = self.server.instance
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        instance.asked.append(f"POST {self.path} {body.decode()}")
        answer = instance.reactions[self.path](body)
        self._answer(409 if isinstance(answer, api.Problem) else 202, answer)

    def _answer(self, status: int, answer: msgspec.Struct) -> None:
        data = msgspec.json.encode(answer)
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _chunk(self, data: bytes) -> None:
        """An empty one is the last (RFC 9112 §7.1)."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
