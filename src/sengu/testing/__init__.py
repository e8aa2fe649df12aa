"""Runs a worker class in-process, for unit tests: no server, no signals, no time that goes by.

    with sengu.testing.running(Consumer, config={"n": 1}) as consumer:
        consumer.advance(5.0)
        assert consumer.messages == ["awesome work"]

Imported by users' tests.
"""

from sengu.testing.runner import Running, running

__all__ = ["Running", "running"]
