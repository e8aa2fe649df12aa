"""A process of consumers, without a broker."""

import pytest

from sengu.consumers.worker.process import beat_seconds


@pytest.mark.parametrize(("limit", "pause"), [(None, 1.0), (60.0, 1.0), (1.0, 0.25), (0.4, 0.1)])
def test_a_process_is_heard_several_times_within_its_limit(
    limit: float | None, pause: float
) -> None:
    assert beat_seconds(limit) == pause
