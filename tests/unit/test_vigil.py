"""Who is waited for before an old server is asked to stop, and for how long."""

from sengu.passage.vigil import Vigil
from sengu.posix.listening import Peer, Traffic

ONE, OTHER = ("192.0.2.1", 40001), ("192.0.2.2", 40002)
ASKED = Traffic(received=100, received_ms=5)
SILENT = Traffic()
ANSWERED = Traffic(received=100, sent=200, received_ms=9, sent_ms=2)
ASKS_AGAIN = Traffic(received=200, sent=200, received_ms=1, sent_ms=7)


class Kernel:
    """Tells who is connected."""

    def __init__(self) -> None:
        self.found: dict[Peer, Traffic] = {}
        self.asked = 0

    def __call__(self) -> dict[Peer, Traffic]:
        self.asked += 1
        return dict(self.found)

    def vigil(self, **found: Traffic) -> Vigil:
        """One that begins at 100 s when ONE, or OTHER too, are connected."""
        names = {"one": ONE, "other": OTHER}
        self.found = {names[name]: traffic for name, traffic in found.items()}
        return Vigil(self, 100.0)


def looks_until_over(vigil: Vigil, now: float = 100.0, waiting: int = 0) -> int | None:
    """None when it is not over after many."""
    return next((n for n in range(1, 10) if vigil.is_over(waiting, now)), None)


def test_with_nobody_there_it_is_over_after_three_looks() -> None:
    kernel = Kernel()
    assert looks_until_over(kernel.vigil()) == 3
    assert kernel.asked == 1, "nobody is left to be asked for"


def test_whoever_has_asked_is_waited_for_until_the_answer() -> None:
    kernel = Kernel()
    vigil = kernel.vigil(one=ASKED)
    assert looks_until_over(vigil, now=1000.0) is None
    kernel.found = {ONE: ANSWERED}
    assert looks_until_over(vigil) == 3


def test_half_an_answer_is_none() -> None:
    kernel = Kernel()
    vigil = kernel.vigil(one=Traffic(received=100, sent=50, received_ms=1, sent_ms=5))
    kernel.found = {ONE: Traffic(received=150, sent=60, received_ms=1, sent_ms=5)}
    assert looks_until_over(vigil) is None


def test_whoever_has_gone_is_not_waited_for() -> None:
    kernel = Kernel()
    vigil = kernel.vigil(one=ASKED, other=ASKED)
    kernel.found = {OTHER: ASKED}
    assert looks_until_over(vigil) is None
    kernel.found = {}
    assert looks_until_over(vigil) == 3


def test_who_comes_later_has_come_to_others() -> None:
    kernel = Kernel()
    vigil = kernel.vigil(one=ASKED)
    kernel.found = {OTHER: ASKED}
    assert looks_until_over(vigil) == 3


def test_who_says_nothing_is_waited_for_a_second() -> None:
    kernel = Kernel()
    vigil = kernel.vigil(one=SILENT)
    assert looks_until_over(vigil, now=100.9) is None
    assert looks_until_over(vigil, now=101.0) == 3


def test_who_had_an_answer_before_is_not_waited_for() -> None:
    kernel = Kernel()
    assert looks_until_over(kernel.vigil(one=ANSWERED)) == 3


def test_who_was_answered_and_asks_again_is_waited_for() -> None:
    kernel = Kernel()
    assert looks_until_over(kernel.vigil(one=ASKS_AGAIN)) is None


def test_queues_that_are_not_empty_begin_the_calm_anew() -> None:
    vigil = Kernel().vigil()
    assert [vigil.is_over(waiting, 100.0) for waiting in (0, 0, 1, 0, 0)] == [False] * 5
    assert vigil.is_over(0, 100.0)
