"""Sink and Relay on real pipes, files and devices: nobody waits, lines stay whole."""

import fcntl
import os
import re
import resource
import select
import signal
import termios
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from sengu.posix.loop import Loop
from sengu.server.output import Relay, Sink
from tests.kernel.children import in_child, nothing_left_open, run_until
from tests.kernel.shelf import Shelf

LINE = b"%06d " + b"x" * 92 + b"\n"  # 100 bytes
LOST = re.compile(rb"^sengu: (\d+) lines of output were lost: it could not be written$")


def with_stderr(fd: int) -> tuple[Loop, Sink]:
    """A sink of this process, whose stderr is `fd` from now on."""
    os.dup2(fd, 2)
    loop = Loop()
    return loop, Sink(loop)


def pipe_of_a_page() -> tuple[int, int]:
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    return read_end, write_end


def test_lines_arrive_in_order() -> None:
    def body() -> None:
        read_end, write_end = os.pipe()
        _, sink = with_stderr(write_end)
        sink.write(b"one\ntwo\n")
        sink.write(b"three\n")
        assert os.read(read_end, 100) == b"one\ntwo\nthree\n"

    in_child(body)


def test_a_reader_that_is_slow_gets_everything_as_long_as_there_is_room() -> None:
    def body() -> None:
        read_end, write_end = pipe_of_a_page()
        loop, sink = with_stderr(write_end)
        sent = b"".join(LINE % number for number in range(5000))
        for number in range(5000):
            sink.write(LINE % number)  # does not block: 500 kB into a page
        received = b""

        def read() -> bool:
            nonlocal received
            received += os.read(read_end, 1 << 16)
            return len(received) >= len(sent)

        run_until(loop, read)
        assert received == sent

    in_child(body)


def test_a_terminal_that_nobody_draws_holds_nobody_up() -> None:
    def body() -> None:
        screen, terminal = os.openpty()
        loop, sink = with_stderr(terminal)
        sent = b"".join(LINE % number for number in range(2000))
        sink.write(sent)  # does not block: 200 kB into a few
        assert os.get_blocking(terminal), "it is the workers' too"
        received = b""

        def read() -> bool:
            nonlocal received
            received += os.read(screen, 1 << 16)
            return len(received) >= len(sent) + 2000

        run_until(loop, read)
        assert received.replace(b"\r\n", b"\n") == sent
        read_end, write_end = os.pipe()
        sink.redirect(write_end)
        sink.write(b"heard\n")
        assert os.read(read_end, 100) == b"heard\n"

    in_child(body)


def test_in_the_background_a_terminal_that_minds_is_written_to_all_the_same() -> None:
    def body() -> None:
        screen, terminal = os.openpty()
        os.login_tty(os.dup(terminal))
        modes = termios.tcgetattr(terminal)
        modes[3] |= termios.TOSTOP
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
        child = os.fork()
        if child == 0:
            os.setpgid(0, 0)  # what a shell does for `sengu start … &`
            signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # as the server does (server.main)
            signal.alarm(10)
            _, sink = with_stderr(terminal)
            sink.write(b"heard\n")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0
        shown = b""
        while not shown.endswith(b"\n"):  # the kernel may draw the end of a line later
            shown += os.read(screen, 100)
        assert shown == b"heard\r\n"

    in_child(body)


def test_what_a_reader_that_does_not_read_loses_is_counted() -> None:
    def body() -> None:
        read_end, write_end = pipe_of_a_page()
        loop, sink = with_stderr(write_end)
        for number in range(20_000):
            sink.write(LINE % number)
        received = b""

        def read() -> bool:
            nonlocal received
            received += os.read(read_end, 1 << 16)
            return b"were lost" in received

        run_until(loop, read)
        *lines, last = received.splitlines()
        told = LOST.match(last)
        assert told is not None
        assert lines == [LINE.rstrip() % number for number in range(len(lines))]
        assert len(lines) + int(told[1]) == 20_000

    in_child(body)


def test_a_sink_that_waits_loses_nothing_and_holds_up_who_writes() -> None:
    def body() -> None:
        read_end, write_end = pipe_of_a_page()
        os.dup2(write_end, 2)
        loop = Loop()
        sink = Sink(loop, waits=True)
        with Shelf() as shelf:
            relay = Relay(loop, sink, shelf, "output/worker/1/2")
            worker = os.dup(relay.write_end)
            relay.start()
            os.set_blocking(worker, False)
            sent = 0
            with suppress(BlockingIOError):  # it would wait
                while sent < 20_000:
                    assert os.write(worker, LINE % sent) == len(LINE % sent)
                    sent += 1
                    loop.run_once(loop.now())
            assert 500 < sent < 2000, "its pipe, a piece of it here, and a page"
            os.close(worker)
            data = bytearray()

            def read() -> bool:
                data.extend(os.read(read_end, 1 << 16))
                return len(data) >= sent * 100

            run_until(loop, read)
            assert data == b"".join(LINE % number for number in range(sent))

    in_child(body)


def test_what_a_kill_between_two_pieces_leaves_is_whole_lines() -> None:
    def body() -> None:
        read_end, write_end = pipe_of_a_page()
        _, sink = with_stderr(write_end)
        sink.write(b"".join(LINE % number for number in range(1000)))
        assert os.read(read_end, 1 << 16).endswith(b"\n")
        sink.flush()
        assert os.read(read_end, 1 << 16).endswith(b"\n")

    in_child(body)


def test_a_reader_that_is_gone_costs_lines_and_nothing_else() -> None:
    def body() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        read_end, write_end = os.pipe()
        _, sink = with_stderr(write_end)
        os.close(read_end)
        sink.write(b"lost\nlost\n")
        read_end, write_end = os.pipe()
        sink.redirect(write_end)
        sink.write(b"heard\n")
        assert os.read(read_end, 1000).splitlines()[-1] == b"heard"

    in_child(body)


def test_a_full_device_costs_lines_and_their_number_is_told_when_there_is_room() -> None:
    def body() -> None:
        _, sink = with_stderr(os.open("/dev/full", os.O_WRONLY))
        sink.write(b"a\nb\n")
        sink.write(b"c\n")
        read_end, write_end = os.pipe()
        sink.redirect(write_end)
        sink.write(b"heard\n")
        told, heard = os.read(read_end, 1000).splitlines()
        assert heard == b"heard"
        match = LOST.match(told)
        assert match is not None
        assert match[1] == b"3"

    in_child(body)


def test_a_line_torn_by_a_full_disk_is_not_glued_to_the_next(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def body() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        _, sink = with_stderr(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND))
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
        sink.write(b"first\nsecond\n")
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        sink.write(b"third\n")

    in_child(body)
    first, torn, third, told = log.read_bytes().splitlines()
    assert (first, torn, third) == (b"first", b"seco", b"third")
    assert LOST.match(told)


def test_the_file_can_be_rotated(tmp_path: Path) -> None:
    log = tmp_path / "log"

    def body() -> None:
        _, sink = with_stderr(os.open(os.devnull, os.O_WRONLY))
        sink.reopen(str(log))
        sink.write(b"old\n")
        log.rename(tmp_path / "log.1")
        sink.reopen(str(log))
        sink.write(b"new\n")
        with pytest.raises(FileNotFoundError):
            sink.reopen(str(tmp_path / "nowhere" / "log"))
        sink.write(b"newer\n")
        assert os.path.samestat(os.fstat(1), os.fstat(2))

    in_child(body)
    assert (tmp_path / "log.1").read_text() == "old\n"
    assert log.read_text() == "new\nnewer\n"


def test_at_the_end_what_is_left_is_written_if_somebody_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sengu.server.output._FINISH_SECONDS", 20.0)  # the reader may be slow

    def body() -> None:
        read_end, write_end = pipe_of_a_page()
        _, sink = with_stderr(write_end)
        for number in range(100):
            sink.write(LINE % number)
        if os.fork() == 0:
            os.close(write_end)
            os.close(2)
            with open(read_end, "rb") as stream:
                os._exit(0 if len(stream.read()) == 10_000 else 1)
        sink.finish()
        os.close(write_end)
        os.close(2)
        assert os.wait()[1] == 0

    in_child(body)


def test_at_the_end_nobody_is_waited_for_long() -> None:
    def body() -> None:
        _read_end, write_end = pipe_of_a_page()
        loop, sink = with_stderr(write_end)
        for number in range(100):
            sink.write(LINE % number)
        began = loop.now()
        sink.finish()
        assert loop.now() - began < 5

    in_child(body)


class Gathered(Sink):
    """A sink that only remembers."""

    def __init__(self, loop: Loop) -> None:
        super().__init__(loop)
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += data


def with_relay(use: Callable[[Loop, Relay, int, Gathered], object]) -> None:
    """A relay, and the worker's end of its pipe."""
    with nothing_left_open(), Shelf() as shelf:
        loop = Loop()
        sink = Gathered(loop)
        relay = Relay(loop, sink, shelf, "output/worker/1/2")
        write_end = os.dup(relay.write_end)
        relay.start()
        use(loop, relay, write_end, sink)
        relay.last_words()  # reads the end of the pipe, which closes it
        assert shelf.held == {}
        loop.close()


def test_a_relay_passes_whole_lines_on_and_the_rest_at_the_end() -> None:
    def use(loop: Loop, relay: Relay, write_end: int, sink: Gathered) -> None:
        os.write(write_end, b"one\ntw")
        run_until(loop, lambda: sink.data)
        assert sink.data == b"one\n"
        os.write(write_end, b"o\nthree")
        os.close(write_end)
        run_until(loop, lambda: sink.data.endswith(b"three\n"))
        assert sink.data == b"one\ntwo\nthree\n"
        assert relay.last_words() == "one\ntwo\nthree"

    with_relay(use)


def test_a_line_without_end_is_not_hoarded() -> None:
    def use(loop: Loop, _relay: Relay, write_end: int, sink: Gathered) -> None:
        os.set_blocking(write_end, False)
        sent = 0
        while sent < 1_000_000:
            if select.select([], [write_end], [], 0)[1]:
                sent += os.write(write_end, b"x" * 4096)
            loop.run_once(loop.now())
        assert len(sink.data) > 800_000
        assert max(map(len, sink.data.splitlines())) < 200_000
        os.close(write_end)

    with_relay(use)


def test_last_words_are_the_last_lines_with_all_that_is_in_the_pipe() -> None:
    def use(_loop: Loop, relay: Relay, write_end: int, _sink: Gathered) -> None:
        os.write(write_end, b"".join(b"line %d\n" % number for number in range(100)))
        os.write(write_end, b"\xff no utf-8")
        lines = relay.last_words().splitlines()
        assert len(lines) == 40
        assert lines[-2:] == ["line 99", "\ufffd no utf-8"]
        os.close(write_end)

    with_relay(use)


def test_last_words_end_although_somebody_writes_without_end() -> None:
    """`yes` on the other processor can be faster than we read."""

    def use(_loop: Loop, relay: Relay, write_end: int, _sink: Gathered) -> None:
        read = os.read
        os.set_blocking(write_end, False)

        def read_and_refill(fd: int, count: int) -> bytes:
            data = read(fd, count)
            os.write(write_end, b"y\n" * 1000)
            return data

        os.write(write_end, b"y\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "read", read_and_refill)
            assert relay.last_words().endswith("y")
        os.close(write_end)

    with_relay(use)


def test_an_abandoned_relay_leaves_nothing() -> None:
    with nothing_left_open(), Shelf() as shelf:
        loop = Loop()
        Relay(loop, Gathered(loop), shelf, "output/worker/1/2").abandon()
        assert shelf.held == {}
        loop.close()


# --- from one server to the next ---


def test_what_nobody_read_between_two_servers_is_read_by_the_second() -> None:
    with nothing_left_open(), Shelf() as shelf, closing(Loop()) as loop:
        sink = Gathered(loop)
        first = Relay(loop, sink, shelf, "output/worker/1/2")
        write_end = os.dup(first.write_end)
        first.start()
        os.write(write_end, b"one\n")
        run_until(loop, lambda: sink.data)
        kill(loop, first)
        os.write(write_end, b"two\n")
        shelf.pass_on()
        second = Relay(loop, sink, shelf, "output/worker/1/2")
        second.start()
        run_until(loop, lambda: sink.data == b"one\ntwo\n")
        assert second.last_words() == "two", "what was before its time it does not know"
        os.close(write_end)
        run_until(loop, lambda: not shelf.held)


def test_who_has_died_between_two_servers_has_last_words() -> None:
    with nothing_left_open(), Shelf() as shelf, closing(Loop()) as loop:
        sink = Gathered(loop)
        first = Relay(loop, sink, shelf, "output/worker/1/2")
        os.write(first.write_end, b"it is all over")
        kill(loop, first)
        shelf.pass_on()
        assert Relay(loop, sink, shelf, "output/worker/1/2").last_words() == "it is all over"
        assert sink.data == b"it is all over\n"
        assert shelf.held == {}


def test_a_worker_that_is_asked_for_again_gets_the_pipe_there_was() -> None:
    with nothing_left_open(), Shelf() as shelf, closing(Loop()) as loop:
        sink = Gathered(loop)
        kill(loop, Relay(loop, sink, shelf, "output/worker/1/2"))
        shelf.pass_on()
        second = Relay(loop, sink, shelf, "output/worker/1/2")
        assert second.write_end < 0
        second.open_again()
        write_end = os.dup(second.write_end)
        assert not os.get_inheritable(second.write_end)
        second.open_again()  # there is one
        second.start()
        os.write(write_end, b"born\n")
        os.close(write_end)
        run_until(loop, lambda: sink.data == b"born\n" and not shelf.held)


def kill(loop: Loop, relay: Relay) -> None:
    """What a server that is killed does to its own."""
    loop.unwatch(relay._fd)
    os.close(relay._fd)
    if relay.write_end >= 0:
        os.close(relay.write_end)
