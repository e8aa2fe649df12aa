"""A descriptor that is readable when its time is over."""

import errno
import os
import select
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from sengu.posix.timerfd import TimerDescriptor
from tests.kernel.children import nothing_left_open

PATIENCE_SECONDS = 20


@pytest.fixture
def timer() -> Iterator[TimerDescriptor]:
    with nothing_left_open(), closing(TimerDescriptor()) as timer:
        yield timer


def runs_down(timer: TimerDescriptor, seconds: float) -> bool:
    return bool(select.select([timer.fd], [], [], seconds)[0])


def test_it_runs_down_when_its_time_is_over_and_stays_so(timer: TimerDescriptor) -> None:
    began = time.monotonic()
    timer.wind(0.05)
    assert runs_down(timer, PATIENCE_SECONDS)
    assert time.monotonic() - began >= 0.05
    assert runs_down(timer, 0)


def test_one_that_is_wound_up_again_has_its_whole_time_again(timer: TimerDescriptor) -> None:
    timer.wind(0.001)
    assert runs_down(timer, PATIENCE_SECONDS)
    timer.wind(60)
    assert not runs_down(timer, 0)


def test_one_that_is_not_wound_up_never_runs_down(timer: TimerDescriptor) -> None:
    assert not runs_down(timer, 0.01)
    timer.wind(0.01)
    timer.wind(0)
    assert not runs_down(timer, 0.05)


def test_whoever_has_a_copy_sees_the_same(timer: TimerDescriptor) -> None:
    copy = os.dup(timer.fd)
    timer.wind(0.001)
    assert select.select([copy], [], [], PATIENCE_SECONDS)[0]
    timer.wind(60)
    assert not select.select([copy], [], [], 0)[0]
    os.close(copy)


def test_reading_one_that_has_time_left_does_not_wait(timer: TimerDescriptor) -> None:
    timer.wind(60)
    with pytest.raises(BlockingIOError):
        os.read(timer.fd, 8)
    assert not os.get_inheritable(timer.fd)


def test_what_the_kernel_refuses_is_an_oserror(timer: TimerDescriptor) -> None:
    with pytest.raises(OSError, match="Invalid argument") as refused:
        timer.wind(-60)
    assert refused.value.errno == errno.EINVAL
