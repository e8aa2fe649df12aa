"""`sengu configure`, against a fake instance on a real socket."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from sengu.cli.main import run
from sengu.control import api
from tests.unit.fake_instance import NOT_READ, FakeInstance

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def jobs(free_path: Path) -> Iterator[FakeInstance]:
    with closing(FakeInstance(free_path / "x.sock")) as instance:
        yield instance


def configure(jobs: FakeInstance, *args: str) -> int:
    return run(["configure", "--control", str(jobs.path), *args])


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (api.ConfigureOutcome(1, 4), "nothing has changed in the configuration\n"),
        (
            api.ConfigureOutcome(1, 4, is_new=True, taken=("workers 2 -> 8",)),
            "workers have the new configuration; workers 2 -> 8\n",
        ),
        (
            api.ConfigureOutcome(1, 4, waiting=("dir / needs a restart",), overridden=("a b",)),
            "dir / needs a restart; a b\n",
        ),
    ],
)
def test_it_tells_in_a_line_what_has_changed(
    jobs: FakeInstance, capfd: Capture, outcome: api.ConfigureOutcome, said: str
) -> None:
    jobs.reactions[api.CONFIGURE_PATH] = lambda _body: outcome
    assert configure(jobs) == 0
    assert capfd.readouterr().out == said


def test_one_whose_answer_is_lost_asks_again_under_the_same_name(jobs: FakeInstance) -> None:
    tokens = set()

    def react(body: bytes) -> api.ConfigureOutcome:
        request = msgspec.json.decode(body, type=api.ConfigureRequest)
        assert request.wait
        tokens.add(request.token)
        return api.ConfigureOutcome(1, 4)

    jobs.reactions[api.CONFIGURE_PATH] = react
    jobs.cuts = [0, NOT_READ, 100]
    assert configure(jobs) == 0
    assert len(tokens) == 1
    assert tokens != {""}
