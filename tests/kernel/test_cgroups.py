"""Cgroups of workers, on the real file system of this machine.

Where none can be made (no root, no delegation, a read-only mount), that it is said why is all
there is to be tested.
"""

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sengu.posix import cgroups as module
from sengu.posix.cgroups import Cgroups, directory_within
from tests.kernel.children import Child
from tests.support import lacks_cgroups, needs_root, requires
from tests.system.puppets import wait_until

pytestmark = pytest.mark.usefixtures("nothing_left")

_NOBODY = 65534
_PATIENCE_SECONDS = 20.0
_FIND = "from sengu.posix.cgroups import Cgroups; found = Cgroups.find('web', 7); "
_TELL = _FIND + "print(found if isinstance(found, str) else found.directory)"


@pytest.fixture
def cgroups() -> Iterator[Cgroups]:
    """Those of an instance called test, whose main process we are."""
    found = Cgroups.find("test", os.getpid())
    if isinstance(found, str):
        lacks_cgroups(found)
    yield found
    for path, _, _ in os.walk(found.directory, topdown=False):
        key = os.path.relpath(path, found.directory)
        if "/" not in key and key != ".":
            found.kill(key)
            _wait_until_empty(found, key)
    assert found.remove_all()


def _enter(procs: str | int) -> None:
    """In a child: move into the cgroup of a cgroup.procs file, by its path or open descriptor."""
    opened = os.open(procs, os.O_WRONLY) if isinstance(procs, str) else procs
    os.write(opened, b"0")
    if isinstance(procs, str):
        os.close(opened)


def _within(procs: str, *command: str) -> list[str]:
    """The command, executed by a process that has entered before."""
    return ["sh", "-c", 'echo 0 >"$0" && exec "$@"', procs, *command]


def _drop_privileges() -> None:
    os.setgroups(())
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _stay_in(procs: str) -> Callable[[Child], None]:
    def stay(child: Child) -> None:
        _enter(procs)
        child.tell("entered")
        child.wait_for_go()

    return stay


def _members(procs: str) -> set[int]:
    return {int(pid) for pid in Path(procs).read_text().split()}


def _wait_until_empty(cgroups: Cgroups, key: str) -> None:
    """cgroup.events tells its changes by POLLPRI."""
    with open(f"{cgroups.directory}/{key}/cgroup.events", "rb") as events:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        events.read()
        while not cgroups.is_empty(key):
            assert poll.poll(_PATIENCE_SECONDS * 1000), "somebody stays in the cgroup"
            events.seek(0)
            events.read()


@contextlib.contextmanager
def _program_with_a_daemon(procs: str) -> Iterator[tuple[int, int]]:
    """A program that enters before it is executed, and its child in another session: their pids."""
    with subprocess.Popen(
        _within(procs, "sh", "-c", "setsid sleep 1000 & echo $!; wait"),
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        daemon = int(program.stdout.readline())
        pidfd = os.pidfd_open(daemon)
        try:
            yield program.pid, daemon
        finally:
            program.kill()
            program.wait()  # whose daemon is then ours to reap, if we are a subreaper
            # The daemon has the pipe too, so this is its end as well.
            assert program.stdout.read() == b""
            assert select.select([pidfd], [], [], _PATIENCE_SECONDS)[0]
            os.close(pidfd)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(daemon, 0)


def _what_is_found_in(directory: str, systemd: str = "/", as_user: int = 0) -> str:
    """What a process in that cgroup is told: where its instance's would be, or why nowhere."""

    def find(child: Child) -> None:
        _enter(f"{directory}/cgroup.procs")
        if as_user:
            _drop_privileges()
        found = Cgroups.find("web", 7, systemd=systemd)
        child.tell(f"found {found if isinstance(found, str) else found.directory}")

    with Child(find) as child:
        return child.wait_to_hear("found ")


def _make_unit(cgroups: Cgroups, path: str) -> str:
    unit = f"{cgroups.directory}/{path}"
    os.makedirs(unit)
    return unit


# Where it is: /proc/self/cgroup and /proc/self/mountinfo

_MOUNTS = """\
24 29 0:22 / /proc rw,nosuid shared:12 - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
"""


@pytest.mark.parametrize(
    ("cgroup", "root", "mount_point", "expected"),
    [
        ("/", "/", "/sys/fs/cgroup", "/sys/fs/cgroup"),
        ("/a.slice/b.service", "/", "/sys/fs/cgroup", "/sys/fs/cgroup/a.slice/b.service"),
        ("/", "/", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/unified"),
        ("/docker/1f", "/docker/1f", "/sys/fs/cgroup", "/sys/fs/cgroup"),
        ("/docker/1f/sub", "/docker/1f", "/sys/fs/cgroup", "/sys/fs/cgroup/sub"),
        ("/docker/1f2", "/docker/1f", "/sys/fs/cgroup", None),
        ("/", "/../..", "/sys/fs/cgroup", None),
        ("/../other", "/..", "/sys/fs/cgroup", "/sys/fs/cgroup/other"),
        ("/a", "/", r"/mnt/with\040space", "/mnt/with space/a"),
    ],
)
def test_directory_is_that_of_our_cgroup_in_the_mount_that_shows_it(
    cgroup: str, root: str, mount_point: str, expected: str | None
) -> None:
    mount = f"41 31 0:38 {root} {mount_point} rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
    assert directory_within(cgroup, _MOUNTS + mount) == expected


def test_without_a_mount_of_version_2_there_is_no_directory() -> None:
    assert directory_within("/", _MOUNTS) is None


def test_it_is_found_or_said_why_not() -> None:
    found = Cgroups.find("any", os.getpid())
    if isinstance(found, str):
        assert "cgroup" in found
    else:
        assert found.directory.endswith(f"/sengu-any-{os.getpid()}")
        assert not os.path.exists(found.directory)


def test_name_of_an_instance_may_hold_anything(cgroups: Cgroups) -> None:
    # Other tests' instances remove those of main processes that are gone.
    found = Cgroups.find("../bé c\n" + 300 * "x", os.getpid())
    assert isinstance(found, Cgroups)
    assert os.path.dirname(found.directory) == os.path.dirname(cgroups.directory)
    assert os.path.basename(found.directory).startswith("sengu-.._b__c_xxx")
    assert found.make("worker/1") != ""
    assert found.remove_all()


def test_it_is_found_in_a_cgroup_namespace(cgroups: Cgroups, tmp_path: Path) -> None:
    needs_root()
    procs = cgroups.make("container")
    script = f'mount -t cgroup2 cgroup2 "{tmp_path}" && exec "{sys.executable}" -c "{_TELL}"'
    told = subprocess.run(
        _within(procs, requires("unshare"), "--cgroup", "--mount", "sh", "-c", script),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert told.stdout == f"{tmp_path}/sengu-web-7\n"


def test_namespace_in_which_no_mount_shows_our_cgroup_is_told(cgroups: Cgroups) -> None:
    needs_root()
    procs = cgroups.make("container")
    told = subprocess.run(
        _within(procs, requires("unshare"), "--cgroup", sys.executable, "-c", _TELL),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert told.stdout == "no file system of type cgroup2 is mounted that shows our cgroup /\n"


# Whether one may


def test_read_only_mount_is_told(cgroups: Cgroups) -> None:
    needs_root()
    own = os.path.dirname(cgroups.directory)
    script = f'mount -o remount,bind,ro "{own}" && exec "{sys.executable}" -c "{_TELL}"'
    told = subprocess.run(
        [requires("unshare"), "--mount", "sh", "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert told.stdout == f"our cgroup {own} is mounted read-only\n"


def test_ordinary_user_is_told_that_it_may_not(cgroups: Cgroups) -> None:
    needs_root()
    unit = _make_unit(cgroups, "some")
    assert _what_is_found_in(unit, as_user=_NOBODY) == (
        f"our cgroup {unit} may not be written to by us"
    )


def test_cgroup_of_a_service_is_left_to_systemd(cgroups: Cgroups) -> None:
    unit = _make_unit(cgroups, "a.slice/web.service")
    refusal = _what_is_found_in(unit)
    assert refusal.startswith(f"our cgroup {unit} belongs to systemd")
    assert "not delegated web.service" in refusal
    assert "Delegate=pids" in refusal


@pytest.mark.parametrize("attribute", ["user.delegate", "trusted.delegate"])
def test_delegated_service_may_have_cgroups(cgroups: Cgroups, attribute: str) -> None:
    needs_root()
    unit = _make_unit(cgroups, "a.slice/web.service")
    os.setxattr(unit, attribute, b"1")
    assert _what_is_found_in(unit) == f"{unit}/sengu-web-7"
    os.setxattr(unit, attribute, b"0")
    assert "not delegated" in _what_is_found_in(unit)


def test_delegation_of_the_unit_holds_for_a_cgroup_in_it(cgroups: Cgroups) -> None:
    unit = _make_unit(cgroups, "web.service")
    os.setxattr(unit, "user.delegate", b"1")
    deeper = _make_unit(cgroups, "web.service/supervisor")
    assert _what_is_found_in(deeper) == f"{deeper}/sengu-web-7"


def test_delegation_to_a_user_manager_is_none_to_its_services(cgroups: Cgroups) -> None:
    manager = _make_unit(cgroups, "user@1000.service")
    os.setxattr(manager, "user.delegate", b"1")
    unit = _make_unit(cgroups, "user@1000.service/app.slice/web.service")
    assert "not delegated web.service" in _what_is_found_in(unit)


def test_service_of_a_user_to_whom_systemd_has_given_it_may_have_cgroups(cgroups: Cgroups) -> None:
    needs_root()
    unit = _make_unit(cgroups, "web.service")
    for name in ("", "/cgroup.procs", "/cgroup.subtree_control"):
        os.chown(unit + name, _NOBODY, _NOBODY)
    assert _what_is_found_in(unit, as_user=_NOBODY) == f"{unit}/sengu-web-7"


def test_cgroup_of_no_unit_is_systemds_only_where_it_runs(cgroups: Cgroups) -> None:
    unit = _make_unit(cgroups, "some")
    assert "belongs to systemd" in _what_is_found_in(unit, systemd="/")
    assert _what_is_found_in(unit, systemd="/nowhere") == f"{unit}/sengu-web-7"


def test_threaded_cgroup_can_have_no_workers(cgroups: Cgroups) -> None:
    unit = _make_unit(cgroups, "domain")
    threaded = _make_unit(cgroups, "domain/threaded")
    Path(threaded, "cgroup.type").write_text("threaded")
    assert "type domain threaded" in _what_is_found_in(unit, systemd="/nowhere")


# What one does with it


def test_program_that_enters_before_it_is_executed_is_in_it_with_its_children(
    cgroups: Cgroups,
) -> None:
    procs = cgroups.make("worker/1")
    assert cgroups.is_empty("worker/1")
    with _program_with_a_daemon(procs) as pids:
        assert _members(procs) == set(pids)
        assert not cgroups.is_empty("worker/1")
        cgroups.kill("worker/1")


def test_kill_ends_all_in_it_and_nobody_else(cgroups: Cgroups) -> None:
    others = cgroups.make("worker/2")
    with (
        Child(_stay_in(others)) as other,
        _program_with_a_daemon(cgroups.make("worker/1")) as (program, daemon),
    ):
        other.wait_to_hear("entered")
        pidfds = [os.pidfd_open(program), os.pidfd_open(daemon)]
        cgroups.kill("worker/1")
        for pidfd in pidfds:
            assert select.select([pidfd], [], [], _PATIENCE_SECONDS)[0]
            os.close(pidfd)
        _wait_until_empty(cgroups, "worker_1")
        assert _members(others) == {other.pid}
        cgroups.kill("worker/2")


def test_kill_ends_those_in_cgroups_that_the_worker_has_made(cgroups: Cgroups) -> None:
    cgroups.make("worker/1")
    deeper = f"{cgroups.directory}/worker_1/own"
    os.mkdir(deeper)
    with Child(_stay_in(f"{deeper}/cgroup.procs")) as child:
        child.wait_to_hear("entered")
        cgroups.kill("worker/1")
        _wait_until_empty(cgroups, "worker_1")
    assert cgroups.remove("worker/1")


def test_kill_of_an_old_kernel_signals_each(
    cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, data: bytes) -> None:
        raise FileNotFoundError(path, data)

    monkeypatch.setattr(module, "_write", refuse)
    procs = cgroups.make("worker/1")
    deeper = f"{cgroups.directory}/worker_1/own"
    os.mkdir(deeper)
    with (
        _program_with_a_daemon(procs),
        Child(_stay_in(f"{deeper}/cgroup.procs")) as child,
    ):
        child.wait_to_hear("entered")
        cgroups.kill("worker/1")
        _wait_until_empty(cgroups, "worker_1")


def test_killed_process_that_is_not_reaped_is_in_it_no_more(cgroups: Cgroups) -> None:
    with Child(_stay_in(cgroups.make("worker/1"))) as child:
        child.wait_to_hear("entered")
        cgroups.kill("worker/1")
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)
        _wait_until_empty(cgroups, "worker_1")
        assert cgroups.remove("worker/1")


def test_who_has_dropped_privileges_enters_by_a_descriptor_that_root_has_opened(
    cgroups: Cgroups,
) -> None:
    needs_root()
    procs = cgroups.make("worker/1")
    opened = os.open(procs, os.O_WRONLY | os.O_CLOEXEC)

    def enter(child: Child) -> None:
        _drop_privileges()
        with contextlib.suppress(PermissionError):
            _enter(procs)
            child.tell("entered by the path")
        _enter(opened)
        child.tell("entered")
        child.wait_for_go()

    with Child(enter) as child:
        child.wait_to_hear("entered")
        assert child.heard() == ["entered"]
        assert _members(procs) == {child.pid}
        cgroups.kill("worker/1")
    os.close(opened)


def test_cgroup_with_somebody_in_it_is_not_removed(cgroups: Cgroups) -> None:
    with Child(_stay_in(cgroups.make("worker/1"))) as child:
        child.wait_to_hear("entered")
        assert not cgroups.remove("worker/1")
        assert not cgroups.remove_all()
        assert not cgroups.is_empty("worker/1")
        cgroups.kill("worker/1")
        _wait_until_empty(cgroups, "worker_1")
        assert cgroups.remove("worker/1")


def test_all_are_removed_with_the_cgroup_of_the_instance(cgroups: Cgroups) -> None:
    for number in range(3):
        assert os.path.exists(cgroups.make(f"worker/{number}"))
    assert cgroups.remove_all()
    assert not os.path.exists(cgroups.directory)
    assert cgroups.remove_all()


def test_what_is_not_there_is_empty_removed_and_dead(cgroups: Cgroups) -> None:
    cgroups.kill("worker/1")
    assert cgroups.is_empty("worker/1")
    assert cgroups.remove("worker/1")


def test_who_adopts_an_instance_finds_its_cgroups(cgroups: Cgroups) -> None:
    procs = cgroups.make("worker/1")
    with Child(_stay_in(procs)) as child:
        child.wait_to_hear("entered")
        adopted = Cgroups.find("test", os.getpid())
        assert isinstance(adopted, Cgroups)
        assert not adopted.is_empty("worker/1")
        assert adopted.make("worker/1") == procs
        adopted.kill("worker/1")
        os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED | os.WNOWAIT)


def test_all_in_all_of_them_are_killed_and_waited_for(cgroups: Cgroups) -> None:
    cgroups.kill_all(_PATIENCE_SECONDS)  # there is nobody yet
    with (
        Child(_stay_in(cgroups.make("worker/1"))) as one,
        Child(_stay_in(cgroups.make("worker/2"))) as other,
    ):
        one.wait_to_hear("entered")
        other.wait_to_hear("entered")
        cgroups.kill_all(_PATIENCE_SECONDS)
        assert cgroups.is_empty("worker/1")
        assert cgroups.is_empty("worker/2")


def test_the_wait_for_those_who_were_killed_has_an_end(
    cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Child(_stay_in(cgroups.make("worker/1"))) as child:
        child.wait_to_hear("entered")
        with monkeypatch.context() as patch:
            patch.setattr(Cgroups, "kill", lambda *_: None)
            cgroups.kill_all(0.05)
        assert not cgroups.is_empty("worker/1")
        cgroups.kill_all(_PATIENCE_SECONDS)


def test_others_are_those_of_keys_that_nobody_knows(cgroups: Cgroups) -> None:
    assert cgroups.others([]) == []
    for number in range(3):
        cgroups.make(f"worker/{number}")
    found = cgroups.others(["worker/0", "worker/2", "worker/3"])
    assert found == ["worker_1"]
    assert cgroups.remove(found[0])
    assert cgroups.others(["worker/0", "worker/2"]) == []


def test_no_more_cgroups_than_the_limit_is_no_error(cgroups: Cgroups) -> None:
    cgroups.make("worker/1")
    Path(cgroups.directory, "cgroup.max.descendants").write_text("1")
    assert cgroups.make("worker/2") == ""
    assert cgroups.make("worker/1") != ""


def test_what_ended_instances_have_left_is_removed_if_it_is_empty(cgroups: Cgroups) -> None:
    parent = os.path.dirname(cgroups.directory)
    living = cgroups.make("worker/1")
    with Child(Child.wait_for_go) as ended:
        # Other tests' instances remove leftovers too: its main process lives until all is made.
        left = Cgroups(f"{parent}/sengu-left-{ended.pid}")
        inhabited = Cgroups(f"{parent}/sengu-inhabited-{ended.pid}")
        left.make("worker/1")
        with Child(_stay_in(inhabited.make("worker/1"))) as child:
            child.wait_to_hear("entered")
            ended.go()
            ended.reap()
            cgroups.remove_leftovers()
            wait_until(lambda: not os.path.exists(left.directory))  # others may be about to do it
            assert not inhabited.is_empty("worker/1")
            assert os.path.exists(living)
            inhabited.kill("worker/1")
            wait_until(lambda: inhabited.is_empty("worker/1"))
    cgroups.remove_leftovers()
    wait_until(lambda: not os.path.exists(inhabited.directory))
