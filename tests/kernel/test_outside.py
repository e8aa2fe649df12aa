"""What the world outside is told of a state."""

from contextlib import closing
from pathlib import Path

from sengu.model.observed import Observed, Phase, Worker
from sengu.posix.loop import Loop
from sengu.server.files import StatusFile
from sengu.server.notify import Manager
from sengu.server.outside import Outside
from tests.kernel.children import in_child


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
        with closing(Loop()) as loop, closing(Manager(loop, {})) as manager:
            status_file = StatusFile(str(path), print)
            Outside("web", manager, status_file, None).on_settled(observed)

    in_child(body)
    assert path.read_text() == "1:11\n2:12\n"
