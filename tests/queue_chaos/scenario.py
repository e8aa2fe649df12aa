"""A run from its start to its end, when nothing of it may be left."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.broker_nodes import Node
from tests.chaos.driver import Outcome
from tests.queue_chaos.driver import Driver, Plan
from tests.queue_chaos.publishing import Publishing
from tests.queue_chaos.record import Record
from tests.support import Instance, Sengu

HERE = Path(__file__).parent
_ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1"}


def run(broker: Node, plan: Plan) -> Outcome:
    """Chaos on `sengu consume`."""
    sengu = Sengu()
    problems: list[str] = []
    summary = ""
    lines: list[str] = []
    try:
        with tempfile.TemporaryDirectory(prefix="sengu-") as directory, broker.own_vhost():
            path = Path(directory, "record")
            record = Record(path)
            env = {"SENGU_BROKER": broker.url, "RECORD": str(path)}
            instance = start(sengu, plan.workers, env)
            with Publishing(env, plan.messages) as publishing:
                driver = Driver(instance, broker, record, publishing, plan)
                problems = driver.run()
                summary = driver.summary()
            if (code := instance.stop()) != 0:
                problems.append(f"it has stopped with exit code {code}")
            driver.close()
            record.close()
            lines = sorted([*driver.history[-200:], *instance.lines[-500:]])  # by the time of day
    except pytest.fail.Exception as problem:
        problems.append(str(problem))
    finally:
        problems += _close(sengu)
    return Outcome([*problems, *lines] if problems else [], summary)


def start(
    sengu: Sengu,
    workers: int,
    env: Mapping[str, str],
    *options: str,
    prefix: tuple[str, ...] = (),
) -> Instance:
    """The consumer, when it is subscribed."""
    # Deaths are ours and no fault of the consumer: no long waits for them.
    patient = "--interval", "0.001", "--attempts", "1000"
    all_options = "--workers", str(workers), *patient, *options
    instance = sengu.consume(
        "counting.py", *all_options, cwd=HERE, env={**env, **_ENVIRONMENT}, prefix=prefix
    )
    return instance.wait_ready()


def _close(sengu: Sengu) -> list[str]:
    """What is left of it, if anything is."""
    try:
        sengu.close()
    except pytest.fail.Exception as problem:
        return [str(problem)]
    return []
