"""The example programs keep their contract without sengu: any manager of sockets can run them."""

import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.support import environment, requires
from tests.system.puppets import wait_until

EXAMPLES = Path(__file__).parents[2] / "examples"
HELLO = EXAMPLES / "hello" / "server.py"
MULTI_ACCEPT = EXAMPLES / "multi_accept"
TIMEOUT = 20.0

# What a manager does between fork and exec: the socket becomes descriptor 3.
HAND_OVER = """
import os, sys
fd = int(sys.argv[1])
if fd == 3:
    os.set_inheritable(3, True)
else:
    os.dup2(fd, 3)
    os.close(fd)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """A listening socket and what it takes to start programs on it."""

    def __init__(self, notify_address: str) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self._notify_address = notify_address
        self._notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notified.bind(re.sub("^@", "\0", notify_address))
        self._notified.settimeout(TIMEOUT)

    @contextmanager
    def running(self, *command: str, **env: str) -> Iterator[subprocess.Popen[str]]:
        """Runs a program; the block begins when it has said READY=1."""
        fd = self.listener.fileno()
        with subprocess.Popen(
            [sys.executable, "-c", HAND_OVER, str(fd), *command],
            pass_fds=[fd],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(
                {
                    "LISTEN_FDS": "1",
                    "SERVER_STARTER_PORT": f"127.0.0.1:{self.address[1]}=3",
                    "SERVER_STARTER_GENERATION": "7",
                    "NOTIFY_SOCKET": self._notify_address,
                    **env,
                }
            ),
        ) as process:
            try:
                assert "READY=1" in self.notification().splitlines()
                yield process
            finally:
                process.kill()

    def notification(self) -> str:
        return self._notified.recv(4096).decode()

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=TIMEOUT)

    def ask(self, request: str) -> str:
        """Sends a request and reads to the end."""
        with self.connect() as client:
            client.sendall(request.encode())
            return read_all(client)

    def is_untouched(self) -> bool:
        """Whether a connection still waits in the queue."""
        return bool(select.select([self.listener], [], [], 0)[0])

    def close(self) -> None:
        self.listener.close()
        self._notified.close()


def read_all(client: socket.socket) -> str:
    pieces = iter(lambda: client.recv(4096), b"")
    return b"".join(pieces).decode()


def wait_in_hand(manager: Manager, client: socket.socket) -> None:
    """Waits until a worker has taken the connection: only then its other end has an inode."""
    ends = f"sport = :{manager.address[1]} and dport = :{client.getsockname()[1]}"
    command = [requires("ss"), "-Htne", "state", "established", ends]

    def is_in_hand() -> bool:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return re.search(r"\bino:[1-9]", said) is not None

    wait_until(is_in_hand, "a worker takes the connection")


@pytest.fixture
def manager(free_path: Path) -> Iterator[Manager]:
    with closing(Manager(f"{free_path}/notify")) as manager:
        yield manager


@pytest.fixture(scope="module")
def c_worker(tmp_path_factory: pytest.TempPathFactory) -> str:
    program = tmp_path_factory.mktemp("worker") / "worker"
    compiler = requires("gcc")
    source = str(MULTI_ACCEPT / "worker.c")
    flags = ["-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([compiler, *flags, "-o", str(program), source], check=True)
    return str(program)


@pytest.fixture(params=["c", "perl", "python", "shell"])
def worker(request: pytest.FixtureRequest) -> str:
    match request.param:
        case "c":
            return str(request.getfixturevalue("c_worker"))
        case "perl":
            requires("start_server")  # its package has the module that the worker uses
            return str(MULTI_ACCEPT / "worker.pl")
        case "python":
            return str(MULTI_ACCEPT / "worker.py")
        case _:
            return str(MULTI_ACCEPT / "worker.sh")


def test_hello_says_who_answers(manager: Manager) -> None:
    with manager.running(str(HELLO)) as server:
        head, body = manager.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").split("\r\n\r\n")
    lines = head.split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK"
    version = (HELLO.parent / "VERSION").read_text().strip()
    expected = {"Connection: close", "X-Generation: 7", f"X-Pid: {server.pid}"}
    assert expected | {f"X-Version: {version}", f"Content-Length: {len(body)}"} <= set(lines)
    assert body == f"hello from version {version}, process {server.pid}\n"


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("HEAD / HTTP/1.1", "200"),
        ("GET /slow?seconds=0 HTTP/1.0", "200"),
        ("GET /slow?seconds=nan HTTP/1.1", "200"),
        ("GET /slow?seconds=soon HTTP/1.1", "400"),
        ("GET //[ HTTP/1.1", "400"),
        ("\0\xff", "400"),
        ("GET /elsewhere HTTP/1.1", "404"),
        ("POST / HTTP/1.1", "405"),
    ],
)
def test_hello_answers_whatever_it_is_asked(
    manager: Manager, request_line: str, status: str
) -> None:
    with manager.running(str(HELLO)):
        assert manager.ask(f"{request_line}\r\n\r\n").startswith(f"HTTP/1.1 {status} ")


def test_hello_gets_past_clients_that_go_away(manager: Manager) -> None:
    with manager.running(str(HELLO)):
        manager.connect().close()
        with manager.connect() as client:
            client.sendall(b"GET / HT")
        silent = manager.connect()
        assert "200 OK" in manager.ask("GET / HTTP/1.1\r\n\r\n")
        assert silent.recv(1) == b""
        silent.close()


def test_hello_finishes_the_request_in_hand_and_takes_no_other(manager: Manager) -> None:
    with manager.running(str(HELLO)) as server, manager.connect() as client:
        client.sendall(b"GET /slow?seconds=0.5 HTTP/1.1\r\n\r\n")
        wait_in_hand(manager, client)
        server.send_signal(signal.SIGTERM)
        with manager.connect() as waiting:
            waiting.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert "200 OK" in read_all(client)
            client.close()
            assert server.wait(TIMEOUT) == 0
            assert "STOPPING=1" in manager.notification()
            assert manager.is_untouched()
            with manager.running(str(HELLO)):
                assert "200 OK" in read_all(waiting)


def test_hello_without_a_version_says_so_and_is_never_ready(free_path: Path) -> None:
    copy = free_path / "server.py"
    copy.write_text(HELLO.read_text())
    command = [sys.executable, str(copy)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    assert outcome.returncode == 1
    assert "VERSION" in outcome.stderr


def test_hello_tells_its_readiness_to_an_abstract_address(free_path: Path) -> None:
    with closing(Manager(f"@{free_path}")) as manager, manager.running(str(HELLO)):
        pass  # it said READY=1


def test_a_worker_answers_with_its_pid(manager: Manager, worker: str) -> None:
    with manager.running(worker) as process:
        assert manager.ask("0\n") == f"{process.pid}\n"
        assert manager.ask("no number, and more than it reads " * 9 + "\n") == f"{process.pid}\n"


def test_a_worker_tells_its_readiness_to_an_abstract_address(free_path: Path, worker: str) -> None:
    with closing(Manager(f"@{free_path}")) as manager, manager.running(worker):
        pass  # it said READY=1


def test_a_worker_finishes_the_client_in_hand_and_takes_no_other(
    manager: Manager, worker: str
) -> None:
    with manager.running(worker) as process, manager.connect() as client:
        client.sendall(b"500\n")
        wait_in_hand(manager, client)
        process.send_signal(signal.SIGTERM)
        with manager.connect() as waiting:
            waiting.sendall(b"0\n")
            assert read_all(client) == f"{process.pid}\n"
            client.close()
            assert process.wait(TIMEOUT) == 0
            assert manager.is_untouched()


def test_a_worker_survives_term_between_accept_and_request(manager: Manager, worker: str) -> None:
    with manager.running(worker) as process, manager.connect() as client:
        wait_in_hand(manager, client)
        process.send_signal(signal.SIGTERM)
        client.sendall(b"1")
        client.sendall(b"0\n")
        assert read_all(client) == f"{process.pid}\n"
        client.close()
        assert process.wait(TIMEOUT) == 0


def test_the_c_worker_takes_its_socket_from_server_starter_too(
    manager: Manager, c_worker: str
) -> None:
    with manager.running(c_worker, LISTEN_FDS="0") as process:
        assert manager.ask("0\n") == f"{process.pid}\n"


def test_ten_clients_are_answered_by_three_programs_on_one_socket(
    manager: Manager, c_worker: str
) -> None:
    requires("start_server")
    with (
        manager.running(c_worker) as first,
        manager.running(str(MULTI_ACCEPT / "worker.pl")) as second,
        manager.running(str(MULTI_ACCEPT / "worker.py")) as third,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(manager.connect()) for _ in range(3)]
        for client in clients:  # each by another program: none takes two at a time
            wait_in_hand(manager, client)
        clients += [stack.enter_context(manager.connect()) for _ in range(7)]
        for client in clients:
            client.sendall(b"100\n")
        answers = []
        for client in clients:
            answers.append(int(read_all(client)))
            client.close()
    assert set(answers) == {first.pid, second.pid, third.pid}
