"""Checks of who we are and what we may: user, capabilities, filters, limits of resources."""

import re

from sengu.doctor.machine import Machine, Trial, capabilities, release, status_field, user
from sengu.doctor.report import Finding, State

_CALLS = {
    "pidfd_open": Trial.CALL_PIDFD_OPEN,
    "pidfd_getfd": Trial.CALL_PIDFD_GETFD,
    "bpf": Trial.CALL_BPF,
}
_GOOD_FOR = {
    "CAP_NET_BIND_SERVICE": "to listen on ports below 1024",
    "CAP_NET_ADMIN": "to turn tcp_migrate_req on",
    "CAP_SYS_PTRACE": "to copy descriptors of any process",
    "CAP_BPF": "to load the program for groups of sockets",
}
_FEWEST_DESCRIPTORS = 256
_USUAL_DESCRIPTORS = 1024
_MEMLOCK_BYTES = 64 * 1024
_FEWEST_PROCESSES = 64
_MEMLOCK_COUNTED_BEFORE = (5, 11)


def check_seccomp(machine: Machine) -> Finding:
    """A filter cannot be read; what it lets through is found by trying."""
    mode = status_field(machine, "Seccomp")
    if mode is None:
        return Finding(State.WORKS, "the kernel has no seccomp, nothing is filtered")
    if mode == "0":
        return Finding(State.WORKS, "no filter")
    tried = {name: machine.attempt(trial) for name, trial in _CALLS.items()}
    blocked = [f"{name} ({refusal.words})" for name, refusal in tried.items() if refusal]
    if not blocked:
        return Finding(State.WORKS, f"a filter is on; {', '.join(_CALLS)} pass")
    return Finding(
        State.DOES_NOT,
        f"a filter is on; refused: {'; '.join(blocked)}",
        "allow them in a profile of your own (--security-opt seccomp=FILE), or in the unit "
        "(SystemCallFilter=); engines' profiles let pidfd_getfd pass with --cap-add SYS_PTRACE, "
        "bpf with BPF or, older ones, with SYS_ADMIN",
    )


def check_no_new_privs(machine: Machine) -> Finding:
    if status_field(machine, "NoNewPrivs") != "1":
        return Finding(State.WORKS, "not set")
    return Finding(
        State.DOES_NOT,
        "set: no program gets privileges by set-user-ID or file capabilities",
        "NoNewPrivileges=no in the unit, if workers live on such; rootless Podman does (newuidmap)",
    )


def check_user(machine: Machine) -> Finding:
    number = user(machine)
    return Finding(State.WORKS, f"uid {number} (root)" if number == 0 else f"uid {number}")


def check_capabilities(machine: Machine) -> Finding:
    have = capabilities(machine)
    held = [name for name, is_held in have.items() if is_held]
    lacking = [name for name, is_held in have.items() if not is_held]
    if not lacking:
        return Finding(State.WORKS, f"has {', '.join(held)}")
    fact = f"has {', '.join(held)}; lacks" if held else "lacks"
    return Finding(
        State.DOES_NOT,
        f"{fact} {', '.join(lacking)}",
        "only if wanted: " + "; ".join(f"{name} {_GOOD_FOR[name]}" for name in lacking),
    )


def check_descriptors(machine: Machine) -> Finding:
    soft, hard = limits(machine, "Max open files")
    fact = f"soft limit {_words(soft)}, hard limit {_words(hard)}"
    if hard is not None and hard < _FEWEST_DESCRIPTORS:
        advice = (
            f"LimitNOFILE={_USUAL_DESCRIPTORS}:524288 in the unit, --ulimit nofile for a container"
        )
        return Finding(State.DOES_NOT, f"{fact}: too few", advice)
    if soft is not None and soft < _USUAL_DESCRIPTORS:
        return Finding(State.WORKS, fact, f"each worker gets {soft} only: ulimit -n, LimitNOFILE=")
    return Finding(State.WORKS, fact)


def check_memlock(machine: Machine) -> Finding:
    soft, _hard = limits(machine, "Max locked memory")
    if release(machine) >= _MEMLOCK_COUNTED_BEFORE:
        return Finding(State.WORKS, "does not matter since Linux 5.11")
    if soft is None or soft >= _MEMLOCK_BYTES:
        return Finding(State.WORKS, f"{_words(soft)} bytes, in which BPF programs are counted")
    return Finding(
        State.DOES_NOT,
        f"{soft} bytes, too few for BPF programs, which Linux counts in it before 5.11",
        "ulimit -l 64, LimitMEMLOCK=64K in the unit",
    )


def check_nproc(machine: Machine) -> Finding:
    soft, _hard = limits(machine, "Max processes")
    if soft is None or soft >= _FEWEST_PROCESSES:
        return Finding(State.WORKS, f"{_words(soft)} processes and threads of this user")
    return Finding(
        State.DOES_NOT,
        f"{soft} processes and threads of this user, all sessions counted",
        "ulimit -u, LimitNPROC= in the unit",
    )


def limits(machine: Machine, name: str) -> tuple[int | None, int | None]:
    """The soft and hard limit of that line of /proc/self/limits; None is unlimited."""
    text = machine.read("/proc/self/limits")
    match = re.search(rf"^{name} +(\d+|unlimited) +(\d+|unlimited)", text, re.M)
    if match is None:
        raise ValueError(f"/proc/self/limits has no {name!r}")
    soft, hard = (None if word == "unlimited" else int(word) for word in match.groups())
    return soft, hard


def _words(limit: int | None) -> str:
    return "unlimited" if limit is None else str(limit)
