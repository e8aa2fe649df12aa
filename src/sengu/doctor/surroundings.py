"""Checks of what else runs here that sengu works with: cgroups, systemd, container engines."""

from sengu.doctor.machine import Machine, Ran, user
from sengu.doctor.report import Finding, State

_SYSTEMD_IS_RUNNING = "/run/systemd/system"  # sd_booted(3)
# Whether users may make user namespaces, which rootless containers are made of, and what turns
# them off. The second is Debian's, the third Ubuntu's.
_USER_NAMESPACES = (
    ("/proc/sys/user/max_user_namespaces", "0"),
    ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
)


def check_cgroups(machine: Machine) -> Finding:
    refusal = machine.cgroups_refusal()
    if refusal is None:
        return Finding(State.WORKS, "each worker gets a cgroup, whatever it starts ends with it")
    return Finding(
        State.DOES_NOT,
        refusal,
        "none needed: process groups take their place; Delegate=pids in a unit gives them",
    )


def check_systemd(machine: Machine) -> Finding:
    if not machine.exists(_SYSTEMD_IS_RUNNING):
        return Finding(State.DOES_NOT, "does not run here")
    version = _first_line(machine.run("systemctl", "--version")) or "runs, version unknown"
    if machine.variable("NOTIFY_SOCKET") is not None:
        return Finding(State.WORKS, f"{version}; NOTIFY_SOCKET is set: it waits for READY=1")
    return Finding(
        State.WORKS,
        f"{version}; no NOTIFY_SOCKET here",
        "in the unit of an instance: Type=notify-reload, or Type=notify before systemd 253",
    )


def check_podman(machine: Machine) -> Finding:
    """Podman has no server: what is there to run it is all that matters."""
    ran = machine.run("podman", "--version")
    if ran is None:
        return Finding(State.DOES_NOT, "not installed", "apt-get install podman")
    if ran.status != 0:
        return _failed(ran, "see that podman --version runs for this user")
    version = _first_line(ran)
    if user(machine) != 0:
        for path, off in _USER_NAMESPACES:
            if _value(machine, path) == off:
                name = path.removeprefix("/proc/sys/").replace("/", ".")
                return Finding(
                    State.DOES_NOT,
                    f"{version}; {name} is {off}: no containers but root's",
                    f"as root: change {name} by sysctl -w, or run sengu as root",
                )
    return Finding(State.WORKS, version if user(machine) == 0 else f"{version}, rootless")


def check_docker(machine: Machine) -> Finding:
    ran = machine.run("docker", "version", "--format", "{{.Server.Version}}")
    if ran is None:
        return Finding(State.DOES_NOT, "not installed", "apt-get install docker.io")
    if ran.status != 0:
        return _failed(ran, "start it (systemctl start docker), or join the group docker")
    return Finding(State.WORKS, f"docker version {_first_line(ran)} runs")


def _failed(ran: Ran, advice: str) -> Finding:
    if ran.status is None:
        return Finding(State.UNKNOWN, "installed, but did not answer in time", advice)
    lines = (ran.errors or ran.output).strip().splitlines()
    why = lines[-1] if lines else f"exit status {ran.status}"
    return Finding(State.DOES_NOT, f"installed, but: {why}", advice)


def _first_line(ran: Ran | None) -> str:
    return ran.output.strip().partition("\n")[0] if ran is not None else ""


def _value(machine: Machine, path: str) -> str | None:
    try:
        return machine.read(path).strip()
    except FileNotFoundError:  # this kernel has no such setting
        return None
