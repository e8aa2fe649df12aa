"""Programs are born in their cgroups (clone3(2)), or enter them, or run where the supervisor is."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sengu.posix.cgroups import Cgroups
from sengu.wire import supervisor as wire
from tests.kernel.supervised import MAIN, Server, Supervised, ended, read_to_end
from tests.support import lacks_cgroups

# The real file, with clone3 refused from the beginning (seccomp(2)).
_WITHOUT_CLONE3 = f"""
import ctypes, os, sys
def step(code, jt, jf, k):
    return code.to_bytes(2, "little") + bytes([jt, jf]) + k.to_bytes(4, "little")
program = ctypes.create_string_buffer(b"".join([
    step(0x20, 0, 0, 0),  # the number of the system call
    step(0x15, 0, 1, 435),
    step(0x06, 0, 0, 0x50000 | int(os.environ["ERRNO"])),  # an error
    step(0x06, 0, 0, 0x7FFF0000),  # allowed
]))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
filter = Program(4, ctypes.addressof(program))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(filter)) == 0, os.strerror(ctypes.get_errno())
sys.path.append({str(MAIN.parent)!r})
sys.exit(__import__("main").main(sys.argv[1:]))
"""


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    """Those of an instance called supervisor, whose main process we are."""
    found = Cgroups.find("supervisor", os.getpid())
    if isinstance(found, str):
        lacks_cgroups(found)
    yield found
    found.kill_all(10)
    assert found.remove_all()


def _own_cgroup(server: Server, procs: str) -> str:
    """What a program that is to be in it says of where it is."""
    read_end, write_end = os.pipe()
    server.spawned("key", "cat", "/proc/self/cgroup", placed={1: write_end}, cgroup=procs)
    os.close(write_end)
    text = read_to_end(read_end)
    assert server.hear(wire.Exited).status == 0
    (own,) = [line for line in text.splitlines() if line.startswith("0::")]
    return own.removeprefix("0::")


def test_a_program_is_born_in_its_cgroup(supervisor: Supervised, cgroups: Cgroups) -> None:
    directory = os.path.dirname(cgroups.make("worker/1"))
    # There is no such file, so nobody can have entered by it.
    own = _own_cgroup(supervisor.begun(), f"{directory}/none")
    assert own.endswith("/" + "/".join(directory.split("/")[-2:]))


@pytest.mark.parametrize("refusal", [errno.ENOSYS, errno.EACCES, errno.EOPNOTSUPP, errno.EBUSY])
def test_without_clone3_it_enters_before_it_is_executed(
    free_path: Path, cgroups: Cgroups, refusal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = free_path / "without_clone3.py"
    main.write_text(_WITHOUT_CLONE3)
    monkeypatch.setenv("ERRNO", str(refusal))
    procs = cgroups.make("worker/1")
    with Supervised(free_path, main=main) as supervisor:
        server = supervisor.begun()
        assert _own_cgroup(server, procs).endswith("/worker_1")
        server.say(wire.Reap("key"))
        server.hear(wire.Gone)
        # It is known that clone3 was refused, as this one has no other way in.
        assert not _own_cgroup(server, f"{os.path.dirname(procs)}/none").endswith("/worker_1")


def _remove(directory: Path) -> None:
    directory.rmdir()


def _make_invalid(directory: Path) -> None:
    """As one beside it is threaded (cgroups(7), "Cgroup v2 thread mode")."""
    beside = directory.parent / "beside"
    beside.mkdir()
    (beside / "cgroup.type").write_text("threaded")


@pytest.mark.parametrize("spoil", [_remove, _make_invalid])
def test_a_cgroup_that_nobody_can_be_in_keeps_no_program_from_running(
    supervisor: Supervised, cgroups: Cgroups, spoil: Callable[[Path], None]
) -> None:
    procs = cgroups.make("worker/1")
    spoil(Path(procs).parent)
    assert not _own_cgroup(supervisor.begun(), procs).endswith("/worker_1")


def test_a_child_is_killed_and_reaped_as_any_other(
    supervisor: Supervised, cgroups: Cgroups
) -> None:
    server = supervisor.begun()
    command = shutil.which("sleep") or "sleep"
    born = server.spawned("key", command, "1000", cgroup=cgroups.make("worker/1"))
    assert not cgroups.is_empty("worker/1")
    cgroups.kill("worker/1")
    assert ended(born.pidfd)
    assert os.WTERMSIG(server.hear(wire.Exited).status) == 9
    server.say(wire.Reap("key"))
    server.hear(wire.Gone)
    assert cgroups.remove("worker/1")
