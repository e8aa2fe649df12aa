"""Checks of what the kernel offers to a program that looks after processes."""

import errno

from sengu.doctor.machine import Machine, Trial, capabilities, release, tried
from sengu.doctor.report import Finding, State

_NEEDED = (5, 10)
_PTRACE = "CAP_SYS_PTRACE"
_YAMA = "/proc/sys/kernel/yama/ptrace_scope"
_NO_SUCH_CALL = "it is missing in this kernel, or a seccomp filter hides it; see seccomp"


def check_kernel(machine: Machine) -> Finding:
    text = machine.read("/proc/sys/kernel/osrelease").strip()
    if release(machine) >= _NEEDED:
        return Finding(State.WORKS, f"Linux {text}")
    return Finding(
        State.DOES_NOT,
        f"Linux {text} is older than 5.10",
        "use a newer kernel; Debian 11 and Ubuntu 22.04 have one",
    )


def check_pidfd(machine: Machine) -> Finding:
    return tried(machine.attempt(Trial.PIDFD), "processes are held by descriptor", _NO_SUCH_CALL)


def check_epoll(machine: Machine) -> Finding:
    return tried(machine.attempt(Trial.EPOLL), "descriptors are waited for", _NO_SUCH_CALL)


def check_subreaper(machine: Machine) -> Finding:
    return tried(
        machine.attempt(Trial.SUBREAPER),
        "orphans of workers come to sengu",
        "allow prctl(2) in the seccomp filter of the container or unit",
    )


def check_sock_diag(machine: Machine) -> Finding:
    return tried(
        machine.attempt(Trial.SOCK_DIAG),
        "sockets and their queues can be looked at",
        "as root: modprobe tcp_diag; in a unit, RestrictAddressFamilies= has to have AF_NETLINK",
    )


def check_getfd(machine: Machine) -> Finding:
    """Done with a program that we started, as it would be with a worker."""
    refusal = machine.attempt(Trial.GETFD)
    advice = "see seccomp and yama; in a container of its own: --cap-add SYS_PTRACE"
    if refusal is not None and refusal.number == errno.ENOSYS:
        advice = _NO_SUCH_CALL
    return tried(refusal, "descriptors of a child can be copied", advice)


def check_yama(machine: Machine) -> Finding:
    try:
        scope = int(machine.read(_YAMA))
    except FileNotFoundError:  # it is not built in, or not turned on
        return Finding(State.WORKS, "the kernel has no Yama, nothing is restricted")
    if scope == 0:
        return Finding(State.WORKS, "ptrace_scope 0: nothing is restricted")
    if scope == 1:
        return Finding(State.WORKS, "ptrace_scope 1: descendants only, which workers are")
    advice = f"as root: sysctl -w kernel.yama.ptrace_scope=1; or have {_PTRACE}"
    if scope == 2:
        if capabilities(machine)[_PTRACE]:
            return Finding(State.WORKS, f"ptrace_scope 2: for {_PTRACE} only, which we have")
        return Finding(State.DOES_NOT, f"ptrace_scope 2: for {_PTRACE} only", advice)
    return Finding(
        State.DOES_NOT,
        f"ptrace_scope {scope}: nobody may look into another process",
        "it can be changed by a reboot only: kernel.yama.ptrace_scope=1 in /etc/sysctl.d",
    )
