"""The prober against real workers that share a listener: whose answer makes whom ready."""

import os
import select
import signal
import socket
from collections.abc import Callable, Iterator, Set
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from sengu.posix.loop import Loop
from sengu.server import probe, probe_connection
from sengu.server.probe import Prober, Target, http_request, probe_target
from tests.kernel.children import Body, Child, nothing_left_open

_PATIENCE_SECONDS = 30.0
_LOOPBACK = ("127.0.0.1", 0)


class HastyLoop(Loop):
    """Its clock jumps to the next timer when nothing else is to be done: deadlines of seconds
    pass at once. For tests in which no other process needs time to do its part."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead = 0.0

    def now(self) -> float:
        return super().now() + self._ahead

    def run_once(self, until: float | None) -> None:
        self._ahead += self._timeout(until) or 0.0
        super().run_once(until)


def _run(loop: Loop, until: Callable[[], bool], what: Callable[[], str]) -> None:
    end = loop.now() + _PATIENCE_SECONDS
    while not until():
        assert loop.now() < end, what()
        loop.run_once(end)


class Probing:
    """A prober, its loop and what it found."""

    def __init__(self, loop: Loop, listener: socket.socket, pid: int, path: str | None) -> None:
        self.reasons: list[str] = []
        self.loop = loop
        request = None if path is None else http_request(path)
        self.prober = Prober(loop, probe_target(listener), pid, request, self.reasons.append)

    def run_until(self, condition: Callable[[], bool]) -> None:
        _run(self.loop, condition, lambda: f"{self.reasons}, {self.prober.last_problem}")

    def run_until_ready(self) -> str:
        self.run_until(lambda: bool(self.reasons))
        assert len(self.reasons) == 1
        return self.reasons[0]

    def run_until_problem(self, problem: str) -> None:
        self.run_until(lambda: self.prober.last_problem == problem)
        assert self.reasons == []


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with nothing_left_open(), ExitStack() as stack:
        yield stack


@pytest.fixture
def loop(stack: ExitStack) -> Loop:
    loop = Loop()
    stack.callback(loop.close)
    return loop


@pytest.fixture
def hasty_loop(stack: ExitStack) -> Loop:
    loop = HastyLoop()
    stack.callback(loop.close)
    return loop


@pytest.fixture
def listener(stack: ExitStack) -> socket.socket:
    return stack.enter_context(socket.create_server(_LOOPBACK, backlog=256))


def _start(stack: ExitStack, body: Body) -> Child:
    child = stack.enter_context(Child(body))
    child.wait_to_hear("ready")
    return child


def _probe(
    stack: ExitStack, loop: Loop, listener: socket.socket, pid: int, path: str | None = None
) -> Probing:
    probing = Probing(loop, listener, pid, path)
    stack.callback(probing.prober.cancel)
    return probing


def _accepting(listener: socket.socket) -> Body:
    """A worker that accepts when it is woken and the kernel prefers the first to wait."""

    def work(child: Child) -> None:
        listener.setblocking(False)
        epoll = select.epoll()
        epoll.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        child.tell("ready")
        connections: dict[int, socket.socket] = {}
        while True:
            for fd, _events in epoll.poll():
                if fd != listener.fileno():
                    _serve_once(child, connections[fd])
                    if connections[fd].fileno() < 0:
                        del connections[fd]
                    continue
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:  # another was quicker
                    continue
                connections[connection.fileno()] = connection
                epoll.register(connection, select.EPOLLIN)

    return work


def _serve_once(child: Child, connection: socket.socket) -> None:
    try:
        data = connection.recv(65536)
    except OSError as error:
        child.tell(f"error {error}")
        connection.close()
        return
    if data:
        child.tell("request")
    else:
        child.tell("end")
        connection.close()


def _answering(listener: socket.socket, *answers: bytes, name: str = "") -> Body:
    """A worker with one connection at a time, which is closed after the answer. The last of the
    answers is repeated."""

    def work(child: Child) -> None:
        child.tell("ready")
        left = list(answers)
        while True:
            connection, _ = listener.accept()
            with connection:
                data = b""
                while b"\r\n\r\n" not in data and (more := connection.recv(65536)):
                    data += more
                if not data:
                    child.tell("end")
                    continue
                child.tell(f"request{name}")
                try:
                    connection.sendall(left[0] if len(left) == 1 else left.pop(0))
                    connection.shutdown(socket.SHUT_WR)
                    assert connection.recv(1) == b""
                except OSError as error:
                    child.tell(f"error {error}")

    return work


def _on_go(body: Body) -> Body:
    """The same worker, which does not touch the listener before `go`."""

    def work(child: Child) -> None:
        child.tell("ready")
        child.wait_for_go()
        body(child)

    return work


def _accept_all(stack: ExitStack, listener: socket.socket) -> list[socket.socket]:
    """What is in the queue of a non-blocking listener. The test itself is the worker here."""
    accepted = []
    with suppress(BlockingIOError):
        while True:
            accepted.append(stack.enter_context(listener.accept()[0]))
    return accepted


def _answer(status: str, body: bytes = b"") -> bytes:
    return f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode() + body


@pytest.mark.parametrize("path", [None, "/health"])
@pytest.mark.parametrize("kind", ["tcp4", "any4", "tcp6", "any6", "dual", "path", "abstract"])
def test_worker_that_serves_is_ready(
    stack: ExitStack, loop: Loop, tmp_path: Path, kind: str, path: str | None
) -> None:
    choices: dict[str, tuple[int, tuple[str, int] | str, bool]] = {
        "tcp4": (socket.AF_INET, _LOOPBACK, False),
        "any4": (socket.AF_INET, ("0.0.0.0", 0), False),
        "tcp6": (socket.AF_INET6, ("::1", 0), False),
        "any6": (socket.AF_INET6, ("::", 0), False),
        "dual": (socket.AF_INET6, ("::", 0), True),
        "path": (socket.AF_UNIX, str(tmp_path / "s"), False),
        "abstract": (socket.AF_UNIX, f"\0sengu-test-{os.getpid()}", False),
    }
    family, address, dual = choices[kind]
    listener = stack.enter_context(socket.socket(family))
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
    listener.bind(address)
    listener.listen(64)
    worker = _start(stack, _answering(listener, _answer("200 OK")))
    reason = _probe(stack, loop, listener, worker.pid, path).run_until_ready()
    assert reason == (f"connection accepted by pid {worker.pid}" if path is None else "HTTP 200")


@pytest.mark.parametrize("path", [None, "/"])
def test_answer_of_an_old_worker_does_not_make_the_new_one_ready(
    stack: ExitStack, loop: Loop, listener: socket.socket, path: str | None
) -> None:
    old = _start(stack, _answering(listener, _answer("200 OK")))
    new = _start(stack, _on_go(_answering(listener, _answer("204 No Content"), name=" of new")))
    probing = _probe(stack, loop, listener, new.pid, path)
    probing.run_until(lambda: old.heard().count("end") >= 20)
    probing.run_until_problem("answered by another worker")
    new.go()
    accepted = f"connection accepted by pid {new.pid}"
    assert probing.run_until_ready() == (accepted if path is None else "HTTP 204")


def test_what_a_worker_has_answered_is_told_though_others_answer_later(
    stack: ExitStack, loop: Loop, listener: socket.socket
) -> None:
    new = _start(stack, _answering(listener, _answer("503 Service Unavailable")))
    probing = _probe(stack, loop, listener, new.pid, "/")
    probing.run_until_problem("HTTP 503")
    os.kill(new.pid, signal.SIGKILL)
    new.reap()
    old = _start(stack, _answering(listener, _answer("200 OK")))
    probing.run_until(lambda: old.heard().count("end") >= 20)
    probing.run_until_problem("HTTP 503")


@pytest.mark.parametrize("others", [1, 20])
def test_new_worker_behind_idle_favoured_ones_is_reached(
    stack: ExitStack, loop: Loop, listener: socket.socket, others: int
) -> None:
    for _ in range(others):
        _start(stack, _accepting(listener))
    new = _start(stack, _accepting(listener))
    _probe(stack, loop, listener, new.pid).run_until_ready()


@pytest.mark.parametrize("path", [None, "/"])
def test_other_workers_see_an_early_end_and_neither_error_nor_request(
    stack: ExitStack, loop: Loop, listener: socket.socket, path: str | None
) -> None:
    others = [_start(stack, _accepting(listener)) for _ in range(3)]
    idle = _start(stack, _on_go(lambda _child: None))
    _probe(stack, loop, listener, idle.pid, path).run_until(
        lambda: all(len(other.heard()) > 3 for other in others)
    )
    for other in others:
        assert set(other.heard()) == {"ready", "end"}


def test_worker_that_is_ready_sees_no_error_either(
    stack: ExitStack, loop: Loop, listener: socket.socket
) -> None:
    answer = _answer("200 OK", b"x" * 1_000_000)
    worker = _start(stack, _answering(listener, answer))
    probing = _probe(stack, loop, listener, worker.pid, "/")
    probing.run_until_ready()
    probing.run_until(lambda: not loop._callbacks)
    with socket.create_connection(listener.getsockname()) as client:
        client.sendall(http_request("/"))
        while client.recv(65536):
            pass
    worker.wait_to_hear("request")
    assert set(worker.heard()) <= {"ready", "request", "end"}


def test_process_that_the_worker_has_started_counts_as_the_worker(
    stack: ExitStack, loop: Loop, listener: socket.socket
) -> None:
    def wrap(child: Child) -> None:
        pid = os.fork()
        if pid == 0:
            _answering(listener, _answer("200 OK"))(child)
        child.tell(f"started {pid}")
        child.wait_for_go()

    wrapper = _start(stack, wrap)
    probing = _probe(stack, loop, listener, wrapper.pid)
    reason = probing.run_until_ready()
    assert reason == f"connection accepted by pid {wrapper.wait_to_hear('started ')}"


@pytest.mark.parametrize("status", ["500 Internal Server Error", "404 Not Found", "503"])
def test_bad_status_is_named_and_a_good_one_later_is_ready(
    stack: ExitStack, loop: Loop, listener: socket.socket, status: str
) -> None:
    answers = (*[_answer(status)] * 3, _answer("302 Found"))
    worker = _start(stack, _answering(listener, *answers))
    probing = _probe(stack, loop, listener, worker.pid, "/")
    probing.run_until_problem(f"HTTP {status[:3]}")
    assert probing.run_until_ready() == "HTTP 302"


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "the answer is not HTTP/1.x"),
        (b"", "closed without an answer"),
        (b"HTTP/1.1 20", "closed without an answer"),
    ],
)
def test_useless_answer_is_named(
    stack: ExitStack, loop: Loop, listener: socket.socket, answer: bytes, problem: str
) -> None:
    worker = _start(stack, _answering(listener, answer))
    _probe(stack, loop, listener, worker.pid, "/").run_until_problem(problem)


def test_worker_that_never_answers_is_named_and_asked_again(
    stack: ExitStack, loop: Loop, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe_connection, "ANSWER_SECONDS", 0.1)
    worker = _start(stack, _accepting(listener))
    probing = _probe(stack, loop, listener, worker.pid, "/")
    probing.run_until_problem("no HTTP answer yet")
    probing.run_until_problem("no HTTP answer within 0.1 s")
    probing.run_until(lambda: worker.heard().count("request") >= 3)


def test_reset_by_the_worker_is_named(
    stack: ExitStack, loop: Loop, listener: socket.socket
) -> None:
    def reset(child: Child) -> None:
        child.tell("ready")
        while True:
            connection, _ = listener.accept()
            if connection.recv(1):  # what is left unread makes the close a reset
                child.tell("request")
            connection.close()

    worker = _start(stack, reset)
    probing = _probe(stack, loop, listener, worker.pid, "/")
    probing.run_until_problem("connection reset by peer")


def test_refused_connection_is_named(stack: ExitStack, loop: Loop) -> None:
    deaf = stack.enter_context(socket.socket())  # nobody else may get its port
    deaf.bind(_LOOPBACK)
    target = probe_target(deaf)
    prober = Prober(loop, target, os.getpid(), None, lambda _reason: None)
    stack.callback(prober.cancel)
    _run(loop, lambda: prober.last_problem == "connection refused", lambda: prober.last_problem)


def test_missing_socket_file_is_named(stack: ExitStack, loop: Loop, tmp_path: Path) -> None:
    target = Target(socket.AF_UNIX, str(tmp_path / "missing"))
    prober = Prober(loop, target, os.getpid(), None, lambda _reason: None)
    stack.callback(prober.cancel)
    assert prober.last_problem == "no such file or directory"


def test_full_queue_of_a_unix_listener_is_named(
    stack: ExitStack, hasty_loop: Loop, tmp_path: Path
) -> None:
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(tmp_path / "s"))
    listener.listen(0)
    probing = _probe(stack, hasty_loop, listener, os.getpid())
    probing.run_until_problem("the accept queue is full")


def test_worker_that_cannot_be_looked_into_is_named(
    stack: ExitStack, loop: Loop, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_pid: int, _inodes: Set[int]) -> set[int]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(probe, "held_sockets", refuse)
    worker = _start(stack, _answering(listener, _answer("200 OK")))
    _probe(stack, loop, listener, worker.pid).run_until_problem(
        f"cannot look into /proc/{worker.pid}/fd: permission denied"
    )


def test_queue_that_nobody_serves_gets_a_few_connections_only(
    stack: ExitStack, hasty_loop: Loop, listener: socket.socket
) -> None:
    probing = _probe(stack, hasty_loop, listener, os.getpid())
    end = hasty_loop.now() + 60
    while hasty_loop.now() < end:
        hasty_loop.run_once(end)
    assert probing.prober.last_problem == "no worker accepts the connection"
    listener.setblocking(False)
    assert 1 <= len(_accept_all(stack, listener)) <= 8
    # One that has waited a minute is as good as a fresh one.
    probing.run_until_ready()


def test_others_that_never_close_do_not_use_up_our_descriptors(
    stack: ExitStack, hasty_loop: Loop, tmp_path: Path
) -> None:
    listener = stack.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(tmp_path / "s"))
    listener.listen(256)
    listener.setblocking(False)
    idle = _start(stack, _on_go(lambda _child: None))
    probing = _probe(stack, hasty_loop, listener, idle.pid)
    end = hasty_loop.now() + 60
    most = 0
    while hasty_loop.now() < end:
        hasty_loop.run_once(end)
        most = max(most, len(probing.prober._connections))
        _accept_all(stack, listener)
    assert 64 < most <= 128
    assert probing.prober.last_problem == "answered by another worker"


def test_after_ready_all_connections_close_by_themselves(
    stack: ExitStack, hasty_loop: Loop, listener: socket.socket
) -> None:
    probing = _probe(stack, hasty_loop, listener, os.getpid())
    accepted = stack.enter_context(listener.accept()[0])
    probing.run_until_ready()
    probing.run_until(lambda: not probing.prober._connections)
    assert accepted.recv(1) == b""
    assert probing.loop._timeout(None) is None, "a timer is left"


@pytest.mark.parametrize("path", [None, "/"])
def test_cancel_closes_everything_at_once(
    stack: ExitStack, loop: Loop, listener: socket.socket, path: str | None
) -> None:
    worker = _start(stack, _accepting(listener))
    idle = _start(stack, _on_go(lambda _child: None))
    with nothing_left_open():
        asked = Probing(loop, listener, worker.pid, path)
        ignored = Probing(loop, listener, idle.pid, path)
        ignored.run_until_problem("answered by another worker")
        asked.prober.cancel()
        ignored.prober.cancel()
        ignored.prober.cancel()
    assert loop._timeout(None) is None, "a timer is left"
    assert loop._callbacks == {}


def test_prober_may_be_cancelled_by_what_it_calls(
    stack: ExitStack, loop: Loop, listener: socket.socket
) -> None:
    worker = _start(stack, _answering(listener, _answer("200 OK")))
    probers: list[Prober] = []

    def done(_reason: str) -> None:
        probers.pop().cancel()

    with nothing_left_open():
        for request in (None, http_request("/")):
            probers.append(Prober(loop, probe_target(listener), worker.pid, request, done))
            _run(loop, lambda: not probers, lambda: probers[0].last_problem)
    assert loop._callbacks == {}


def test_only_bound_stream_sockets_are_probed() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as datagram, pytest.raises(ValueError, match="only"):
        probe_target(datagram)
    with socket.socket(socket.AF_UNIX) as unbound, pytest.raises(ValueError, match="not bound"):
        probe_target(unbound)
