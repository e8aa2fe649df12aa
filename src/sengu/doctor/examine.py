"""The list of checks, what each purpose needs of them, and the report that they make.

Pure but for what the checks see through their `Machine`.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from sengu import __version__
from sengu.doctor import kernel, rights, sockets, surroundings
from sengu.doctor.machine import Machine
from sengu.doctor.report import Asked, Finding, Purpose, Report, Row, State
from sengu.model.container import ENGINES

Need = tuple[str, ...]  # names of checks, of which one has to work


class Check(NamedTuple):
    """One look at the machine. `name` is for people and for the JSON, and never changes."""

    name: str
    look: Callable[[Machine], Finding]


# In the order in which they are shown. That of the backlog comes on top, as it has to be told it.
CHECKS: tuple[Check, ...] = (
    Check("kernel", kernel.check_kernel),
    Check("pidfd", kernel.check_pidfd),
    Check("epoll", kernel.check_epoll),
    Check("subreaper", kernel.check_subreaper),
    Check("sock_diag", kernel.check_sock_diag),
    Check("steering", sockets.check_steering),
    Check("bpf", sockets.check_bpf),
    Check("tcp_migrate_req", sockets.check_migrate),
    Check("pidfd_getfd", kernel.check_getfd),
    Check("yama", kernel.check_yama),
    Check("seccomp", rights.check_seccomp),
    Check("no_new_privs", rights.check_no_new_privs),
    Check("user", rights.check_user),
    Check("capabilities", rights.check_capabilities),
    Check("descriptors", rights.check_descriptors),
    Check("memlock", rights.check_memlock),
    Check("nproc", rights.check_nproc),
    Check("cgroups", surroundings.check_cgroups),
    Check("systemd", surroundings.check_systemd),
    Check("podman", surroundings.check_podman),
    Check("docker", surroundings.check_docker),
)
_BACKLOG = "somaxconn"

_ALWAYS: tuple[Need, ...] = (("kernel",), ("pidfd",), ("epoll",), ("subreaper",), ("descriptors",))
NEEDS: dict[Purpose, tuple[Need, ...]] = {
    Purpose.SERVE: _ALWAYS,
    Purpose.WORK: _ALWAYS,
    Purpose.START: _ALWAYS,
    Purpose.REUSEPORT: (*_ALWAYS, ("steering",), ("sock_diag",)),
    # Without these no technique works; with them, `sockets.technique` tells which.
    Purpose.SELF_BOUND: (*_ALWAYS, ("steering",), ("sock_diag",)),
    Purpose.CONTAINER: (*_ALWAYS, ENGINES),
}


def checks_for(asked: Asked) -> tuple[Check, ...]:
    backlog = partial(sockets.check_somaxconn, backlog=asked.backlog)
    return (*CHECKS, Check(_BACKLOG, backlog))


def needs_of(asked: Asked) -> dict[Need, tuple[Purpose, ...]]:
    """What has to work, and for which of the purposes asked for. A backlog that was named is
    needed for all of them, an engine that was named takes the place of all engines."""
    needs: dict[Need, tuple[Purpose, ...]] = {}
    for purpose in dict.fromkeys(asked.purposes):
        named = ((_BACKLOG,),) if asked.backlog is not None else ()
        for need in (*NEEDS[purpose], *named):
            one = (asked.engine,) if need == ENGINES and asked.engine is not None else need
            needs[one] = (*needs.get(one, ()), purpose)
    return needs


def examine(machine: Machine, asked: Asked, checks: Iterable[Check] | None = None) -> Report:
    """Look at everything, and say what is missing for what was asked."""
    looked = checks_for(asked) if checks is None else checks
    findings = {check.name: _look(check, machine) for check in looked}
    states = {name: finding.state for name, finding in findings.items()}
    needs = needs_of(asked)
    missing = tuple(need for need in needs if not any(states[name] is State.WORKS for name in need))
    return Report(
        version=__version__,
        asked_for=tuple(dict.fromkeys(asked.purposes)),
        fit=not missing,
        missing=missing,
        checks=tuple(_row(name, finding, needs) for name, finding in findings.items()),
        self_bound=sockets.technique(states),
    )


def _look(check: Check, machine: Machine) -> Finding:
    try:
        return check.look(machine)
    except OSError as problem:
        where = f" {problem.filename}" if problem.filename else ""
        advice = "mount /proc and /sys, if they are not" if where else ""
        return Finding(State.UNKNOWN, f"cannot look at it:{where} {problem.strerror}", advice)
    except Exception as problem:  # one that stumbles over a strange machine must not hide the rest
        return Finding(State.UNKNOWN, f"cannot make sense of it: {problem!r}")


def _row(name: str, finding: Finding, needs: dict[Need, tuple[Purpose, ...]]) -> Row:
    """A check may stand in more than one need; the one with the fewest alternatives counts."""
    mine = sorted((need for need in needs if name in need), key=len)
    purposes = {purpose for need in mine for purpose in needs[need]}
    return Row(
        name=name,
        state=finding.state,
        fact=finding.fact,
        advice=finding.advice,
        needed_for=tuple(purpose for purpose in Purpose if purpose in purposes),
        alternatives=mine[0] if mine else (),
    )
