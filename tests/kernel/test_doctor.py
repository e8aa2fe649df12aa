"""The doctor on the machine that the tests run on: what it says is held against what is known."""

import ctypes
import errno
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sengu.doctor.apart import attempt
from sengu.doctor.examine import examine
from sengu.doctor.here import Here
from sengu.doctor.machine import Refusal, Trial
from sengu.doctor.report import Asked, Purpose
from sengu.doctor.trials import TRIALS
from sengu.posix import bpf
from tests import netns
from tests.kernel.children import Child
from tests.support import needs_root

pytestmark = pytest.mark.usefixtures("nothing_left")

_NOBODY = 65534
_PATIENCE_SECONDS = 20.0
_MIGRATE = Path("/proc/sys/net/ipv4/tcp_migrate_req")

_PR_GET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP = 37, 38, 22
_SECCOMP_FILTER = 2
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_PIDFD_GETFD = 438
_libc = ctypes.CDLL(None, use_errno=True)

Rows = dict[str, dict[str, Any]]


def _examine() -> dict[str, Any]:
    """The report as its readers get it."""
    report: dict[str, Any] = msgspec.json.decode(
        msgspec.json.encode(examine(Here(_PATIENCE_SECONDS), Asked((Purpose.SELF_BOUND,))))
    )
    return report


def _examine_as(prepare: Callable[[], object]) -> dict[str, Any]:
    """The same in a child that has prepared itself."""

    def body(child: Child) -> None:
        prepare()
        child.tell(f"report {json.dumps(_examine())}")

    with Child(body) as child:
        report: dict[str, Any] = json.loads(child.wait_to_hear("report "))
    return report


def _rows(report: dict[str, Any]) -> Rows:
    return {row["name"]: row for row in report["checks"]}


def _become_nobody() -> None:
    os.setgroups(())
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)


def _filter_getfd(verdict: int) -> None:
    """Let the call pidfd_getfd have that end (seccomp(2)): load its number; compare; return."""
    instruction = struct.Struct("=HBBI")
    code = b"".join(
        (
            instruction.pack(0x20, 0, 0, 0),
            instruction.pack(0x15, 0, 1, _PIDFD_GETFD),
            instruction.pack(0x06, 0, 0, verdict),
            instruction.pack(0x06, 0, 0, _ALLOW),
        )
    )
    held = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(code) // instruction.size, ctypes.addressof(held))
    assert _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, program, 0, 0) == 0


@pytest.mark.parametrize(
    "trial", [Trial.PIDFD, Trial.EPOLL, Trial.SUBREAPER, Trial.SOCK_DIAG, Trial.STEERING]
)
def test_what_sengu_lives_on_works_where_its_tests_run(trial: Trial) -> None:
    assert Here(_PATIENCE_SECONDS).attempt(trial) is None


def test_every_trial_has_its_function() -> None:
    assert TRIALS.keys() == set(Trial)


def test_bpf_works_for_whom_it_can_be_loaded() -> None:
    try:
        os.close(bpf.load_migration())
    except OSError as error:
        expected = "does not" if error.errno else "unknown"
    else:
        expected = "works"
    assert _rows(_examine())["bpf"]["state"] == expected


def test_nobody_may_do_little_and_is_told_so() -> None:
    needs_root()
    report = _examine_as(_become_nobody)
    rows = _rows(report)
    assert rows["user"]["fact"] == f"uid {_NOBODY}"
    assert rows["bpf"]["state"] == "does not"
    assert "EPERM" in rows["bpf"]["fact"]
    assert rows["capabilities"]["state"] == "does not"
    assert "lacks CAP_NET_BIND_SERVICE, CAP_NET_ADMIN" in rows["capabilities"]["fact"]
    assert rows["cgroups"]["state"] == "does not"
    assert rows["steering"]["state"] == rows["sock_diag"]["state"] == "works"
    assert report["fit"]


def test_nobody_may_copy_the_descriptors_of_a_program_of_its_own() -> None:
    needs_root()
    row = _rows(_examine_as(_become_nobody))["pidfd_getfd"]
    assert row["state"] == "works", row


@netns.isolated
def test_the_sysctl_is_that_of_our_network_namespace() -> None:
    row = _rows(_examine())["tcp_migrate_req"]
    assert row["state"] == "does not"
    assert "we may turn it on" in row["fact"]
    _MIGRATE.write_text("1")
    assert _rows(_examine())["tcp_migrate_req"]["state"] == "works"


@netns.isolated
def test_nobody_may_not_turn_the_sysctl_on() -> None:
    row = _rows(_examine_as(_become_nobody))["tcp_migrate_req"]
    assert row["state"] == "does not"
    assert "not ours to turn on" in row["fact"]


@netns.isolated
def test_which_technique_is_left_depends_on_who_asks() -> None:
    assert _examine_as(_become_nobody)["self_bound"] == "dup"
    _MIGRATE.write_text("1")
    assert _examine_as(_become_nobody)["self_bound"] == "sysctl"
    _MIGRATE.write_text("0")
    assert _examine_as(_become_nobody_that_may_not_copy)["self_bound"] == "member"


def _become_nobody_that_may_not_copy() -> None:
    _become_nobody()
    _filter_getfd(_ERRNO | errno.EPERM)


def test_a_filter_is_found_by_what_it_refuses() -> None:
    rows = _rows(_examine_as(lambda: _filter_getfd(_ERRNO | errno.EPERM)))
    assert rows["seccomp"]["state"] == "does not"
    assert "pidfd_getfd (Operation not permitted (EPERM))" in rows["seccomp"]["fact"]
    assert rows["pidfd_getfd"]["state"] == "does not"
    assert rows["pidfd"]["state"] == "works"
    assert rows["no_new_privs"]["state"] == "does not"


def test_a_filter_that_kills_does_not_kill_the_doctor() -> None:
    rows = _rows(_examine_as(lambda: _filter_getfd(_KILL_PROCESS)))
    assert "kills whoever tries" in rows["pidfd_getfd"]["fact"]
    assert rows["pidfd_getfd"]["state"] == "does not"
    assert rows["seccomp"]["state"] == "does not"


def test_limits_are_those_of_the_process() -> None:
    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (150, 200))

    row = _rows(_examine_as(lower))["descriptors"]
    assert row["state"] == "does not"
    assert row["fact"].startswith("soft limit 150, hard limit 200")


def test_nothing_is_changed_by_an_examination() -> None:
    def settings() -> list[object]:
        fields = Path("/proc/self/status").read_text().splitlines()
        # Not SigQ, which counts all processes of the user.
        signals = ("SigPnd", "SigBlk", "SigIgn", "SigCgt")
        kept = ("Cap", "NoNewPrivs", "Seccomp", "Threads", *signals, "Uid", "Gid")
        flag = ctypes.c_int()
        assert _libc.prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(flag), 0, 0, 0) == 0
        return [
            [field for field in fields if field.startswith(kept)],
            flag.value,
            resource.getrlimit(resource.RLIMIT_NOFILE),
            _MIGRATE.read_text() if _MIGRATE.exists() else None,
            os.environ.copy(),
        ]

    before = settings()
    _examine()
    assert settings() == before


def test_what_returns_apart_is_no_refusal() -> None:
    here = os.getpid()
    assert attempt(lambda: _check(os.getpid() != here), _PATIENCE_SECONDS) is None


def _check(claim: bool) -> None:
    assert claim


def test_what_the_kernel_says_apart_is_told_with_its_number() -> None:
    refusal = attempt(lambda: os.close(9999), _PATIENCE_SECONDS)
    assert refusal == Refusal(errno.EBADF, "Bad file descriptor (EBADF)")


def _raise(problem: BaseException) -> None:
    raise problem


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (lambda: _raise(RuntimeError("no program")), "no program"),
        (lambda: _raise(ValueError()), "ValueError"),
        (lambda: sys.exit("by itself"), "by itself"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL"),
        (lambda: os._exit(3), "exit status 3"),
    ],
)
def test_what_is_not_the_kernels_word_has_no_number(body: Callable[[], None], words: str) -> None:
    assert attempt(body, _PATIENCE_SECONDS) == Refusal(0, words)


def test_what_hangs_apart_is_ended() -> None:
    assert attempt(signal.pause, 0.05) == Refusal(0, "did not end within 0.05 s")


def test_a_command_is_run_to_its_end_or_ended() -> None:
    here = Here(_PATIENCE_SECONDS)
    ran = here.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert ran == (3, "out\n", "err\n")
    assert here.run("no-such-engine", "--version") is None
    ended = Here(0.05).run("sleep", "1000")
    assert ended is not None
    assert ended.status is None


def test_what_a_command_leaves_in_its_temporary_places_is_removed() -> None:
    ran = Here(_PATIENCE_SECONDS).run("sh", "-c", 'mkdir "$XDG_RUNTIME_DIR/a" && echo "$TMPDIR"')
    assert ran is not None
    assert ran.status == 0
    directory = Path(ran.output.strip())
    assert directory.is_absolute()
    assert not directory.exists()
