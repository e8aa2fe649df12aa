"""The fork server and the configuration: read at the beginning, and whenever the server asks."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sengu.posix import packets
from sengu.posix.swap_file import make_swap_file
from sengu.wire import forkserver as wire
from tests.kernel.nursery import Nursery, exited, read_line, status_of

# An engine whose configuration is the file `config.json`; workers say what they find.
ENGINE = """
import json, sys
import fake_engine
from sengu.worker.engine import Configuration, LoadError

class Prepared(fake_engine.Prepared):
    def configure(self):
        with open("config.json", "rb") as stream:
            data = stream.read()
        try:
            found = json.loads(data)
        except ValueError as error:
            raise LoadError(f"it is wrong: {error}", "traceback" * 2000) from error
        if "raises" in found:
            raise SystemExit("enough")
        return Configuration(data, {key: found[key] for key in found if key == "workers"})

prepare = Prepared
"""
TELL = "print(runtime.configuration.read(), runtime.application.target, file=sys.stderr)"


class Configured:
    """A nursery with such an engine, and the server's part of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "configured_engine.py").write_text(ENGINE)
        self.file = make_swap_file("test")

    def put(self, **values: Any) -> None:
        (self.directory / "config.json").write_text(json.dumps(values))

    def nursery(self) -> Nursery:
        return Nursery(self.directory, engine="configured_engine", options={"run": TELL})

    def load(self, nursery: Nursery, inquiry: int = 0) -> tuple[wire.FromForkServer, bytes]:
        order = wire.Load(nursery.application, "fake", 1, inquiry=inquiry)
        packets.send(nursery.socket, wire.encode(order), (nursery.memory_fd, self.file.fd))
        return self.hear(nursery)

    def ask(self, nursery: Nursery, inquiry: int) -> None:
        packets.send(nursery.socket, wire.encode(wire.Configure(inquiry)))

    def hear(self, nursery: Nursery) -> tuple[wire.FromForkServer, bytes]:
        """A report, and what is in the memory file beside it."""
        data, passed = packets.receive(nursery.socket)
        assert data, nursery.stderr.read_text()
        content = b""
        for fd in passed:
            content += os.pread(fd, os.fstat(fd).st_size, 0)
            os.close(fd)
        return wire.decode_report(data), content


@pytest.fixture
def configured(free_path: Path) -> Configured:
    made = Configured(free_path)
    made.put(n=1)
    return made


def test_it_is_read_before_the_first_worker_and_told_with_its_settings(
    configured: Configured,
) -> None:
    configured.put(n=1, workers=8)
    with configured.nursery() as nursery:
        report, content = configured.load(nursery, inquiry=3)
        assert report == wire.Loaded(settings={"workers": 8}, inquiry=3)
        assert json.loads(content) == {"n": 1, "workers": 8}


def test_one_that_can_not_be_read_ends_the_load(configured: Configured) -> None:
    (configured.directory / "config.json").write_text("{")
    with configured.nursery() as nursery:
        report, _ = configured.load(nursery)
        assert isinstance(report, wire.LoadFailed)
        assert report.problem.startswith("it is wrong: ")


def test_it_is_read_afresh_for_each_question_and_a_question_that_comes_twice_is_answered_once(
    configured: Configured,
) -> None:
    with configured.nursery() as nursery:
        configured.load(nursery)
        for inquiry in (1, 2):
            configured.put(n=inquiry + 1, workers=inquiry)
            configured.ask(nursery, inquiry)
            configured.ask(nursery, inquiry)
            report, content = configured.hear(nursery)
            assert report == wire.Configured(inquiry, {"workers": inquiry})
            assert json.loads(content)["n"] == inquiry + 1


def test_whatever_it_raises_is_told_and_the_fork_server_goes_on(configured: Configured) -> None:
    with configured.nursery() as nursery:
        configured.load(nursery)
        (configured.directory / "config.json").write_text("{" * 10)
        configured.ask(nursery, 1)
        report, _ = configured.hear(nursery)
        assert isinstance(report, wire.ConfigureFailed)
        assert (report.inquiry, len(report.details)) == (1, 8000)
        configured.put(raises=True)
        configured.ask(nursery, 2)
        report, _ = configured.hear(nursery)
        assert isinstance(report, wire.ConfigureFailed)
        assert report.problem == "SystemExit: enough"
        configured.put(n=3)
        configured.ask(nursery, 3)
        assert configured.hear(nursery)[0] == wire.Configured(3, {})


def test_a_large_one_is_not_cut_off(configured: Configured) -> None:
    configured.put(n="x" * 1_000_000)
    with configured.nursery() as nursery:
        assert len(configured.load(nursery)[1]) > 1_000_000


def test_what_is_too_much_for_the_server_is_refused_where_it_was_read(
    configured: Configured,
) -> None:
    with configured.nursery() as nursery:
        configured.load(nursery)
        configured.put(workers="8" * wire.MAX_SETTINGS_BYTES)
        configured.ask(nursery, 1)
        report, _ = configured.hear(nursery)
        assert isinstance(report, wire.ConfigureFailed)
        assert report.problem.startswith("what is a setting by its name is 32")
        configured.put(n="x" * wire.MAX_CONFIGURATION_BYTES)
        configured.ask(nursery, 2)
        report, _ = configured.hear(nursery)
        assert isinstance(report, wire.ConfigureFailed)
        assert report.problem.startswith("the configuration is 167772")


def test_workers_are_born_between_questions_with_what_the_server_has_put_there(
    configured: Configured,
) -> None:
    with configured.nursery() as nursery:
        configured.load(nursery)
        configured.file.write(b"one")
        first = nursery.fork()
        read_line(first.stderr)
        assert read_line(first.stderr) == "(1, b'one') fake:app"
        other = msgspec.structs.replace(nursery.application, target="other:app")
        configured.ask(nursery, 1)
        packets.send(nursery.socket, wire.encode(wire.Amend(other)))
        configured.file.write(b"two")
        second = nursery.fork(1)
        read_line(second.stderr)
        assert read_line(second.stderr) == "(2, b'two') other:app"
        assert configured.hear(nursery)[0] == wire.Configured(1, {})


def test_a_worker_that_does_not_look_takes_no_harm_and_its_children_have_the_default(
    configured: Configured,
) -> None:
    run = (
        "import signal, subprocess\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "child.send_signal(signal.SIGUSR2)\n"
        "print('child', child.wait(), file=sys.stderr)"
    )
    with Nursery(configured.directory, options={"run": run}) as nursery:
        nursery.load()
        baby = nursery.fork()
        read_line(baby.stderr)
        assert read_line(baby.stderr) == f"child {-signal.SIGUSR2}"
        os.kill(baby.pid, signal.SIGUSR2)
        assert not exited(baby, 0.2)
        os.kill(baby.pid, signal.SIGTERM)
        assert status_of(baby) == 0
