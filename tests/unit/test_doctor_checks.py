"""Each check of the doctor in each of its states, on machines that are written down."""

import errno
from collections.abc import Callable

import pytest

from sengu.doctor import kernel, rights, sockets, surroundings
from sengu.doctor.machine import Machine, Ran, Refusal, Trial
from sengu.doctor.report import Finding, State
from tests.unit.support_machine import UNPRIVILEGED, FakeMachine, limits, status

Look = Callable[[Machine], Finding]

_NOT_PERMITTED = Refusal(errno.EPERM, "Operation not permitted (EPERM)")
_NO_SUCH_CALL = Refusal(errno.ENOSYS, "Function not implemented (ENOSYS)")
_NO_ANSWER = Refusal(0, "did not end within 5 s")
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_MIGRATE = "/proc/sys/net/ipv4/tcp_migrate_req"
_RELEASE = "/proc/sys/kernel/osrelease"
_STATUS = "/proc/self/status"
_LIMITS = "/proc/self/limits"


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.mark.parametrize("release", ["5.10.0-28-amd64", "6.1.0", "10.0-rc1+", "5.10-rc7"])
def test_a_kernel_is_new_enough(machine: FakeMachine, release: str) -> None:
    machine.files[_RELEASE] = f"{release}\n"
    found = kernel.check_kernel(machine)
    assert found == Finding(State.WORKS, f"Linux {release}")


@pytest.mark.parametrize("release", ["5.9.16", "4.19.0-26-amd64", "5.4"])
def test_a_kernel_is_too_old(machine: FakeMachine, release: str) -> None:
    machine.files[_RELEASE] = f"{release}\n"
    found = kernel.check_kernel(machine)
    assert found.state is State.DOES_NOT
    assert release in found.fact
    assert "5.10" in found.fact
    assert found.advice


_TRIED: list[tuple[Look, Trial]] = [
    (kernel.check_pidfd, Trial.PIDFD),
    (kernel.check_epoll, Trial.EPOLL),
    (kernel.check_subreaper, Trial.SUBREAPER),
    (kernel.check_sock_diag, Trial.SOCK_DIAG),
    (kernel.check_getfd, Trial.GETFD),
    (sockets.check_bpf, Trial.BPF),
    (sockets.check_steering, Trial.STEERING),
]
each_trial = pytest.mark.parametrize(("look", "trial"), _TRIED)


@each_trial
def test_what_was_tried_with_success_works(machine: FakeMachine, look: Look, trial: Trial) -> None:
    found = look(machine)
    assert found.state is State.WORKS
    assert not found.advice
    assert machine.tried == [trial]


@each_trial
@pytest.mark.parametrize("refusal", [_NOT_PERMITTED, _NO_SUCH_CALL])
def test_what_the_kernel_refuses_does_not_work(
    machine: FakeMachine, look: Look, trial: Trial, refusal: Refusal
) -> None:
    machine.refused[trial] = refusal
    found = look(machine)
    assert found.state is State.DOES_NOT
    assert refusal.words in found.fact
    assert found.advice


@each_trial
def test_what_did_not_end_tells_nothing(machine: FakeMachine, look: Look, trial: Trial) -> None:
    machine.refused[trial] = _NO_ANSWER
    assert look(machine).state is State.UNKNOWN


def test_a_missing_call_is_advised_otherwise_than_a_forbidden_one(machine: FakeMachine) -> None:
    machine.refused[Trial.GETFD] = _NOT_PERMITTED
    forbidden = kernel.check_getfd(machine).advice
    machine.refused[Trial.GETFD] = _NO_SUCH_CALL
    assert "SYS_PTRACE" in forbidden
    assert "missing in this kernel" in kernel.check_getfd(machine).advice


def test_bpf_asks_for_a_capability_only_who_has_it_not(machine: FakeMachine) -> None:
    machine.refused[Trial.BPF] = _NOT_PERMITTED
    assert "user namespace" in sockets.check_bpf(machine).advice
    machine.files[_STATUS] = UNPRIVILEGED
    assert "AmbientCapabilities=CAP_BPF" in sockets.check_bpf(machine).advice


def test_a_kernel_without_bpf_is_not_to_be_helped_by_a_capability(machine: FakeMachine) -> None:
    machine.refused[Trial.BPF] = Refusal(errno.EINVAL, "Invalid argument (EINVAL)")
    machine.files[_STATUS] = UNPRIVILEGED
    assert "Linux 5.14" in sockets.check_bpf(machine).advice


@pytest.mark.parametrize(
    ("scope", "capabilities", "state"),
    [
        ("0", "0", State.WORKS),
        ("1", "0", State.WORKS),
        ("2", "0", State.DOES_NOT),
        ("2", "80000", State.WORKS),  # CAP_SYS_PTRACE
        ("3", "80000", State.DOES_NOT),
        (None, "0", State.WORKS),
    ],
)
def test_yama(machine: FakeMachine, scope: str | None, capabilities: str, state: State) -> None:
    machine.files[_STATUS] = status(CapEff=capabilities)
    del machine.files[_YAMA]
    if scope is not None:
        machine.files[_YAMA] = f"{scope}\n"
    found = kernel.check_yama(machine)
    assert found.state is state
    assert scope is None or f"ptrace_scope {scope}" in found.fact
    assert bool(found.advice) == (state is State.DOES_NOT)


def test_migration_that_is_on_works(machine: FakeMachine) -> None:
    assert sockets.check_migrate(machine).state is State.WORKS


def test_migration_that_we_may_turn_on_names_our_option(machine: FakeMachine) -> None:
    machine.files[_MIGRATE] = "0\n"
    machine.writable.add(_MIGRATE)
    found = sockets.check_migrate(machine)
    assert found.state is State.DOES_NOT
    assert "we may" in found.fact
    assert "--set-sysctl" in found.advice


def test_migration_that_is_not_ours_names_who_may(machine: FakeMachine) -> None:
    machine.files[_MIGRATE] = "0\n"
    found = sockets.check_migrate(machine)
    assert found.state is State.DOES_NOT
    assert "as root: sysctl -w net.ipv4.tcp_migrate_req=1" in found.advice


def test_an_older_kernel_has_no_migration(machine: FakeMachine) -> None:
    del machine.files[_MIGRATE]
    found = sockets.check_migrate(machine)
    assert found.state is State.DOES_NOT
    assert "5.14" in found.advice


@pytest.mark.parametrize(
    ("backlog", "state"), [(None, State.WORKS), (4096, State.WORKS), (4097, State.DOES_NOT)]
)
def test_a_backlog_is_compared_with_somaxconn(
    machine: FakeMachine, backlog: int | None, state: State
) -> None:
    found = sockets.check_somaxconn(machine, backlog)
    assert found.state is state
    assert "4096" in found.fact
    assert ("net.core.somaxconn=4097" in found.advice) == (state is State.DOES_NOT)


def test_without_a_filter_nothing_is_tried(machine: FakeMachine) -> None:
    assert rights.check_seccomp(machine) == Finding(State.WORKS, "no filter")
    machine.files[_STATUS] = "Name:\tsengu\n"
    assert rights.check_seccomp(machine).state is State.WORKS
    assert machine.tried == []


def test_a_filter_that_lets_our_calls_pass_works(machine: FakeMachine) -> None:
    machine.files[_STATUS] = status(Seccomp="2")
    found = rights.check_seccomp(machine)
    assert found.state is State.WORKS
    assert "bpf pass" in found.fact


def test_a_filter_is_told_by_what_it_blocks(machine: FakeMachine) -> None:
    machine.files[_STATUS] = status(Seccomp="2")
    machine.refused[Trial.CALL_PIDFD_GETFD] = _NOT_PERMITTED
    found = rights.check_seccomp(machine)
    assert found.state is State.DOES_NOT
    assert "pidfd_getfd (Operation not permitted (EPERM))" in found.fact
    assert "pidfd_open" not in found.fact


@pytest.mark.parametrize(("value", "state"), [("0", State.WORKS), ("1", State.DOES_NOT)])
def test_no_new_privs(machine: FakeMachine, value: str, state: State) -> None:
    machine.files[_STATUS] = status(NoNewPrivs=value)
    assert rights.check_no_new_privs(machine).state is state


def test_the_user_is_the_effective_one(machine: FakeMachine) -> None:
    assert rights.check_user(machine).fact == "uid 0 (root)"
    machine.files[_STATUS] = status(Uid="0\t1000\t0\t1000")
    assert rights.check_user(machine).fact == "uid 1000"


@pytest.mark.parametrize(
    ("mask", "fact"),
    [
        ("1ffffffffff", "has CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_BPF"),
        (
            "8000000400",
            "has CAP_NET_BIND_SERVICE, CAP_BPF; lacks CAP_NET_ADMIN, CAP_SYS_PTRACE",
        ),
        ("0", "lacks CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_SYS_PTRACE, CAP_BPF"),
    ],
)
def test_capabilities_are_told_by_name(machine: FakeMachine, mask: str, fact: str) -> None:
    machine.files[_STATUS] = status(CapEff=mask)
    found = rights.check_capabilities(machine)
    assert found.fact == fact
    assert found.state is (State.DOES_NOT if "lacks" in fact else State.WORKS)
    lacking = fact.partition("lacks")[2].split(", ")
    assert all(name.strip() in found.advice for name in lacking)


@pytest.mark.parametrize(
    ("descriptors", "state", "is_advised"),
    [
        ("1024 524288", State.WORKS, False),
        ("256 524288", State.WORKS, True),
        ("200 200", State.DOES_NOT, True),
        ("unlimited unlimited", State.WORKS, False),
    ],
)
def test_descriptors(
    machine: FakeMachine, descriptors: str, state: State, is_advised: bool
) -> None:
    machine.files[_LIMITS] = limits(descriptors=descriptors)
    found = rights.check_descriptors(machine)
    soft, hard = descriptors.split()
    assert found.state is state
    assert f"soft limit {soft}, hard limit {hard}" in found.fact
    assert bool(found.advice) is is_advised


@pytest.mark.parametrize(
    ("release", "memlock", "state"),
    [
        ("5.11.0", "0", State.WORKS),
        ("5.10.0", "65536", State.WORKS),
        ("5.10.0", "unlimited", State.WORKS),
        ("5.10.0", "65535", State.DOES_NOT),
    ],
)
def test_locked_memory_matters_to_old_kernels(
    machine: FakeMachine, release: str, memlock: str, state: State
) -> None:
    machine.files[_RELEASE] = release
    machine.files[_LIMITS] = limits(memlock=memlock)
    assert rights.check_memlock(machine).state is state


@pytest.mark.parametrize(
    ("nproc", "state"), [("unlimited", State.WORKS), ("64", State.WORKS), ("63", State.DOES_NOT)]
)
def test_processes(machine: FakeMachine, nproc: str, state: State) -> None:
    machine.files[_LIMITS] = limits(nproc=nproc)
    assert rights.check_nproc(machine).state is state


def test_why_there_are_no_cgroups_is_told_as_it_is(machine: FakeMachine) -> None:
    assert surroundings.check_cgroups(machine).state is State.WORKS
    machine.no_cgroups = "our cgroup is mounted read-only"
    found = surroundings.check_cgroups(machine)
    assert (found.state, found.fact) == (State.DOES_NOT, machine.no_cgroups)


def test_systemd(machine: FakeMachine) -> None:
    outside = surroundings.check_systemd(machine)
    assert outside.state is State.WORKS
    assert "systemd 252" in outside.fact
    assert "Type=notify" in outside.advice
    machine.variables["NOTIFY_SOCKET"] = "/run/systemd/notify"
    assert "READY=1" in surroundings.check_systemd(machine).fact
    del machine.files["/run/systemd/system"]
    assert surroundings.check_systemd(machine).state is State.DOES_NOT


def test_podman_is_rootless_for_all_but_root(machine: FakeMachine) -> None:
    assert surroundings.check_podman(machine) == Finding(State.WORKS, "podman version 4.3.1")
    machine.files[_STATUS] = UNPRIVILEGED
    assert surroundings.check_podman(machine).fact == "podman version 4.3.1, rootless"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ],
)
def test_rootless_podman_needs_user_namespaces(machine: FakeMachine, path: str, value: str) -> None:
    machine.files[path] = f"{value}\n"
    assert surroundings.check_podman(machine).state is State.WORKS
    machine.files[_STATUS] = UNPRIVILEGED
    found = surroundings.check_podman(machine)
    assert found.state is State.DOES_NOT
    assert path.rpartition("/")[2] in found.fact


@pytest.mark.parametrize(
    ("engine", "look"),
    [("podman", surroundings.check_podman), ("docker", surroundings.check_docker)],
)
def test_an_engine_in_its_states(machine: FakeMachine, engine: str, look: Look) -> None:
    assert look(machine).state is State.WORKS
    machine.commands[engine] = Ran(1, "", "warning: old\nCannot connect to the daemon\n")
    failing = look(machine)
    assert failing.state is State.DOES_NOT
    assert failing.fact == "installed, but: Cannot connect to the daemon"
    assert failing.advice
    machine.commands[engine] = Ran(None, "")
    assert look(machine).state is State.UNKNOWN
    del machine.commands[engine]
    missing = look(machine)
    assert (missing.state, missing.fact) == (State.DOES_NOT, "not installed")
    assert "apt-get install" in missing.advice
