"""A wait that is cut short says why, and what goes on without us."""

import pytest

from sengu.cli.exits import Exit
from sengu.cli.waiting import TimedOutError, waiting_for
from sengu.control.asking import NoAnswerError
from sengu.control.deadline import Deadline

GOES_ON = "the deploy goes on"


@pytest.mark.parametrize("seconds", [None, 300.0])
def test_an_instance_that_does_not_answer_is_not_called_a_timeout(seconds: float | None) -> None:
    with (
        pytest.raises(NoAnswerError, match=f"^no answer within 10 s; {GOES_ON}$") as raised,
        waiting_for(GOES_ON, Deadline(seconds)),
    ):
        raise NoAnswerError("no answer within 10 s")
    assert raised.value.exit_code == Exit.TIMED_OUT


def test_the_end_of_the_users_own_time_is() -> None:
    with (
        pytest.raises(TimedOutError, match=f"^timed out after 0 s; {GOES_ON}$"),
        waiting_for(GOES_ON, Deadline(0.0)),
    ):
        raise NoAnswerError("nothing was heard")
