"""Fixtures of all tiers. None knows the insides of sengu."""

import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests import support


@pytest.fixture
def sengu() -> Iterator[support.Sengu]:
    """Starts the program; ends what it started; fails the test when something is left of it."""
    runner = support.Sengu()
    yield runner
    runner.close()


@pytest.fixture
def free_path() -> Iterator[Path]:
    """An empty directory under /tmp, short enough for the names of UNIX sockets."""
    path = support.short_directory()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def port() -> int:
    """A TCP port on 127.0.0.1 that nobody uses."""
    return support.free_port()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Shows what the instances wrote when their test fails."""
    report = yield
    runner = getattr(item, "funcargs", {}).get("sengu")
    if report.failed and isinstance(runner, support.Sengu):
        for instance in runner.instances:
            report.sections.append((f"output of {instance.name}", str(instance.output)))
    return report
