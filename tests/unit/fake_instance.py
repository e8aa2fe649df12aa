"""A hand-written instance for tests of the command line: a control socket that plays a script."""

import socketserver
import threading
from collections.abc import Callable
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


class FakeInstance:
    """`statuses` are answered in turn, the last one for ever. `records` are what the stream
    tells; then it ends as that of a dead instance does, or stays open if `stays_open`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.statuses = [make_status()]
        self.records: list[api.Record] = []
        self.stays_open = False
        self.asked: list[str] = []
        self.reactions: dict[str, Reaction] = {
            api.RELOAD_PATH: lambda _body: api.ReloadAccepted(5, 40),
            api.SCALE_PATH: lambda body: api.ScaleAccepted(
                msgspec.json.decode(body, type=api.ScaleRequest).workers
            ),
            api.STOP_PATH: lambda _body: api.StopAccepted(),
        }
        self.ended = threading.Event()
        self._server = _Server(str(path), _Handler)
        self._server.instance = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}
        )
        self._thread.start()

    def close(self) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def next_status(self) -> api.Status:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


class _Server(socketserver.ThreadingUnixStreamServer):
    instance: FakeInstance


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        instance = self.server.instance
        instance.asked.append(f"GET {self.path}")
        if self.path == api.STATUS_PATH:
            self._answer(200, instance.next_status())
            return
        query = parse_qs(urlsplit(self.path).query)
        since = int(query.get("since", ["1000000"])[0])
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b": a comment\n\n")
        for one in instance.records:
            if one.id > since:
                self.wfile.write(api.encode_frame(one))
        if instance.stays_open and query["follow"] == ["true"]:
            instance.ended.wait()

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
