"""Checks of what can be done with listening sockets, and which technique follows from them."""

import errno
from collections.abc import Mapping

from sengu.doctor.machine import Machine, Trial, capabilities, tried
from sengu.doctor.report import Finding, State
from sengu.model.passage import Technique

_MIGRATE = "/proc/sys/net/ipv4/tcp_migrate_req"
_SOMAXCONN = "/proc/sys/net/core/somaxconn"


def check_bpf(machine: Machine) -> Finding:
    """Loads a program of type SK_REUSEPORT and attaches it to sockets of our own."""
    refusal = machine.attempt(Trial.BPF)
    advice = "run sengu as root, or with CAP_BPF: AmbientCapabilities=CAP_BPF in a unit"
    if refusal is not None and refusal.number == errno.EPERM and capabilities(machine)["CAP_BPF"]:
        # The kernel asks for it in the first user namespace, or something else is in the way.
        advice = (
            "CAP_BPF is there, but not for the machine: run outside of the user namespace; "
            "or see seccomp and memlock"
        )
    elif refusal is not None and refusal.number in (errno.EINVAL, errno.ENOSYS):
        advice = "it takes Linux 5.14 with CONFIG_BPF_SYSCALL; the other techniques do without"
    return tried(refusal, "a program for a group of sockets can be loaded and attached", advice)


def check_steering(machine: Machine) -> Finding:
    """A classic BPF program, which takes no privilege."""
    return tried(
        machine.attempt(Trial.STEERING),
        "connections can be steered among sockets that share a port",
        "SO_ATTACH_REUSEPORT_CBPF or SO_REUSEPORT is refused: not a Linux kernel (gVisor)?",
    )


def check_migrate(machine: Machine) -> Finding:
    try:
        value = int(machine.read(_MIGRATE))
    except FileNotFoundError:
        return Finding(
            State.DOES_NOT,
            "net.ipv4.tcp_migrate_req does not exist",
            "it takes Linux 5.14; the other techniques do without",
        )
    if value:
        return Finding(State.WORKS, "net.ipv4.tcp_migrate_req is on")
    if machine.may_write(_MIGRATE):
        return Finding(
            State.DOES_NOT,
            "net.ipv4.tcp_migrate_req is off; we may turn it on",
            "--set-sysctl turns it on, for all of this network namespace",
        )
    return Finding(
        State.DOES_NOT,
        "net.ipv4.tcp_migrate_req is off, and not ours to turn on",
        "as root: sysctl -w net.ipv4.tcp_migrate_req=1; for a container with a network of its own: "
        "--sysctl net.ipv4.tcp_migrate_req=1",
    )


def check_somaxconn(machine: Machine, backlog: int | None) -> Finding:
    """The kernel cuts a backlog down to it without a word (listen(2))."""
    most = int(machine.read(_SOMAXCONN))
    if backlog is None:
        return Finding(State.WORKS, f"net.core.somaxconn is {most}, which is the default backlog")
    if backlog <= most:
        return Finding(State.WORKS, f"net.core.somaxconn is {most}, enough for {backlog}")
    return Finding(
        State.DOES_NOT,
        f"net.core.somaxconn is {most}, a backlog of {backlog} is cut down to it",
        f"as root: sysctl -w net.core.somaxconn={backlog}; for a container with a network of its "
        f"own: --sysctl net.core.somaxconn={backlog}",
    )


def technique(states: Mapping[str, State]) -> Technique:
    """The best that there is for programs that bind by themselves, by the states of the checks.

    The passage finds it out anew, with the sockets that the program has then.
    """

    def works(*names: str) -> bool:
        return all(states[name] is State.WORKS for name in names)

    if not works("sock_diag", "steering"):  # they cannot be found, or nobody can be led past them
        return Technique.NONE
    if works("bpf", "pidfd_getfd"):
        return Technique.BPF
    if works("tcp_migrate_req"):
        return Technique.SYSCTL
    return Technique.DUP if works("pidfd_getfd") else Technique.MEMBER
