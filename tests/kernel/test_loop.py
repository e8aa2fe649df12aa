"""The loop: descriptors, timers, and callbacks that change both."""

import os
import select
import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from sengu.posix.loop import Loop
from tests.kernel.children import nothing_left_open, run_until


@pytest.fixture
def loop() -> Iterator[Loop]:
    with nothing_left_open(), closing(Loop()) as loop:
        yield loop


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_a_ready_descriptor_is_called_back_until_it_is_read(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    calls: list[str] = []
    loop.watch(pair[0].fileno(), select.EPOLLIN, lambda: calls.append("in"))
    loop.run_once(loop.now())
    assert not calls
    pair[1].send(b"x")
    loop.run_once(None)
    loop.run_once(None)
    assert calls == ["in", "in"]
    pair[0].recv(1)
    loop.run_once(loop.now())
    assert calls == ["in", "in"]


def test_a_second_watch_replaces_the_first(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    calls: list[str] = []
    loop.watch(pair[0].fileno(), select.EPOLLIN, lambda: calls.append("in"))
    loop.watch(pair[0].fileno(), select.EPOLLOUT, lambda: calls.append("out"))
    loop.run_once(None)
    assert calls == ["out"]


def test_an_unwatched_descriptor_is_not_called_back_even_in_the_same_round(
    loop: Loop, pair: tuple[socket.socket, socket.socket]
) -> None:
    calls: list[int] = []
    numbers = [end.fileno() for end in pair]

    def unwatch_both() -> None:
        calls.append(1)
        for number in numbers:
            loop.unwatch(number)

    for number in numbers:
        loop.watch(number, select.EPOLLOUT, unwatch_both)
    loop.run_once(None)
    assert calls == [1]
    loop.unwatch(numbers[0])  # twice is no error


def test_a_number_that_is_used_again_is_watched_anew(loop: Loop) -> None:
    calls: list[str] = []
    read_end, write_end = os.pipe()
    loop.watch(read_end, select.EPOLLIN, lambda: calls.append("old"))
    loop.unwatch(read_end)
    os.close(read_end)
    os.close(write_end)
    again, write_end = os.pipe()
    assert again == read_end
    loop.watch(again, select.EPOLLIN, lambda: calls.append("new"))
    os.write(write_end, b"x")
    loop.run_once(None)
    assert calls == ["new"]
    os.close(again)
    os.close(write_end)


def test_timers_run_in_the_order_of_their_moments_and_ties_as_they_were_set(loop: Loop) -> None:
    calls: list[str] = []
    now = loop.now()
    for name, delay in (("c", 0.02), ("a", 0.01), ("b", 0.01)):
        loop.call_at(now + delay, lambda name=name: calls.append(name))  # type: ignore[misc]
    run_until(loop, lambda: len(calls) == 3)
    assert calls == ["a", "b", "c"]
    assert loop.now() >= now + 0.02


def test_a_cancelled_timer_does_not_run_and_does_not_wake(loop: Loop) -> None:
    calls: list[str] = []
    timer = loop.call_at(loop.now() + 0.01, lambda: calls.append("never"))
    pending = [timer.is_pending]
    timer.cancel()
    pending.append(timer.is_pending)
    assert pending == [True, False]
    until = loop.now() + 0.05
    loop.run_once(until)
    assert loop.now() >= until, "woken by nothing"
    assert not calls
    timer.cancel()


def test_a_timer_set_by_a_timer_runs_too(loop: Loop) -> None:
    calls: list[str] = []

    def first() -> None:
        calls.append("first")
        loop.call_at(loop.now(), lambda: calls.append("second"))

    timer = loop.call_at(loop.now(), first)
    run_until(loop, lambda: len(calls) == 2)
    assert calls == ["first", "second"]
    assert not timer.is_pending


def test_a_wait_ends_at_what_comes_first(loop: Loop) -> None:
    calls: list[str] = []
    loop.call_at(loop.now() + 0.01, lambda: calls.append("timer"))
    loop.run_once(loop.now() + 60)
    loop.run_once(loop.now())
    assert calls == ["timer"]
    began = loop.now()
    loop.run_once(began - 60)  # a moment that has passed is no wait
    assert loop.now() - began < 60
