"""`sengu upgrade`, against a fake instance on a real socket."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sengu.cli.main import run
from sengu.control import api
from tests.unit.fake_instance import NOT_READ, FakeInstance, make_status, record

Capture = pytest.CaptureFixture[str]

UPGRADED = [
    record(41, "upgrade_requested", by="the control API"),
    record(42, "server_adopted", pid=9, workers=4, ended=0, unwanted=0, missing=0),
    record(43, "upgraded", version="0.2.0", before="0.1.0"),
]


@pytest.fixture
def web(free_path: Path) -> Iterator[FakeInstance]:
    with closing(FakeInstance(free_path / "x.sock")) as instance:
        instance.stays_open = True
        yield instance


def upgrade(web: FakeInstance, *args: str) -> int:
    return run(["upgrade", "--control", str(web.path), *args])


@pytest.mark.parametrize("cuts", [[], [0, NOT_READ, 200, 0, 400, 100]], ids=["quiet", "cut off"])
def test_upgrade_waits_until_the_new_version_has_taken_over(
    web: FakeInstance, capfd: Capture, cuts: list[int]
) -> None:
    adopted = api.AdoptionStatus(0.0, 4, 0, 0, 0)
    web.statuses = [make_status(servers=2, adopted=adopted)]
    web.records, web.cuts = UPGRADED, cuts
    assert upgrade(web) == 0
    out, err = capfd.readouterr()
    assert out == "sengu 0.1.0 -> 0.2.0, 4 workers lived on\n"
    assert [line.split()[0] for line in err.splitlines()] == [one.type for one in UPGRADED]
    assert len({one for one in web.asked if one.startswith("POST")}) == 1


def test_an_upgrade_to_the_same_version_is_one_too(web: FakeInstance, capfd: Capture) -> None:
    web.records = [record(41, "upgraded", version="0.1.0", before="0.1.0")]
    assert upgrade(web) == 0
    assert capfd.readouterr().out == "sengu 0.1.0 goes on as installed now, the same version\n"


def test_an_upgrade_that_fails_tells_why(web: FakeInstance, capfd: Capture) -> None:
    web.records = [record(41, "upgrade_failed", problem="it cannot \x1b[2J run")]
    assert upgrade(web) == 1
    assert capfd.readouterr().err.endswith(
        "sengu: error: sengu was not upgraded: it cannot \\x1b[2J run; the old version goes on\n"
    )


def test_an_upgrade_is_refused_in_the_instances_words(web: FakeInstance, capfd: Capture) -> None:
    web.reactions[api.UPGRADE_PATH] = lambda _body: api.Problem("it is being stopped")
    assert upgrade(web) == 1
    assert capfd.readouterr().err == "sengu: error: it is being stopped\n"


def test_an_upgrade_that_takes_too_long_goes_on(web: FakeInstance, capfd: Capture) -> None:
    assert upgrade(web, "--timeout", "1ms") == 5
    err = capfd.readouterr().err
    assert "timed out after 0.001 s; the upgrade goes on; sengu events web shows it" in err


def test_an_instance_that_ends_in_an_upgrade_is_told(web: FakeInstance, capfd: Capture) -> None:
    web.records, web.stays_open = UPGRADED[:1], False
    assert upgrade(web) == 1
    assert "went away while being upgraded; see its log" in capfd.readouterr().err
