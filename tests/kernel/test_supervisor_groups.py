"""What a process leaves behind in its group: seen until it has gone, and ended in the end."""

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sengu.supervisor.main import MAX_FAILURES_WHILE_SERVING
from sengu.wire import supervisor as wire
from tests.kernel.supervised import Kin, Server, Supervised, ended, read_to_end

pytestmark = pytest.mark.usefixtures("nothing_left")


class Family:
    """A worker that has ended, and a child of it that lives in its group until `release`."""

    def __init__(self, server: Server, key: str = "worker/1") -> None:
        self.key = key
        self._go, self._release = os.pipe()
        said, say = os.pipe()
        # Deaf to what asks, so that only KILL and the pipe end it.
        script = "trap '' TERM; cat <&3 >&2 & echo $!"
        self.kin: Kin = server.spawned(key, "sh", "-c", script, placed={1: say, 3: self._go})
        os.close(say)
        os.close(self._go)
        self.child = int(read_to_end(said))
        self.child_pidfd = os.pidfd_open(self.child)
        assert server.hear(wire.Exited).key == key

    def release(self) -> None:
        os.close(self._release)
        self._release = -1

    def close(self) -> None:
        if self._release >= 0:
            os.close(self._release)
        os.close(self.child_pidfd)


@pytest.fixture
def family(server: Server) -> Iterator[Family]:
    family = Family(server)
    yield family
    family.close()


def test_a_process_has_gone_when_its_group_has(server: Server, family: Family) -> None:
    server.say(wire.Reap("worker/1"))
    server.spawned("worker/2", "sleep", "1000")  # so `gone` would have come before
    family.release()
    assert server.hear(wire.Gone).key == "worker/1"


def test_until_then_its_key_is_not_free(server: Server, family: Family) -> None:
    for _ in range(2):  # before and after it is reaped
        server.spawn("worker/1", "true")
        assert server.hear(wire.Refused) == wire.Refused("worker/1", errno.EEXIST)
        server.say(wire.Reap("worker/1"))
    family.release()
    server.hear(wire.Gone)
    server.spawned("worker/1", "true")


def test_the_next_server_is_told_of_it_and_may_ask_again(
    supervisor: Supervised, server: Server, family: Family
) -> None:
    server.say(wire.Reap("worker/1"))
    server.kill()
    server = supervisor.server()
    kin = server.inherit().kin["worker/1"]
    assert kin[:2] == (family.kin.pid, 0)
    server.say(wire.Reap("worker/1"))
    os.killpg(kin.pid, signal.SIGKILL)
    assert server.hear(wire.Gone).key == "worker/1"


def test_a_group_that_has_gone_meanwhile_is_told_to_who_asks(
    supervisor: Supervised, server: Server, family: Family
) -> None:
    server.say(wire.Reap("worker/1"))
    supervisor.signal(signal.SIGSTOP)
    server.kill()
    family.release()
    assert ended(family.child_pidfd)
    supervisor.signal(signal.SIGCONT)
    server = supervisor.server()
    if "worker/1" in server.inherit().kin:
        server.say(wire.Reap("worker/1"))
        assert server.hear(wire.Gone).key == "worker/1"


def test_one_that_nobody_knows_is_not_reaped(server: Server) -> None:
    server.say(wire.Reap("worker/7"))
    server.spawned("worker/1", "true")
    assert server.hear(wire.Exited).key == "worker/1"


@pytest.mark.parametrize("is_reaped", [True, False])
def test_the_end_of_the_service_is_the_end_of_what_workers_left(
    supervisor: Supervised, server: Server, family: Family, is_reaped: bool
) -> None:
    if is_reaped:
        server.say(wire.Reap("worker/1"))
    server.say(wire.End(0))
    server.exit()
    assert supervisor.wait() == 0
    assert not Path(f"/proc/{family.child}").exists()  # it is even reaped


def test_what_a_worker_leaves_when_all_is_given_up_ends_too(
    supervisor: Supervised, server: Server
) -> None:
    go, release = os.pipe()
    script = "cat <&3 & echo; wait"
    said, say = os.pipe()
    server.spawned("worker/1", "sh", "-c", script, placed={1: say, 3: go})
    os.close(go)
    os.close(say)
    assert os.read(said, 10) == b"\n"
    for _ in range(MAX_FAILURES_WHILE_SERVING - 1):
        server.kill()
        server = supervisor.begun()
    server.kill()
    assert supervisor.wait() == 1
    assert read_to_end(said) == ""
    os.close(release)


def test_who_reads_our_output_outlives_us(supervisor: Supervised, server: Server) -> None:
    read_end, write_end = os.pipe()
    server.say(wire.Output(), write_end)
    null = os.open(os.devnull, os.O_WRONLY)
    log = server.spawned("log", "cat", placed={0: read_end, 1: null, 2: null}, death_signal=0)
    os.close(null)
    os.close(read_end)
    os.close(write_end)
    server.say(wire.End(0))
    server.exit()
    assert supervisor.wait() == 0
    assert ended(log.pidfd)  # by the end of its input
    assert os.waitpid(log.pid, 0)[1] == 0
