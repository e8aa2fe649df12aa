"""`sengu publish`: what is published of what is given, and what is refused."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sengu.cli.main import run
from sengu.consumers import PublishError

Capture = pytest.CaptureFixture[str]


class Published:
    """Takes the place of a publisher: `calls` are queue, body, type and what else."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes, str, dict[str, Any]]] = []
        self.most: int | None = None

    def __enter__(self) -> "Published":
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def publish(self, queue: str, data: bytes, **options: Any) -> str:
        if self.most is not None and len(self.calls) >= self.most:
            raise PublishError("there is no queue")
        self.calls.append((queue, data, options.pop("content_type"), options))
        return "id"

    def publish_all(self, queue: str, bodies: Iterable[bytes], **options: Any) -> int:
        return len([self.publish(queue, body, **options) for body in bodies])

    @property
    def bodies(self) -> list[tuple[bytes, str]]:
        return [(body, content_type) for _queue, body, content_type, _options in self.calls]


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Published:
    published = Published()
    monkeypatch.setattr("sengu.consumers.publisher.Publisher", lambda *_a, **_k: published)
    return published


@pytest.fixture
def stdin(tmp_path: Path) -> Iterator[Path]:
    """What is written to this file is what stdin has."""
    path = tmp_path / "stdin"
    path.touch()
    kept = os.dup(0)
    with path.open("rb") as stream:
        os.dup2(stream.fileno(), 0)
    yield path
    os.dup2(kept, 0)
    os.close(kept)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ('{"url": "x"}', "application/json"),
        ("[1]", "application/json"),
        ("7", "application/json"),
        ("hello", "text/plain"),
        ("", "text/plain"),
        ("grüße", "text/plain"),
        (os.fsdecode(b"\xff\x00"[:1]), "application/octet-stream"),
        ("[" * 100_000, "text/plain"),
    ],
)
def test_the_type_is_what_it_can_be_read_as(
    body: str, content_type: str, published: Published
) -> None:
    assert run(["publish", "q", "--", body]) == 0
    assert published.bodies == [(os.fsencode(body), content_type)]


def test_what_is_given_reaches_the_publisher(published: Published, capfd: Capture) -> None:
    words = "q hi --exchange e --routing-key k --content-type x/y --header a=b=c --message-id 7"
    assert run(["publish", *words.split()]) == 0
    options = {"exchange": "e", "routing_key": "k", "headers": {"a": "b=c"}, "message_id": "7"}
    assert published.calls == [("q", b"hi", "x/y", options)]
    assert capfd.readouterr().out == "1 message published to exchange e\n"


@pytest.mark.parametrize("args", [[], ["-"]])
def test_stdin_is_published_as_it_is(args: list[str], published: Published, stdin: Path) -> None:
    stdin.write_bytes(b"a\r\nb\n")
    assert run(["publish", "q", *args]) == 0
    assert published.bodies == [(b"a\r\nb\n", "text/plain")]


def test_lines_are_a_message_each(published: Published, stdin: Path, capfd: Capture) -> None:
    stdin.write_bytes(b'one\r\n{"a": 1}\n\nlast')
    assert run(["publish", "q", "--lines"]) == 0
    assert published.bodies == [
        (b"one", "text/plain"),
        (b'{"a": 1}', "application/json"),
        (b"", "text/plain"),
        (b"last", "text/plain"),
    ]
    assert capfd.readouterr().out == "4 messages published to q\n"


def test_lines_longer_than_what_is_read_at_once_are_whole(
    published: Published, stdin: Path
) -> None:
    lines = [b"x" * size for size in (200_000, 1, 65_535, 65_536)]
    stdin.write_bytes(b"".join(line + b"\n" for line in lines))
    assert run(["publish", "q", "--lines"]) == 0
    assert [body for body, _type in published.bodies] == lines


def test_a_failure_says_how_many_were_published_before(
    published: Published, stdin: Path, capfd: Capture
) -> None:
    stdin.write_bytes(b"7\ntext\n")
    published.most = 1
    assert run(["publish", "q", "--lines"]) == 1
    assert "(1 message before were published, line 2 may not)" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        ([], "missing argument 'QUEUE'"),
        (["q", "x", "--header", "from"], "write it as in --header from=me"),
        (["q", "x", "--header", "=me"], "is not NAME=VALUE"),
        (["q", "x", "--routing-key", "k"], "--routing-key is for --exchange"),
        (["q", "--lines", "--message-id", "7"], "--message-id is for one message"),
        (["q", "x", "--broker", "amqp://me:hunter2/@mq"], "/ as %2F"),
        (["q", "x", "--connect-timeout", "0"], "more than 0 seconds"),
    ],
)
def test_bad_input_is_one_line(args: list[str], hint: str, capfd: Capture) -> None:
    assert run(["publish", *args]) == 2
    err = capfd.readouterr().err
    assert re.fullmatch(r"sengu: error: .*\n", err)
    assert hint in err
    assert "hunter2" not in err


def test_a_broker_that_is_not_there_is_told(capfd: Capture) -> None:
    args = ["--broker", "amqp://me:hunter2@127.0.0.1:1", "--connect-timeout", "1ms"]
    assert run(["publish", "q", "x", *args]) == 1
    err = capfd.readouterr().err
    assert "nothing listens at 127.0.0.1:1; start the broker" in err
    assert "hunter2" not in err
