"""What follows from findings: what is missing, which technique is left, and the JSON."""

import errno
import itertools

import msgspec
import pytest

from sengu.doctor.examine import CHECKS, NEEDS, Check, checks_for, examine
from sengu.doctor.machine import Machine, Ran, Refusal, Trial
from sengu.doctor.report import Asked, Finding, Purpose, Report, Row, State
from sengu.doctor.sockets import technique
from sengu.model.passage import Technique
from tests.unit.support_machine import FakeMachine

_NOT_PERMITTED = Refusal(errno.EPERM, "Operation not permitted (EPERM)")


def _row(report: Report, name: str) -> Row:
    (found,) = [row for row in report.checks if row.name == name]
    return found


def test_every_need_is_a_check_and_no_name_is_there_twice() -> None:
    names = [check.name for check in checks_for(Asked())]
    assert len(names) == len(set(names))
    assert NEEDS.keys() == set(Purpose)
    assert {name for needs in NEEDS.values() for need in needs for name in need} <= set(names)


@pytest.mark.parametrize("purpose", Purpose)
def test_a_healthy_machine_lacks_nothing(purpose: Purpose) -> None:
    report = examine(FakeMachine(), Asked((purpose,)))
    assert report.fit
    assert report.missing == ()
    assert report.asked_for == (purpose,)
    assert report.self_bound is Technique.BPF
    assert all(row.state is State.WORKS for row in report.checks)


def test_what_is_needed_and_does_not_work_is_missing() -> None:
    machine = FakeMachine()
    machine.files["/proc/sys/kernel/osrelease"] = "4.19.0\n"
    report = examine(machine, Asked())
    assert not report.fit
    assert report.missing == (("kernel",),)
    assert _row(report, "kernel").needed_for == Asked().purposes


def test_what_is_needed_and_unknown_is_missing_too() -> None:
    machine = FakeMachine()
    machine.refused[Trial.PIDFD] = Refusal(0, "did not end within 5 s")
    assert examine(machine, Asked()).missing == (("pidfd",),)


def test_what_does_not_work_and_is_not_needed_is_not_missing() -> None:
    machine = FakeMachine()
    machine.refused[Trial.STEERING] = _NOT_PERMITTED
    machine.commands.clear()
    assert examine(machine, Asked()).fit
    assert examine(machine, Asked((Purpose.REUSEPORT,))).missing == (("steering",),)


def test_one_engine_is_enough() -> None:
    machine = FakeMachine()
    asked = Asked((Purpose.CONTAINER,))
    machine.commands["docker"] = Ran(1, "", "no daemon")
    report = examine(machine, asked)
    assert report.fit
    assert _row(report, "podman").alternatives == ("podman", "docker")
    del machine.commands["podman"]
    assert examine(machine, asked).missing == (("podman", "docker"),)


def test_a_backlog_is_needed_when_it_is_named() -> None:
    machine = FakeMachine()
    machine.files["/proc/sys/net/core/somaxconn"] = "128\n"
    silent = examine(machine, Asked())
    assert silent.fit
    assert _row(silent, "somaxconn").needed_for == ()
    named = examine(machine, Asked(backlog=129))
    assert named.missing == (("somaxconn",),)
    assert examine(machine, Asked(backlog=128)).fit


def test_a_purpose_that_is_named_twice_counts_once() -> None:
    report = examine(FakeMachine(), Asked((Purpose.SERVE, Purpose.SERVE)))
    assert report.asked_for == (Purpose.SERVE,)
    assert _row(report, "kernel").needed_for == (Purpose.SERVE,)


class _Nothing(FakeMachine):
    """No file can be read, and nothing may be tried."""

    def read(self, path: str) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    def attempt(self, trial: Trial) -> Refusal | None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def test_a_machine_that_shows_nothing_is_unknown() -> None:
    report = examine(_Nothing(), Asked(tuple(Purpose)))
    assert _row(report, "kernel") == Row(
        name="kernel",
        state=State.UNKNOWN,
        fact="cannot look at it: /proc/sys/kernel/osrelease Permission denied",
        advice="mount /proc and /sys, if they are not",
        needed_for=tuple(Purpose),
        alternatives=("kernel",),
    )
    assert "temporarily unavailable" in _row(report, "pidfd").fact
    assert report.self_bound is Technique.NONE
    assert not report.fit


class _Nonsense(FakeMachine):
    """Every file has the same odd text."""

    def read(self, path: str) -> str:
        return "?"


def test_a_machine_that_shows_nonsense_hides_no_other_check() -> None:
    report = examine(_Nonsense(), Asked())
    assert len(report.checks) == len(CHECKS) + 1
    assert "cannot make sense of it" in _row(report, "kernel").fact
    assert _row(report, "pidfd").state is State.WORKS


_ALL = ("sock_diag", "steering", "bpf", "pidfd_getfd", "tcp_migrate_req")


@pytest.mark.parametrize(
    ("working", "expected"),
    [
        (_ALL, Technique.BPF),
        (("sock_diag", "steering", "bpf", "tcp_migrate_req"), Technique.SYSCTL),
        (("sock_diag", "steering", "tcp_migrate_req", "pidfd_getfd"), Technique.SYSCTL),
        (("sock_diag", "steering", "pidfd_getfd"), Technique.DUP),
        (("sock_diag", "steering", "bpf"), Technique.MEMBER),
        (("sock_diag", "steering"), Technique.MEMBER),
        (("steering", "bpf", "pidfd_getfd", "tcp_migrate_req"), Technique.NONE),
        ((), Technique.NONE),
    ],
)
def test_the_technique_is_the_best_that_works(
    working: tuple[str, ...], expected: Technique
) -> None:
    states = dict.fromkeys(_ALL, State.UNKNOWN) | dict.fromkeys(working, State.WORKS)
    assert technique(states) is expected


def test_self_bound_is_fit_exactly_when_some_technique_works() -> None:
    asked = Asked((Purpose.SELF_BOUND,))
    for states in itertools.product(State, repeat=len(_ALL)):
        findings = dict(zip(_ALL, states, strict=True))
        others = (check for check in checks_for(asked) if check.name not in findings)
        written = (Check(name, _Says(state)) for name, state in findings.items())
        report = examine(FakeMachine(), asked, [*written, *others])
        assert report.fit == (report.self_bound is not Technique.NONE), findings


class _Says:
    """A check's `look` that has made up its mind."""

    def __init__(self, state: State) -> None:
        self.state = state

    def __call__(self, machine: Machine) -> Finding:
        return Finding(self.state, "as written")


def test_the_json_is_the_report() -> None:
    report = examine(FakeMachine(), Asked((Purpose.SELF_BOUND,), backlog=9999))
    data = msgspec.json.encode(report)
    assert msgspec.json.decode(data, type=Report) == report
    plain = msgspec.json.decode(data)
    assert list(plain) == ["version", "asked_for", "fit", "missing", "checks", "self_bound"]
    assert plain["asked_for"] == ["self-bound"]
    assert plain["missing"] == [["somaxconn"]]
    assert plain["self_bound"] == "bpf"
    assert plain["checks"][0] == {
        "name": "kernel",
        "state": "works",
        "fact": "Linux 6.1.0-44-amd64",
        "advice": "",
        "needed_for": ["self-bound"],
        "alternatives": ["kernel"],
    }
