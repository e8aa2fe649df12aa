"""The pid file and the status file, on a real file system."""

import fcntl
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sengu.errors import UsageError
from sengu.model.application import Privileges
from sengu.server.files import PidFile, StatusFile, make_for_workers
from tests.kernel.children import in_child, nothing_left_open
from tests.kernel.shelf import Shelf
from tests.support import needs_root

MAIN_PID = 4_000_001
OTHER_PID = 4_000_002


@pytest.fixture(autouse=True)
def shelf() -> Iterator[Shelf]:
    with nothing_left_open(), Shelf() as shelf:
        yield shelf


def can_lock(path: Path) -> bool:
    return subprocess.run(["flock", "-n", path, "true"], check=False).returncode == 0


def test_a_pid_file_holds_the_main_pid_and_a_lock_until_it_is_removed(
    tmp_path: Path, shelf: Shelf
) -> None:
    path = tmp_path / "pid"
    path.write_text("99999999 and more than we write\n")  # of one that was killed
    pid_file = PidFile(str(path), shelf, MAIN_PID)
    assert path.read_text() == f"{MAIN_PID}\n"
    assert not can_lock(path)
    pid_file.remove()
    assert not path.exists()


def test_a_pid_file_is_held_between_two_servers(tmp_path: Path, shelf: Shelf) -> None:
    path = tmp_path / "pid"
    first = PidFile(str(path), shelf, MAIN_PID)
    os.close(first._fd)  # it was killed
    assert not can_lock(path)
    shelf.pass_on()
    second = PidFile(str(path), shelf, MAIN_PID)
    assert path.read_text() == f"{MAIN_PID}\n"
    second.remove()
    assert not path.exists()


def test_a_pid_file_that_is_held_names_the_holder(tmp_path: Path, shelf: Shelf) -> None:
    path = tmp_path / "pid"
    pid_file = PidFile(str(path), shelf, MAIN_PID)
    with pytest.raises(UsageError, match=f"held by a running instance, pid {MAIN_PID}; stop"):
        PidFile(str(path), shelf, OTHER_PID)
    assert path.read_text() == f"{MAIN_PID}\n"
    pid_file.remove()


def test_a_pid_file_that_its_holder_removes_meanwhile_is_made_anew(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pid"
    holder = PidFile(str(path), shelf, OTHER_PID)
    lock = fcntl.flock

    def lock_late(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        holder.remove()
        shelf.drop("pidfile")
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    pid_file = PidFile(str(path), shelf, MAIN_PID)
    assert path.read_text() == f"{MAIN_PID}\n"
    with pytest.raises(UsageError, match="held by a running instance"):
        PidFile(str(path), shelf, OTHER_PID)
    pid_file.remove()


def test_a_pid_file_that_is_another_by_now_is_left(tmp_path: Path, shelf: Shelf) -> None:
    path = tmp_path / "pid"
    pid_file = PidFile(str(path), shelf, MAIN_PID)
    path.unlink()
    path.write_text("another's")
    pid_file.remove()
    assert path.read_text() == "another's"
    gone = PidFile(str(tmp_path / "gone"), shelf, MAIN_PID)
    (tmp_path / "gone").unlink()
    gone.remove()


def test_a_pid_file_that_cannot_be_written_is_told(tmp_path: Path, shelf: Shelf) -> None:
    with pytest.raises(UsageError, match=r"cannot write the pid file .*: Is a directory; name"):
        PidFile(str(tmp_path), shelf, MAIN_PID)
    with pytest.raises(UsageError, match=r"cannot write the pid file .*: No such file"):
        PidFile(str(tmp_path / "nowhere" / "pid"), shelf, MAIN_PID)


def test_a_full_disk_under_the_pid_file_is_told(tmp_path: Path, shelf: Shelf) -> None:
    path = tmp_path / "pid"

    def body() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        with pytest.raises(UsageError, match=r"cannot write the pid file .*: File too large"):
            PidFile(str(path), shelf, MAIN_PID)

    in_child(body)
    assert not path.exists()


@pytest.fixture
def warnings() -> list[str]:
    return []


def test_a_status_file_has_a_line_for_each_worker_in_order(
    tmp_path: Path, warnings: list[str]
) -> None:
    path = tmp_path / "status"
    status_file = StatusFile(str(path), warnings.append)
    status_file.write([(2, 20), (1, 30), (1, 9)])
    assert path.read_text() == "1:9\n1:30\n2:20\n"
    status_file.write([])
    assert path.read_text() == ""
    status_file.remove()
    assert os.listdir(tmp_path) == []
    assert warnings == []


def test_a_status_file_is_replaced_and_never_half_written(
    tmp_path: Path, warnings: list[str]
) -> None:
    path = tmp_path / "status"
    status_file = StatusFile(str(path), warnings.append)
    status_file.write([(1, 1)])
    with open(path) as reader:
        status_file.write([(2, 2)])
        assert reader.read() == "1:1\n", "who has it open sees the whole of the old one"
    before = path.stat()
    status_file.write([(2, 2)])
    assert os.path.samestat(path.stat(), before), "what has not changed is not written"


def test_a_status_file_is_not_written_through_a_link_that_waits_for_it(
    tmp_path: Path, warnings: list[str]
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f"status.{os.getpid()}").symlink_to(victim)
    status_file = StatusFile(str(tmp_path / "status"), warnings.append)
    status_file.write([(1, 1)])
    assert victim.read_text() == "precious"
    assert not (tmp_path / "status").is_symlink()
    assert (tmp_path / "status").read_text() == "1:1\n"
    assert warnings == []


def test_trouble_with_the_status_file_is_told_once_and_tried_again(
    tmp_path: Path, warnings: list[str]
) -> None:
    path = tmp_path / "later" / "status"
    status_file = StatusFile(str(path), warnings.append)
    for _ in range(3):
        status_file.write([(1, 1)])
    assert warnings == [f"cannot write the status file {path}: No such file or directory"]
    status_file.write([(2, 2)])
    assert len(warnings) == 2
    status_file.remove()  # which never was
    path.parent.mkdir()
    status_file.write([(2, 2)])
    assert path.read_text() == "2:2\n"


def test_a_status_file_that_somebody_removed_is_no_trouble(
    tmp_path: Path, warnings: list[str]
) -> None:
    path = tmp_path / "status"
    status_file = StatusFile(str(path), warnings.append)
    status_file.write([(1, 1)])
    path.unlink()
    status_file.remove()
    assert warnings == []


def test_files_of_workers_are_made_and_given_to_their_user(free_path: Path) -> None:
    needs_root()
    path = free_path / "access.log"
    make_for_workers([str(path)], Privileges(uid=65534, gid=65533))
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_size) == (65534, 65533, 0)


def test_a_file_of_workers_that_is_there_keeps_what_is_in_it(free_path: Path) -> None:
    path = free_path / "access.log"
    path.write_text("line\n")
    make_for_workers([str(path)], Privileges())
    assert path.read_text() == "line\n"
    assert path.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("linked", ["secret", "not there"])
def test_a_link_where_a_file_of_workers_should_be_gives_nothing_away(
    free_path: Path, linked: str
) -> None:
    needs_root()
    (free_path / "secret").touch(0o600)
    path = free_path / "access.log"
    path.symlink_to(free_path / linked)
    make_for_workers([str(path)], Privileges(uid=65534, gid=65534))
    assert (free_path / "secret").stat().st_uid == 0
    assert not (free_path / "not there").exists()
