"""The bytes between server and supervisor: the two are of different versions during an upgrade."""

import msgspec
import pytest

from sengu.wire import supervisor as wire

FROM = [
    (wire.Hello(1, 4321), b"hello\x001\x004321\x000"),
    (wire.Hello(1, 4321, is_trial=True), b"hello\x001\x004321\x001"),
    (wire.Holding("journal", "a note"), b"held\0journal\0a note"),
    (wire.Holding("boot"), b"held\0boot\0"),
    (wire.Child("worker/12", 77), b"child\0worker/12\x0077\0"),
    (wire.Child("worker/12", 77, 0), b"child\0worker/12\x0077\x000"),
    (wire.Child("log", 78, 256), b"child\0log\x0078\x00256"),
    (wire.Signal(15, 77), b"signal\x0015\x0077"),
    (wire.Begin(), b"begin"),
    (wire.Spawned("forkserver/3", 99), b"spawned\0forkserver/3\x0099"),
    (wire.Refused("worker/1", 24), b"refused\0worker/1\x0024"),
    (wire.Exited("worker/1", 9), b"exited\0worker/1\x009"),
    (wire.Gone("worker/1"), b"gone\0worker/1"),
    (wire.Pause(), b"pause"),
    (wire.Resume("no room"), b"resume\0no room"),
]
TO = [
    (wire.Spawn("worker/12"), b"spawn\0worker/12"),
    (wire.Hold("journal", "größer"), "hold\0journal\0größer".encode()),
    (wire.Hold("beat"), b"hold\0beat\0"),
    (wire.Drop("lifeline/1"), b"drop\0lifeline/1"),
    (wire.Reap("worker/12"), b"reap\0worker/12"),
    (wire.Heard(12), b"heard\x0012"),
    (wire.Notify("READY=1\nSTATUS=größer"), "notify\0READY=1\nSTATUS=größer".encode()),
    (wire.Output(), b"output"),
    (wire.Policy(15, 30_000), b"policy\x0015\x0030000"),
    (wire.Ready(), b"ready"),
    (wire.Paused(), b"paused"),
    (wire.End(0), b"end\x000"),
    (wire.Upgrade(), b"upgrade"),
]


@pytest.mark.parametrize(("message", "packet"), FROM, ids=lambda value: type(value).__name__)
def test_what_the_supervisor_says_keeps_its_bytes(
    message: wire.FromSupervisor, packet: bytes
) -> None:
    assert wire.encode_from(message) == packet
    assert wire.decode_from(packet) == message


@pytest.mark.parametrize(("message", "packet"), TO, ids=lambda value: type(value).__name__)
def test_what_the_server_says_keeps_its_bytes(message: wire.ToSupervisor, packet: bytes) -> None:
    assert wire.encode_to(message) == packet
    assert wire.decode_to(packet) == message


def test_a_birth_keeps_its_bytes() -> None:
    assert wire.encode_birth("worker/12", 77) == b"worker/12\x0077"


def test_a_document_keeps_its_bytes() -> None:
    document = wire.Document(
        argv=("./serve", "", "--flag"),
        environment={"PATH": "/bin", "EMPTY": "", "RAW": "\udcff"},
        targets=(0, 1, 2, 3),
        directory="/srv",
        death_signal=15,
        names_listen_pid=True,
        file_limit=True,
        cgroup="/sys/fs/cgroup/1/cgroup.procs",
    )
    assert wire.encode_document(document) == (
        b"/srv\x0015\x001\x000,1,2,3\x001\0/sys/fs/cgroup/1/cgroup.procs\x003\0"
        b"./serve\0\0--flag\0PATH=/bin\0EMPTY=\0RAW=\xff"
    )


def test_a_document_may_leave_the_directory_as_it_is() -> None:
    document = wire.Document(("true",), {}, ())
    assert wire.encode_document(document) == b"\x0015\x000\0\x000\0\x001\0true"


def test_a_text_that_would_break_the_packet_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        wire.encode_to(wire.Hold("journal", "a\0b"))


def test_what_only_a_newer_supervisor_says_is_no_mistake() -> None:
    assert wire.decode_from(b"sing\0a song") == wire.Unknown("sing")


@pytest.mark.parametrize("packet", [b"", b"exited\0worker/1", b"signal\0TERM"])
def test_what_is_not_of_this_version_is_refused(packet: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        wire.decode_from(packet)
