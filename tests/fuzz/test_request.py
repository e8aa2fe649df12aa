"""The fuzz target, for as long as a test may take; `python -m tests.fuzz.request` goes on."""

from tests.fuzz.request import Target, run

_SECONDS = 20.0


def test_whatever_is_sent_the_worker_answers_properly_and_goes_on() -> None:
    with Target().served() as target:
        run(target, _SECONDS)
