"""What the world outside is told of a state."""

import os
from pathlib import Path

import msgspec

from sengu.config.boot import Report
from sengu.model.observed import Observed, Phase, Worker
from sengu.server.files import StatusFile
from sengu.server.notify import Manager
from sengu.server.outside import Outside, tell_starter
from tests.kernel.children import in_child, nothing_left_open
from tests.kernel.prompter import Prompter
from tests.kernel.shelf import Shelf


def test_the_status_file_has_who_serves_or_has_served(tmp_path: Path) -> None:
    path = tmp_path / "status"
    workers = (
        Worker(1, 1, 0, 11, Phase.STOPPING, started_at=0.0, ready_at=1.0),
        Worker(2, 2, 0, 12, Phase.READY, started_at=2.0, ready_at=3.0),
        Worker(3, 2, 1, 13, Phase.STARTING, started_at=3.0),
        Worker(4, 3, 0, 14, Phase.STOPPING, started_at=3.0),  # was never ready
    )
    observed = Observed(2, current=2, workers={worker.id: worker for worker in workers})

    def body() -> None:  # which changes the title of its process
        with Prompter() as prompter:
            manager = Manager(prompter.loop, prompter.link, {})
            status_file = StatusFile(str(path), print)
            Outside("web", manager, status_file, prompter.link, None).on_settled(observed)

    in_child(body)
    assert path.read_text() == "1:11\n2:12\n"


def test_who_has_started_us_is_told_once_by_whichever_server() -> None:
    with nothing_left_open(), Shelf() as shelf:
        read_end, write_end = os.pipe()
        shelf.hold("report", write_end)
        os.close(write_end)
        shelf.pass_on()  # the first server has not told
        shelf.pass_on()
        assert tell_starter(shelf, Report(1, "why"))
        assert not tell_starter(shelf, Report(0))
        with open(read_end, "rb") as stream:
            assert msgspec.json.decode(stream.read(), type=Report) == Report(1, "why")
        shelf.pass_on()
        assert not tell_starter(shelf, Report(0))


def test_who_does_not_wait_to_be_told_is_told_all_the_same() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with Shelf() as shelf:
        shelf.hold("report", write_end)
        os.close(write_end)
        shelf.pass_on()
        assert tell_starter(shelf, Report(0))
        assert shelf.held == {}
