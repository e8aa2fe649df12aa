"""`sengu demo` shows what it promises, fails when it must, and leaves nothing behind."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest

from sengu.demo import main, site, story
from sengu.demo.ledger import Ledger
from sengu.demo.request import decode_line
from sengu.demo.verdict import judge
from tests.processes import descendants, wait_gone
from tests.support import PROGRAM, Sengu, environment

HELLO = Path(__file__).parents[2] / "examples" / "hello" / "server.py"
ANSWER = b"HTTP/1.1 200 OK\r\nX-Version: ash\r\nContent-Length: 2\r\n\r\nhi"
PATIENCE = 30.0


@pytest.fixture
def private_tmp(tmp_path: Path, free_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demonstration makes temporary directories; pytest has made its own before."""
    assert tmp_path.is_dir()
    monkeypatch.setenv("TMPDIR", str(free_path))
    return free_path


def test_the_demonstration_loses_nothing_and_draws_a_picture(
    sengu: Sengu, private_tmp: Path, tmp_path: Path
) -> None:
    picture = tmp_path / "demo.svg"
    done = sengu.run("demo", "--quick", "--svg", str(picture))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"requests sent, .* answered, 0 lost", done.stdout)
    assert "5 deploys succeeded" in done.stdout
    assert "the deploy of the broken version was aborted" in done.stdout
    assert "ModuleNotFoundError: No module named" in done.stdout
    assert "the killed worker was replaced" in done.stdout
    words = [element.text for element in ElementTree.parse(picture).iter() if element.text]
    assert {*story.VERSIONS[1:], "broken: aborted", "kill -9"} <= set(words)
    assert picture.stat().st_size < 60_000
    assert not list(private_tmp.iterdir())


def test_a_program_that_drops_what_it_has_in_hand_fails_the_demonstration(
    sengu: Sengu,
    private_tmp: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    careless = tmp_path / "server.py"
    source = HELLO.read_text()
    careless.write_text(source.replace("lambda *_: None)", "lambda *_: os._exit(0))"))
    assert careless.read_text() != source
    monkeypatch.setattr(main, "find_program", lambda: careless)
    monkeypatch.setattr("tempfile.tempdir", str(private_tmp))
    code = main.run(quick=True, svg=str(tmp_path / "demo.svg"), cast=story.Cast(3, 12))
    out = capfd.readouterr().out
    assert code == 1, out
    assert re.search(r"answered, [1-9]\d* lost", out)
    assert "lost: the connection was cut while waiting for the answer" in out
    assert not list(private_tmp.iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_demonstration_leaves_nothing(
    sengu: Sengu, private_tmp: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(
        [*PROGRAM, "demo", "--svg", str(tmp_path / "demo.svg")],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        seen = []
        for line in process.stdout:
            seen.append(line)
            if "clients come" in line:
                process.send_signal(number)
        assert process.wait(PATIENCE) == 130, "".join(seen)
    assert "interrupted" in seen[-1]
    assert not list(private_tmp.iterdir())
    assert not list(tmp_path.iterdir())


def test_a_demonstration_killed_at_once_takes_its_processes_with_it(
    sengu: Sengu, private_tmp: Path, tmp_path: Path
) -> None:
    before = descendants()
    with subprocess.Popen(
        [*PROGRAM, "demo", "--svg", str(tmp_path / "demo.svg")],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if "clients come" in line)
        process.kill()
    assert not wait_gone(descendants() - before, PATIENCE)


def test_a_picture_that_cannot_be_written_is_found_out_at_once(sengu: Sengu) -> None:
    done = sengu.run("demo", "--svg", "/proc/nowhere/demo.svg")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "cannot write --svg '/proc/nowhere/demo.svg'" in done.stderr


def test_the_example_of_the_checkout_is_what_is_demonstrated() -> None:
    assert site.find_program() == HELLO


def test_current_is_always_a_whole_release(tmp_path: Path) -> None:
    place = site.Site(tmp_path, HELLO)
    for version in ("ash", "birch"):
        place.build(version)
        place.switch(version)
        assert (tmp_path / "current" / "VERSION").read_text() == f"{version}\n"
        assert (tmp_path / "current" / "server.py").read_text() == HELLO.read_text()


@contextmanager
def server_that(answers: list[bytes]) -> Iterator[int]:
    """Gives each connection the next answer, in turn, and closes it; the port it listens on."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            number = 0
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:  # shut down: the test is over
                    return
                with client:
                    client.recv(4096)
                    client.sendall(answers[number % len(answers)])
                number += 1

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def load_until(port: int, requests: int) -> Ledger:
    """What the clients tell about a server, when they are ended after so many requests."""
    order = {"port": port, "target": "/", "clients": 2, "interval_seconds": 0.01}
    ledger = Ledger(0.0)
    ledger.announce("ash")
    with subprocess.Popen(
        [sys.executable, "-m", "sengu.demo.load", json.dumps(order)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            message = decode_line(line)
            if isinstance(message, int):
                ledger.sent = message
            else:
                ledger.add_request(message)
            if len(ledger.requests) == requests:
                process.stdin.close()
    return ledger


def test_clients_tell_the_fate_of_every_request() -> None:
    with server_that([ANSWER]) as port:
        verdict = judge(load_until(port, requests=20))
    assert verdict.is_good
    assert verdict.sent >= 20


@pytest.mark.parametrize(
    "answer", [b"", ANSWER[:-1], ANSWER[:20], ANSWER.replace(b"200 OK", b"503 Busy")]
)
def test_clients_notice_every_answer_that_is_none(answer: bytes) -> None:
    with server_that([ANSWER, answer]) as port:
        verdict = judge(load_until(port, requests=20))
    assert not verdict.is_good
    assert len(verdict.lost) in (verdict.sent // 2, verdict.sent - verdict.sent // 2)


def test_clients_notice_that_nobody_listens() -> None:
    with socket.socket() as bound:  # so that nobody else gets the port
        bound.bind(("127.0.0.1", 0))
        verdict = judge(load_until(bound.getsockname()[1], requests=5))
    assert len(verdict.lost) == verdict.sent
    assert {request.fault for request in verdict.lost} == {"no connection"}
